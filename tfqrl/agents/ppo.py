"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), for Box and Discrete actions.

Read it from the top: configuration, the networks and the compiled `update`, the training loop.
Details follow "The 37 Implementation Details of PPO" (Huang et al. 2022) with two deviations:

- The observation normaliser is fixed during a rollout and updated after it, so that the probabilities that the
  rollout was sampled with are exactly those that the update divides by.
- Values and probabilities of a rollout are computed in one batch when it is complete. Acting needs neither.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras
import tyro

from edge.artifact import PolicySpec
from edge.errors import UsageError, UserError
from edge.records import from_plain
from tfqrl.envs import FloatArray, VectorEnv, spec_of
from tfqrl.losses import clipped_surrogate, generalized_advantages
from tfqrl.networks import Categorical, DiagonalGaussian, HostNetwork, mlp
from tfqrl.normalization import RunningMoments
from tfqrl.options import optional
from tfqrl.progress import TrainingProgress
from tfqrl.runs import Run, State, nested, prefixed
from tfqrl.signals import StopRequest


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation.

    Attributes:
      env: Gymnasium environment.
      steps: environment steps to train for, over all copies.
      seed: seed of everything that is random.
      num_envs: copies of the environment that are stepped together.
      rollout_steps: steps of each copy between updates.
      epochs: passes over each rollout.
      batch_size: transitions in a gradient step.
      learning_rate: step size of Adam.
      anneal_learning_rate: let the step size fall linearly to 0 over `steps`.
      gamma: discount.
      gae_lambda: lambda of generalised advantage estimation.
      clip_range: epsilon of the clipped surrogate.
      entropy_weight: weight of the entropy bonus.
      value_weight: weight of the value loss.
      max_gradient_norm: gradients are scaled down to this norm.
      hidden: widths of the hidden layers, of policy and value network alike.
      activation: of the hidden layers.
      normalize_observation: subtract a running mean and divide by a running deviation.
      observation_clip: bound of normalised observations.
      normalize_reward: divide rewards by the running deviation of the discounted return.
      checkpoint_period_s: how often to save what a kill would lose, in seconds.
      target_return: stop early when the mean return of the last 100 episodes reaches this.
    """

    env: Annotated[str, tyro.conf.arg(metavar="ENV")]
    steps: int = 1_000_000
    seed: int = 0
    num_envs: int = 16
    rollout_steps: int = 128
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 3e-4
    anneal_learning_rate: bool = True
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    max_gradient_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    normalize_observation: bool = True
    observation_clip: float = 10.0
    normalize_reward: bool = True
    checkpoint_period_s: float = 15.0
    target_return: Annotated[float | None, optional("RETURN")] = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("steps", "num_envs", "rollout_steps", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1; it was given {getattr(self, name)}.")
        for name in ("learning_rate", "clip_range", "max_gradient_norm", "observation_clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be above 0; it was given {getattr(self, name)}.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name.replace('_', '-')} must lie in 0..1; it was given {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"--hidden takes one or more widths above 0; it was given {list(self.hidden)}.")
        if self.num_envs * self.rollout_steps % self.batch_size:
            raise UsageError(
                f"--batch-size {self.batch_size} must divide the rollout of {self.num_envs} x {self.rollout_steps} "
                f"= {self.num_envs * self.rollout_steps} transitions."
            )


class PPO:
    """Networks, optimiser, and the update, which is one compiled function."""

    def __init__(self, config: PPOConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.policy = policy_network(config, spec)
        inputs = spec.observation.shape[0]
        self.value = mlp(inputs, config.hidden, 1, activation=config.activation, seed=config.seed + 1000, name="value")
        if spec.action.n is not None:
            self.distribution: Categorical | DiagonalGaussian = Categorical()
        else:
            self.distribution = DiagonalGaussian(spec.action.shape[0])
        self.variables = [
            *self.policy.trainable_variables,
            *self.value.trainable_variables,
            *self.distribution.variables,
        ]
        self.optimizer = keras.optimizers.Adam(config.learning_rate, epsilon=1e-5, jit_compile=False)
        self.optimizer.build(self.variables)

    @tf.function(jit_compile=True)
    def update(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        next_observation: tf.Tensor,
        reward: tf.Tensor,
        terminated: tf.Tensor,
        done: tf.Tensor,
        batches: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """One PPO update: all gradient steps on one rollout.

        Args:
          observation: (time, envs, ...) float32 acted on, normalised.
          action: (time, envs, ...) taken.
          next_observation: (time, envs, ...) float32 that the action led to, normalised.
          reward: (time, envs) float32, scaled.
          terminated: (time, envs) float32.
          done: (time, envs) float32.
          batches: (gradient steps, batch) int32 indices into the flattened rollout.

        Returns:
          Scalars to log: means over the gradient steps.
        """
        config = self.config
        time_steps, envs = reward.shape
        flat_observation = tf.reshape(observation, (time_steps * envs, -1))
        flat_next_observation = tf.reshape(next_observation, (time_steps * envs, -1))
        flat_action = tf.reshape(action, (time_steps * envs, *action.shape[2:]))
        value = tf.reshape(self.value(flat_observation), (time_steps, envs))
        next_value = tf.reshape(self.value(flat_next_observation), (time_steps, envs))
        advantage = generalized_advantages(value, reward, next_value, terminated, done, config.gamma, config.gae_lambda)
        value_target = tf.reshape(advantage + value, (-1,))
        advantage = tf.reshape(advantage, (-1,))
        old_log_prob = self.distribution.log_prob(self.policy(flat_observation), flat_action)

        def gradient_step(i: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rollout = (flat_observation, flat_action, old_log_prob, advantage, value_target)
            metrics = self._gradient_step(*(tf.gather(x, batches[i]) for x in rollout))
            return i + 1, sums + metrics

        n = batches.shape[0]
        _, sums = tf.while_loop(lambda i, _: i < n, gradient_step, (0, tf.zeros(len(METRICS))))
        residual = tf.math.reduce_variance(value_target - tf.reshape(value, (-1,)))
        explained = 1.0 - residual / (tf.math.reduce_variance(value_target) + 1e-8)
        return {**dict(zip(METRICS, tf.unstack(sums / n))), "explained_variance": explained}

    def _gradient_step(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        old_log_prob: tf.Tensor,
        advantage: tf.Tensor,
        value_target: tf.Tensor,
    ) -> tf.Tensor:
        config = self.config
        advantage = (advantage - tf.reduce_mean(advantage)) / (tf.math.reduce_std(advantage) + 1e-8)
        with tf.GradientTape() as tape:
            output = self.policy(observation)
            log_prob = self.distribution.log_prob(output, action)
            policy_loss = clipped_surrogate(log_prob, old_log_prob, advantage, config.clip_range)
            value_loss = tf.reduce_mean((self.value(observation)[:, 0] - value_target) ** 2)
            entropy = tf.reduce_mean(self.distribution.entropy(output))
            loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.variables), config.max_gradient_norm)
        self.optimizer.apply_gradients(zip(gradients, self.variables))
        log_ratio = log_prob - old_log_prob
        # The low-variance estimator of KL(old, new): Schulman 2020, http://joschu.net/blog/kl-approx.html.
        approximate_kl = tf.reduce_mean(tf.exp(log_ratio) - 1.0 - log_ratio)
        clipped = tf.reduce_mean(tf.cast(tf.abs(tf.exp(log_ratio) - 1.0) > config.clip_range, tf.float32))
        return tf.stack([policy_loss, value_loss, entropy, approximate_kl, clipped])

    def state(self) -> State:
        """Networks and optimiser, for a checkpoint."""
        named = {"policy": self.policy.variables, "value": self.value.variables}
        named |= {"distribution": self.distribution.variables, "optimizer": self.optimizer.variables}
        return {f"{group}/{i}": v.numpy() for group, variables in named.items() for i, v in enumerate(variables)}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        named = {"policy": self.policy.variables, "value": self.value.variables}
        named |= {"distribution": self.distribution.variables, "optimizer": self.optimizer.variables}
        for group, variables in named.items():
            for i, variable in enumerate(variables):
                variable.assign(state[f"{group}/{i}"])
        self.distribution.refresh()


# What a gradient step reports, in this order.
METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl", "clip_fraction")


def policy_network(config: PPOConfig, spec: PolicySpec) -> keras.Model:
    """The network from normalised observations to mean actions or logits."""
    outputs = spec.action.n if spec.action.n is not None else spec.action.shape[0]
    return mlp(
        spec.observation.shape[0],
        config.hidden,
        outputs,
        activation=config.activation,
        output_gain=0.01,
        seed=config.seed,
        name="policy",
    )


def restore_policy(config: PPOConfig, state: State) -> tuple[keras.Model, PolicySpec]:
    """The trained policy network of a checkpoint, and its spec with the normaliser that it was trained with."""
    spec = spec_of(config.env)
    network = policy_network(config, spec)
    for i, variable in enumerate(network.variables):
        variable.assign(state[f"policy/{i}"])
    if not config.normalize_observation:
        return network, spec
    moments = RunningMoments(spec.observation.shape)
    moments.restore(nested(state, "moments"))
    return network, replace(spec, normalizer=moments.normalizer(config.observation_clip))


def train(run: Run) -> None:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    SIGINT and SIGTERM end it after the current iteration, with a checkpoint; `Interrupted` is then raised.
    """
    config = from_plain(PPOConfig, run.config, "config")
    state = run.load_checkpoint() if run.has_checkpoint() else None
    steps = 0 if state is None else int(state["steps"])
    # Episodes cannot be taken up where they were cut off: a resumed run begins new ones, with new seeds.
    env = VectorEnv(config.env, config.num_envs, seed=config.seed + steps)
    learner = PPO(config, env.spec)
    shape, envs, horizon = env.spec.observation.shape, config.num_envs, config.rollout_steps
    moments = RunningMoments(shape)
    return_moments = RunningMoments(())
    rng = np.random.default_rng(config.seed)
    if state is not None:
        learner.restore(state)
        moments.restore(nested(state, "moments"))
        return_moments.restore(nested(state, "return_moments"))
        rng.bit_generator.state = json.loads(str(state["rng"]))
    run.truncate_metrics(steps)

    def checkpoint() -> None:
        state = {"steps": np.array(steps), "rng": np.array(json.dumps(rng.bit_generator.state))}
        state |= prefixed("moments", moments.state()) | prefixed("return_moments", return_moments.state())
        run.save_checkpoint(state | learner.state())

    actions = env.spec.action
    rollout_observation = np.zeros((horizon, envs, *shape), np.float32)
    rollout_next_observation = np.zeros((horizon, envs, *shape), np.float32)
    rollout_action = np.zeros((horizon, envs, *actions.shape), np.int32 if actions.discrete else np.float32)
    rollout_reward, rollout_terminated, rollout_done = (np.zeros((horizon, envs), np.float32) for _ in range(3))
    discounted_return = np.zeros(envs)
    checkpointed_s = time.perf_counter()

    def normalize(observation: FloatArray) -> FloatArray:
        if not config.normalize_observation:
            return observation
        return moments.normalize(observation, config.observation_clip)

    acting_policy = HostNetwork(learner.policy)
    with closing(env), StopRequest() as stop, TrainingProgress(run, config.steps, steps) as progress:
        observation = env.reset()
        while steps < config.steps and not stop.requested:
            # Rollout.
            for t in range(horizon):
                rollout_observation[t] = observation
                rollout_action[t] = learner.distribution.sample(acting_policy(normalize(observation)), rng)
                step = env.step(rollout_action[t])
                rollout_next_observation[t] = step.next_observation
                rollout_reward[t] = step.reward
                rollout_terminated[t] = step.terminated
                rollout_done[t] = step.done
                observation = step.observation
            steps += horizon * envs

            # Rewards are scaled by the deviation of the discounted return, which needs no mean: it would move the
            # goal of tasks that reward every step survived.
            reward = rollout_reward
            if config.normalize_reward:
                discounted = np.zeros((horizon, envs))
                for t in range(horizon):
                    discounted_return = rollout_reward[t] + config.gamma * discounted_return
                    discounted[t] = discounted_return
                    discounted_return = discounted_return * (1.0 - rollout_done[t])
                return_moments.update(discounted.reshape(-1))
                reward = np.clip(rollout_reward / np.float32(return_moments.std), -10.0, 10.0)

            # Update.
            if config.anneal_learning_rate:
                fraction_left = max(0.0, 1.0 - (steps - horizon * envs) / config.steps)
                learner.optimizer.learning_rate.assign(config.learning_rate * fraction_left)
            permutations = [rng.permutation(horizon * envs) for _ in range(config.epochs)]
            batches = np.concatenate(permutations).reshape(-1, config.batch_size).astype(np.int32)
            metrics = learner.update(
                normalize(rollout_observation),
                rollout_action,
                normalize(rollout_next_observation),
                reward,
                rollout_terminated,
                rollout_done,
                batches,
            )
            acting_policy.refresh()
            learner.distribution.refresh()
            moments.update(rollout_observation.reshape(-1, *shape))

            # Report.
            record = {name: float(value) for name, value in metrics.items()}
            if not np.isfinite(list(record.values())).all():
                bad = next(name for name, value in record.items() if not np.isfinite(value))
                raise UserError(
                    f"The training diverged at {steps} steps: {bad} is not finite. The last good checkpoint is kept; "
                    "begin again with a lower --learning-rate."
                )
            record["learning_rate"] = float(learner.optimizer.learning_rate)
            if env.episodes:
                del env.episodes[:-100]
                record["return"] = float(np.mean([episode_return for episode_return, _ in env.episodes]))
                record["episode_steps"] = float(np.mean([length for _, length in env.episodes]))
            progress.report(steps, record)
            if time.perf_counter() - checkpointed_s > config.checkpoint_period_s:
                checkpoint()
                checkpointed_s = time.perf_counter()
            solved = config.target_return is not None and len(env.episodes) >= 100
            if solved and record["return"] >= config.target_return:
                break
        checkpoint()
    stop.raise_if_requested()
