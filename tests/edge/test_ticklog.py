import json
import os
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import cli, ticklog
from edge.errors import OutputError
from edge.loop import ControlLoop
from edge.policy import Policy
from edge.safety import Safety
from edge.ticklog import HEADER_BYTES, LogError, TickLog

GOOD = np.array([0.3, 1.05, 60.0])
BAD = np.array([0.3, np.nan, 60.0])


@pytest.fixture
def arm() -> Policy:
    return Policy.load(DATA / "arm-int8.tflite")


def logged(arm: Policy, path: Path, observations: list[np.ndarray], ticks: int) -> FakePlant:
    plant = FakePlant(observations)
    ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=Safety([0.5, 0.5]), log=path).run(
        duration_s=ticks / 100
    )
    return plant


def test_every_tick_is_recorded_and_comes_out_the_same_again(arm: Policy, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    observations = [rng.normal([0, 1, 50], [1, 0.1, 10]) for _ in range(50)]
    observations[7] = BAD
    plant = logged(arm, tmp_path / "ticks.log", observations, 50)
    header, records = ticklog.read(tmp_path / "ticks.log")
    assert header.policy == "arm"
    assert header.flatbuffer_sha256 == arm.manifest.flatbuffer_sha256  # type: ignore[union-attr]
    assert records["tick"].tolist() == list(range(1, 51))
    assert records["cause"][7] == 10
    assert np.isnan(records["action"][7]).all()
    np.testing.assert_array_equal(records["sent"], np.stack(plant.written[:50]))
    np.testing.assert_array_equal(records["observation"], np.stack(observations).astype(np.float32))
    result = ticklog.replay(arm, header, records)
    assert (result.compared, result.different, result.max_error) == (49, 0, 0.0)


def test_a_policy_that_acts_otherwise_is_found_out(
    arm: Policy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged(arm, tmp_path / "ticks.log", [GOOD], 5)
    assert cli.main(["replay", str(tmp_path / "ticks.log"), str(DATA / "arm-int8.tflite")]) == 0
    assert "0 of them come out differently" in capsys.readouterr().out
    assert cli.main(["replay", str(tmp_path / "ticks.log"), str(DATA / "arm-float32.tflite")]) == 1
    assert "5 of them come out differently" in capsys.readouterr().out
    assert cli.main(["replay", str(tmp_path / "ticks.log"), str(DATA / "switch-int8.tflite")]) == 1
    assert "another shape" in capsys.readouterr().err


def test_a_full_log_keeps_the_newest_ticks_and_its_size(arm: Policy, tmp_path: Path) -> None:
    path = tmp_path / "ticks.log"
    log = TickLog(path, arm, rate_hz=100, max_bytes=HEADER_BYTES + 1000)
    capacity = log.header.capacity
    for i in range(10 * capacity):
        log.record(i, 0, 0, GOOD, np.zeros(2), np.zeros(2))
    log.close()
    assert path.stat().st_size <= HEADER_BYTES + 1000
    _, records = ticklog.read(path)
    assert records["time_ns"].tolist() == list(range(9 * capacity, 10 * capacity))
    assert log.dropped == 0


def test_a_disk_that_cannot_keep_up_costs_ticks_in_the_log_and_nothing_else(
    arm: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticklog, "FLUSH_PERIOD_S", 3600.0)
    log = TickLog(tmp_path / "ticks.log", arm, rate_hz=100)
    for i in range(ticklog.RING_TICKS + 10):
        log.record(i, 0, 0, GOOD, np.zeros(2), np.zeros(2))
    assert log.dropped == 10
    log.close()
    assert len(ticklog.read(tmp_path / "ticks.log")[1]) == ticklog.RING_TICKS


def test_a_disk_that_fails_ends_the_log_and_not_the_loop(
    arm: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    plant = FakePlant([GOOD])
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), log=tmp_path / "ticks.log")
    report = loop.run(duration_s=0.1)
    assert report.ticks == 10
    assert report.log_error == "the log ended early: No space left on device"


def test_a_log_that_cannot_be_made_is_an_error_before_the_plant_moves(arm: Policy, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    plant = FakePlant([GOOD])
    with pytest.raises(OutputError, match="Cannot write the log"):
        ControlLoop(arm, plant, log=tmp_path / "file" / "x").run(duration_s=0.1)
    assert plant.written == []


@pytest.mark.parametrize("data", [b"", b"{}", b"\x00" * 5000, json.dumps({"schema_version": 1}).encode().ljust(5000)])
def test_another_kind_of_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(LogError, match="is not a log of ticks"):
        ticklog.read(tmp_path / "x")


def test_a_newer_log_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(json.dumps({"schema_version": ticklog.SCHEMA_VERSION + 1}).encode().ljust(5000))
    with pytest.raises(LogError, match="Upgrade tfqrl"):
        ticklog.read(tmp_path / "x")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5200), st.binary(max_size=20))
def test_any_damage_is_a_named_error_or_harmless(place: int, garbage: bytes) -> None:
    data = SAMPLE[:place] + garbage + SAMPLE[place + len(garbage) :]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"ticklog-{os.getpid()}.log"
    path.write_bytes(data)
    try:
        ticklog.read(path)
    except LogError:
        pass
    finally:
        path.unlink()


def _sample() -> bytes:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"ticklog-{os.getpid()}.sample"
    log = TickLog(path, Policy.load(DATA / "arm-int8.tflite"), rate_hz=100, max_bytes=HEADER_BYTES + 1200)
    for i in range(30):
        log.record(i, 0, 0, GOOD, np.zeros(2), np.zeros(2))
    log.close()
    try:
        return path.read_bytes()
    finally:
        path.unlink()


SAMPLE = _sample()


def test_an_older_log_is_kept_and_nothing_else_is_replaced(tmp_path: Path) -> None:
    policy = Policy.load(DATA / "arm-int8.tflite")
    path = tmp_path / "ticks.log"
    for n in (1, 2):
        log = TickLog(path, policy, rate_hz=50)
        for _ in range(n):
            log.record(0, 0, 0, np.zeros(3), np.zeros(2), np.zeros(2))
        log.close()
    assert len(ticklog.read(path)[1]) == 2
    assert len(ticklog.read(tmp_path / "ticks.log.1")[1]) == 1
    other = tmp_path / "policy.tflite"
    other.write_bytes((DATA / "arm-int8.tflite").read_bytes())
    with pytest.raises(OutputError, match="exists and is no log of ticks"):
        TickLog(other, policy, rate_hz=50)
    assert other.read_bytes() == (DATA / "arm-int8.tflite").read_bytes()


def test_dropped_ticks_are_missing_in_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticklog, "RING_TICKS", 2)
    monkeypatch.setattr(ticklog, "FLUSH_PERIOD_S", 3600.0)
    log = TickLog(tmp_path / "ticks.log", Policy.load(DATA / "arm-int8.tflite"), rate_hz=50)
    for _ in range(4):
        log.record(0, 0, 0, np.zeros(3), np.zeros(2), np.zeros(2))
    log._flush()
    log.record(0, 0, 0, np.zeros(3), np.zeros(2), np.zeros(2))
    log.close()
    assert log.dropped == 2
    assert ticklog.read(tmp_path / "ticks.log")[1]["tick"].tolist() == [1, 2, 5]


def test_a_disk_that_takes_only_a_part_ends_the_log_with_whole_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.pwrite, [100]

    def pwrite(file: int, data: bytes, place: int) -> int:
        n = min(len(data), left[0])
        left[0] -= n
        return real(file, data[:n], place) if n else 0

    monkeypatch.setattr(os, "pwrite", pwrite)
    log = TickLog(tmp_path / "ticks.log", Policy.load(DATA / "arm-int8.tflite"), rate_hz=50)
    for _ in range(5):
        log.record(0, 0, 0, np.zeros(3), np.zeros(2), np.zeros(2))
    log.close()
    assert log.error is not None
    assert "No space left" in log.error
    assert ticklog.read(tmp_path / "ticks.log")[1]["tick"].tolist() == [1]


def test_a_log_of_version_1_is_still_read(arm: Policy, tmp_path: Path) -> None:
    logged(arm, tmp_path / "ticks.log", [GOOD], 5)
    data = (tmp_path / "ticks.log").read_bytes()
    header = json.loads(data[:HEADER_BYTES])
    del header["observation_dtype"]
    header["schema_version"] = 1
    (tmp_path / "old.log").write_bytes(json.dumps(header).encode().ljust(HEADER_BYTES) + data[HEADER_BYTES:])
    header, records = ticklog.read(tmp_path / "old.log")
    assert ticklog.replay(arm, header, records).compared == 5


def test_frames_are_recorded_byte_by_byte_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    glance = Policy.load(DATA / "glance-int8-full.tflite")
    observations = list(np.random.default_rng(0).integers(0, 256, (20, 12, 12, 2), np.uint8))
    # A camera that gives nothing, and one that gives floats.
    plant = FakePlant([*observations, None, np.full((12, 12, 2), 0.5)])
    ControlLoop(glance, plant, rate_hz=30, clock=FakeClock(), log=tmp_path / "ticks.log").run(duration_s=22 / 30)
    header, records = ticklog.read(tmp_path / "ticks.log")
    assert header.observation_dtype == "uint8"
    assert records["cause"].tolist() == [0] * 20 + [14, 14]
    np.testing.assert_array_equal(records["observation"][:20], np.stack(observations))
    assert not records["observation"][20].any()
    result = ticklog.replay(glance, header, records)
    assert (result.compared, result.different) == (20, 0)
    words = ["replay", str(tmp_path / "ticks.log")]
    assert cli.main([*words, str(DATA / "glance-int8-full.tflite")]) == 0
    assert cli.main([*words, str(DATA / "switch-int8.tflite")]) == 1
    assert "another shape or type" in capsys.readouterr().err


def test_frames_that_wait_to_be_written_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticklog, "MAX_RING_BYTES", 2000)
    monkeypatch.setattr(ticklog, "FLUSH_PERIOD_S", 3600.0)
    log = TickLog(tmp_path / "ticks.log", Policy.load(DATA / "glance-int8-full.tflite"), rate_hz=30)
    frame = np.arange(288, dtype=np.uint8).reshape(12, 12, 2)
    for i in range(10):
        log.record(i, 0, 0, frame, 1, 1)
    log._flush()
    log.record(10, 0, 0, frame, 1, 1)
    log.close()
    _, records = ticklog.read(tmp_path / "ticks.log")
    # A record has 328 bytes: six of them fit.
    assert records["tick"].tolist() == [1, 2, 3, 4, 5, 6, 11]
    assert log.dropped == 4
    np.testing.assert_array_equal(records["observation"], np.tile(frame, (7, 1, 1, 1)))
