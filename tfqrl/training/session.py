"""What a training is beside its algorithm: environments, normaliser, checkpoints, reports, and when to stop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.export import DeployedPolicy
from converters.stripping import deployable
from edge.artifact import Normalizer, PolicySpec
from edge.errors import UserError
from tfqrl import evaluate
from tfqrl.compress import compressed_networks
from tfqrl.envs import make_vector
from tfqrl.networks import Acting, as_input
from tfqrl.normalization import RunningMoments
from tfqrl.options import MONITORING_SEED
from tfqrl.progress import TrainingProgress
from tfqrl.runs import Run, RunError, State, nested, prefixed
from tfqrl.signals import StopRequest
from tfqrl.training.config import TrainingConfig
from tfqrl.training.inheritance import inherit
from tfqrl.training.restoring import assign_variables, normalizes, restore_policy

Array = npt.NDArray[Any]

# A run's metrics file and curves have about so many points; each costs a millisecond and some kilobytes.
REPORTS = 1000

# Saving may take this share of the time.
CHECKPOINT_SHARE = 0.05


class Agent(Protocol):
    """What a session needs to know of an algorithm. `agents/*.py` are such.

    Attributes:
      variables: everything that a checkpoint has to hold, by name; the policy's network is called "policy".
      acting: what evaluates the policy's network on the host.
      policy: that network.
    """

    variables: Mapping[str, Sequence[tf.Variable]]

    @staticmethod
    def check(config: Any, spec: PolicySpec) -> None:
        """Refuse environments that the algorithm cannot be trained on as configured.

        Raises:
          UsageError: it cannot.
        """
        ...

    acting: Acting
    policy: keras.Sequential

    @staticmethod
    def network(config: Any, spec: PolicySpec) -> keras.Sequential:
        """The policy's network, as it is trained.

        Raises:
          UsageError: it cannot be built as `config` says.
        """
        ...

    @staticmethod
    def deployed(config: Any, spec: PolicySpec, network: keras.Sequential) -> keras.Sequential:
        """What acts without exploring, of such a network with its trained weights."""
        ...

    def refresh(self) -> None:
        """Let what acts on the host take over the weights."""
        ...


class Session:
    """One training from its beginning, or from its checkpoint, to its end.

    Attributes:
      config: the algorithm's configuration.
      env: the environments.
      agent: the algorithm.
      rng: the source of everything random on the host.
      observation: what is to be acted on next, (num_envs, *shape).
      steps: environment steps made, over all copies.
      saved: the checkpoint that this goes on from; empty at the beginning.
      episodes_go_on: the environments stand where they stood at the checkpoint.
    """

    def __init__(
        self,
        run: Run,
        config: TrainingConfig,
        agent_type: type[Any],
        *,
        env: Any = None,
        stop: StopRequest | None = None,
    ) -> None:
        """Take up `run`.

        Args:
          run: the run.
          config: its configuration.
          agent_type: its algorithm.
          env: stands for the environments, where others step them.
          stop: asks to stop; None for the signals of this process.

        Raises:
          UserError: what making the environments, the agent or reading the checkpoint raises.
          RunError: the checkpoint lacks what is needed to go on, or does not fit.
        """
        self.config = config
        self._run = run
        self._stop = StopRequest() if stop is None else stop
        self._agent_type = agent_type
        self.saved: State = run.load_checkpoint() if run.has_checkpoint() else {}
        if self.saved and "rng" not in self.saved:
            raise RunError(
                f"{run.path} is a policy without the rest of its training and cannot be gone on with. Begin anew with "
                f"--init-from {run.path}."
            )
        if "evaluation_return" in self.saved:
            raise RunError(
                f"{run.path} is the best policy of a training and cannot be gone on with. Go on with "
                f"{run.path.parent}, or begin anew with --init-from {run.path}."
            )
        self.env = env or make_vector(
            config.env, config.num_envs, seed=config.seed, vec=config.vec, module=config.env_module
        )
        try:
            agent_type.check(config, self.env.spec)
            self.agent = agent_type(config, self.env.spec)
            self.rng = np.random.default_rng(config.seed)
            self.steps = 0
            self.episodes_go_on = False
            self._moments = RunningMoments(self.env.spec.observation.shape)
            self._normalizes = normalizes(config, self.env.spec)
            if self.saved:
                try:
                    self._restore()
                except (KeyError, ValueError) as error:
                    raise RunError(
                        f"{run.path} cannot be gone on with: its checkpoint is of another version of tfqrl, or of "
                        f"something else than its config.json says ({error!r}). Begin a new run with another --out."
                    ) from error
            else:
                if config.init_from is not None:
                    inherit(Run.open(config.init_from), run.algorithm, config, self.agent, self._moments)
                    self.agent.refresh()
                self.observation = self.env.reset()
        except BaseException:
            self.env.close()
            raise
        self._reported_steps = self._evaluated_steps = self._checkpoint_steps = self.steps
        run.truncate_metrics(self.steps)
        run.forget_best_after(self.steps)

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            stack.enter_context(closing(self.env))
            stack.enter_context(self._stop)
            self._progress = stack.enter_context(TrainingProgress(self._run, self.config.steps, self.steps))
            self._checkpointed_s, self._checkpoint_took_s = time.perf_counter(), 0.0
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def unfinished(self) -> bool:
        """Whether there is more to train, and nobody has asked to stop."""
        return not self._ends and not self._stop.requested

    def normalize(self, observation: Array) -> Array:
        """What the networks see of observations, of any leading shape."""
        if not self._normalizes:
            return observation
        return self._moments.normalize(observation, self.config.observation_clip)

    @property
    def normalizer(self) -> Normalizer | None:
        """How observations are normalised at present, as part of a policy's spec."""
        return self._moments.normalizer(self.config.observation_clip) if self._normalizes else None

    def observed(self, observations: Array) -> None:
        """Let the normaliser take in (..., *shape) observations."""
        if self._normalizes:
            self._moments.update(observations.reshape(-1, *self.env.spec.observation.shape))

    def updated(self, metrics: Mapping[str, Any], observation: Array | None, state: Callable[[], State]) -> None:
        """To be called after each update of the agent: compresses, acts on its new weights, reports, evaluates, saves.

        Args:
          metrics: what the update reported, scalars by name.
          observation: what the policy was updated on, (n, *shape), normalised; None if there was no update.
          state: what a checkpoint has to hold beside the session's own.

        Raises:
          UserError: the training has diverged.
        """
        record = {name: float(value) for name, value in metrics.items()}
        if observation is not None:
            self._compress(observation)
            self.agent.refresh()
        self._check_finite(record)
        del self.env.episodes[:-100]
        config, ends = self.config, self._ends
        if config.evaluate_every and (ends or self._passed(self._evaluated_steps, config.evaluate_every)):
            self._evaluated_steps = self._reported_steps = self.steps
            self._progress.report(self.steps, record | self._compression() | self._returns() | self._evaluate())
        elif ends or self._passed(self._reported_steps, max(1, config.steps // REPORTS)):
            self._reported_steps = self.steps
            self._progress.report(self.steps, record | self._compression() | self._returns())
        since_s = time.perf_counter() - self._checkpointed_s
        if since_s > max(config.checkpoint_period_s, self._checkpoint_took_s / CHECKPOINT_SHARE):
            self._save(state())

    def finish(self, state: State) -> None:
        """Save the last checkpoint.

        Raises:
          Interrupted: a signal asked to stop before the end.
        """
        if self.steps > self._checkpoint_steps or not self._run.has_checkpoint():
            self._save(state)
        self._stop.raise_if_requested()

    @property
    def _ends(self) -> bool:
        """Whether all steps are made, or the last episodes returned what was wanted."""
        target = self.config.target_return
        solved = target is not None and len(self.env.episodes) >= 100 and self._returns()["return"] >= target
        return solved or self.steps >= self.config.steps

    def _returns(self) -> dict[str, float]:
        if not self.env.episodes:
            return {}
        episode_return, length = np.mean(self.env.episodes, axis=0)
        return {"return": float(episode_return), "episode_steps": float(length)}

    def _passed(self, last_steps: int, every: int) -> bool:
        return self.steps // every > last_steps // every

    def _evaluate(self) -> dict[str, float]:
        state = self._state()
        network, spec = restore_policy(self._agent_type, self.config, state)
        act = DeployedPolicy(deployable(network), spec).act
        episodes = self.config.evaluation_episodes
        played = evaluate.play(
            act, self.config.env, first_seed=MONITORING_SEED, episodes=episodes, keep_observations=False
        )
        compressor, value = self.config.compress, played.returns.mean()
        if compressor is None or compressor.complete(self.agent.policy, self.steps / self.config.steps):
            best = self._run.best
            if not best.has_checkpoint() or value > best.load_checkpoint()["evaluation_return"]:
                self._run.save_best(state | {"evaluation_return": value})
        return {
            "evaluation_return": float(value),
            "evaluation_return_std": float(played.returns.std(ddof=1)) if episodes > 1 else 0.0,
        }

    def _compression(self) -> dict[str, float]:
        compressor = self.config.compress
        return {} if compressor is None else compressor.metrics(self.agent.policy)

    def _compress(self, observation: Array) -> None:
        compressor = self.config.compress
        if compressor is None:
            return
        transitions = min(self.steps, self.config.remembered or self.steps)
        batch = as_input(tf.constant(observation))
        for network in compressed_networks(self.agent).values():
            compressor.advance(network, batch, self.steps / self.config.steps, transitions)

    def _check_finite(self, record: Mapping[str, float]) -> None:
        bad = [name for name, value in record.items() if not math.isfinite(value)]
        # Metrics are computed before the optimiser's last step, which may be what breaks the policy that acts next.
        if bad or not all(np.isfinite(array).all() for array in self.agent.acting.weights):
            raise self._diverged([*bad, *_not_finite(self._variables())])

    def _diverged(self, bad: Sequence[str]) -> UserError:
        kept = f"The checkpoint of {self._checkpoint_steps} steps is kept. " if self._run.has_checkpoint() else ""
        return UserError(
            f"The training diverged at {self.steps} steps: the first tensor with NaN or infinity is {bad[0]}. {kept}"
            "Begin again with smaller learning rates, or another --seed."
        )

    def _variables(self) -> State:
        named = self.agent.variables.items()
        return {f"{name}/{i}": variable.numpy() for name, variables in named for i, variable in enumerate(variables)}

    def _state(self) -> State:
        state = {"steps": np.array(self.steps), "rng": np.array(json.dumps(self.rng.bit_generator.state))}
        return state | prefixed("moments", self._moments.state()) | self._variables()

    def _save(self, more: State) -> None:
        began_s = time.perf_counter()
        state = self._state()
        # What is not seen in the metrics yet must not replace the last good checkpoint.
        if bad := _not_finite(state):
            raise self._diverged(bad)
        self._run.save_checkpoint(state | prefixed("env", self.env.state()) | more)
        self._checkpointed_s, self._checkpoint_steps = time.perf_counter(), self.steps
        self._checkpoint_took_s = self._checkpointed_s - began_s

    def _restore(self) -> None:
        state = self.saved
        self.steps = int(state["steps"])
        self.rng.bit_generator.state = json.loads(str(state["rng"]))
        self._moments.restore(nested(state, "moments"))
        assign_variables(self.agent.variables, state)
        self.agent.refresh()
        episodes = nested(state, "env")
        self.observation = self.env.restore(episodes)
        self.episodes_go_on = np.array_equal(self.observation, episodes.get("observation", ()))


def _not_finite(state: State) -> list[str]:
    """The names of arrays with NaN or infinity, in their order."""
    return [name for name, array in state.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
