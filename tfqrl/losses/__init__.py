"""Losses and estimators as pure functions: each exists once, cites its equation, and checks its shapes.

Names carry time as in rlax: `_tm1` for t - 1, `_t` for t.
"""

from tfqrl.losses.advantages import generalized_advantages
from tfqrl.losses.policy_gradients import clipped_surrogate

__all__ = ["clipped_surrogate", "generalized_advantages"]
