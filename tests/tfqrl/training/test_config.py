import contextlib
import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import UsageError
from tfqrl import agents

CONFIGS = [agents.get(name).config for name in agents.TRAINABLE]


def numeric_fields(config: type[Any]) -> list[str]:
    names = [field.name for field in dataclasses.fields(config)]
    optional = {"target_return", "target_entropy"} & set(names)
    return [name for name in names if name in optional or type(getattr(config(env=""), name)) in (int, float)]


# What may lie below 0: returns, and logarithms.
SIGNED = {"target_return", "target_entropy", "v_min", "v_max", "initial_log_std"}
# What may be 0: off, none, or at once.
MAY_BE_0 = {
    "seed",
    "gamma",
    "evaluate_every",
    "checkpoint_period_s",
    "gae_lambda",
    "entropy_weight",
    "value_weight",
    "exploration_noise",
    "target_noise",
    "target_noise_clip",
    "epsilon_first",
    "epsilon_last",
    "priority_alpha",
    "priority_beta",
}
ALL_FIELDS = [(config, name) for config in CONFIGS for name in numeric_fields(config)]


WHOLE = [(config, name) for config, name in ALL_FIELDS if isinstance(getattr(config(env=""), name), int)]


def make(config: type[Any], name: str, value: Any) -> Any:
    return config(env="Pendulum-v1", **{name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("config", "name"), ALL_FIELDS)
def test_what_is_not_a_finite_number_is_refused(config: type[Any], name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be a finite number; it was given"):
        make(config, name, value)


@pytest.mark.parametrize(("config", "name"), ALL_FIELDS)
def test_what_is_below_0_or_0_is_refused_where_it_makes_no_sense(config: type[Any], name: str) -> None:
    kind = type(getattr(config(env=""), name))
    option = f"--{name.replace('_', '-')}"
    if name not in SIGNED:
        with pytest.raises(UsageError, match=option):
            make(config, name, kind(-1))
        if name not in MAY_BE_0:
            with pytest.raises(UsageError, match=option):
                make(config, name, kind(0))


@pytest.mark.parametrize(("config", "name"), WHOLE)
def test_fractions_are_refused_where_numbers_are_whole(config: type[Any], name: str) -> None:
    with pytest.raises(UsageError, match=r"must be a whole number; it was given 1\.5"):
        make(config, name, 1.5)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALL_FIELDS), st.one_of(st.floats(), st.integers(-(2**70), 2**70)))
def test_any_number_is_taken_or_refused_with_a_sentence(field: tuple[type[Any], str], value: float) -> None:
    config, name = field
    with contextlib.suppress(UsageError):  # anything else is a failure
        assert getattr(make(config, name, value), name) == value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"gamma": 1.5}, r"--gamma must lie in 0\.\.1"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"batch_size": 1}, "--batch-size must be at least 2"),
        ({"hidden": ()}, "--hidden takes one or more widths"),
        ({"hidden": (64, 0)}, "--hidden takes one or more widths"),
        ({"seed": 2**31}, "--seed must be at most 2000000000"),
        ({"activation": "gelu"}, "--activation must be tanh or relu; it was given 'gelu'"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        agents.get("ppo").config(env="Pendulum-v1", **values)


@pytest.mark.parametrize("algorithm", ["sac", "td3", "ddpg", "d4pg"])
def test_targets_that_would_move_further_than_their_networks_are_refused(algorithm: str) -> None:
    with pytest.raises(UsageError, match=r"--tau must lie in 0\.\.1; it was given 5"):
        agents.get(algorithm).config(env="Pendulum-v1", tau=5.0)


def test_a_training_that_would_end_before_it_learns_is_refused() -> None:
    with pytest.raises(UsageError, match="--steps 9999 end before --learning-starts 10000: nothing would be learnt"):
        agents.get("sac").config(env="Pendulum-v1", steps=9999)
