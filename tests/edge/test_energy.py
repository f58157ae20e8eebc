from collections.abc import Callable

import numpy as np
import pytest

from edge import energy

IDLE_W, ACTIVE_W = 2.0, 5.0


class Bench:
    """A machine whose time passes when it sleeps and when it acts, and a meter of its power."""

    name, measured, scope = "fake", True, "measured: a fake"

    def __init__(self, action_s: float = 1e-3, noise_w: Callable[[], float] = lambda: 0.0) -> None:
        self.now = self.joules = 0.0
        self.action_s, self.noise_w = action_s, noise_w
        self.windows: list[str] = []
        self.reads_left = 10**9

    def now_s(self) -> float:
        return self.now

    def sleep(self, s: float) -> None:
        self.windows.append("idle")
        self.joules += s * (IDLE_W + self.noise_w())
        self.now += s

    def act(self, name: str, power_w: float) -> Callable[[], None]:
        def act() -> None:
            if self.windows[-1] != name:
                self.windows.append(name)
            self.joules += self.action_s * power_w
            self.now += self.action_s

        return act

    def energy_j(self) -> float:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise OSError("gone")
        return self.joules

    def measure(self, *acts: Callable[[], None], windows: int = 5) -> list[energy.Energy]:
        return energy.measure(acts, self, windows=windows, now_s=self.now_s, sleep=self.sleep)


def test_idle_power_is_taken_off_and_windows_alternate() -> None:
    machine = Bench()
    first, second = machine.measure(machine.act("a", ACTIVE_W), machine.act("b", 3.0), windows=3)
    assert machine.windows == ["idle", "a", "idle", "b"] * 3
    assert first.net_j is not None
    assert second.net_j is not None
    # (5 - 2) W over 1 ms an action; gross 5 W.
    assert first.net_j.value == pytest.approx(3e-3, rel=1e-6)
    assert second.net_j.value == pytest.approx(1e-3, rel=1e-6)
    assert first.gross_j == pytest.approx(5e-3, rel=1e-6)
    assert (first.idle_w, first.active_w) == (pytest.approx(2.0), pytest.approx(5.0))
    # A window ends with a full hundred of actions.
    assert 3 * 10_000 <= first.actions <= 3 * 10_100
    assert (first.windows, first.window_s) == (3, 10.0)


def test_the_interval_is_over_windows_and_holds_the_true_value() -> None:
    noise = np.random.default_rng(0)
    machine = Bench(noise_w=lambda: float(noise.normal(0, 0.3)))
    (result,) = machine.measure(machine.act("a", ACTIVE_W), windows=20)
    assert result.net_j is not None
    assert result.net_j.low < 3e-3 < result.net_j.high
    # Its width follows from the noise of a window's power: 2 x 1.96 x 0.3 W / sqrt(20) x 1 ms.
    assert result.net_j.high - result.net_j.low == pytest.approx(0.26e-3, rel=0.4)
    assert result.idle_sd_w == pytest.approx(0.3, rel=0.5)


def test_what_is_lost_in_the_noise_is_no_figure() -> None:
    noise = np.random.default_rng(1)
    machine = Bench(noise_w=lambda: float(noise.normal(0, 1.0)))
    (result,) = machine.measure(machine.act("a", IDLE_W + 0.01), windows=6)
    assert result.net_j is None
    assert result.failure == "below what this meter resolves"
    assert result.gross_j is not None


@pytest.mark.parametrize("windows", [3, 5, 10])
def test_what_uses_no_energy_gets_a_figure_in_one_case_of_forty(windows: int) -> None:
    noise = np.random.default_rng(windows)
    figures = 0
    for _ in range(600):
        machine = Bench(action_s=1.0, noise_w=lambda: float(noise.normal(0, 0.1)))
        (result,) = machine.measure(machine.act("a", IDLE_W), windows=windows)
        figures += result.net_j is not None
    # 15 are to be expected, with a standard deviation of 4.
    assert 3 < figures < 27


@pytest.mark.parametrize("reads", [0, 1, 2, 7, 19])
def test_a_meter_that_fails_half_way_gives_no_figure_and_says_so(reads: int) -> None:
    machine = Bench()
    machine.reads_left = reads
    (result,) = machine.measure(machine.act("a", ACTIVE_W))
    assert (result.net_j, result.gross_j) == (None, None)
    assert result.failure == "the meter failed: gone"
