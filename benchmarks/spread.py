"""How measurements are distributed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def quartiles(values: npt.ArrayLike) -> dict[str, float]:
    """Median and quartiles, as "median", "p25" and "p75"."""
    return dict(zip(("median", "p25", "p75"), map(float, np.percentile(values, [50, 25, 75]))))
