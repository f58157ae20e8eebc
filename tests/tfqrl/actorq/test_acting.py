"""Policies that are written over, and those that are built anew."""

import itertools

import numpy as np
import pytest

from converters.template import Template, TemplateError
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.policy import Policy
from tfqrl.actorq.acting import Rebuilt, Rewritten, cost_s, is_followed
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.stopwatch import Stopwatch
from tfqrl.exploration import AddedNoise
from tfqrl.networks import HostNetwork, mlp

NORMALIZER = Normalizer((1.0, -2.0, 0.5), (0.5, 2.0, 1.0), 10.0)
UNBOUNDED = ActionSpec((2,), (None,) * 2, (None,) * 2)


def spec(normalizer: Normalizer | None = None) -> PolicySpec:
    return PolicySpec(ObservationSpec((3,), (None,) * 3, (None,) * 3), UNBOUNDED, None, normalizer)


def network(seed: int, hidden: tuple[int, ...] = (32, 16), activation: str = "relu") -> object:
    return mlp(3, hidden, 2, activation=activation, output_activation="tanh", output_gain=None, seed=seed)


def copy(template: Template) -> np.ndarray:
    return np.frombuffer(bytes(template.flatbuffer), np.uint8)


@pytest.mark.parametrize("normalizer", [None, NORMALIZER])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("recipe", ["dynamic-int8", "float32"])
def test_a_policy_that_is_written_over_does_what_a_new_one_does(
    recipe: str, activation: str, normalizer: Normalizer | None
) -> None:
    first, second = (network(seed, activation=activation) for seed in (1, 2))
    template = Template(first, spec(normalizer), recipe, in_place=True)
    acting = Rewritten(copy(template), spec(normalizer))
    observations = np.random.default_rng(0).normal(0, 2, (50, 3)).astype(np.float32)
    for _ in range(2):
        for changed in (second, first):
            template.write(changed.get_weights(), normalizer)
            acting.take(copy(template))
            fresh = Policy(bytes(template.flatbuffer), spec(normalizer), plain_kernels=True)
            acted = np.stack([acting.act(observation) for observation in observations])
            np.testing.assert_array_equal(acted, [fresh.act(observation) for observation in observations])
            inputs = observations
            if normalizer is not None:
                inputs = np.clip((observations - normalizer.mean) / np.float32(normalizer.std), -10, 10)
            # 127 steps of weights and of activations.
            atol = 1e-5 if recipe == "float32" else 0.05
            np.testing.assert_allclose(acted, HostNetwork(changed)(inputs.astype(np.float32)), atol=atol)


def test_scales_beside_the_integers_are_those_within_them() -> None:
    whole = Template(network(1), spec(), "dynamic-int8")
    apart = Template(network(1), spec(), "dynamic-int8", in_place=True)
    observations = np.random.default_rng(0).normal(0, 1, (200, 3)).astype(np.float32)
    acted = [[template.policy().act(observation) for observation in observations] for template in (whole, apart)]
    np.testing.assert_allclose(*acted, atol=0.04)
    assert len(apart.flatbuffer) < 1.5 * len(whole.flatbuffer) + 2000


def test_kernels_that_keep_what_they_made_of_weights_are_found_out() -> None:
    float16 = Template(network(1), spec(), "float16")
    first = copy(float16)
    float16.write(network(2).get_weights())
    assert not is_followed(first, copy(float16), spec())
    with pytest.raises(TemplateError, match="where they lie"):
        Template(network(1), spec(), "float16", in_place=True)


def test_a_policy_that_is_built_anew_forgets_the_old_one() -> None:
    template = Template(network(1), spec(), "float16")
    acting = Rebuilt(copy(template), spec())
    template.write(network(2).get_weights())
    acting.take(copy(template))
    observation = np.float32([1, 2, 3])
    np.testing.assert_array_equal(acting.act(observation), template.policy().act(observation))


def test_what_is_written_over_is_only_ones_own() -> None:
    template = Template(network(1), spec(), "dynamic-int8", in_place=True)
    given = copy(template)
    before, acting = given.copy(), [Rewritten(given, spec()) for _ in range(2)]
    observation = np.float32([1, 2, 3])
    expected = acting[1].act(observation)
    template.write(network(2).get_weights())
    acting[0].take(copy(template))
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(acting[1].act(observation), expected)
    assert not np.array_equal(acting[0].act(observation), expected)


def test_the_cost_is_that_of_taking_and_acting() -> None:
    flatbuffer = copy(Template(network(1), spec(), "dynamic-int8", in_place=True))
    once, often = (cost_s(Rewritten, flatbuffer, spec(), every) for every in (1, 100_000))
    assert 0 < once < often


@pytest.mark.parametrize("rewriting_s", [1.0, 3.0])
@pytest.mark.parametrize(("precision", "may_be_in_place"), [("int8", True), ("float32", True), ("float16", False)])
def test_a_publisher_gives_actors_what_they_are_fastest_with(
    precision: str, may_be_in_place: bool, rewriting_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs_s = {Rewritten: rewriting_s, Rebuilt: 2.0}
    monkeypatch.setattr("tfqrl.actorq.publisher.cost_s", lambda kind, *_: costs_s[kind])
    put: list[np.ndarray] = []
    publisher = Publisher(
        network(1), spec().observation, NORMALIZER, precision, acts=30, put=lambda array: put.append(array.copy())
    )
    ticks = itertools.count()
    watch = Stopwatch("quantise", "push", now_s=lambda: float(next(ticks)))
    for seed in (1, 2):
        weights = network(seed).get_weights()
        push = publisher.publish(weights, NORMALIZER, updates=seed, explorer=AddedNoise(0.1), watch=watch)
        assert (push.updates, push.explorer, push.spec.normalizer) == (seed, AddedNoise(0.1), NORMALIZER)
        assert push.in_place == publisher.in_place
    assert publisher.in_place == (may_be_in_place and rewriting_s < 2.0)
    assert [publisher.pushes, publisher.push_bytes] == [2, len(put[0])]
    assert watch.spans == {"quantise": 2.0, "push": 2.0}
    kind = Rewritten if publisher.in_place else Rebuilt
    acting = kind(put[0], push.spec)
    acting.take(put[1])
    observation = np.float32([1, 0, 1])
    expected = HostNetwork(network(2))(np.float32([[0, 1, 0.5]]))[0]
    np.testing.assert_allclose(acting.act(observation), expected, atol=0.05)
