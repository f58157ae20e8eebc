import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import toy_envs
from fakes import DATA

from converters.export import DeployedPolicy
from converters.sources import ForeignPolicy, ImportPolicyError, sb3
from converters.sources.layers import Layer, build, describe
from edge import artifact
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from tfqrl import agents, cli, convert
from tfqrl.agents import imported
from tfqrl.options import Margin
from tfqrl.runs import Run, RunError

PPO = DATA / "sb3" / "ppo-normalized.zip"
STATISTICS = DATA / "sb3" / "ppo-normalized.pkl"
OBSERVATIONS = np.random.RandomState(0).normal(0.0, 1.0, (1000, 3)).astype(np.float32)

gymnasium.register(
    "toys/Arm-v0",
    toy_envs.Odd,
    kwargs={
        "observation": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "action": gymnasium.spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 7.0], np.float32)),
    },
)


class Timed(toy_envs.Count):
    """Count at 20 Hz, with the spaces of the policy in these tests."""

    dt = 0.05


gymnasium.register("toys/Timed-v0", Timed)


def foreign(n: int = 2) -> ForeignPolicy:
    """A policy for toys/Count-v0 and toys/Timed-v0."""
    network = build((n,), [Layer("dense", 8, "tanh"), Layer("dense", 2)])
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    observation = ObservationSpec((n,), (None,) * n, (None,) * n)
    spec = PolicySpec(observation, ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0)), None, None)
    return ForeignPolicy(network, spec, {"format": "test"})


def test_an_imported_run_gives_back_the_policy_that_was_read(tmp_path: Path) -> None:
    original = sb3.load(PPO, STATISTICS)
    imported.create_run(tmp_path / "run", original, None)
    network, spec = agents.load_policy(Run.open(tmp_path / "run"))
    assert spec == original.spec
    expected = np.load(DATA / "sb3" / "ppo-normalized.npy")
    np.testing.assert_allclose(DeployedPolicy(network, spec).act(OBSERVATIONS), expected, atol=7e-5)


def test_every_kind_of_layer_survives_a_run(tmp_path: Path) -> None:
    layers = (
        Layer("conv2d", 4, "relu", kernel=(3, 2), strides=(2, 1), padding="same"),
        Layer("conv2d", 5, "linear", False, (2, 2)),
        Layer("activation", activation="sigmoid"),
        Layer("flatten"),
        Layer("dense", 6, "tanh", False),
        Layer("dense", 3),
    )
    network = build((9, 8, 2), layers)
    assert describe(network) == layers
    frames = ObservationSpec((9, 8, 2), (), (), "uint8")
    spec = PolicySpec(frames, ActionSpec((), (), (), 3), None, None)
    run = imported.create_run(tmp_path / "run", ForeignPolicy(network, spec, {}), None)
    restored, restored_spec = agents.load_policy(Run.open(run.path))
    assert restored_spec == spec
    inputs = np.random.default_rng(0).random((5, 9, 8, 2), np.float32)
    np.testing.assert_array_equal(restored(inputs), network(inputs))


def test_a_layer_that_a_run_cannot_describe_is_named(tmp_path: Path) -> None:
    import tf_keras as keras

    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "elu", name="odd")])
    with pytest.raises(ImportPolicyError, match=r"layer odd \(Dense, activation elu\)"):
        imported.create_run(tmp_path / "run", ForeignPolicy(network, foreign().spec, {}), None)
    assert not (tmp_path / "run").exists()


def test_the_environment_gives_the_rate_and_must_have_the_policys_spaces(tmp_path: Path) -> None:
    imported.create_run(tmp_path / "run", foreign(), "toys/Timed-v0")
    assert agents.load_policy(Run.open(tmp_path / "run"))[1].control_rate_hz == 20.0
    for other, message in (
        (foreign(3), "not for toys/Timed-v0: it observes 3 numbers .* the environment 2 numbers"),
        (sb3.load(DATA / "sb3/dqn.zip"), "not for toys/Timed-v0: it observes 3 numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            imported.create_run(tmp_path / "other", other, "toys/Timed-v0")
    with pytest.raises(
        UsageError, match=r"acts by one of 4 choices, the environment by 2 numbers \(-2\.\.1, 0\.5\.\.7\)"
    ):
        imported.create_run(tmp_path / "other", sb3.load(DATA / "sb3/dqn.zip"), "toys/Arm-v0")
    with pytest.raises(UsageError, match=r"acts by 2 numbers .* the environment by 2 numbers"):
        imported.create_run(tmp_path / "other", sb3.load(DATA / "sb3/ppo-unbounded.zip"), "toys/Arm-v0")
    assert not (tmp_path / "other").exists()


def test_a_run_without_an_environment_converts_with_the_users_observations(tmp_path: Path) -> None:
    run = imported.create_run(tmp_path / "robot", sb3.load(PPO, STATISTICS), None)
    policy = str(tmp_path / "policy.tflite")
    with pytest.raises(UsageError, match=r"names no environment .* --observations FILE\.npy"):
        convert.original(run, episodes=2, margin=Margin.parse("2%"), env=None, observations=None)
    np.save(tmp_path / "o.npy", OBSERVATIONS)
    words = ["convert", str(run.path), "--out", policy, "--observations", str(tmp_path / "o.npy")]
    assert cli.main(words) == 0
    manifest = artifact.read(policy).manifest
    assert manifest.name == "imported-robot"
    assert manifest.comparison.returns is None
    assert manifest.training["origin"]["algorithm"] == "PPO"
    assert manifest.spec.normalizer is not None


def test_a_run_with_an_environment_converts_like_any_other(tmp_path: Path) -> None:
    run = imported.create_run(tmp_path / "run", foreign(), "toys/Timed-v0")
    policy = str(tmp_path / "policy.tflite")
    assert cli.main(["convert", str(run.path), "--recipe", "float32", "--episodes", "2", "--out", policy]) == 0
    manifest = artifact.read(policy).manifest
    assert manifest.name == "imported-toys/Timed-v0"
    assert manifest.spec.control_rate_hz == 20.0
    assert manifest.comparison.returns is not None


def test_the_command_says_what_it_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = ["import", "sb3", str(PPO), "--vecnormalize", str(STATISTICS), "--out", out, "--env", "toys/Arm-v0"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    for text in (
        "algorithm PPO", "stable_baselines3 2.", "dense 16 tanh, dense 16 tanh, dense 2", "clipped at 1.5",
        "2 numbers (-2..1, 0.5..7)", "toys/Arm-v0", f"tfqrl convert {out} --recipe int8",
    ):  # fmt: skip
        assert text in printed
    assert "--observations" not in printed
    assert cli.main(words) == 2
    assert "holds a run already. Give another --out." in capsys.readouterr().err
    assert cli.main([*words[:-4], "--out", str(tmp_path / "free")]) == 0
    assert "--observations OBSERVATIONS.npy" in capsys.readouterr().out
    assert cli.main(["train", "ppo", "--resume", "--out", out]) == 2
    assert "Runs of imported policies cannot be trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["import", "sb2", "x.zip"], 2, "Unknown source 'sb2'. Did you mean 'sb3'?"),
        (["import", "--out", "run"], 2, "Name what is to be imported first"),
        (["import", "sb3", "none.zip", "--out", "run"], 1, "Cannot read none.zip"),
        (["import", "sb3", str(PPO), "--out", "run", "--vecnormalise", "x"], 2, "Did you mean '--vecnormalize'?"),
        (["import", "sb3", str(PPO), "--out", "run", "--env", "Pendlum-v1"], 2, "Did you mean 'Pendulum-v1'?"),
        (["import", "onnx", "x.onnx", "--out", "run", "--obs", "3", "--act", "1", "--rate", "nan"], 2,
         "nan Hz is no rate of control; give one above 0"),
        (["import", "onnx", "x.onnx", "--out", "run", "--obs", "3", "--act", "1", "--rate", "-5"], 2,
         "-5 Hz is no rate"),
        (["train", "imported"], 2, "Runs of imported policies cannot be trained"),
        (["train", "importd"], 2, "Unknown algorithm 'importd'. "),
    ],
)  # fmt: skip
def test_a_wrong_import_is_answered_in_one_sentence(
    words: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_imported_is_no_algorithm_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train"]) == 2
    assert cli.main(["train", "important"]) == 2
    assert "imported" not in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"layers": [{"kind": "lstm"}]}, {"layers": []}, {"spec": None}, {"origin": 1}])
def test_a_damaged_run_is_refused(change: dict, tmp_path: Path) -> None:
    run = imported.create_run(tmp_path / "run", foreign(), None)
    plain = json.loads((run.path / "config.json").read_text())
    plain["config"].update(change)
    (run.path / "config.json").write_text(json.dumps(plain))
    with pytest.raises(RunError):
        agents.load_policy(Run.open(run.path))


DENSE = {"kind": "dense", "units": 8, "activation": "tanh"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [{**DENSE, "units": None}]}, r"layer 0 \(dense\) has weights of the shape \(2, None\), "),
        ({"layers": [{**DENSE, "units": 10**12}]}, r"of the shape \(2, 1000000000000\), .* \(2, 8\)"),
        ({"layers": [DENSE, {**DENSE, "units": 8}]}, r"layer 1 .dense. has weights of the shape \(8, 8\), .* \(8, 2\)"),
        ({"layers": [{**DENSE, "kernel": [1, 1]}]}, r"layer 0 \(dense\) cannot be"),
        ({"layers": [{**DENSE, "kind": "conv2d", "kernel": [1, 1]}]}, r"layer 0 \(conv2d\) cannot be"),
        ({"layers": [DENSE]}, "4 arrays, the layers take 2"),
        ({"layers": [DENSE, {**DENSE, "units": 2}, DENSE]}, "lacks policy/4"),
        ({"layers": [{**DENSE, "kind": "lstm"}]}, r"kind is 'lstm'; expected 'dense' or 'conv2d' or"),
    ],
)  # fmt: skip
def test_an_edited_configuration_is_refused_with_what_is_wrong(change: dict, message: str, tmp_path: Path) -> None:
    run = imported.create_run(tmp_path / "run", foreign(), None)
    plain = json.loads((run.path / "config.json").read_text())
    plain["config"].update(change)
    (run.path / "config.json").write_text(json.dumps(plain))
    with pytest.raises(RunError, match=message):
        agents.load_policy(Run.open(run.path))


def test_importing_needs_neither_pytorch_nor_stable_baselines3(tmp_path: Path) -> None:
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "stable_baselines3", "cloudpickle", "gym"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from tfqrl import cli
sys.exit(cli.main(["import", "sb3", {str(PPO)!r}, "--out", {str(tmp_path / "run")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
