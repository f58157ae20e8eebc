"""Meters that die, lie or hang. None of them may disturb control; the report says that no energy was measured."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from edge.loop_report import LoopReport
from edge.meters import sampler
from edge.meters.hwmon import Hwmon
from edge.meters.pmic import Pmic, PmicError, rail_power_w
from edge.meters.rapl import Rapl
from faults import FAULTS, GOOD, Fault, Rig, fault

PMIC = "VDD_CORE_A current(7)=10.8A\nVDD_CORE_V volt(15)=0.89V\n"


class Scripted:
    """A meter whose calls give, or raise, these in turn, and then the last one for ever."""

    name, measured, scope = "scripted", True, "measured: a script"

    def __init__(self, *readings: Any) -> None:
        self.readings, self.calls = readings, 0
        self.second = threading.Event()

    def energy_j(self) -> Any:
        reading = self.readings[min(self.calls, len(self.readings) - 1)]
        self.calls += 1
        if self.calls > 1:
            self.second.set()
        if isinstance(reading, Exception):
            raise reading
        return reading


def no_energy(outcome: LoopReport, rig: Rig) -> None:
    assert outcome.energy_j is None
    assert outcome.energy_error
    assert outcome.ticks == 12


def scripted(*readings: Any) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        rig.options["meter"] = Scripted(*readings)

    return inject


GONE = OSError(19, "No such device")
for name, readings, says in (
    ("The meter fails from the beginning.", (GONE,), "No such device"),
    ("The meter fails at the end.", (1.0, GONE), "No such device"),
    ("The meter gives text where a number was.", (1.0, ValueError("invalid literal for int()")), "invalid literal"),
    ("The meter's driver has an error of its own.", (KeyError("energy"),), "energy"),
    ("The meter gives nothing.", (None,), "gave no number"),
    ("The meter gives NaN.", (1.0, float("nan")), "gave nan J"),
    ("The meter gives infinity.", (float("inf"),), "gave inf J"),
    ("The meter goes backwards.", (5.0, 3.0), "the meter went back by 2 J"),
):
    FAULTS.append(Fault("meter", name, scripted(*readings), says=says, check=no_energy))


@fault("meter", "The meter fails while the loop runs, and is well again at the end.", says="No such device",
       check=no_energy)  # fmt: skip
def _(rig: Rig) -> None:
    meter = rig.options["meter"] = Scripted(1.0, GONE, 2.0)

    def read() -> Any:
        assert meter.second.wait(10)  # the sampler's thread reads ten times a second
        return GOOD

    rig.at_read(read)


@fault("meter", "The meter hangs.", says="has not answered", check=no_energy)
def _(rig: Rig) -> None:
    rig.patch.setattr(sampler, "TIMEOUT_S", 0.05)
    hanging = threading.Event()

    class Hanging(Scripted):
        def energy_j(self) -> Any:
            if self.calls:
                hanging.set()
                threading.Event().wait()  # for ever, in a thread that dies with the process
            return super().energy_j()

    rig.options["meter"] = Hanging(1.0)

    def read() -> Any:
        assert hanging.wait(10)
        return GOOD

    rig.at_read(read)


def at_first(rig: Rig, does: Callable[[], Any]) -> None:
    def read() -> Any:
        if rig.tick == rig.first:
            does()
        return GOOD

    rig.at_read(read)


def rapl_zone(rig: Rig) -> Any:
    zone = rig.folder / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "100"), ("max_energy_range_uj", "1000000")):
        (zone / name).write_text(text)
    rig.options["meter"] = Rapl.find(rig.folder)
    return zone


@fault("meter", "A RAPL counter becomes garbage.", says="gave no number", check=no_energy)
def _(rig: Rig) -> None:
    zone = rapl_zone(rig)
    at_first(rig, lambda: (zone / "energy_uj").write_bytes(b"\xff\xfe?"))


@fault("meter", "A RAPL counter is no longer readable.", says="Is a directory", check=no_energy)
def _(rig: Rig) -> None:
    zone = rapl_zone(rig)

    def swap() -> None:
        (zone / "energy_uj").unlink()
        (zone / "energy_uj").mkdir()  # for root too, whom permissions do not stop

    at_first(rig, swap)


@fault("meter", "A power monitor is unplugged and its file vanishes.", says="No such file", check=no_energy)
def _(rig: Rig) -> None:
    chip = rig.folder / "sys/class/hwmon/hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina226")
    (chip / "power1_input").write_text("4000000")
    rig.options["meter"] = Hwmon.find(rig.folder)
    at_first(rig, lambda: (chip / "power1_input").unlink())


@fault("meter", "The command vcgencmd vanishes.", says="vcgencmd cannot be run", check=no_energy)
def _(rig: Rig) -> None:
    def read_w() -> float:
        if rig.faulty:
            raise PmicError("vcgencmd cannot be run")
        return 9.6

    rig.lasting = True
    rig.options["meter"] = Pmic(read_w=read_w)


@fault("meter", "The command vcgencmd prints numbers that are none.", says="printed no rails", check=no_energy)
def _(rig: Rig) -> None:
    texts = itertools.chain([PMIC], itertools.repeat("VDD_CORE_A current(7)=1.2.3A\nVDD_CORE_V volt(15)=--eV\n"))
    rig.options["meter"] = Pmic(read_w=lambda: sum(rail_power_w(next(texts)).values()))
