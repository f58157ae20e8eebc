"""Intel and AMD running average power limit (RAPL) counters, by the kernel's powercap interface."""

from __future__ import annotations

from pathlib import Path


class Rapl:
    """The package zones of RAPL, summed. Whole processor packages: everything that runs on them is in it."""

    measured = True

    def __init__(self, zones: list[Path]) -> None:
        """Sum `zones`, folders with `energy_uj` and `max_energy_range_uj`."""
        self.name = "rapl"
        self.scope = f"measured: RAPL, {len(zones)} processor package(s), all that runs on them included"
        self._zones = zones
        self._range_uj = [int((zone / "max_energy_range_uj").read_text()) for zone in zones]
        self._last_uj = [self._read_uj(zone) for zone in zones]
        self._total_uj = 0

    @classmethod
    def find(cls, root: Path = Path("/")) -> Rapl | None:
        """The meter of this machine; None if it has no RAPL.

        Raises:
          PermissionError: it has, and this user may not read it; the message says how to allow it.
        """
        # Top-level zones only (intel-rapl:N): subzones (intel-rapl:N:M) are parts of them, and the zone `psys`
        # contains the packages.
        zones = []
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
            try:
                if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
                    cls._read_uj(zone)
                    zones.append(zone)
            except PermissionError as error:
                raise PermissionError(
                    "this processor has RAPL counters, which only root may read: allow it until the next boot with "
                    "`sudo chmod -R a+r /sys/class/powercap/intel-rapl*/`"
                ) from error
            except (OSError, ValueError):
                return None
        try:
            return cls(zones) if zones else None
        except (OSError, ValueError):
            return None

    def energy_j(self) -> float:
        """See `Meter`. Call at least once per wrap-around (minutes to hours, by processor)."""
        for i, zone in enumerate(self._zones):
            now_uj = self._read_uj(zone)
            # The counter wraps at max_energy_range_uj; Python's modulo of the difference undoes one wrap.
            self._total_uj += (now_uj - self._last_uj[i]) % (self._range_uj[i] + 1)
            self._last_uj[i] = now_uj
        return self._total_uj * 1e-6

    @staticmethod
    def _read_uj(zone: Path) -> int:
        return int((zone / "energy_uj").read_text())
