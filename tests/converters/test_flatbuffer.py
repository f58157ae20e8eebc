import numpy as np
import pytest
from fakes import DATA
from hypothesis import given
from hypothesis import strategies as st

from converters.flatbuffer import Graph, pack, unpack
from edge import artifact
from edge.policy import Policy


def test_the_first_integer_lies_in_the_lowest_bits() -> None:
    np.testing.assert_array_equal(pack(np.array([1, -1, 7], np.int8), 4), [0xF1, 0x07])
    np.testing.assert_array_equal(pack(np.array([1, -1, 0, -2, 1], np.int8), 2), [0b10_00_11_01, 0b01])
    np.testing.assert_array_equal(pack(np.array([1, -1], np.int8), 8), [1, 255])


@given(st.sampled_from([8, 4, 2]), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_unpacked(bits: int, n: int, seed: int) -> None:
    integers = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), n).astype(np.int8)
    packed = pack(integers, bits)
    assert packed.nbytes == -(-n * bits // 8)
    np.testing.assert_array_equal(unpack(packed, bits, n), integers)


@pytest.mark.parametrize("name", ["arm-float32", "arm-int8", "switch-int8", "lever-int8-full"])
def test_a_model_that_is_read_and_written_acts_the_same(name: str) -> None:
    source = artifact.read(DATA / f"{name}.tflite")
    again = Graph(source.flatbuffer).to_bytes()
    assert len(again) < len(source.flatbuffer) + 200
    policy, rewritten = (Policy(data, source.manifest.spec) for data in (source.flatbuffer, again))
    for observation in source.golden.observations:
        np.testing.assert_array_equal(policy.act(observation), rewritten.act(observation))
    assert Graph(again).to_bytes() == again


def test_constants_are_aligned_and_what_nothing_uses_is_left_out() -> None:
    graph = Graph(artifact.read(DATA / "arm-int8.tflite").flatbuffer)
    graph.add_tensor("unused", (1000,), 0, data=np.ones(1000, np.float32))
    data = graph.to_bytes()
    assert b"unused" not in data
    again = Graph(data)
    for i, buffer in enumerate(again.model.buffers):
        if buffer.data is not None and len(buffer.data):
            # numpy's view begins where the buffer does in the file.
            offset = buffer.data.ctypes.data - np.frombuffer(data, np.uint8).ctypes.data
            assert offset % 16 == 0, f"buffer {i}"
