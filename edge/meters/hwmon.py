"""Power monitors on I2C (INA219, INA220, INA226, INA230, INA231, INA260, INA3221), by the kernel's hwmon interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edge.meters.integral import PowerIntegral

# Drivers that give the power itself, and the one that gives only voltages and currents.
POWER_CHIPS = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina260")
CHANNEL_CHIP = "ina3221"


class Hwmon(PowerIntegral):
    """The power of one or more monitors, summed and integrated."""

    name = "hwmon"
    measured = True

    def __init__(self, rails: dict[str, Callable[[], float]], clock_s: Callable[[], float] = time.monotonic) -> None:
        """Sum `rails`, functions that read watts by name."""
        super().__init__(lambda: sum(read_w() for read_w in rails.values()), clock_s)
        self.scope = f"measured: {', '.join(rails)}, sampled and integrated"

    @classmethod
    def find(cls, root: Path = Path("/")) -> Hwmon | None:
        """All monitors of this machine; None if there are none that can be read.

        Chips are known by their `name`: the number in hwmonN changes from boot to boot.
        """
        rails: dict[str, Callable[[], float]] = {}
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
            try:
                chip = (folder / "name").read_text().strip()
                found = dict(_rails(chip, folder))
                for read_w in found.values():
                    read_w()
            except (OSError, ValueError):
                continue
            for name, read_w in found.items():
                rails[name if name not in rails else f"{name} ({folder.name})"] = read_w
        return cls(rails) if rails else None


def _rails(chip: str, folder: Path) -> Iterable[tuple[str, Callable[[], float]]]:
    if chip in POWER_CHIPS:
        # Microwatts. in0 and in1 of these chips are shunt and bus voltage; the driver has multiplied already.
        yield chip, lambda: int((folder / "power1_input").read_text()) * 1e-6
    elif chip == CHANNEL_CHIP:
        # No power attribute: bus voltage (mV) times current (mA) of each channel. in4..in6 are shunt voltages; in7 and
        # curr4 are the sums of the channels, which would count everything twice.
        for channel in (1, 2, 3):
            voltage, current = folder / f"in{channel}_input", folder / f"curr{channel}_input"
            if voltage.exists() and current.exists():
                label = folder / f"in{channel}_label"
                name = label.read_text().strip() if label.exists() else f"channel {channel}"
                yield (
                    f"{chip} {name}",
                    lambda v=voltage, i=current: int(v.read_text()) * int(i.read_text()) * 1e-6,  # type: ignore[misc]
                )
