"""What a distributed training was, once it has ended."""

from __future__ import annotations

from dataclasses import dataclass

from tfqrl.actorq.ledger import Account
from tfqrl.actorq.stopwatch import Usage


@dataclass(frozen=True)
class Summary:
    """What a training was, once it has ended.

    Attributes:
      account: of its steps.
      actors: what all actors together have used.
      learner: what the learner has used.
      updates: gradient updates; of a2c and ppo, rollouts that were learnt from.
      pushes: policies that were quantised and sent.
      push_bytes: size of one.
      in_place: actors wrote them over their old ones; else they built them anew.
      staleness_mean: how many updates the policy that made a transition was behind the learner's when it arrived.
      staleness_max: the largest.
    """

    account: Account
    actors: Usage
    learner: Usage
    updates: int
    pushes: int
    push_bytes: int
    in_place: bool
    staleness_mean: float
    staleness_max: int


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
