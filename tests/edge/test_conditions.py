from pathlib import Path

from edge.conditions import Conditions, board
from edge.interpreter import Runtime


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_raspberry_pi_is_known_by_its_device_tree(tmp_path: Path) -> None:
    write(tmp_path / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "ondemand\n")
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t: Raspberry Pi 4 Model B\n")
    conditions = Conditions.now(Runtime("ai-edge-litert", "2.3.0", 1, "XNNPACK"), tmp_path)
    assert conditions.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert conditions.governor == "ondemand"
    assert conditions.cpu == "Raspberry Pi 4 Model B"


def test_a_machine_that_does_not_name_itself_is_unknown(tmp_path: Path) -> None:
    assert board(tmp_path).startswith("unknown ")
    assert Conditions.now(Runtime("x", "1", 1, "none"), tmp_path).governor is None
