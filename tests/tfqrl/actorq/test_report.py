"""What is written and printed of a distributed training."""

import json
from pathlib import Path

import pytest

from edge.records import to_json
from tfqrl.actorq.ledger import Account
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Spent, Summary, Training
from tfqrl.actorq.report import Energy, Report, energy_used, text
from tfqrl.actorq.stopwatch import Usage
from tfqrl.agents.td3 import TD3Config
from tfqrl.runs import Run


def training(lost: int = 10) -> Training:
    account = Account(stepped=1000, inserted=980, lost=lost, refused=7, unfinished=3)
    actors = {
        (0, 0): Usage({"environment": 1.0, "wait": 0.5}, 10.0),
        (0, 1): Usage({"environment": 1.5, "wait": 0.25}, 15.0),
        (2, 0): Usage({"environment": 0.5, "wait": 0.25}, 5.0),
    }
    spent = Spent(actors, Usage({"update": 9.0, "wait": 1.0}, 60.0), 40, arrived=100, stale=1250, stalest=30)
    summary = Summary(account, spent, 500, 8272, True)
    return Training(summary, elapsed_s=4.0, steps=800, replaced={"died": 2}, learners=1)


class Meter:
    measured, name, scope = True, "rapl", "measured: RAPL"

    def __init__(self, energy_j: float | None) -> None:
        self._energy_j = energy_j

    def energy_j(self) -> float:
        if self._energy_j is None:
            raise OSError("the sensor is gone")
        return self._energy_j


def test_without_a_meter_energy_is_an_estimate_and_says_so() -> None:
    energy = energy_used(None, 0.0, training(), cpu_watts=20.0, grid_kg_per_kwh=0.5)
    # 90 s of processor time x 20 W; 3.6 MJ are a kWh.
    assert energy.joules == 1800.0
    assert energy.co2_kg == pytest.approx(1800 / 3.6e6 * 0.5)
    assert not energy.measured
    assert energy.scope.startswith("ESTIMATE, not measured: 90 s")


def test_a_meters_difference_is_measured() -> None:
    energy = energy_used(Meter(5000.0), 1400.0, training(), cpu_watts=20.0, grid_kg_per_kwh=0.5)
    assert (energy.joules, energy.measured, energy.scope) == (3600.0, True, "measured: RAPL")
    assert energy.co2_kg == pytest.approx(0.0005)


def test_a_meter_that_fails_gives_no_figure() -> None:
    energy = energy_used(Meter(None), 0.0, training(), cpu_watts=20.0, grid_kg_per_kwh=0.5)
    assert (energy.joules, energy.co2_kg) == (None, None)
    assert "the sensor is gone" in energy.scope


@pytest.mark.parametrize(("lost", "adds_up"), [(10, True), (9, False)])
def test_the_report_says_where_time_and_steps_went(lost: int, adds_up: bool, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "td3", TD3Config(env="Pendulum-v1"))
    report = Report.of(run, Distribution(actors=3), training(lost), Energy.of(1800.0, 0.5, False, "ESTIMATE"))
    printed = text(report)
    assert "800 steps in 4.0 s, 200 a second by 3 actors in int8; 500 updates." in printed
    assert "environment        3.0 s   75.0%" in printed
    assert "update             9.0 s   90.0%" in printed
    assert "written over the old ones; what actors sent was 12.5 updates behind on average, 30 at the most" in printed
    assert f"{lost} lost with a process that died, 7 refused as not finite, 3 cut off by the end" in printed
    assert ("DO NOT ADD UP" not in printed) == adds_up
    assert "Replaced: 2 actors died, 1 learners died." in printed
    assert "1.8 kJ, 0.25 g CO2e at 0.5 kg/kWh (ESTIMATE)" in printed
    plain = json.loads(to_json(report))
    assert (plain["algorithm"], plain["env"], plain["steps_per_s"]) == ("td3", "Pendulum-v1", 200.0)
    assert plain["by_actor"] == [{"environment": 2.5, "wait": 0.75}, {}, {"environment": 0.5, "wait": 0.25}]
    assert {"tfqrl", "ray", "tensorflow"} <= set(plain["versions"])


def test_what_was_taken_before_a_learner_died_counts() -> None:
    before = Spent(
        {(0, 0): Usage({"wait": 1.0}, 2.0), (1, 0): Usage({"wait": 1.0}, 2.0)},
        Usage({"update": 5.0}, 6.0),
        3,
        10,
        40,
        9,
    )
    # The first actor lives on, and says what it has used in all; another one has taken the second's place.
    later = Spent(
        {(0, 0): Usage({"wait": 4.0}, 5.0), (1, 1): Usage({"wait": 2.0}, 3.0)},
        Usage({"update": 1.0}, 2.0),
        1,
        10,
        20,
        7,
    )
    spent = before.then(later)
    assert spent.of_actors == Usage({"wait": 7.0}, 10.0)
    assert spent.of_actor(1) == Usage({"wait": 3.0}, 5.0)
    assert spent.learner == Usage({"update": 6.0}, 8.0)
    assert (spent.pushes, spent.staleness, spent.stalest) == (4, 3.0, 9)
