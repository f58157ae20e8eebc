"""What tests of off-policy algorithms share: batches, and what one gradient step did."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.replay import Transitions
from tfqrl.training.restoring import policy_network

BATCH = 8


def batches(spec: PolicySpec, updates: int = 1, seed: int = 0) -> Transitions:
    """Random transitions, (updates, BATCH, ...). The last two of each batch have no future."""
    rng = np.random.default_rng(seed)
    size, shape = (updates, BATCH), spec.observation.shape

    def observe() -> Any:
        if spec.observation.frames:
            return rng.integers(0, 256, (*size, *shape), np.uint8)
        return rng.normal(size=(*size, *shape)).astype(np.float32)

    if spec.action.n is not None:
        action = rng.integers(0, spec.action.n, size).astype(np.int32)
    else:
        action = rng.uniform(-1, 1, (*size, *spec.action.shape)).astype(np.float32)
    discount = np.full(size, 0.9, np.float32)
    discount[:, -2:] = 0.0
    return Transitions(observe(), action, rng.normal(size=size).astype(np.float32), observe(), discount)


def fields(batch: Transitions, update: int = 0) -> list[tf.Tensor]:
    """One of the batches as an algorithm's `_update` takes it, which is what its compiled function runs in a loop."""
    arrays = (batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation)
    return [tf.constant(array[update]) for array in arrays]


def values(variables: Sequence[tf.Variable]) -> list[Any]:
    """Copies of what variables hold."""
    return [variable.numpy() for variable in variables]


def everything(agent: Any) -> dict[str, list[Any]]:
    """Copies of all that a checkpoint holds of an algorithm."""
    return {name: values(variables) for name, variables in agent.variables.items()}


def put_back(agent: Any, state: dict[str, list[Any]]) -> None:
    """The inverse of `everything`."""
    for name, arrays in state.items():
        for variable, array in zip(agent.variables[name], arrays, strict=True):
            variable.assign(array)
    agent.refresh()


def shake(variables: Sequence[tf.Variable], seed: int = 0) -> None:
    """Add noise, biases included, as after some training: a target is then not its source any more."""
    rng = np.random.default_rng(seed)
    for variable in variables:
        variable.assign_add(rng.normal(0.0, 0.3, variable.shape))


def assert_all_equal(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Arrays are equal, bit by bit."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_first_step_of_adam(
    optimizer: keras.optimizers.Adam, rate: float, before: Sequence[Any], after: Sequence[Any], gradients: Sequence[Any]
) -> None:
    """The optimiser, of no steps before, was given these gradients, and the variables moved as Adam moves them."""
    for moment, old, new, gradient in zip(optimizer._momentums, before, after, gradients, strict=True):
        # The first moment is a tenth of the first gradient: Adam's step alone hides how large that was.
        np.testing.assert_allclose(moment.numpy() * 10, gradient, rtol=1e-3, atol=1e-6)
        # Of a gradient that vanishes beside its own rounding the step is arbitrary.
        clear = np.abs(gradient) > 1e-4
        expected = old - rate * np.sign(gradient)
        np.testing.assert_allclose(new[clear], np.asarray(expected)[clear], atol=rate * 0.01)


def assert_moved_by(tau: float, sources: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> None:
    """Targets moved by this part of the way to their sources."""
    moved = 0.0
    for source, old, new in zip(sources, before, after, strict=True):
        np.testing.assert_allclose(new, old + tau * (source - old), rtol=1e-6, atol=1e-7)
        moved = max(moved, float(np.abs(new - old).max()))
    assert moved > 0.0


def assert_explores_around_what_is_deployed(agent_type: Any, config: Any, spec: PolicySpec) -> None:
    """Exploring adds the configured noise, bounded, to what the deployed network gives, as of the last refresh."""
    agent = agent_type(config, spec)
    shake(agent.policy.variables)
    observation = np.random.default_rng(0).normal(0, 4, (4000, *spec.observation.shape)).astype(np.float32)
    old = agent.explorer(0)(agent.acting, observation, np.random.default_rng(1))
    agent.refresh()
    explored = agent.explorer(0)(agent.acting, observation, np.random.default_rng(1))
    deployed = policy_network(agent_type, config, spec, values(agent.variables["policy"]))(observation).numpy()
    assert explored.dtype == np.float32
    assert np.abs(explored).max() == 1.0
    inside = np.abs(deployed) < 0.5
    assert inside.sum() > 1000
    noise = (explored - deployed)[inside]
    np.testing.assert_allclose(noise.std(), config.exploration_noise, rtol=0.1)
    assert abs(noise.mean()) < 0.01
    assert np.abs((old - deployed)[inside]).max() > 5 * config.exploration_noise, "it acted as before the refresh"
