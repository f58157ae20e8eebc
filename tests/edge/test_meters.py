from pathlib import Path

import pytest

from edge.meters import best_meter
from edge.meters.rapl import Rapl


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
    meter = best_meter(2.5, tmp_path)
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
    assert not best_meter(1.0, tmp_path).measured
