"""Drawing from numbered weights in proportion to them, where the weights keep changing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class SumTree:
    """A binary tree whose leaves are weights and whose nodes are the sums of their two children.

    Sums are computed anew from the children, never adjusted by differences, so that rounding does not build up.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity` weights of 0."""
        # Node i has the children 2 i and 2 i + 1; 1 is the root, the leaves are the second half.
        self._leaves = 1 << (capacity - 1).bit_length()
        self._sums = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._sums[1])

    def __getitem__(self, numbers: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float64]:
        return self._sums[self._leaves :][numbers]

    def __setitem__(self, numbers: npt.NDArray[np.int64], weights: npt.ArrayLike) -> None:
        nodes = numbers.ravel() + self._leaves
        self._sums[nodes] = np.ravel(weights)
        while len(nodes) and nodes[0] > 1:
            nodes = np.unique(nodes >> 1)
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]

    def find(self, mass: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """For each value in [0, total), the first number up to and with which the weights sum to more than it."""
        mass, nodes = mass.copy(), np.ones(mass.shape, np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            nodes *= 2
            left = self._sums[nodes]
            # Rounding may leave more mass than there is on the right, where there may be nothing at all.
            right = (mass >= left) & (self._sums[nodes + 1] > 0.0)
            mass -= np.where(right, left, 0.0)
            nodes += right
        return nodes - self._leaves
