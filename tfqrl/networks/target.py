"""Target networks: slow copies of networks that are trained."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def update_target(targets: Sequence[tf.Variable], sources: Sequence[tf.Variable], tau: float) -> None:
    """Move each target towards its source: target += tau * (source - target) (Lillicrap 2015, arXiv 1509.02971).

    `tau` 1 copies, exactly: the hard update of Mnih et al. 2015 (Nature 518). What is not trained is always copied.

    Raises:
      ValueError: the lists are of different lengths, or a pair of different shapes.
    """
    for target, source in zip(targets, sources, strict=True):
        target.assign(source if tau == 1.0 or not source.trainable else target + tau * (source - target))
