"""What became of every step that was made: inserted = stepped - lost - refused - unfinished."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tfqrl.actorq.messages import Farewell
from tfqrl.runs import State


@dataclass(frozen=True)
class Account:
    """Steps of all actors.

    Attributes:
      stepped: were made.
      inserted: are, or were, in the replay, each as the beginning of a transition.
      lost: died with an actor or with the learner, on the way between them or as part of what was not finished.
      refused: had NaN or infinity.
      unfinished: began transitions of n steps that the end of the training cut off.
    """

    stepped: int
    inserted: int
    lost: int
    refused: int
    unfinished: int

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing, and nothing is there twice."""
        return self.stepped == self.inserted + self.lost + self.refused + self.unfinished


class Ledger:
    """The books, by actor."""

    def __init__(self, actors: int) -> None:
        """For so many actors."""
        self._counts: dict[str, npt.NDArray[np.int64]] = {
            name: np.zeros(actors, np.int64) for name in ("stepped", "inserted", "lost", "refused", "unfinished")
        }
        self._counted_elsewhere = np.zeros(actors, np.int64)

    @property
    def inserted(self) -> int:
        """How many transitions were inserted."""
        return int(self._counts["inserted"].sum())

    @property
    def inserted_by(self) -> tuple[int, ...]:
        """The same by actor."""
        return tuple(map(int, self._counts["inserted"]))

    def joined(self, actor: int, stepped: int, unfinished: int) -> None:
        """An actor begins, or begins again: what it, or who was there before it, has not delivered is lost.

        Args:
          actor: its number.
          stepped: steps that it, and those before it in its place, have made.
          unfinished: transitions of n steps that it has begun.
        """
        i, counts = actor, self._counts
        # On another machine than the one before it an actor counts anew. What that one had not told is not known.
        self._counted_elsewhere[i] += max(0, counts["stepped"][i] - self._counted_elsewhere[i] - stepped)
        counts["stepped"][i] = stepped + self._counted_elsewhere[i]
        counts["lost"][i] = counts["stepped"][i] - counts["inserted"][i] - counts["refused"][i] - unfinished

    def delivered(self, actor: int, transitions: int, stepped: int, *, finite: bool) -> None:
        """So many transitions of an actor, which says that it has made `stepped` steps, have come; in if finite."""
        self._counts["stepped"][actor] = stepped + self._counted_elsewhere[actor]
        self._counts["inserted" if finite else "refused"][actor] += transitions

    def left(self, farewell: Farewell) -> None:
        """An actor has ended, in good order."""
        i = farewell.actor
        self._counts["stepped"][i] = farewell.stepped + self._counted_elsewhere[i]
        self._counts["unfinished"][i] = farewell.unfinished

    def account(self) -> Account:
        """The sums. They balance once all actors have left."""
        return Account(**{name: int(count.sum()) for name, count in self._counts.items()})

    def state(self) -> State:
        """For a checkpoint."""
        return {name: count.copy() for name, count in self._counts.items()} | {"elsewhere": self._counted_elsewhere}

    def restore(self, state: State) -> None:
        """From a checkpoint of as many actors."""
        for name, count in self._counts.items():
            count[:] = state[name]
        self._counted_elsewhere[:] = state["elsewhere"]
