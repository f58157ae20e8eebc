import warnings as python_warnings
from typing import Literal

import numpy as np
import pytest
from fakes import DATA

from edge import artifact
from edge.errors import ManifestError, NonFiniteObservationError, NotTFLiteError, ObservationShapeError
from edge.policy import Policy

SENSIBLE = np.array([0.3, 1.05, 60.0])


@pytest.fixture(params=["float32", "int8", "int8-full"])
def arm(request: pytest.FixtureRequest) -> Policy:
    return Policy.load(DATA / f"arm-{request.param}.tflite")


def test_actions_lie_within_the_bounds_and_belong_to_the_caller(arm: Policy) -> None:
    first = arm.act(SENSIBLE)
    kept = first.copy()
    second = arm.act(SENSIBLE + np.array([1.0, 0.1, 20.0]))
    assert first.dtype == np.float32
    assert first.shape == (2,)
    assert (np.array([-2, 0]) <= first).all()
    assert (first <= np.array([2, 1])).all()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)


def test_the_same_observation_gives_the_same_action_in_any_dtype(arm: Policy) -> None:
    observation = np.array([1.0, 2.0, 50.0])
    expected = arm.act(observation)
    for dtype in (np.float32, np.float16, np.int64, np.uint8):
        np.testing.assert_array_equal(arm.act(observation.astype(dtype)), expected)


def test_the_normaliser_is_part_of_the_policy() -> None:
    # The arm's third input has mean 50 and deviation 20: without normalisation its network would saturate.
    arm = Policy.load(DATA / "arm-float32.tflite")
    actions = np.stack([arm.act(np.array([0.0, 1.0, x])) for x in (30.0, 50.0, 70.0)])
    assert (np.abs(np.diff(actions, axis=0)) > 1e-3).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e300])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("warnings", ["ignore", "error"])
def test_a_number_that_float32_cannot_hold_never_reaches_the_network(
    arm: Policy, bad: float, place: int, warnings: Literal["ignore", "error"]
) -> None:
    observation = SENSIBLE.copy()
    observation[place] = bad
    with python_warnings.catch_warnings():
        python_warnings.simplefilter(warnings)
        with pytest.raises(NonFiniteObservationError):
            arm.act(observation)
    # And it leaves nothing behind.
    assert np.isfinite(arm.act(SENSIBLE)).all()


def test_the_largest_finite_numbers_are_not_mistaken_for_infinity(arm: Policy) -> None:
    largest = np.finfo(np.float32).max
    assert np.isfinite(arm.act(np.array([largest, -largest, largest], np.float32))).all()


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros(2),
        np.zeros(4),
        np.zeros((1, 3)),
        np.zeros(()),
        np.array(["a", "b", "c"]),
        [0.0, 0.0, 0.0],
        0.0,
        None,
    ],
)
def test_another_shape_or_kind_is_a_named_error(arm: Policy, observation: object) -> None:
    with pytest.raises(ObservationShapeError, match=r"arm takes a real numpy array of shape \(3,\)"):
        arm.act(observation)


@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_a_discrete_policy_gives_an_index(recipe: str) -> None:
    switch = Policy.load(DATA / f"switch-{recipe}.tflite")
    choices = {switch.act(np.array([x, 1.0, 50.0])) for x in np.linspace(-3, 3, 30)}
    assert all(type(choice) is int for choice in choices)
    assert choices <= {0, 1, 2, 3}
    assert len(choices) > 1


def test_golden_pairs_are_replayed_within_a_step() -> None:
    for name in ("arm-float32", "arm-int8", "arm-int8-full", "switch-float32", "switch-int8"):
        source = artifact.read(DATA / f"{name}.tflite")
        check = Policy.from_artifact(source).replay(source.golden, source.manifest.golden_tolerance)
        assert check.pairs == 32
        assert check.mismatches == 0


def test_with_integer_tensors_the_host_does_what_is_otherwise_in_the_graph() -> None:
    # The arm's three inputs differ in scale by a factor of 200: with one scale and no normaliser two would vanish.
    float_policy, full = (Policy.load(DATA / f"arm-{recipe}.tflite") for recipe in ("float32", "int8-full"))
    observations = np.random.default_rng(1).normal((0.0, 1.0, 50.0), (1.0, 0.1, 20.0), (300, 3))
    errors = [np.abs(full.act(o) - float_policy.act(o)) for o in observations]
    assert (np.max(errors, axis=0) < 0.05 * np.array([4.0, 1.0])).all()


@pytest.mark.parametrize("name", ["arm", "lever", "switch"])
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_golden_pairs_hold_on_the_kernels_that_every_runtime_has(name: str, recipe: str) -> None:
    source = artifact.read(DATA / f"{name}-{recipe}.tflite")
    plain = Policy(source.flatbuffer, source.manifest.spec, plain_kernels=True)
    assert plain.replay(source.golden, source.manifest.golden_tolerance).mismatches == 0


def test_a_flatbuffer_that_does_not_fit_its_spec_is_refused() -> None:
    arm = artifact.read(DATA / "arm-float32.tflite")
    switch = artifact.read(DATA / "switch-float32.tflite")
    with pytest.raises(ManifestError, match="its spec promises"):
        Policy(switch.flatbuffer, arm.manifest.spec)


def test_a_damaged_flatbuffer_is_refused_by_name() -> None:
    arm = artifact.read(DATA / "arm-float32.tflite")
    with pytest.raises(NotTFLiteError, match="cannot load the model"):
        Policy(arm.flatbuffer[: len(arm.flatbuffer) // 2], arm.manifest.spec)


def test_the_policy_says_what_runs_it() -> None:
    arm = Policy.load(DATA / "arm-int8.tflite", threads=2)
    assert arm.runtime.name in ("ai-edge-litert", "tflite-runtime")
    assert arm.runtime.threads == 2
    assert arm.runtime.delegate in ("XNNPACK", "none")
    source = artifact.read(DATA / "arm-int8.tflite")
    assert Policy(source.flatbuffer, source.manifest.spec, plain_kernels=True).runtime.delegate == "none"
    assert arm.manifest is not None
    assert arm.manifest.name == "arm"
