import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError, UsageError
from edge.plants.gym import GymPlant

SPEC = PolicySpec(
    ObservationSpec((2,), (None, None), (None, None)), ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0)), None, None
)


def test_each_write_is_a_step_and_an_ended_episode_begins_again() -> None:
    with GymPlant("toys/Count-v0", SPEC, seed=1) as plant:
        plant.reset()
        start = plant.read()[1]
        counts = []
        for i in range(7):
            counts.append(plant.read()[0])
            action = np.array([i, 0.0])
            assert plant.write(action) is action
        # Count ends after five steps, and pays its first action.
        assert counts == [0, 1, 2, 3, 4, 0, 1]
        assert plant.returns == [0.0 + 1 + 2 + 3 + 4]
        assert plant.read()[1] != start


def test_the_seed_fixes_the_first_episode() -> None:
    starts = []
    for seed in (1, 1, 2):
        with GymPlant("toys/Count-v0", SPEC, seed=seed) as plant:
            plant.reset()
            starts.append(plant.read()[1])
    assert starts[0] == starts[1] != starts[2]


def test_names_and_spaces_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'toys/Count-v0'"):
        GymPlant("toys/Coun-v0", SPEC)
    with pytest.raises(UsageError, match=r"the policy takes \(2,\) and gives \(2,\)"):
        GymPlant("CartPole-v1", SPEC)


FRAMES = PolicySpec(ObservationSpec((84, 84, 4), (), (), "uint8"), ActionSpec((), (), (), 3), None, None)


def test_frames_come_as_bytes_with_the_newest_last() -> None:
    with GymPlant("toys/Blob-v0", FRAMES, seed=1) as plant:
        plant.reset()
        frames = []
        for _ in range(4):
            plant.write(1)
            frames.append(plant.read())
        assert all((frame.dtype, frame.shape) == (np.uint8, (84, 84, 4)) for frame in frames)
        np.testing.assert_array_equal(frames[-1], np.stack([frame[..., -1] for frame in frames], axis=-1))
        assert frames[-1].any()


def test_frames_of_floats_are_refused_for_a_policy_of_bytes() -> None:
    with pytest.raises(
        UsageError, match=r"observes Box.*float32.*takes frames of uint8 \(84, 84, 4\) and gives one of 3"
    ):
        GymPlant("toys/FloatFrames-v0", FRAMES)
    with pytest.raises(UsageError, match="the policy takes frames of uint8"):
        GymPlant("CartPole-v1", FRAMES)
