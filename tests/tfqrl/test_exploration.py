"""What is done in training instead of what the policy thinks best."""

import math

import numpy as np
import pytest

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.exploration import AddedNoise, EpsilonGreedy, Explorer, Gumbel, Normal, SquashedNormal, random_actions

RNG = np.random.default_rng


def test_added_noise_has_its_deviation_and_ends_at_the_bounds() -> None:
    outputs = np.tile(np.float32([0.0, 0.9]), (20_000, 1))
    actions = AddedNoise(0.3)(lambda x: x, outputs, RNG(0))
    assert actions.dtype == np.float32
    assert actions[:, 0].std() == pytest.approx(0.3, rel=0.02)
    assert actions.max() == 1.0
    np.testing.assert_array_equal(AddedNoise(0.0)(lambda x: x, outputs, RNG(0)), outputs)


def test_epsilon_greedy_asks_the_network_only_when_something_depends_on_it() -> None:
    def never(observation: np.ndarray) -> np.ndarray:
        raise AssertionError

    choices = EpsilonGreedy(1.0, 3)(never, np.zeros((3000, 1)), RNG(0))
    np.testing.assert_allclose(np.bincount(choices) / 3000, 1 / 3, atol=0.05)
    outputs = np.float32([[0.0, 2.0, 1.0]] * 4000)
    assert set(EpsilonGreedy(0.0, 3)(lambda x: x, outputs, RNG(0))) == {1}
    assert (EpsilonGreedy(0.3, 3)(lambda x: x, outputs, RNG(0)) == 1).mean() == pytest.approx(0.8, abs=0.02)


def test_actors_are_spread_around_what_one_of_them_would_do() -> None:
    noise = [AddedNoise(0.1).of_actor(i, 5).std for i in range(5)]
    np.testing.assert_allclose(noise, [0.0, 0.05, 0.1, 0.15, 0.2])
    # Horgan et al. 2018: 0.4 ** (1 + 7 i / (n - 1)).
    epsilon = [EpsilonGreedy(0.4, 2).of_actor(i, 8).epsilon for i in range(8)]
    np.testing.assert_allclose(epsilon, [0.4 ** (1 + i) for i in range(8)])
    assert AddedNoise(0.1).of_actor(0, 1) == AddedNoise(0.1)
    assert EpsilonGreedy(0.4, 2).of_actor(0, 1) == EpsilonGreedy(0.4, 2)


@pytest.mark.parametrize("explorer", [Normal(np.float32([1.0])), Gumbel(), SquashedNormal()])
def test_what_learns_how_much_to_explore_is_the_same_in_all_actors(explorer: Explorer) -> None:
    assert explorer.of_actor(3, 4) is explorer


def test_a_squashed_normals_deviation_is_bounded() -> None:
    outputs = np.tile(np.float32([0.0, 50.0]), (20_000, 1))
    actions = SquashedNormal()(lambda x: x, outputs, RNG(0))
    assert np.arctanh(np.float64(np.clip(actions, -0.99999, 0.99999))).std() < math.exp(2.0)


def test_random_actions_span_what_the_policy_may_do() -> None:
    observation = ObservationSpec((1,), (None,), (None,))
    box = PolicySpec(observation, ActionSpec((2,), (-3.0, 0.0), (3.0, 9.0)), None, None)
    actions = random_actions(box, 1000, RNG(0))
    assert (actions.shape, actions.dtype) == ((1000, 2), np.float32)
    assert -1.0 <= actions.min() < -0.99
    assert 0.99 < actions.max() <= 1.0
    choices = random_actions(PolicySpec(observation, ActionSpec((), (), (), 3), None, None), 1000, RNG(0))
    assert set(choices) == {0, 1, 2}
