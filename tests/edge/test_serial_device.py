"""The reference device in C against the Python side of the line: both must read every stream of bytes alike."""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.plants.frames import ACTION, MAX_PAYLOAD_BYTES, OBSERVATION, RESET, Decoder, encode

ROOT = Path(__file__).parents[2]

# A board that writes down what is asked of it.
BOARD = """
#include "serial_device.c"

uint32_t now_ms;
uint8_t sent[4096];
size_t sent_bytes, events, events_at_sense;
char event[4096];
float driven[4096][ACTIONS];

uint32_t clock_ms(void) { return now_ms; }
void line_write(const uint8_t *bytes, size_t n) { memcpy(sent + sent_bytes, bytes, n); sent_bytes += n; }
void sense(float observation[OBSERVATIONS]) {
    events_at_sense = events;
    for (int i = 0; i < OBSERVATIONS; i++) observation[i] = i + 0.5f;
}
void drive(const float action[ACTIONS]) { memcpy(driven[events], action, sizeof driven[0]); event[events++] = 'A'; }
void motors_off(void) { event[events++] = 'x'; }
void go_to_start(void) { event[events++] = 'R'; }
void receive(const uint8_t *bytes, size_t n) { while (n--) device_receive(*bytes++); }
"""


class Board:
    """A device with two actions, newly switched on."""

    def __init__(self, library: Path) -> None:
        self._code = ctypes.CDLL(str(library))
        self._code.receive.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self._now_ms = ctypes.c_uint32.in_dll(self._code, "now_ms")
        self.tick, self.watch = self._code.device_tick, self._code.device_watch

    def receive(self, data: bytes) -> None:
        self._code.receive(data, len(data))

    def at_ms(self, time_ms: int) -> None:
        self._now_ms.value = time_ms

    def take_sent(self) -> bytes:
        size = ctypes.c_size_t.in_dll(self._code, "sent_bytes")
        data = bytes((ctypes.c_uint8 * 4096).in_dll(self._code, "sent")[: size.value])
        size.value = 0
        return data

    def events_at_sense(self) -> int:
        return ctypes.c_size_t.in_dll(self._code, "events_at_sense").value

    def take_events(self) -> list[tuple[str, list[float]]]:
        count = ctypes.c_size_t.in_dll(self._code, "events")
        names = (ctypes.c_char * 4096).in_dll(self._code, "event").raw[: count.value].decode()
        driven = np.ctypeslib.as_array((ctypes.c_float * 8192).in_dll(self._code, "driven")).reshape(4096, 2)
        events = [(name, driven[i].tolist() if name == "A" else []) for i, name in enumerate(names)]
        count.value = 0
        return events


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: install gcc")
    folder = tmp_path_factory.mktemp("device")
    source = (ROOT / "docs" / "serial_device.c").read_text()
    (folder / "serial_device.c").write_text(source.replace("#define ACTIONS 1\n", "#define ACTIONS 2\n"))
    (folder / "board.c").write_text(BOARD)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    done = subprocess.run(
        [compiler, *flags, "board.c", "-o", "device.so"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "device.so"


@pytest.fixture
def board(library: Path, tmp_path: Path) -> Iterator[Board]:
    # Loaded from a file of its own, so that its variables are those of a board that was just switched on.
    return Board(Path(shutil.copy(library, tmp_path)))


def action(sequence: int, *values: float) -> bytes:
    return encode(ACTION, sequence, np.array(values, np.float32))


def test_it_obeys_actions_and_resets(board: Board) -> None:
    board.receive(encode(RESET, 1) + action(2, 0.25, -1.5))
    assert board.take_events() == [("x", []), ("R", []), ("A", [0.25, -1.5])]


def test_its_observations_are_read_by_the_python_side(board: Board) -> None:
    for _ in range(3):
        board.tick()
    frames = list(Decoder().feed(board.take_sent()))
    assert [(frame.kind, frame.sequence) for frame in frames] == [(OBSERVATION, i) for i in (1, 2, 3)]
    np.testing.assert_array_equal(frames[0].values, [0.5, 1.5, 2.5])


def test_it_turns_the_motors_off_when_the_computer_falls_silent(board: Board) -> None:
    board.at_ms(2**32 - 100)  # its clock wraps meanwhile
    board.receive(action(1, 1.0, 1.0))
    board.at_ms(100)
    board.tick()
    assert board.take_events() == [("A", [1.0, 1.0])]
    board.at_ms(101)
    board.tick()
    board.tick()
    assert board.take_events() == [("x", [])], "once"
    board.receive(action(2, 0.5, 0.5))
    board.tick()
    assert board.take_events() == [("A", [0.5, 0.5])]


def test_it_turns_the_motors_off_before_it_does_what_could_wait(board: Board) -> None:
    board.receive(action(1, 1.0, 1.0))
    board.at_ms(201)
    board.tick()
    assert board.take_events() == [("A", [1.0, 1.0]), ("x", [])]
    assert board.events_at_sense() == 2


def test_it_turns_the_motors_off_without_sending_anything(board: Board) -> None:
    board.receive(action(1, 1.0, 1.0))
    board.at_ms(200)
    board.watch()
    assert board.take_events() == [("A", [1.0, 1.0])]
    board.at_ms(201)
    board.watch()
    board.watch()
    assert board.take_events() == [("x", [])]
    assert board.take_sent() == b""


def test_damaged_actions_do_not_keep_the_motors_on(board: Board) -> None:
    board.receive(action(1, 1.0, 1.0))
    board.at_ms(201)
    board.receive(action(2, 1.0, 1.0)[:-1] + b"?")
    board.tick()
    assert board.take_events() == [("A", [1.0, 1.0]), ("x", [])]


def test_a_frame_inside_a_broken_one_is_found(board: Board) -> None:
    board.receive(b"\xa5\x5aA\x0a\x00" + encode(RESET, 1) + action(2, 1.0, 2.0))
    assert board.take_events() == [("x", []), ("R", []), ("A", [1.0, 2.0])]


float32s = st.floats(width=32, allow_nan=False)
good = st.one_of(
    st.tuples(float32s, float32s).map(lambda values: action(7, *values)),
    st.just(encode(RESET, 9)),
    st.lists(float32s, max_size=6).map(lambda values: encode(OBSERVATION, 3, np.array(values, np.float32))),
    st.lists(float32s, max_size=6).map(lambda values: action(5, *values)),
)
damaged = st.tuples(good, st.integers(0, 10**6), st.integers(1, 255)).map(
    lambda parts: bytes(b ^ (parts[2] if i == parts[1] % len(parts[0]) else 0) for i, b in enumerate(parts[0]))
)
noise = st.lists(st.sampled_from([b"\xa5", b"\x5a", b"A", b"R", b"\x0a", b"\x02", b"\x00"]), max_size=12).map(b"".join)
cut = st.tuples(good, st.integers(0, 20)).map(lambda parts: parts[0][: parts[1]])


@given(st.lists(st.one_of(good, damaged, noise, cut), max_size=12))
def test_it_reads_every_stream_as_the_python_side_does(library: Path, pieces: list[bytes]) -> None:
    # Zeros at the end, so that neither side still waits for the rest of something.
    stream = b"".join(pieces) + bytes(2 * MAX_PAYLOAD_BYTES)
    expected: list[tuple[str, list[float]]] = []
    for frame in Decoder().feed(stream):
        if frame.kind == ACTION and frame.values.size == 2:
            expected.append(("A", frame.values.tolist()))
        elif frame.kind == RESET and frame.values.size == 0:
            expected += [("x", []), ("R", [])]
    board = Board(library)
    board.receive(stream)
    assert board.take_events() == expected
