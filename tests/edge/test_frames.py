import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.plants.frames import ACTION, MAX_PAYLOAD_BYTES, OBSERVATION, RESET, Decoder, encode

float32s = st.lists(st.floats(width=32, allow_nan=False), max_size=40).map(lambda v: np.array(v, np.float32))


def test_a_frame_byte_by_byte() -> None:
    # Sync, kind A, length 6, sequence 0x0102, 1.0 as float32; then the CRC of all but the sync.
    frame = encode(ACTION, 0x0102, np.array([1.0], np.float32))
    assert frame[:-2].hex() == "a55a" + "41" + "0600" + "0201" + "0000803f"
    # The check value of CRC-16/XMODEM: 0x31C3 for "123456789".
    import binascii

    assert binascii.crc_hqx(b"123456789", 0) == 0x31C3
    assert int.from_bytes(frame[-2:], "little") == binascii.crc_hqx(frame[2:-2], 0)


@given(st.sampled_from([OBSERVATION, ACTION, RESET]), st.integers(0, 70_000), float32s)
def test_what_is_sent_arrives(kind: bytes, sequence: int, values: np.ndarray) -> None:
    (frame,) = Decoder().feed(encode(kind, sequence, values))
    assert (frame.kind, frame.sequence) == (kind, sequence % 65536)
    np.testing.assert_array_equal(frame.values, values)


@given(
    st.lists(st.tuples(float32s, st.binary(max_size=12).filter(lambda b: b"\xa5" not in b)), max_size=6),
    st.integers(1, 9),
)
def test_noise_between_frames_and_pieces_of_any_size_lose_nothing(parts, piece: int) -> None:
    stream = b"".join(noise + encode(OBSERVATION, i, values) for i, (values, noise) in enumerate(parts))
    decoder = Decoder()
    found = [frame for i in range(0, len(stream), piece) for frame in decoder.feed(stream[i : i + piece])]
    assert [frame.sequence for frame in found] == list(range(len(parts)))
    for frame, (values, _) in zip(found, parts):
        np.testing.assert_array_equal(frame.values, values)
    assert decoder.skipped_bytes == sum(len(noise) for _, noise in parts)


@given(st.integers(0, 15), st.integers(0, 7))
def test_one_flipped_bit_costs_its_frame_and_not_the_next(byte: int, bit: int) -> None:
    first = bytearray(encode(ACTION, 1, np.array([1.0, 2.0], np.float32)))
    byte %= len(first)
    first[byte] ^= 1 << bit
    decoder = Decoder()
    # A damaged length may claim up to 1024 bytes more; they come, and the search then goes on inside them.
    stream = bytes(first) + b"".join(encode(ACTION, i, np.array([3.0], np.float32)) for i in range(2, 102))
    found = [frame.sequence for frame in decoder.feed(stream)]
    assert 1 not in found
    assert found == list(range(2, 102))


def test_a_cut_frame_costs_only_itself() -> None:
    whole = encode(ACTION, 1, np.arange(6, dtype=np.float32))
    for length in range(1, len(whole)):
        found = [f.sequence for f in Decoder().feed(whole[:length] + encode(ACTION, 2) + bytes(2 * MAX_PAYLOAD_BYTES))]
        assert found == [2]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_rubbish_neither_crashes_nor_piles_up(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        list(decoder.feed(piece))
        assert len(decoder._buffer) <= MAX_PAYLOAD_BYTES + 16


@pytest.mark.parametrize("length", [0, 1, 3, MAX_PAYLOAD_BYTES + 2, 65535])
def test_a_length_that_no_frame_has_is_not_waited_for(length: int) -> None:
    decoder = Decoder()
    rubbish = b"\xa5\x5aO" + length.to_bytes(2, "little")
    assert [frame.sequence for frame in decoder.feed(rubbish + encode(ACTION, 7))] == [7]
    assert decoder.bad_frames == 1
