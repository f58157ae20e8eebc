import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.plants.hil_messages import (
    ACTION,
    HEADER,
    KINDS,
    MAX_MESSAGE_BYTES,
    MAX_VALUES,
    OBSERVATION,
    RESET,
    Message,
    MessageError,
    Terms,
    decode,
    encode,
)

uint64s = st.integers(0, 2**64 - 1)
messages = st.builds(
    Message,
    kind=st.sampled_from(sorted(KINDS)),
    sequence=uint64s,
    episode=st.integers(0, 2**32 - 1),
    answers=uint64s,
    time_ns=st.integers(-(2**63), 2**63 - 1),
    last_return=st.floats(),
    values=st.lists(st.floats(), max_size=40).map(lambda values: np.array(values, np.float64)),
)
shapes = st.lists(st.integers(0, 10_000), max_size=4).map(tuple)


def test_a_message_byte_by_byte() -> None:
    data = encode(Message(OBSERVATION, 0x0102, 3, 4, 5, -2.0, np.array([1.0])))
    assert data.hex() == (
        "484c" + "01" + "4f" + "03000000" + "0201000000000000" + "0400000000000000" + "0500000000000000"
        "00000000000000c0" + "000000000000f03f"
    )  # fmt: skip


@given(messages)
def test_what_is_sent_arrives(message: Message) -> None:
    arrived = decode(encode(message))
    for name in ("kind", "sequence", "episode", "answers", "time_ns"):
        assert getattr(arrived, name) == getattr(message, name)
    np.testing.assert_array_equal([arrived.last_return, *arrived.values], [message.last_return, *message.values])


def test_the_largest_message_arrives_and_one_byte_or_value_more_does_not() -> None:
    data = encode(Message(ACTION, 1, values=np.ones(MAX_VALUES)))
    assert len(data) == MAX_MESSAGE_BYTES
    assert decode(data).values.size == MAX_VALUES
    for longer in (data + b"\0", data + bytes(8)):
        with pytest.raises(MessageError):
            decode(longer)


@given(messages, st.data())
def test_a_cut_message_is_none_unless_it_is_cut_between_values(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    length = data.draw(st.integers(0, len(whole) - 1))
    if length >= HEADER.size and (length - HEADER.size) % 8 == 0:
        assert decode(whole[:length]).values.size == (length - HEADER.size) // 8
    else:
        with pytest.raises(MessageError):
            decode(whole[:length])


@settings(max_examples=500)
@given(st.binary(max_size=200) | messages.map(encode), st.lists(st.tuples(st.integers(0, 47), st.integers(1, 255))))
def test_rubbish_raises_one_error_or_is_a_message(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, mask in damage:
        if place < len(damaged):
            damaged[place] ^= mask
    try:
        message = decode(bytes(damaged))
    except MessageError:
        return
    assert encode(message)[: HEADER.size - 8] == bytes(damaged[: HEADER.size - 8])
    assert message.kind in KINDS


@pytest.mark.parametrize(("place", "byte"), [(0, b"X"), (1, b"X"), (2, b"\2"), (3, b"Z")])
def test_another_magic_version_or_kind_is_refused(place: int, byte: bytes) -> None:
    data = bytearray(encode(Message(RESET, 1)))
    data[place : place + 1] = byte
    with pytest.raises(MessageError):
        decode(bytes(data))


@given(shapes, shapes, st.none() | st.integers(1, 1000), st.integers(0, 2**53 - 1), st.none() | st.floats(0.1, 1e4))
def test_terms_arrive(observation, action, n, seed, rate) -> None:
    terms = Terms(observation, action, n, seed, rate)
    assert Terms.from_values(terms.values()) == terms


@given(st.lists(st.floats() | st.sampled_from([0.0, 1.0, 2.0]), max_size=8))
def test_values_that_are_no_terms_raise_one_error(values: list[float]) -> None:
    try:
        terms = Terms.from_values(np.array(values, np.float64))
    except MessageError:
        return
    np.testing.assert_array_equal(terms.values(), values)
