import dataclasses
import warnings as python_warnings
from typing import Literal

import numpy as np
import pytest
from fakes import DATA

from edge import artifact
from edge.errors import (
    ManifestError,
    NonFiniteObservationError,
    NotTFLiteError,
    ObservationShapeError,
    UsageError,
)
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
        assert check.pairs == 37
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


GLANCES = ["float32", "int8", "int8-full", "logits", "int8-logits", "uint8-full"]


@pytest.fixture(params=GLANCES)
def glance(request: pytest.FixtureRequest) -> Policy:
    return Policy.load(DATA / f"glance-{request.param}.tflite")


def frames(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 12, 12, 2), np.uint8)


def test_a_policy_for_frames_gives_the_same_choice_with_each_kind_of_tensor() -> None:
    golden = artifact.read(DATA / "glance-float32.tflite").golden
    for recipe in GLANCES:
        glance = Policy.load(DATA / f"glance-{recipe}.tflite")
        choices = [glance.act(frame) for frame in golden.observations]
        assert all(type(choice) is int for choice in choices)
        assert choices == golden.actions.tolist()
    assert set(golden.actions.tolist()) == {0, 1, 2}


def test_what_a_network_sees_of_a_frame_is_each_byte_divided_by_255() -> None:
    frame = frames(1)[0]
    for recipe in GLANCES:
        glance = Policy.load(DATA / f"glance-{recipe}.tflite")
        glance.act(frame)
        seen = glance._input[0].astype(int) + (128 if recipe in ("int8-full", "int8-logits") else 0)
        np.testing.assert_array_equal(seen, frame)


def test_frames_are_height_width_channels_whatever_their_order_in_memory(glance: Policy) -> None:
    for frame in frames(20):
        expected = glance.act(frame)
        channels_first = np.ascontiguousarray(frame.transpose(2, 0, 1))
        assert glance.act(channels_first.transpose(1, 2, 0)) == expected
        assert glance.act(np.asfortranarray(frame)) == expected


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros((12, 12, 2), np.float32),
        np.zeros((12, 12, 2), np.int8),
        np.zeros((12, 12, 2), np.int64),
        np.zeros((12, 12, 2), np.bool_),
        np.zeros((2, 12, 12), np.uint8),
        np.zeros((1, 12, 12, 2), np.uint8),
        np.zeros(288, np.uint8),
        [[[0, 0]] * 12] * 12,
        b"0" * 288,
        None,
    ],
)
def test_frames_of_another_shape_or_type_are_a_named_error(glance: Policy, observation: object) -> None:
    before = glance._input.copy()
    with pytest.raises(ObservationShapeError, match=r"glance takes a numpy array of uint8 of shape \(12, 12, 2\)"):
        glance.act(observation)
    np.testing.assert_array_equal(glance._input, before)


def test_logits_are_the_networks_own_and_the_choice_is_their_largest() -> None:
    exact, *integers = (
        Policy.load(DATA / f"glance-{recipe}.tflite") for recipe in ("logits", "int8-logits", "uint8-full")
    )
    for frame in frames(50):
        expected = exact.logits(frame)
        assert (expected.dtype, expected.shape) == (np.float32, (3,))
        assert exact.act(frame) == int(expected.argmax())
        for policy in integers:
            logits = policy.logits(frame)
            assert (logits.dtype, logits.shape) == (np.float32, (3,))
            assert policy.act(frame) == int(logits.argmax())
            np.testing.assert_allclose(logits, expected, atol=0.1)
    kept = expected.copy()
    exact.logits(frames(1)[0])
    np.testing.assert_array_equal(expected, kept)


@pytest.mark.parametrize("recipe", ["logits", "int8-logits", "uint8-full"])
def test_of_equal_logits_the_first_is_chosen(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    glance = Policy.load(DATA / f"glance-{recipe}.tflite")
    monkeypatch.setattr(glance, "invoke", lambda: None)
    for logits, choice in (([5, 5, 5], 0), ([1, 9, 9], 1), ([9, 1, 9], 0), ([1, 2, 3], 2)):
        glance._output[...] = logits
        assert glance.act(frames(1)[0]) == choice


@pytest.mark.parametrize("name", ["glance-float32", "switch-float32", "arm-float32"])
def test_a_policy_without_logits_says_so(name: str) -> None:
    policy = Policy.load(DATA / f"{name}.tflite")
    with pytest.raises(UsageError, match="gives actions only; convert it so that it gives logits"):
        policy.logits(frames(1)[0])


def test_frames_for_a_graph_of_vectors_and_the_other_way_round_are_refused() -> None:
    glance, arm = (artifact.read(DATA / f"{name}-float32.tflite") for name in ("glance", "arm"))
    with pytest.raises(ManifestError, match=r"promises \[1, 12, 12, 2\] of 8-bit integers to"):
        Policy(arm.flatbuffer, glance.manifest.spec)
    floats = dataclasses.replace(glance.manifest.spec.observation, low=(0.0,) * 288, high=(1.0,) * 288, dtype="float32")
    # The bytes of a float graph have no scale, so that they could be taken for numbers.
    with pytest.raises(ManifestError, match="which means nothing"):
        Policy(glance.flatbuffer, dataclasses.replace(glance.manifest.spec, observation=floats))
