"""Losses and estimators as pure functions: each exists once, cites its equation, and checks its shapes.

Names carry time as in rlax: `_tm1` for t - 1, `_t` for t. All compute in float32, whatever floats they are given, and
compile in XLA.
"""

from tfqrl.losses.advantages import generalized_advantages
from tfqrl.losses.categorical import (
    categorical_cross_entropy,
    categorical_l2_project,
    categorical_mean,
    categorical_support,
    categorical_td_target,
)
from tfqrl.losses.entropy import soft_policy_loss, soft_value, temperature_loss
from tfqrl.losses.policy_gradients import clipped_surrogate, deterministic_policy_gradient, policy_gradient
from tfqrl.losses.value_learning import clipped_double_q, double_q_learning, huber, q_learning, td_error

__all__ = [
    "categorical_cross_entropy",
    "categorical_l2_project",
    "categorical_mean",
    "categorical_support",
    "categorical_td_target",
    "clipped_double_q",
    "clipped_surrogate",
    "deterministic_policy_gradient",
    "double_q_learning",
    "generalized_advantages",
    "huber",
    "policy_gradient",
    "q_learning",
    "soft_policy_loss",
    "soft_value",
    "td_error",
    "temperature_loss",
]
