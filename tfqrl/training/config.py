"""What can be configured of any training; each algorithm's configuration adds its own."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro

from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl.compress import QABP, QAT, SVD, VNQ, Clustering, Pruning, SparseQAT
from tfqrl.options import optional
from tfqrl.replay import UniformReplay

# Seeds of layers and of noise are sums of it and small numbers, and TensorFlow's are of 32 bits.
MAX_SEED = 2_000_000_000


@dataclass(frozen=True)
class TrainingConfig:
    """What every algorithm has.

    Attributes:
      env: environment: HalfCheetah-v5 (Gymnasium), dmc:cheetah-run (dm_control) or ale:Pong-v5 (Atari), say.
      env_module: Python module to import first, which registers your own environment with Gymnasium.
      vec: what steps the copies: threads here, or EnvPool where it has the environment.
      steps: environment steps to train for, over all copies.
      seed: seed of everything that is random.
      num_envs: copies of the environment that are stepped together.
      gamma: discount.
      clip_reward: learn from the sign of rewards alone, as is usual on Atari.
      hidden: widths of the hidden layers; frames are seen by the Nature CNN instead.
      activation: of the hidden layers.
      precision: of the arithmetic in hidden layers; weights and losses are float32 in any case.
      normalize_observation: subtract a running mean and divide by a running deviation; frames never are normalised.
      observation_clip: bound of normalised observations.
      evaluate_every: play episodes without exploration every so many steps; 0 is never.
      evaluation_episodes: how many.
      checkpoint_period_s: how often to save what a kill would lose, in seconds.
      target_return: stop early when the mean return of the last 100 episodes reaches this.
      init_from: run of the same algorithm and networks whose policy, critics and normaliser this one begins with.
      compress: what compresses the policy while it is trained.
    """

    env: Annotated[str, tyro.conf.arg(metavar="ENV")]
    env_module: Annotated[str | None, optional("MODULE")] = None
    vec: Literal["threads", "envpool"] = "threads"
    steps: int = 1_000_000
    seed: int = 0
    num_envs: int = 1
    gamma: float = 0.99
    clip_reward: bool = False
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    precision: Literal["float32", "bfloat16"] = "float32"
    normalize_observation: bool = False
    observation_clip: float = 10.0
    evaluate_every: int = 0
    evaluation_episodes: int = 10
    checkpoint_period_s: float = 15.0
    target_return: Annotated[float | None, optional("RETURN")] = None
    init_from: Annotated[str | None, optional("RUN")] = None
    # Chosen by `tfqrl train --compress`, whose options are the compressor's own.
    compress: Annotated[QAT | Pruning | SparseQAT | Clustering | SVD | VNQ | QABP | None, tyro.conf.Suppress] = None

    @property
    def remembered(self) -> int | None:
        """How many transitions are learnt from, at the most; None if all of them are."""
        return None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        are_numbers(self)
        at_least(self, 1, "steps", "num_envs", "evaluation_episodes")
        at_least(self, 0, "seed", "evaluate_every", "checkpoint_period_s")
        if self.seed > MAX_SEED:
            raise UsageError(f"--seed must be at most {MAX_SEED}; it was given {self.seed}.")
        above(self, 0, "observation_clip")
        within_unit(self, "gamma")
        one_of(self, "vec", ("threads", "envpool"))
        one_of(self, "activation", ("tanh", "relu"))
        one_of(self, "precision", ("float32", "bfloat16"))
        if self.compress is not None and self.precision != "float32":
            raise UsageError(f"--compress needs --precision float32; it was given {self.precision}.")
        if not self.hidden or min(self.hidden) < 1:
            raise UsageError(f"--hidden takes one or more widths above 0; it was given {list(self.hidden)}.")


@dataclass(frozen=True)
class OffPolicyConfig(TrainingConfig):
    """What every algorithm with a replay buffer has.

    Attributes:
      replay_size: transitions that are remembered.
      save_replay: keep the replay buffer in checkpoints, so that a resumed run equals one that was not cut.
      learning_starts: steps of random actions before the first update.
      update_every: environment steps per gradient update.
      updates_per_call: gradient updates in one compiled call; the policy that acts is renewed after each call.
      batch_size: transitions in a gradient update.
      n_step: rewards that are summed before a value is bootstrapped.
    """

    hidden: tuple[int, ...] = (256, 256)
    activation: Literal["tanh", "relu"] = "relu"
    replay_size: int = 1_000_000
    save_replay: bool = False
    learning_starts: int = 10_000
    update_every: int = 1
    updates_per_call: int = 32
    batch_size: int = 256
    n_step: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        at_least(self, 1, "replay_size", "update_every", "updates_per_call", "batch_size", "n_step", "learning_starts")
        call_steps = self.update_every * self.updates_per_call
        if call_steps % self.num_envs:
            raise UsageError(
                f"--num-envs {self.num_envs} must divide the steps between two calls, --update-every "
                f"{self.update_every} x --updates-per-call {self.updates_per_call} = {call_steps}."
            )
        if self.learning_starts > self.replay_size:
            raise UsageError(
                f"--learning-starts {self.learning_starts} is more than --replay-size {self.replay_size} remembers."
            )

        if self.learning_starts > self.steps:
            raise UsageError(
                f"--steps {self.steps} end before --learning-starts {self.learning_starts}: nothing would be learnt. "
                "Give more of the one or fewer of the other."
            )

    @property
    def remembered(self) -> int:
        """How many transitions are learnt from, at the most."""
        return self.replay_size

    def make_replay(self, spec: PolicySpec) -> UniformReplay:
        """What remembers transitions of a policy with `spec`."""
        return UniformReplay(self.replay_size, spec)


@dataclass(frozen=True)
class ActorCriticConfig(OffPolicyConfig):
    """What those of them have that learn a policy beside a critic of actions.

    Attributes:
      critic_hidden: widths of the critics' hidden layers (default: as --hidden).
    """

    critic_hidden: Annotated[tuple[int, ...] | None, optional("INT [INT ...]")] = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        if self.critic_hidden is not None and (not self.critic_hidden or min(self.critic_hidden) < 1):
            raise UsageError(
                f"--critic-hidden takes one or more widths above 0; it was given {list(self.critic_hidden)}."
            )


@dataclass(frozen=True)
class OnPolicyConfig(TrainingConfig):
    """What every algorithm has that learns from rollouts of its present policy.

    Attributes:
      num_envs: copies of the environment that are stepped together.
      rollout_steps: steps of each copy between updates.
      learning_rate: step size of the optimiser.
      anneal_learning_rate: let the step size fall linearly to 0 over `steps`.
      gae_lambda: lambda of generalised advantage estimation.
      entropy_weight: weight of the entropy bonus.
      value_weight: weight of the value loss.
      max_gradient_norm: gradients are scaled down to this norm.
      normalize_reward: divide rewards by the running deviation of the discounted return.
      initial_log_std: logarithm of the deviation of continuous actions, which span -1 to 1, at the beginning.
    """

    num_envs: int = 16
    normalize_observation: bool = True
    rollout_steps: int = 128
    learning_rate: float = 3e-4
    anneal_learning_rate: bool = True
    gae_lambda: float = 0.95
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    max_gradient_norm: float = 0.5
    normalize_reward: bool = True
    initial_log_std: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        at_least(self, 1, "rollout_steps")
        above(self, 0, "learning_rate", "max_gradient_norm")
        at_least(self, 0, "entropy_weight", "value_weight")
        within_unit(self, "gae_lambda")
        if getattr(self.compress, "draw_targets", False):
            raise UsageError("--draw-targets is for algorithms whose critics learn from what a policy would do.")


def are_numbers(config: Any) -> None:
    """Refuse NaN, infinity, and fractions where numbers are whole, which every comparison would let through somewhere.

    Raises:
      UsageError: a field is such; it is named as on the command line.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{_option(field.name)} must be a finite number; it was given {value}.")
        if field.type == "int" and not isinstance(value, int):
            raise UsageError(f"{_option(field.name)} must be a whole number; it was given {value}.")


def at_least(config: Any, least: float, *names: str) -> None:
    """Refuse fields below `least`.

    Raises:
      UsageError: one is; it is named as on the command line.
    """
    for name in names:
        if not getattr(config, name) >= least:
            raise UsageError(f"{_option(name)} must be at least {least}; it was given {getattr(config, name)}.")


def above(config: Any, bound: float, *names: str) -> None:
    """Refuse fields at or below `bound`; see `at_least`."""
    for name in names:
        if not getattr(config, name) > bound:
            raise UsageError(f"{_option(name)} must be above {bound}; it was given {getattr(config, name)}.")


def within_unit(config: Any, *names: str) -> None:
    """Refuse fields outside 0..1; see `at_least`."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{_option(name)} must lie in 0..1; it was given {getattr(config, name)}.")


def one_of(config: Any, name: str, allowed: Collection[str]) -> None:
    """Refuse a field that is none of `allowed`; see `at_least`."""
    if getattr(config, name) not in allowed:
        raise UsageError(f"{_option(name)} must be {' or '.join(allowed)}; it was given {getattr(config, name)!r}.")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
