"""Against a pseudo-terminal: the other end is a device that the test plays."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes import DATA

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from edge.loop import ControlLoop
from edge.plants import serial as serial_plant
from edge.plants.frames import ACTION, MAX_VALUES, OBSERVATION, RESET, Decoder, Frame, encode
from edge.plants.serial import SerialError, SerialPlant
from edge.policy import Policy

serial = pytest.importorskip("serial", reason="needs pyserial: pip install pyserial")


def spec(observations: int = 3, actions: int = 1) -> PolicySpec:
    unknown = (None,) * observations
    return PolicySpec(
        ObservationSpec((observations,), unknown, unknown),
        ActionSpec((actions,), (-2.0,) * actions, (2.0,) * actions),
        50.0,
        None,
    )


SPEC = spec()


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """The device's end as a file descriptor, and the name of the host's."""
    device, host = os.openpty()
    yield device, os.ttyname(host)
    os.close(device)
    os.close(host)


def read_until(plant: SerialPlant, first: float) -> None:
    """Reads until the observation that begins with `first`: a line may deliver one write in several parts."""
    deadline_s = time.monotonic() + 10
    while True:
        values = plant.read()
        if values[0] == first:
            np.testing.assert_array_equal(values, [first, first + 0.5, -first])
            return
        assert time.monotonic() < deadline_s


def observation(i: int, scale: float = 1.0) -> bytes:
    return encode(OBSERVATION, i, np.array([i, i + 0.5, -i], np.float32) * np.float32(scale))


def receive(decoder: Decoder, device: int) -> list[Frame]:
    """Waits for bytes until they make at least one frame."""
    frames: list[Frame] = []
    while not frames:
        frames = list(decoder.feed(os.read(device, 11)))
    return frames


def test_the_newest_observation_is_read_and_actions_arrive(line: tuple[int, str]) -> None:
    device, port = line
    with SerialPlant(port, SPEC, timeout_s=5.0) as plant:
        os.write(device, observation(1) + observation(2) + observation(3))
        before_ns = time.monotonic_ns()
        read_until(plant, 3.0)
        assert before_ns <= plant.observed_ns <= time.monotonic_ns()
        assert plant.write(np.array([0.25], np.float32))[0] == 0.25
        (frame,) = receive(Decoder(), device)
    assert frame.kind == ACTION
    np.testing.assert_array_equal(frame.values, [0.25])


def test_a_choice_is_sent_as_one_value(line: tuple[int, str]) -> None:
    device, port = line
    with SerialPlant(port, SPEC, timeout_s=5.0) as plant:
        assert plant.write(2) == 2
        (frame,) = receive(Decoder(), device)
    np.testing.assert_array_equal(frame.values, [2.0])


def test_a_board_that_starts_again_when_the_line_is_opened_is_reset_once_it_is_up(
    line: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, port = line
    asked, waiting, booted = threading.Event(), threading.Event(), threading.Event()
    newest, receive_now = SerialPlant._newest, SerialPlant._receive

    def ask(plant: SerialPlant, timeout_s: float) -> Any:
        asked.set()
        return newest(plant, timeout_s)

    def come_back_with_nothing(plant: SerialPlant) -> bytes:
        data = receive_now(plant)
        if asked.is_set() and not data:
            waiting.set()
        return data

    monkeypatch.setattr(SerialPlant, "_newest", ask)
    monkeypatch.setattr(SerialPlant, "_receive", come_back_with_nothing)
    monkeypatch.setattr(serial_plant, "BOOT_S", 30.0)
    heard = bytearray()

    def play_device() -> None:
        assert waiting.wait(20)
        os.set_blocking(device, False)
        # A boot loader takes what comes for its own.
        with contextlib.suppress(BlockingIOError):
            heard.extend(os.read(device, 4096))
        booted.set()
        os.write(device, observation(1))

    thread = threading.Thread(target=play_device)
    thread.start()
    try:
        with SerialPlant(port, SPEC, timeout_s=5.0) as plant:
            os.write(device, observation(7))
            plant.reset()
            assert booted.is_set(), "and not when the last words of before were heard"
            os.set_blocking(device, True)
            assert [frame.kind for frame in receive(Decoder(), device)] == [RESET]
    finally:
        waiting.set()
        thread.join()
    assert not heard


def test_a_device_that_never_comes_up_is_an_error_that_says_what_to_check(
    line: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_plant, "BOOT_S", 0.05)
    with (
        SerialPlant(line[1], SPEC) as plant,
        pytest.raises(SerialError, match=r"no whole observation for 0.05 s\. Check .*3 values.*115200 baud"),
    ):
        plant.reset()


def test_a_line_is_for_one_program_at_a_time(line: tuple[int, str]) -> None:
    with (
        SerialPlant(line[1], SPEC),
        pytest.raises(SerialError, match=f"Another program uses {line[1]}. End it first."),
        SerialPlant(line[1], SPEC),
    ):
        raise AssertionError
    with SerialPlant(line[1], SPEC):
        pass


@pytest.mark.parametrize(("observations", "actions"), [(MAX_VALUES + 1, 1), (1, MAX_VALUES + 1)])
def test_a_policy_that_no_frame_can_serve_is_refused(observations: int, actions: int) -> None:
    with pytest.raises(UsageError, match=f"holds 255 values; the policy takes {observations} and gives {actions}"):
        SerialPlant("/dev/ttyUSB0", spec(observations, actions))


def test_camera_frames_are_refused_however_small() -> None:
    frames = PolicySpec(ObservationSpec((6, 6, 1), (), (), "uint8"), ActionSpec((), (), (), 3), None, None)
    with pytest.raises(UsageError, match="camera frames, 6x6x1 bytes, and the plant serial gives numbers"):
        SerialPlant("/dev/ttyUSB0", frames)


def test_the_largest_action_is_sent_whole(line: tuple[int, str]) -> None:
    device, port = line
    with SerialPlant(port, spec(MAX_VALUES, MAX_VALUES), timeout_s=5.0) as plant:
        plant.write(np.arange(MAX_VALUES, dtype=np.float32))
        (frame,) = receive(Decoder(), device)
    np.testing.assert_array_equal(frame.values, np.arange(MAX_VALUES))


def test_a_device_that_takes_nothing_any_more_does_not_keep_the_line_from_being_closed(
    line: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    monkeypatch.setattr(serial.Serial, "out_waiting", 10, raising=False)
    monkeypatch.setattr(serial.Serial, "reset_output_buffer", lambda self: dropped.append(self.is_open))
    with SerialPlant(line[1], SPEC, timeout_s=0.01) as plant:
        opened = plant._line
    assert dropped == [True]
    assert not opened.is_open


def test_silence_is_an_error_in_time(line: tuple[int, str]) -> None:
    with SerialPlant(line[1], SPEC, timeout_s=0.05) as plant, pytest.raises(SerialError, match="no whole observation"):
        plant.read()


def test_noise_cuts_repeats_and_gaps_are_survived_and_counted(line: tuple[int, str]) -> None:
    device, port = line
    with SerialPlant(port, SPEC, timeout_s=5.0) as plant:
        os.write(device, b"\x00boot\xa5noise" + observation(1)[:9])
        os.write(device, observation(2))
        read_until(plant, 2.0)
        os.write(device, observation(2) + observation(6))
        read_until(plant, 6.0)
        wrong_shape = encode(OBSERVATION, 7, np.zeros(5, np.float32))
        os.write(device, wrong_shape + observation(8))
        read_until(plant, 8.0)
    assert plant.repeated == 1
    assert plant.lost == 4
    assert plant.decoder.skipped_bytes > 0
    assert plant.counts() == {
        "lost": 4,
        "repeated": 1,
        "bad_frames": plant.decoder.bad_frames,
        "skipped_bytes": plant.decoder.skipped_bytes,
    }


def test_a_line_that_goes_away_is_an_error_of_the_plant_and_not_a_crash() -> None:
    device, host = os.openpty()
    plant = SerialPlant(os.ttyname(host), SPEC, timeout_s=5.0)
    os.close(host)
    # Leaving it is no second error: the loop has told of the first.
    with plant:
        os.close(device)
        for call in (plant.read, plant.reset, lambda: plant.write(np.zeros(1, np.float32))):
            with pytest.raises(SerialError, match=r"is gone|does not take"):
                call()


def test_a_line_that_is_not_there_is_named() -> None:
    plant = SerialPlant("/dev/tty-that-is-not-there", SPEC)
    with pytest.raises(SerialError, match="Cannot open /dev/tty-that-is-not-there"), plant:
        pass


def test_a_policy_drives_a_device_over_the_line_and_it_ends_in_the_failsafe_state(line: tuple[int, str]) -> None:
    device, port = line
    policy = Policy.load(DATA / "lever-int8.tflite")
    done = threading.Event()
    received: list[float] = []

    def play_device() -> None:
        decoder, i = Decoder(), 0
        os.set_blocking(device, False)
        while not done.is_set():
            i += 1
            os.write(device, observation(i, scale=0.01))
            time.sleep(0.005)
            try:
                data = os.read(device, 4096)
            except BlockingIOError:
                continue
            received.extend(float(frame.values[0]) for frame in decoder.feed(data) if frame.kind == ACTION)

    thread = threading.Thread(target=play_device)
    thread.start()
    try:
        with SerialPlant(port, policy.spec, timeout_s=5.0) as plant:
            report = ControlLoop(policy, plant, rate_hz=50).run(duration_s=0.5)
            deadline_s = time.monotonic() + 10
            while len(received) < report.ticks + 1 and time.monotonic() < deadline_s:
                time.sleep(0.01)
    finally:
        done.set()
        thread.join()
    assert report.failsafes == {}
    assert len(received) == report.ticks + 1
    assert received[-1] == 0.0
    assert any(value != 0.0 for value in received)
