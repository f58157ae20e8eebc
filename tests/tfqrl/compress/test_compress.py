"""What every compressor promises, with every algorithm."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from training import assert_same_training, trained, trained_in_two

from converters import convert
from converters.emulation import Output, Widths, calibrate, emulated
from converters.export import DeployedPolicy
from converters.quantizers import is_on_grid
from converters.stripping import own_variables, strip
from converters.tflite import output_step
from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl import agents, evaluate
from tfqrl.compress import QABP, QAT, SVD, VNQ, Clustering, Pruning, SparseQAT
from tfqrl.compress.bayesian.variational import variational_layers
from tfqrl.networks import HostNetwork, as_input, mlp
from tfqrl.training.session import Session

MATCH, CHOOSE, BLOB = "toys/Match-v0", "toys/Choose-v0", "toys/Blob-v0"
OFF: dict[str, Any] = {
    "steps": 400,
    "seed": 1,
    "learning_starts": 100,
    "updates_per_call": 20,
    "batch_size": 32,
    "hidden": (24, 16),
    "update_every": 1,
}
ON: dict[str, Any] = {"steps": 2048, "seed": 1, "num_envs": 4, "hidden": (24, 16)}
FRAMES = {"env": BLOB, "steps": 512}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "a2c": ("a2c", ON | {"env": CHOOSE}),
    "ppo": ("ppo", ON | {"env": MATCH}),
    "dqn": ("dqn", OFF | {"env": CHOOSE}),
    "ddpg, 1 update a call": ("ddpg", OFF | {"env": MATCH, "updates_per_call": 1, "steps": 200}),
    "td3": ("td3", OFF | {"env": MATCH}),
    "d4pg": ("d4pg", OFF | {"env": MATCH, "v_min": -4.0, "v_max": 0.0}),
    "sac, normalised": ("sac", OFF | {"env": MATCH, "normalize_observation": True}),
    "ppo, frames": ("ppo", ON | FRAMES | {"rollout_steps": 32}),
}
METHODS = {
    "qat": QAT(weight_bits=4, activation_bits=4, delay=0.6),
    "prune": Pruning(sparsity=0.75),
    "prune-qat": SparseQAT(sparsity=0.75, weight_bits=3, activation_bits=6, delay=0.6),
    "cluster": Clustering(clusters=5, delay=0.6),
    # Everything becomes noise, at once.
    "svd": SVD(kl_weight=1e5, kl_begin=0.0, kl_end=0.01),
    "svd-neurons": SVD(neurons=True, protected=("output",), kl_weight=1e5, kl_begin=0.0, kl_end=0.01),
    "vnq": VNQ(),
    "qabp": QABP(kl_weight=1e5, kl_begin=0.0, kl_end=0.01, fine_tune=0.4),
    "qabp-drawn": QABP(
        bits_per_weight=1.0, one_step=True, draw_targets=True, draw_acting=True, kl_over=50, kl_begin=0.0
    ),
}


def config_of(case: str, compress: Any) -> Any:
    algorithm, options = CONFIGS[case]
    return agents.get(algorithm).config(compress=compress, **options)


# Every case on grids, and the other methods with some; frames are in the tests of each method.
COMBINATIONS = [(case, "qat") for case in CONFIGS]
COMBINATIONS += [
    ("ppo", "prune"),
    ("td3", "prune"),
    ("sac, normalised", "prune-qat"),
    ("ddpg, 1 update a call", "cluster"),
    ("td3", "svd"),
    ("ppo", "svd"),
    ("dqn", "svd"),
    ("td3", "svd-neurons"),
    ("td3", "vnq"),
    ("td3", "qabp"),
    ("sac, normalised", "qabp-drawn"),
    ("ppo, frames", "qabp"),
]


@pytest.mark.parametrize(
    ("case", "method"),
    [pytest.param(*each, marks=[pytest.mark.long] if "frames" in each[0] else []) for each in COMBINATIONS],
)
def test_what_was_trained_is_restored_and_deployed(case: str, method: str, tmp_path: Path) -> None:
    config = config_of(case, METHODS[method])
    if method == "svd-neurons":
        # Noise of all weights of a neuron at once has a longer way to go.
        config = dataclasses.replace(config, policy_learning_rate=1e-2)
    run = trained(tmp_path / "run", config)
    network, spec = agents.load_policy(run)
    deployed, grids = strip(network)
    kernels = [layer.get_weights()[0] for layer in deployed.layers if layer.weights]
    if method == "cluster":
        assert grids is None
        assert [len(np.unique(kernel)) for kernel in kernels] == [5] * len(kernels)
        assert [record["clustered"] for record in run.metrics() if "clustered" in record][-1] == 1.0
        return
    zero = sum((kernel == 0).sum() for kernel in kernels) / sum(kernel.size for kernel in kernels)
    if method in ("svd", "svd-neurons", "vnq", "qabp"):
        # A weight that has bits may be 0, too.
        assert 0.05 < run.metrics()[-1]["sparsity"] <= zero + 1e-6
    if method == "svd-neurons":
        *hidden, output = kernels
        assert output.all()
        for kernel in hidden:
            gone = (kernel == 0).all(axis=1)
            assert kernel[~gone].all()
        assert any((kernel == 0).all(axis=1).any() for kernel in hidden)
    if method.startswith("svd"):
        assert grids is None
        return
    if method.startswith("prune"):
        assert zero >= 0.74
        assert run.metrics()[-1]["sparsity"] == pytest.approx(0.75, abs=0.01)
    if method == "prune":
        assert grids is None
        return
    assert is_on_grid(network)
    assert [record["on_grid"] for record in run.metrics() if "on_grid" in record][-1] == 1.0
    played = evaluate.play(DeployedPolicy(network, spec).act, config.env, first_seed=0, episodes=100)
    observations = np.concatenate(played.observations)
    discrete = spec.action.discrete
    conversion = convert(network, spec, "int8", observations, logits=discrete)
    policy = conversion.policy()
    if discrete:
        original = DeployedPolicy(network, spec, logits=True)
        expected = np.asarray(original.concrete_function(None)(tf.constant(observations)))
        found = np.stack([policy.logits(observation) for observation in observations])
    else:
        expected = DeployedPolicy(network, spec).act(observations)
        found = np.stack([policy.act(observation) for observation in observations])
    step = output_step(conversion.artifact.flatbuffer)
    assert (np.abs(found - expected) <= step * 1.01).mean() > 0.99


@pytest.mark.parametrize(("case", "method"), [("td3", "prune-qat"), ("dqn", "cluster"), ("td3", "qabp-drawn")])
def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(case: str, method: str, tmp_path: Path) -> None:
    config = config_of(case, METHODS[method])
    config = type(config)(**{**vars(config), "save_replay": True})
    agent_type = type(_agent(config))
    whole = trained(tmp_path / "whole", config)
    assert_same_training(whole, trained_in_two(tmp_path / "two", config, agent_type, 9))


def _agent(config: Any) -> Any:
    from tfqrl.agents import ddpg, dqn, ppo, sac, td3

    kinds = {"PPOConfig": ppo.PPO, "TD3Config": td3.TD3, "SACConfig": sac.SAC, "DQNConfig": dqn.DQN}
    kinds["DDPGConfig"] = ddpg.DDPG
    from tfqrl.envs import spec_of

    return kinds[type(config).__name__](config, spec_of(config.env))


@pytest.mark.parametrize("method", ["qat", "prune-qat", "cluster", "svd", "vnq", "qabp"])
@pytest.mark.parametrize("case", ["ppo", "td3", "sac, normalised", "dqn"])
def test_what_acts_is_what_is_trained(case: str, method: str) -> None:
    options = METHODS[method]
    agent = _agent(config_of(case, options))
    for variable in own_variables(agent.policy.layers):
        variable.assign(3.0 * variable)  # so that some actions are beyond their bounds
    observation = np.random.default_rng(0).normal(size=(200, agent.policy.input_shape[-1])).astype(np.float32)
    for progress in (0.0, 0.65, 1.0):
        options.advance(agent.policy, tf.constant(observation), progress, 100)
        agent.refresh()
        # But for what lies half way between two steps.
        acted, trained_on = agent.acting(observation), agent.policy(observation).numpy()
        assert (np.abs(acted - trained_on) < 1e-5).mean() > 0.97


@pytest.mark.parametrize("output", ["clipped", "before tanh"])
def test_actions_beyond_their_bounds_act_as_they_are_trained(output: Output) -> None:
    # An algorithm that draws actions around a mean would else learn as if it had drawn them around another one.
    network = emulated(mlp(3, (16,), 2, activation="tanh", output_activation="linear"), Widths(), output)
    own_variables(network.layers)[-1].assign([5.0, -5.0])
    observation = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    calibrate(network, observation)
    acted = HostNetwork(network)(observation)
    assert np.abs(acted).min() > 3.5
    np.testing.assert_allclose(acted, network(observation), atol=1e-5)


@pytest.mark.parametrize("method", ["qat", "prune-qat", "svd", "vnq", "qabp"])
def test_what_acts_on_frames_is_what_is_trained(method: str) -> None:
    options = METHODS[method]
    agent = _agent(config_of("ppo, frames", options))
    frames = np.random.default_rng(0).integers(0, 256, (5, *agent.policy.input_shape[1:]), np.uint8)
    for progress in (0.0, 1.0):
        options.advance(agent.policy, as_input(tf.constant(frames)), progress, 100)
        agent.refresh()
        np.testing.assert_allclose(agent.acting(frames), agent.policy(as_input(tf.constant(frames))), atol=1e-5)
    assert agent.acting(frames[:1]).shape == (1, agent.policy.output_shape[-1])


def test_bayesian_policies_act_by_their_means_unless_they_are_to_be_drawn(tmp_path: Path) -> None:
    for draws in (False, True):
        compress = SVD(kl_weight=1e-3, kl_begin=0.0, kl_end=0.01, draw_acting=draws)
        run = trained(tmp_path / f"{draws}", config_of("td3", compress))
        with Session(run, agents.config_of(run), type(_agent(agents.config_of(run)))) as session:
            agent = session.agent
            observation = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
            acted, means = agent.acting(observation), agent.policy(observation).numpy()
            assert np.allclose(acted, means, atol=1e-5) != draws
            if draws:
                for layer in variational_layers(agent.policy):
                    layer.theta.assign(layer.sample())
                np.testing.assert_allclose(acted, agent.policy(observation), atol=1e-5)


def test_the_divergence_is_over_what_was_learnt_from_or_over_what_is_said() -> None:
    for compress, weight in ((SVD(kl_weight=2.0), 2 / 400), (SVD(kl_weight=2.0, kl_over=50), 2 / 50)):
        policy = _agent(config_of("td3", compress)).policy
        compress.advance(policy, tf.zeros((1, 1)), 1.0, 400)
        assert float(variational_layers(policy)[0].kl_weight) == pytest.approx(weight)


def test_before_a_bayesian_policy_has_noise_all_its_weights_are_deployed(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", config_of("td3", SVD(kl_begin=1.0, kl_end=1.0)))
    network, _ = agents.load_policy(run)
    assert all((layer.get_weights()[0] != 0).all() for layer in network.layers if layer.weights)
    assert run.metrics()[-1]["sparsity"] == 0.0


def test_noise_that_is_not_a_number_ends_the_training_and_is_named(tmp_path: Path) -> None:
    config = config_of("td3", METHODS["qabp"])
    agent_type = type(_agent(config))
    update = agent_type.update

    def break_and_update(agent: Any, *arguments: Any) -> Any:
        noise = next(variable for variable in agent.variables["policy"] if "log_variance" in variable.name)
        noise.assign(tf.fill(noise.shape, float("nan")))
        return update(agent, *arguments)

    run = agents_run(tmp_path / "run", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_type, "update", break_and_update)
        with pytest.raises(UserError, match=r"diverged at .* the first tensor with NaN or infinity is"):
            agents.get("td3").train(run)
    assert not run.has_checkpoint()


def test_a_bayesian_policy_is_evaluated_as_it_is_deployed(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", config_of("td3", METHODS["svd"]))
    network, _ = agents.load_policy(run)
    deployed, _ = strip(network)
    assert any((layer.get_weights()[0] == 0).any() for layer in deployed.layers if layer.weights)
    observation = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(network(observation), deployed(observation))


def test_it_begins_with_what_another_run_has_learnt(tmp_path: Path) -> None:
    source = trained(tmp_path / "source", config_of("sac, normalised", None))
    config = config_of("sac, normalised", QAT(delay=0.9))
    config = type(config)(**{**vars(config), "init_from": str(source.path)})
    run = agents_run(tmp_path / "run", config)
    with (
        Session(run, config, type(_agent(config))) as session,
        Session(source, agents.config_of(source), type(_agent(config))) as theirs,
    ):
        observation = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
        np.testing.assert_array_equal(session.agent.policy(observation), theirs.agent.policy(observation))
        np.testing.assert_array_equal(session.normalize(observation), theirs.normalize(observation))
        for mine, other in zip(session.agent.targets, theirs.agent.targets):
            np.testing.assert_array_equal(mine.get_weights()[0], other.get_weights()[0])


@pytest.mark.parametrize(("before", "compress"), [(None, QAT(delay=0.5)), (QAT(weight_bits=2, delay=0.5), Pruning())])
def test_so_do_dueling_networks_which_go_on_as_such(before: Any, compress: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(config_of("dqn", before), dueling=True, steps=200)
    source = trained(tmp_path / "source", config)
    config = dataclasses.replace(config, compress=compress, init_from=str(source.path))
    run, agent_type = agents_run(tmp_path / "run", config), type(_agent(config))
    observation = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    with (
        Session(run, config, agent_type) as session,
        Session(source, agents.config_of(source), agent_type) as theirs,
    ):
        mine, others = session.agent.policy, theirs.agent.policy
        if before is None:
            np.testing.assert_allclose(mine(observation), others(observation), rtol=1e-5, atol=1e-6)
        else:
            # With the weights that the other one computes with: -1, 0 and 1 steps.
            assert len(np.unique(mine.layers[-1].streams_kernel)) <= 3
    agents.get("dqn").train(run)
    network, _ = agents.load_policy(run)
    assert is_on_grid(network) == isinstance(compress, QAT)
    with Session(run, config, agent_type) as session:
        chosen = session.agent.acting(observation).argmax(axis=1)
    assert (chosen == np.argmax(network(observation), axis=1)).mean() > 0.97


@pytest.mark.parametrize("compress", [QAT(delay=0.9), Pruning()])
def test_a_normaliser_that_the_other_run_lacked_is_undone_by_all_networks(compress: Any, tmp_path: Path) -> None:
    source = trained(tmp_path / "source", config_of("td3", None))
    config = config_of("td3", compress)
    config = type(config)(**{**vars(config), "init_from": str(source.path), "normalize_observation": True})
    run = agents_run(tmp_path / "run", config)
    with (
        Session(run, config, type(_agent(config))) as session,
        Session(source, agents.config_of(source), type(_agent(config))) as theirs,
    ):
        observation = np.random.default_rng(0).uniform(-0.8, 0.8, (50, 1)).astype(np.float32)
        action = np.linspace(-1, 1, 50, dtype=np.float32)[:, None]
        normalized = session.normalize(observation)
        assert np.abs(normalized - observation).max() > 0.1
        mine, other = session.agent, theirs.agent
        np.testing.assert_allclose(mine.policy(normalized), other.policy(observation), atol=1e-5)
        np.testing.assert_allclose(mine.target_policy(normalized), other.target_policy(observation), atol=1e-5)
        for a, b in zip(mine.critics + mine.target_critics, other.critics + other.target_critics):
            np.testing.assert_allclose(
                a(np.hstack([normalized, action])), b(np.hstack([observation, action])), atol=1e-5
            )
        np.testing.assert_allclose(mine.acting(normalized), other.policy(observation), atol=1e-5)
        # What is met later changes nothing, or it would be another policy before it has learnt anything.
        session.observed(observation + 5.0)
        np.testing.assert_array_equal(session.normalize(observation), normalized)


def agents_run(path: Path, config: Any) -> Any:
    from training import algorithm_of

    from tfqrl.runs import Run

    return Run.create(path, algorithm_of(config), config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QAT(weight_bits=1), "--weight-bits must lie in 2..8; it was given 1"),
        (lambda: QAT(delay=1.0), "--delay must be at least 0 and below 1"),
        (lambda: Pruning(sparsity=1.0), "--sparsity was given 1.0"),
        (lambda: Pruning(prune_begin=0.5, prune_end=0.2), "in this order"),
        (lambda: Pruning(pattern=(4, 2)), "--pattern takes N M"),
        (
            lambda: Pruning(sparsity_distribution="erdos-renyi", layer_sparsity={"output": 0.5}),
            "--sparsity-distribution erdos-renyi says what each layer loses: leave out --layer-sparsity",
        ),
        (lambda: Clustering(clusters=1), "--clusters must lie in 2..256; it was given 1"),
        (lambda: Clustering(delay=-0.1), "--delay must be at least 0 and below 1"),
        (lambda: SparseQAT(prune_end=0.9), "--delay must be 0.9 or more, and is 0.5"),
        (lambda: SparseQAT(activation_bits=9), "--activation-bits must lie in 2..8"),
        (lambda: SVD(kl_weight=0.0), "--kl-weight must be above 0"),
        (lambda: SVD(sparsity=1.0), "--sparsity must lie between 0 and 1; it was given 1.0"),
        (lambda: QABP(max_bits=1), "--max-bits must lie in 2..8; it was given 1"),
        (lambda: QABP(bits_per_weight=4.0), "--bits-per-weight must lie between 0 and --max-bits 4; it was given 4.0"),
        (lambda: QABP(bits_per_weight=1.0, sparsity=0.9), "--bits-per-weight and --sparsity exclude each other"),
        (lambda: SVD(kl_over=0), "--kl-over must be at least 1; it was given 0"),
        (lambda: QABP(fine_tune=0.6), "--fine-tune must be at least 0 and leave something"),
        (lambda: SVD(kl_begin=0.6), "--kl-begin and --kl-end must lie in 0..1, in this order"),
    ],
)
def test_options_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_drawing_is_refused_where_nothing_would_be_drawn() -> None:
    with pytest.raises(UsageError, match="--draw-targets is for algorithms whose critics"):
        config_of("ppo", SVD(draw_targets=True))
    with pytest.raises(UsageError, match="Policies for frames act by their means"):
        _agent(config_of("ppo, frames", SVD(draw_acting=True)))


def test_layers_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="hidden_7"):
        _agent(config_of("td3", Pruning(layer_sparsity={"hidden_7": 0.5})))
