import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge.errors import UnknownNameError, UsageError, UserError
from edge.meters import Meter, find_meter, pmic
from edge.meters.hwmon import Hwmon
from edge.meters.pmic import Pmic, PmicError, rail_power_w
from edge.meters.rapl import Rapl
from edge.meters.sampler import Sampler


def measuring(name: str, root: Path, cpu_watts: float = 1.0) -> Meter:
    meter = find_meter(name, cpu_watts, root)
    assert meter is not None
    return meter


def zone(root: Path, folder: str, name: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path


def test_packages_are_added_but_not_their_parts(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 200)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 50)
    platform = zone(tmp_path, "intel-rapl:2", "psys", 1000)
    meter = Rapl.find(tmp_path)
    assert meter is not None
    assert meter.measured
    for path, energy_uj in ((first, 1100), (second, 700), (core, 9000), (platform, 9000)):
        (path / "energy_uj").write_text(str(energy_uj))
    assert meter.energy_j() == pytest.approx(1500e-6)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 999_900, range_uj=1_000_000)
    meter = Rapl.find(tmp_path)
    assert meter is not None
    (path / "energy_uj").write_text("99")
    # 100 uJ up to the range, one to wrap to 0, 99 more.
    assert meter.energy_j() == pytest.approx(200e-6)


def test_without_rapl_there_is_an_estimate_that_says_so(tmp_path: Path) -> None:
    meter = measuring("auto", tmp_path, 2.5)
    assert not meter.measured
    assert "ESTIMATE" in meter.scope
    assert "2.5 W" in meter.scope
    before = meter.energy_j()
    sum(i * i for i in range(300_000))
    assert meter.energy_j() > before


def test_counters_that_cannot_be_read_are_not_used(tmp_path: Path) -> None:
    # What the kernel does for users other than root is an error on reading; a folder in its place is one for root too.
    path = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (path / "energy_uj").unlink()
    (path / "energy_uj").mkdir()
    assert Rapl.find(tmp_path) is None
    assert not measuring("auto", tmp_path).measured


def test_counters_that_only_root_may_read_are_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    real = Path.read_text

    def read_text(self: Path, *words: object, **options: object) -> str:
        # Root, as whom tests may run, is refused nothing.
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return real(self, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)
    meter = measuring("auto", tmp_path)
    assert not meter.measured
    assert "only root may read" in meter.scope
    assert "sudo chmod -R a+r /sys/class/powercap" in meter.scope


@pytest.mark.parametrize("watts", [0.0, -1.0, float("nan"), float("inf")])
def test_an_assumed_power_that_is_none_is_refused(watts: float) -> None:
    with pytest.raises(UsageError, match="must be above 0 W"):
        find_meter("auto", watts)


def test_a_sampler_keeps_off_the_cores_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sampled = [], threading.Event()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: asked.append((pid, cpus)))
    with Sampler(Hwmon({"x": lambda: float(sampled.set() or 1.0)}), avoid_cpus=[2, 3], period_s=0.001):
        assert sampled.wait(10)
    # 0 is the calling thread, which must be the sampler's own: this one's cores are not to change.
    assert asked == [(0, {0, 1})]
    with Sampler(Hwmon({"x": lambda: 1.0}), avoid_cpus=[0, 1, 2, 3], period_s=0.001):
        pass
    assert len(asked) == 1


def hwmon(root: Path, folder: str, name: str, **values: object) -> Path:
    path = root / "sys/class/hwmon" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    for attribute, value in values.items():
        (path / attribute).write_text(f"{value}\n")
    return path


class Seconds:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_an_ina226_tells_its_power_in_microwatts(tmp_path: Path) -> None:
    # in0 is the shunt's voltage and in1 the bus's; multiplying them would be wrong by orders of magnitude.
    chip = hwmon(tmp_path, "hwmon3", "ina226", in0_input=12, in1_input=5000, curr1_input=800, power1_input=4_000_000)
    hwmon(tmp_path, "hwmon0", "cpu_thermal", temp1_input=45000)
    meter = Hwmon.find(tmp_path)
    assert meter is not None
    clock = Seconds()
    meter = Hwmon({"ina226": lambda: int((chip / "power1_input").read_text()) * 1e-6}, clock)
    clock.now_s += 2.0
    (chip / "power1_input").write_text("6000000")
    # Trapezoid: 2 s at a mean of 5 W.
    assert meter.energy_j() == pytest.approx(10.0)
    assert "ina226" in meter.scope
    assert meter.measured


def test_an_ina3221_is_the_sum_of_its_channels_without_its_sums(tmp_path: Path) -> None:
    hwmon(
        tmp_path, "hwmon1", "ina3221",
        in1_input=5000, curr1_input=1000, in1_label="VDD_IN",
        in2_input=3300, curr2_input=500,
        in3_input=1800, curr3_input=0,
        in4_input=10, in5_input=5, in6_input=0, in7_input=15, curr4_input=1500,
    )  # fmt: skip
    meter = Hwmon.find(tmp_path)
    assert meter is not None
    assert meter._read_w() == pytest.approx(5.0 + 1.65 + 0.0)
    assert "VDD_IN" in meter.scope


def test_monitors_are_known_by_name_and_those_that_fail_are_left_out(tmp_path: Path) -> None:
    hwmon(tmp_path, "hwmon0", "ina219", power1_input=1_000_000)
    hwmon(tmp_path, "hwmon1", "ina219", power1_input=2_000_000)
    hwmon(tmp_path, "hwmon2", "ina260")  # gives no power
    hwmon(tmp_path, "hwmon3", "ina231", power1_input="not a number")
    meter = Hwmon.find(tmp_path)
    assert meter is not None
    assert meter._read_w() == pytest.approx(3.0)


def test_a_monitor_that_fails_half_way_raises_and_keeps_what_it_has_measured() -> None:
    clock = Seconds()
    readings = iter([2.0, 2.0, OSError("no such device"), 2.0])

    def read_w() -> float:
        reading = next(readings)
        if isinstance(reading, OSError):
            raise reading
        return reading

    meter = Hwmon({"ina226": read_w}, clock)
    clock.now_s += 1.0
    assert meter.energy_j() == pytest.approx(2.0)
    clock.now_s += 1.0
    with pytest.raises(OSError, match="no such device"):
        meter.energy_j()
    clock.now_s += 1.0
    assert meter.energy_j() == pytest.approx(6.0)


# As a Raspberry Pi 5 prints it (from the README of the project RPi5-power).
PMIC = """\
 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   0V8_AON_A current(16)=0.00579975A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   0V8_AON_V volt(19)=0.79736190V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V
"""


def test_rails_are_paired_by_name_and_the_ones_without_current_left_out() -> None:
    rails = rail_power_w(PMIC)
    assert set(rails) == {"3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "0V8_SW", "VDD_CORE", "0V8_AON"}
    assert rails["VDD_CORE"] == pytest.approx(10.87674 * 0.8974594)
    # The numbers of current and voltage differ: paired by them, this rail would get another's voltage.
    assert rails["0V8_AON"] == pytest.approx(0.00579975 * 0.7973619)


def test_the_published_correction_is_off_unless_asked_for() -> None:
    plain_w = sum(rail_power_w(PMIC).values())
    for correct, expected_w in ((False, plain_w), (True, 1.1327 * plain_w + 0.6444)):
        clock = Seconds()
        meter = Pmic(correct=correct, read_w=lambda: plain_w, clock_s=clock)
        clock.now_s += 3.0
        assert meter.energy_j() == pytest.approx(3.0 * expected_w)
        assert "USB" in meter.scope
        assert ("uncorrected" in meter.scope) is not correct


@pytest.mark.parametrize("output", ["", 'error=1 error_msg="Command not registered"', "EXT5V_V volt(24)=5.07V\n"])
def test_output_without_rails_is_a_named_error(output: str) -> None:
    with pytest.raises(PmicError, match="printed no rails"):
        rail_power_w(output)


def test_vcgencmd_is_run_and_its_failures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PmicError, match="cannot be run"):
        pmic.read_output()
    command = tmp_path / "vcgencmd"
    command.write_text(f"#!/bin/sh\necho '{PMIC}'\n")
    command.chmod(0o755)
    assert rail_power_w(pmic.read_output()) == rail_power_w(PMIC)
    command.write_text("#!/bin/sh\necho 'VCHI initialization failed' >&2\nexit 255\n")
    with pytest.raises(PmicError, match="VCHI initialization failed"):
        pmic.read_output()


@pytest.fixture
def vcgencmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command, in a folder that is all of PATH; for the tests to change."""
    command = tmp_path / "vcgencmd"
    command.write_text(f"#!/bin/sh\necho '{PMIC}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return command


def is_gone(process_id: int) -> bool:
    """Neither running nor a zombie."""
    return not Path(f"/proc/{process_id}").exists()


def test_a_raspberry_pi_5_is_measured_by_its_own_chip(tmp_path: Path, vcgencmd: Path) -> None:
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    assert measuring("auto", tmp_path).name == "estimate"
    model.write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert measuring("auto", tmp_path).name == measuring("pmic", tmp_path).name == "pmic"
    hwmon(tmp_path, "hwmon0", "ina226", power1_input=1_000_000)
    assert measuring("auto", tmp_path).name == "hwmon"
    assert measuring("estimate", tmp_path).name == "estimate"
    assert find_meter("none", root=tmp_path) is None


def test_the_pmic_is_read_without_a_fork_of_this_process(vcgencmd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pmic.Reader()
    monkeypatch.setattr(subprocess, "Popen", None)
    assert reader() == pytest.approx(sum(rail_power_w(PMIC).values()))
    process_id = reader.process_id
    assert not is_gone(process_id)
    # Ctrl-C and a service's end are for the loop, which asks for the energy after them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process_id, number)
    assert reader() > 0
    # An error of the command is one of that reading alone.
    text = vcgencmd.read_text()
    vcgencmd.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(PmicError, match="vcgencmd failed"):
        reader()
    vcgencmd.write_text(text)
    assert reader() > 0
    del reader
    assert is_gone(process_id)


def test_a_pmic_reader_that_is_killed_is_a_failed_meter(vcgencmd: Path) -> None:
    reader = pmic.Reader()
    meter = Pmic(read_w=reader)
    os.kill(reader.process_id, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(PmicError, match="is gone"):
            meter.energy_j()
    assert is_gone(reader.process_id)


def test_a_pmic_reader_that_does_not_answer_is_given_up(vcgencmd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pmic.Reader()
    assert reader() > 0
    monkeypatch.setattr(reader, "_timeout_s", 0.05)
    os.kill(reader.process_id, signal.SIGSTOP)
    with pytest.raises(PmicError, match="did not answer"):
        reader()
    assert is_gone(reader.process_id)


def test_a_pmic_reader_ends_with_the_process_that_started_it(vcgencmd: Path) -> None:
    program = (
        "import os; from edge.meters.pmic import Reader; reader = Reader(); reader();"
        "print(reader.process_id, flush=True); os._exit(9)"
    )
    parent = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert parent.returncode == 9
    process_id = int(parent.stdout)
    began_s = time.monotonic()
    while not is_gone(process_id) and state(process_id) != "Z":  # a container's first process may not reap orphans
        assert time.monotonic() - began_s < 20
        time.sleep(0.01)


def state(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_meter_that_was_asked_for_and_is_not_here_is_an_error_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, reason in (
        ("hwmon", "no such power monitor"),
        ("hwmon:ina226", "no such power monitor"),
        ("rapl", "no processor package"),
        ("pmic", "only a Raspberry Pi 5 has it; this is unknown"),
    ):
        with pytest.raises(UserError, match=f"There is no meter {name} here: {reason}"):
            find_meter(name, root=tmp_path)
    model = tmp_path / "proc/device-tree/model"
    model.parent.mkdir(parents=True)
    model.write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="The meter pmic cannot be read: vcgencmd cannot be run"):
        find_meter("pmic", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("rpal", "rapl"), ("hwmon:in219", "ina219"), ("hwmon:", "hwmon"), ("rapl:0", "rapl"), ("AUTO", "Known: auto")],
)
def test_a_meter_that_nobody_knows_is_refused(name: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=nearest):
        find_meter(name, root=tmp_path)


def test_a_channel_that_is_switched_off_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = hwmon(
        tmp_path, "hwmon1", "ina3221",
        in1_input=5000, curr1_input=1000, in2_input=0, curr2_input=0, in3_input=1800, curr3_input=1000,
    )  # fmt: skip
    real = Path.read_text

    def read_text(self: Path, *words: object, **options: object) -> str:
        if self == chip / "in2_input":
            raise OSError(errno.ENODATA, "No data available")
        return real(self, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read_text)
    meter = Hwmon.find(tmp_path)
    assert meter is not None
    assert meter._read_w() == pytest.approx(5.0 + 1.8)
    assert "channel 2" not in meter.scope


def test_several_monitors_may_count_twice_and_one_can_be_chosen(tmp_path: Path) -> None:
    hwmon(tmp_path, "hwmon0", "ina219", power1_input=7_000_000)
    hwmon(tmp_path, "hwmon1", "ina3221", in1_input=5000, curr1_input=1000, in2_input=3300, curr2_input=100)
    both = Hwmon.find(tmp_path)
    assert both is not None
    assert "sum of 2 monitors: wire them in parallel branches only" in both.scope
    one = measuring("hwmon:ina219", tmp_path)
    assert isinstance(one, Hwmon)
    assert one._read_w() == pytest.approx(7.0)
    assert "sum of" not in one.scope
    assert "sum of" not in measuring("hwmon:ina3221", tmp_path).scope


def test_a_sampler_keeps_the_process_of_its_meter_off_the_loops_cores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sampled = [], threading.Event()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: asked.append((pid, cpus)))
    meter = Pmic(read_w=lambda: float(sampled.set() or 1.0))
    meter.process_id = 4711
    with Sampler(meter, avoid_cpus=[3], period_s=0.001):
        assert sampled.wait(10)
    assert asked == [(0, {0, 1, 2}), (4711, {0, 1, 2})]


def test_a_sampler_sees_what_happens_between_two_calls() -> None:
    # Power is 10 W for a moment in the middle: the two ends alone would give nothing.
    began_s = time.monotonic()
    meter = Hwmon({"pulse": lambda: 10.0 if 0.1 < time.monotonic() - began_s < 0.3 else 0.0})
    with Sampler(meter, period_s=0.005) as sampled:
        before_j = sampled.energy_j()
        time.sleep(0.4)
        energy_j = sampled.energy_j() - before_j
    # 2 J if all goes well; a machine that stalls can only blur the edges.
    assert 0.5 < energy_j < 6.0
    assert (sampled.name, sampled.measured) == ("hwmon", True)


def test_a_sensor_that_fails_between_two_calls_is_told_of() -> None:
    failing = threading.Event()

    def read_w() -> float:
        if failing.is_set():
            raise OSError("no such device")
        return 1.0

    with Sampler(Hwmon({"x": read_w}), period_s=0.005) as sampled:
        sampled.energy_j()
        failing.set()
        time.sleep(0.1)
        failing.clear()
        with pytest.raises(OSError, match="no such device"):
            sampled.energy_j()
        assert sampled.energy_j() > 0
