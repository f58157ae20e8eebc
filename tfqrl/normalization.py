"""Running mean and variance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edge.artifact import Normalizer

FloatArray = npt.NDArray[np.float64]


class RunningMoments:
    """Mean and variance of all rows seen so far, merged batch by batch (Chan, Golub & LeVeque 1983, eq. 1.5).

    Attributes:
      mean: of each element, float64.
      variance: of each element, float64; 1 before anything was seen.
      count: rows seen; infinite once they are fixed.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Moments of rows of `shape`."""
        self.mean: FloatArray = np.zeros(shape)
        self.variance: FloatArray = np.ones(shape)
        self.count = 0.0
        self._cache()

    def update(self, rows: npt.ArrayLike) -> None:
        """Take in (n, *shape) rows, unless they are fixed."""
        if np.isinf(self.count):
            return
        batch = np.asarray(rows, np.float64)
        mean, variance, count = batch.mean(axis=0), batch.var(axis=0), len(batch)
        total = self.count + count
        delta = mean - self.mean
        self.variance = (
            self.variance * self.count + variance * count + delta**2 * (self.count * count / total)
        ) / total
        self.mean = self.mean + delta * (count / total)
        self.count = total
        self._cache()

    def fix(self) -> None:
        """Stay as they are from now on, in checkpoints too."""
        self.count = np.inf

    @property
    def std(self) -> FloatArray:
        """Standard deviation, kept above 1e-4 so that a constant element does not explode."""
        return np.maximum(np.sqrt(self.variance), 1e-4)

    def normalize(self, rows: npt.NDArray[np.float32], clip: float) -> npt.NDArray[np.float32]:
        """clip((rows - mean) / std, -clip, clip) in float32, for rows of any leading shape."""
        scaled = (rows - self._mean_float32) / self._std_float32
        return np.minimum(np.maximum(scaled, -clip, out=scaled), clip, out=scaled)

    def normalizer(self, clip: float) -> Normalizer:
        """The same as part of a policy's spec."""
        mean, std = self._mean_float32, self._std_float32
        return Normalizer(tuple(map(float, mean.ravel())), tuple(map(float, std.ravel())), clip)

    def _cache(self) -> None:
        # Acting normalises at every step, but the moments change only once a rollout.
        self._mean_float32, self._std_float32 = np.float32(self.mean), np.float32(self.std)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """For a checkpoint."""
        return {"mean": self.mean, "variance": self.variance, "count": np.array(self.count)}

    def restore(self, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """From a checkpoint."""
        self.mean, self.variance, self.count = state["mean"], state["variance"], float(state["count"])
        self._cache()
