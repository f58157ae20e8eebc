"""A policy for camera frames, from its network to the control loop."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_envs
from fakes import FakeClock

from converters import tflite
from converters.export import DeployedPolicy
from edge import artifact, cli, ticklog
from edge.artifact import ActionSpec, Artifact, Comparison, Golden, Manifest, Normalizer, ObservationSpec, PolicySpec
from edge.errors import NonFiniteObservationError
from edge.loop import ControlLoop
from edge.plants.gym import GymPlant
from edge.policy import Policy
from tfqrl import envs, evaluate
from tfqrl.networks import mlp, nature_cnn

ENV = "toys/Blob-v0"


def deployed(*, logits: bool = False) -> DeployedPolicy:
    with envs.make(ENV) as env:
        spec = envs.policy_spec(env, None)
    return DeployedPolicy(nature_cnn((84, 84, 4), 3, seed=1), spec, logits=logits)


def visited() -> np.ndarray:
    return np.concatenate(evaluate.play(toy_envs.Blob.best, ENV, first_seed=0, episodes=2).observations)


def written(path: Path, flatbuffer: bytes, spec: PolicySpec, act: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A policy file by hand, with the actions that the network itself gives as golden ones."""
    frames = visited()[::6]
    actions = np.asarray(act(frames))
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name="blob",
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        spec=spec,
        recipe={"name": "float32"},
        layers=tflite.layers(flatbuffer),
        golden_tolerance=(1e-3,) * int(np.prod(spec.action.shape)),
        comparison=Comparison(len(frames), None, None, 1.0, None),
        training={"env": ENV},
        versions={},
    )
    golden = Golden(frames, actions.astype(np.int64 if spec.action.discrete else np.float32))
    artifact.write(path, Artifact(manifest, flatbuffer, golden))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = deployed()
    return written(
        tmp_path_factory.mktemp("frames") / "blob.tflite", tflite.to_float32(policy), policy.spec, policy.act
    )


def test_the_file_acts_as_the_network_does_and_logits_are_its_own(file: Path, tmp_path: Path) -> None:
    with_logits = deployed(logits=True)
    # The same weights: the network's seed fixes them.
    other = written(tmp_path / "x.tflite", tflite.to_float32(with_logits), with_logits.spec, with_logits.act)
    choosing, explaining = Policy.load(file), Policy.load(other)
    frames = visited()
    expected = np.asarray(with_logits(tf.constant(frames)))
    for frame, logits in zip(frames, expected):
        assert choosing.act(frame) == explaining.act(frame) == int(logits.argmax())
        np.testing.assert_allclose(explaining.logits(frame), logits, atol=1e-4)


def test_a_policy_for_vectors_gives_logits_too() -> None:
    spec = PolicySpec(
        ObservationSpec((3,), (None,) * 3, (None,) * 3),
        ActionSpec((), (), (), 4),
        None,
        Normalizer((0.0, 1.0, 50.0), (1.0, 0.1, 20.0), None),
    )
    policy = DeployedPolicy(mlp(3, (8,), 4, seed=4), spec, logits=True)
    flatbuffer = tflite.to_float32(policy)
    observations = np.random.default_rng(0).normal((0, 1, 50), (1, 0.1, 20), (50, 3)).astype(np.float32)
    loaded = Policy(flatbuffer, spec)
    expected = np.asarray(policy(tf.constant(observations)))
    np.testing.assert_allclose([loaded.logits(o) for o in observations], expected, atol=1e-5)
    assert [loaded.act(o) for o in observations] == expected.argmax(axis=1).tolist()
    with pytest.raises(NonFiniteObservationError):
        loaded.logits(np.array([0.0, np.nan, 50.0]))


def test_continuous_actions_from_frames_lie_within_their_bounds(tmp_path: Path) -> None:
    spec = PolicySpec(deployed().spec.observation, ActionSpec((2,), (-2.0, None), (6.0, None)), 15.0, None)
    policy = DeployedPolicy(nature_cnn((84, 84, 4), 2, output_gain=5.0, seed=1), spec)
    loaded = Policy.load(written(tmp_path / "x.tflite", tflite.to_float32(policy), spec, policy.act))
    frames = visited()
    actions = np.stack([loaded.act(frame) for frame in frames])
    np.testing.assert_allclose(actions, policy.act(frames), atol=1e-4)
    assert (actions[:, 0] >= -2).all()
    assert (actions[:, 0] <= 6).all()


def test_acting_on_a_frame_allocates_no_other(file: Path) -> None:
    policy, frame = Policy.load(file), visited()[0]
    policy.act(frame)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        policy.act(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2000, "a frame has 28,224 bytes"


def test_the_loop_plays_the_episode_that_the_network_plays(file: Path, tmp_path: Path) -> None:
    policy = Policy.load(file)
    with GymPlant(ENV, policy.spec, seed=5) as plant:
        report = ControlLoop(policy, plant, clock=FakeClock(), log=tmp_path / "ticks.log").run(duration_s=40 / 15)
    expected = evaluate.play(deployed().act, ENV, first_seed=5, episodes=1)
    assert report.failsafes == {}
    assert plant.returns[0] == expected.returns[0]
    header, records = ticklog.read(tmp_path / "ticks.log")
    np.testing.assert_array_equal(records["observation"][: expected.lengths[0]], expected.observations[0])
    assert ticklog.replay(policy, header, records).different == 0


def test_the_commands_of_the_edge_take_a_policy_for_frames(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(file)]) == 0
    assert cli.main(["info", str(file)]) == 0
    assert "observation           uint8 [84, 84, 4]" in capsys.readouterr().out
    words = ["--rate", "100", "--duration", "0.1", "--log", str(tmp_path / "l"), "--json", str(tmp_path / "r")]
    assert cli.main(["run", str(file), *words]) == 0
    assert json.loads((tmp_path / "r").read_text())["loop"]["failsafes"] == {}
    assert cli.main(["replay", str(tmp_path / "l"), str(file)]) == 0
    assert "0 of them come out differently" in capsys.readouterr().out
    assert cli.main(["bench", str(file), "--n", "100", "--energy-windows", "0"]) == 0
    assert "blob float32" in capsys.readouterr().out
    assert cli.main(["run", str(file), "--env", "CartPole-v1"]) == 2
    assert "the policy takes frames of uint8 (84, 84, 4)" in capsys.readouterr().err
