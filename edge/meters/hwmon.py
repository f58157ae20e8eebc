"""Power monitors on I2C (INA219, INA220, INA226, INA230, INA231, INA260, INA3221), by the kernel's hwmon interface."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edge.meters.integral import PowerIntegral

# Drivers that give the power itself, and the one that gives only voltages and currents.
POWER_CHIPS = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina260")
CHANNEL_CHIP = "ina3221"
CHIPS = (*POWER_CHIPS, CHANNEL_CHIP)


class Hwmon(PowerIntegral):
    """The power of one or more monitors, summed and integrated."""

    name = "hwmon"
    measured = True

    def __init__(
        self, rails: dict[str, Callable[[], float]], clock_s: Callable[[], float] = time.monotonic, *, monitors: int = 1
    ) -> None:
        """Sum `rails`, functions that read watts by name, of so many monitors."""
        super().__init__(lambda: sum(read_w() for read_w in rails.values()), clock_s)
        self.scope = f"measured: {', '.join(rails)}, sampled and integrated"
        if monitors > 1:
            # One at the input and one on its branches would count everything twice; the kernel knows no wiring.
            self.scope += (
                f"; sum of {monitors} monitors: wire them in parallel branches only, or choose one with "
                "--meter hwmon:NAME"
            )

    @classmethod
    def find(cls, root: Path = Path("/"), only: str = "") -> Hwmon | None:
        """All monitors of this machine, or those named `only`; None if there are none that can be read.

        Chips are known by their `name`: the number in hwmonN changes from boot to boot. Of a chip with channels, those
        that are switched off are left out (the kernel has no data for them).
        """
        rails: dict[str, Callable[[], float]] = {}
        monitors = 0
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
            try:
                chip = (folder / "name").read_text().strip()
                found = {name: read_w for name, read_w in _rails(chip, folder) if _answers(read_w)}
            except (OSError, ValueError):
                continue
            if not found or (only and chip != only):
                continue
            monitors += 1
            for name, read_w in found.items():
                rails[name if name not in rails else f"{name} ({folder.name})"] = read_w
        return cls(rails, monitors=monitors) if rails else None


def _answers(read_w: Callable[[], float]) -> bool:
    try:
        read_w()
    except (OSError, ValueError):
        return False
    return True


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
