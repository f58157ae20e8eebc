"""What a distributed training was, once it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from tfqrl.actorq.ledger import Account
from tfqrl.actorq.stopwatch import Usage, shares


@dataclass(frozen=True)
class Spent:
    """What a training has taken until now.

    Attributes:
      actors: by number and successor, what each actor's process has used.
      learner: what the learner has used.
      pushes: policies that were quantised and sent.
      arrived: transitions that arrived.
      stale: how many updates the policies that made them were behind the learner's by then, in sum.
      stalest: the largest of these.
    """

    actors: dict[tuple[int, int], Usage] = field(default_factory=dict)
    learner: Usage = field(default_factory=Usage)
    pushes: int = 0
    arrived: int = 0
    stale: int = 0
    stalest: int = 0

    def then(self, later: Spent) -> Spent:
        """With what was taken since, of which a new learner has heard. Actors say what they have used in all."""
        return Spent(
            actors=self.actors | later.actors,
            learner=self.learner + later.learner,
            pushes=self.pushes + later.pushes,
            arrived=self.arrived + later.arrived,
            stale=self.stale + later.stale,
            stalest=max(self.stalest, later.stalest),
        )

    def of_actor(self, actor: int) -> Usage:
        """What all that had this number have used together."""
        return sum((usage for (number, _), usage in self.actors.items() if number == actor), Usage())

    @property
    def of_actors(self) -> Usage:
        """What all of them have used together."""
        return sum(self.actors.values(), Usage())

    @property
    def staleness(self) -> float:
        """How many updates a policy was behind when what it had done arrived, on average."""
        return self.stale / max(1, self.arrived)

    def metrics(self) -> dict[str, float]:
        """By "actors/" or "learner/" and what it went into, the part of their time."""
        spans = {"actors": self.of_actors.spans, "learner": self.learner.spans}
        return {f"{who}/{name}": part for who, each in spans.items() for name, part in shares(each).items()}


@dataclass(frozen=True)
class Summary:
    """What a training was, once it has ended.

    Attributes:
      account: of its steps.
      spent: what it took.
      updates: gradient updates; of a2c and ppo, rollouts that were learnt from.
      push_bytes: size of a policy that was sent.
      in_place: actors wrote them over their old ones; else they built them anew.
    """

    account: Account
    spent: Spent
    updates: int
    push_bytes: int
    in_place: bool


@dataclass(frozen=True)
class Training:
    """What a distributed training was.

    Attributes:
      summary: by the learner.
      elapsed_s: of the whole, from the first step to the last.
      steps: that were inserted meanwhile.
      replaced: by reason ("died", "silent", "failed"), how many actors were replaced.
      learners: how many learners died and were restarted.
    """

    summary: Summary
    elapsed_s: float
    steps: int
    replaced: dict[str, int]
    learners: int
