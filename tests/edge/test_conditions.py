from pathlib import Path

import pytest

from edge.conditions import Conditions, Thermal, board


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_raspberry_pi_is_known_by_its_device_tree(tmp_path: Path) -> None:
    write(tmp_path / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t: Raspberry Pi 4 Model B\n")
    conditions = Conditions.now(tmp_path)
    assert conditions.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert conditions.governor == "ondemand"
    assert conditions.cpu == "Raspberry Pi 4 Model B"


def test_a_machine_that_does_not_name_itself_is_unknown(tmp_path: Path) -> None:
    assert board(tmp_path).startswith("unknown ")
    assert Conditions.now(tmp_path).governor is None


def test_throttling_bits_are_named_by_now_and_since_boot(tmp_path: Path) -> None:
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "61234\n")
    write(tmp_path / "sys/class/thermal/thermal_zone1/temp", "48000\n")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1800000\n")
    thermal = Thermal.now(tmp_path, lambda: "throttled=0x50005\n")
    assert thermal.temperature_c == 61.234
    assert thermal.clock_mhz == 1800.0
    assert thermal.throttled == ("under-voltage", "throttled")
    assert thermal.throttled_since_boot == ("under-voltage", "throttled")
    assert Thermal.now(tmp_path, lambda: "throttled=0xa0000\n").throttled == ()
    assert Thermal.now(tmp_path, lambda: "throttled=0xa0000\n").throttled_since_boot == (
        "clock capped",
        "soft temperature limit",
    )


@pytest.mark.parametrize("answer", [None, "", 'error=1 error_msg="Command not registered"', "throttled=zz"])
def test_a_machine_without_that_firmware_is_not_called_throttled_or_not(answer: str | None, tmp_path: Path) -> None:
    assert Thermal.now(tmp_path, lambda: answer) == Thermal(None, None, None, None)
