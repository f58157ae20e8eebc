"""Beginning with what another run has learnt: `--init-from`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tf_keras as keras

from converters.export import DeployedPolicy
from converters.stripping import deployable, own_variables, set_own_weights
from edge.errors import UsageError
from edge.records import from_plain
from tfqrl import evaluate
from tfqrl.compress import compressed_networks
from tfqrl.envs import spec_of
from tfqrl.normalization import RunningMoments
from tfqrl.options import CALIBRATION_SEED
from tfqrl.runs import Run, RunError, State, nested
from tfqrl.training.config import TrainingConfig
from tfqrl.training.restoring import assign_variables, normalizes, restore_policy

# By which a normaliser is fitted that the other run did without.
EPISODES = 10
# What a training alone goes on from: names in its checkpoint that have these.
ITS_OWN = re.compile("^(rng$|env/|replay/|windows/|demonstrations/|reward/)|optimizer")


def heritage(run: Run) -> State:
    """What of a run's checkpoint `inherit` takes over: networks and normaliser, small enough to be kept and passed on.

    Raises:
      RunError: it has no checkpoint.
    """
    return {name: array for name, array in run.load_checkpoint().items() if not ITS_OWN.search(name)}


def inherit(source: Run, algorithm: str, config: TrainingConfig, agent: Any, moments: RunningMoments) -> None:
    """Take over the networks and the normaliser of another run, but not its optimisers.

    Where the other run had no normaliser and this one has, that is fitted to what the other's policy meets in a few
    episodes, and the first layer of each network undoes it. It stays as it is from then on: weights that were not
    learnt with it would become another policy's as it moved.

    Args:
      source: the other run.
      algorithm: of this run.
      config: of this run.
      agent: what is trained.
      moments: of this run's normaliser.

    Raises:
      UsageError: it is of another algorithm, or was trained with a normaliser that this one is to do without.
      RunError: it has no checkpoint, or other networks.
    """
    if source.algorithm != algorithm:
        raise UsageError(f"{source.path} is a run of {source.algorithm}; --init-from takes one of {algorithm}.")
    theirs = from_plain(type(config), source.config, f"{source.path}/config.json")
    spec = spec_of(config.env, config.env_module)
    normalized, normalizing = normalizes(theirs, spec), normalizes(config, spec)
    if normalized and not normalizing:
        raise UsageError(f"{source.path} was trained with --normalize-observation: what begins with it needs that too.")
    state, other = source.load_checkpoint(), type(agent)(theirs, spec)
    try:
        theirs_by_name = {name: values for name, values in other.variables.items() if not ITS_OWN.search(name)}
        assign_variables(theirs_by_name, state)
        for name, values in theirs_by_name.items():
            variables = agent.variables[name]
            # What a compressor wrapped begins with the weights alone, and not where the other's compression stood.
            compressed = name in compressed_networks(agent)
            if not compressed and [v.shape for v in variables] == [v.shape for v in values]:
                for variable, value in zip(variables, values):
                    variable.assign(value)
        for name, network in compressed_networks(agent).items():
            set_own_weights(network, getattr(other, name))
    except (KeyError, ValueError) as error:
        raise RunError(f"{source.path} has other networks than this run: {error}") from error
    if normalized:
        moments.restore(nested(state, "moments"))
    elif normalizing:
        network, spec = restore_policy(type(agent), theirs, state)
        policy = DeployedPolicy(deployable(network), spec)
        played = evaluate.play(policy.act, config.env, first_seed=CALIBRATION_SEED, episodes=EPISODES)
        moments.update(np.concatenate(played.observations))
        moments.fix()
        for network in _networks(agent):
            _undo(network, moments)


def _networks(agent: Any) -> Iterator[keras.Sequential]:
    """All of an algorithm's: each reads observations first."""
    for value in vars(agent).values():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, keras.Sequential):
                yield each


def _undo(network: keras.Sequential, moments: RunningMoments) -> None:
    """Let a network give for normalised observations what it gave for raw ones; a critic reads actions behind them."""
    kernel, bias, *_ = own_variables(network.layers)
    weights, size = kernel.numpy(), len(moments.mean)
    bias.assign_add(moments.mean.astype(np.float32) @ weights[:size])
    weights[:size] *= moments.std.astype(np.float32)[:, None]
    kernel.assign(weights)
