"""The model of docs/actorq-scaling.md: its formula by hand, and that messages one by one come to the same."""

from dataclasses import replace

import pytest
from actorq_model import Costs, on_shared_cores, saturating_actors, simulate, throughput

# An actor's step takes 1 ms and, with a message in 10, (2 + 3) / 10 ms more; receiving takes 0.05 ms of it; half an
# update a step takes 0.5 * (2 + (4 + 4) / 8) = 1.5 ms.
COSTS = Costs(
    step_s=1e-3,
    send_s=2e-3,
    take_s=3e-3,
    receive_s=0.5e-3,
    update_s=2e-3,
    call_s=4e-3,
    publish_s=4e-3,
    cores=2.0,
    push_every=10,
    samples_per_insert=16.0,
    batch_size=32,
    updates_per_call=8,
)


def test_the_slowest_decides() -> None:
    assert COSTS.actor_step_s == pytest.approx(1.5e-3)
    assert COSTS.learner_step_s == pytest.approx(1.5e-3)
    assert COSTS.receiving_step_s == pytest.approx(0.05e-3)
    assert saturating_actors(COSTS) == pytest.approx(1.0)
    assert throughput(COSTS, 4) == pytest.approx(1 / 1.5e-3)
    rarely = replace(COSTS, samples_per_insert=0.16)
    assert throughput(rarely, 4) == pytest.approx(4 / 1.5e-3)
    assert throughput(rarely, 1000) == pytest.approx(1 / 0.05e-3)
    assert saturating_actors(rarely) == pytest.approx(30.0)


def test_shared_cores_do_all_of_the_work() -> None:
    # 1.5 + 0.05 + 2 * 1.5 ms a step.
    assert on_shared_cores(COSTS, 4, 2) == pytest.approx(2 / 4.55e-3)
    assert on_shared_cores(COSTS, 4, 100) == throughput(COSTS, 4)


@pytest.mark.parametrize(
    ("costs", "actors"),
    [
        (replace(COSTS, samples_per_insert=0.16), 4),  # actors are the limit
        (COSTS, 8),  # updates are
        (replace(COSTS, samples_per_insert=0.16), 64),  # receiving is
    ],
    ids=["actors", "updates", "messages"],
)
def test_messages_one_by_one_come_to_the_same(costs: Costs, actors: int) -> None:
    found = simulate(costs, actors, 300)
    # Policies are taken less often than with every message where few are made.
    assert found.steps_per_s == pytest.approx(throughput(costs, actors), rel=0.25)
    assert found.steps_per_s <= throughput(replace(costs, take_s=0.0, publish_s=0.0), actors) * 1.02
    assert found == simulate(costs, actors, 300)


def test_policies_are_older_where_learning_is_the_limit() -> None:
    many, few = simulate(COSTS, 8, 200), simulate(replace(COSTS, samples_per_insert=0.16), 2, 200)
    assert few.staleness < 16 < many.staleness
