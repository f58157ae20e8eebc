"""One or two policies on the same episodes: what `tfqrl evaluate` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.compare import Act, Verdict, equivalence
from edge import report
from edge.artifact import ActionSpec
from edge.stats import Estimate, mean_estimate
from tfqrl import candidates
from tfqrl.evaluate import play
from tfqrl.options import Margin
from tfqrl.progress import progress_bar

Array = npt.NDArray[Any]

SCHEMA_VERSION = 1

VERSIONS_OF = ("tfqrl", "tensorflow", "ai-edge-litert", "gymnasium", "mujoco", "numpy", "scipy")


@dataclass(frozen=True)
class Played:
    """A policy with what it got.

    Attributes:
      path: where it is.
      name: what it is called.
      recipe: how it was converted; "run" for the trained network itself.
      sha256: of its model; None for a run.
      returns: of each episode.
      lengths: of each episode, in steps.
      mean: mean of the returns, with its interval.
    """

    path: str
    name: str
    recipe: str
    sha256: str | None
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    mean: Estimate


@dataclass(frozen=True)
class Disagreement:
    """The actions of two policies on the observations of some episodes.

    Attributes:
      steps: how many observations.
      mean: of each element of a continuous action, flattened, the mean absolute difference as a fraction of half the
        range between its bounds (of 1, where it has none); None for discrete actions.
      max: the largest such difference of each element; None for discrete actions.
      other_choices: fraction of the steps on which the choices differ, 0..1; None for continuous actions.
      first_step: the step on which they first do, from 1, in the median episode; None if in half of the episodes or
        more they never do, and for continuous actions.
    """

    steps: int
    mean: tuple[float, ...] | None
    max: tuple[float, ...] | None
    other_choices: float | None
    first_step: float | None

    def __str__(self) -> str:
        """For people, in one line."""
        if self.mean is not None and self.max is not None:
            means, largest = (", ".join(f"{value:.2%}" for value in values) for values in (self.mean, self.max))
            return f"differ by {means} of half their range on average, at most {largest}; {self.steps} steps"
        first = (
            "never in half of the episodes"
            if self.first_step is None
            else f"first on step {self.first_step:g} (median)"
        )
        return f"{self.other_choices:.2%} other choices, {first}; {self.steps} steps"


@dataclass(frozen=True)
class Pair:
    """Two policies on the same episodes.

    Attributes:
      difference: mean of B - A over the pairs, with its 95 % interval.
      margin: differences below this were declared, in advance, to be none.
      verdict: "equivalent", "better" or "worse" (of B), or "undecided": see `converters.compare.equivalence`.
      verdict_interval: the 90 % interval of the mean difference that decides it.
      along_a, along_b: how far the actions of the two differ on the observations that A, or B, met.
    """

    difference: Estimate
    margin: float
    verdict: Verdict
    verdict_interval: tuple[float, float]
    along_a: Disagreement
    along_b: Disagreement


@dataclass(frozen=True)
class Evaluation:
    """What `tfqrl evaluate` found.

    Attributes:
      schema_version: version of this layout.
      command: the words of the command.
      versions: of the packages that it depends on.
      env: the environment.
      first_seed: the episodes were seeded first_seed, first_seed + 1, ...
      policies: A, and B if there was one.
      pair: the two beside each other; None if there was one.
    """

    schema_version: int
    command: tuple[str, ...]
    versions: dict[str, str]
    env: str
    first_seed: int
    policies: tuple[Played, ...]
    pair: Pair | None


def evaluate_policies(
    paths: Sequence[Path], *, env: str | None, episodes: int, first_seed: int, margin: Margin, command: Sequence[str]
) -> Evaluation:
    """Play the same episodes with one or two policies, and compare.

    Args:
      paths: folders of runs, or policy files.
      env: the environment; None for the one that they were trained in.
      episodes: how many, at least 2.
      first_seed: they are seeded first_seed, first_seed + 1, ...
      margin: largest difference that counts as none.
      command: what was typed, for the report.

    Raises:
      UserError: a policy that cannot be loaded, or an environment that cannot be played.
      UsageError: the policies and the environment do not fit each other.
    """
    loaded = [candidates.load(path) for path in paths]
    env = candidates.common_env(loaded, env)
    paired = len(loaded) == 2
    returns, along, played = [], [], []
    for candidate in loaded:
        with progress_bar(f"{episodes} episodes of {env} with {candidate.path}") as progress:
            got = play(
                candidate.act,
                env,
                first_seed=first_seed,
                episodes=episodes,
                keep_observations=paired,
                progress=progress,
            )
        returns.append(got.returns)
        if paired:
            a, b = loaded
            along.append(disagreement(a.act, b.act, got.observations, a.spec.action))
        played.append(
            Played(
                path=str(candidate.path),
                name=candidate.name,
                recipe=candidate.recipe,
                sha256=candidate.sha256,
                returns=tuple(got.returns.tolist()),
                lengths=tuple(got.lengths.tolist()),
                mean=mean_estimate(got.returns),
            )
        )
        # Its observations would stay in memory while the next policy plays.
        del got
    pair = None
    if paired:
        difference = returns[1] - returns[0]
        limit = margin.beside(float(np.mean(returns[0])))
        verdict, interval = equivalence(difference, limit)
        pair = Pair(mean_estimate(difference), limit, verdict, interval, *along)
    versions = {package: version(package) for package in VERSIONS_OF}
    return Evaluation(SCHEMA_VERSION, tuple(command), versions, env, first_seed, tuple(played), pair)


def disagreement(a: Act, b: Act, episodes: Sequence[Array], spec: ActionSpec) -> Disagreement:
    """Let both act on the observations of `episodes`, each (length, *observation.shape)."""
    pairs = [(np.asarray(a(episode)), np.asarray(b(episode))) for episode in episodes]
    steps = sum(len(episode) for episode in episodes)
    if spec.discrete:
        others = [mine != yours for mine, yours in pairs]
        firsts = [float(np.argmax(other)) + 1 if other.any() else np.inf for other in others]
        # Not numpy's median, which makes infinity less infinity of two of them.
        middle = sorted(firsts)[(len(firsts) - 1) // 2 : len(firsts) // 2 + 1]
        first = sum(middle) / len(middle)
        return Disagreement(
            steps, None, None, float(np.concatenate(others).mean()), first if np.isfinite(first) else None
        )
    errors = np.concatenate(
        [np.abs(mine.astype(np.float64) - yours).reshape(len(mine), -1) / spec.scaling[1] for mine, yours in pairs]
    )
    return Disagreement(steps, tuple(errors.mean(axis=0).tolist()), tuple(errors.max(axis=0).tolist()), None, None)


def evaluation_text(found: Evaluation) -> str:
    """An evaluation for a terminal."""
    names = "AB"
    last = found.first_seed + len(found.policies[0].returns) - 1
    rows = [
        [
            f"{names[i]}  {played.path}",
            played.recipe,
            f"{played.mean.value:.2f}",
            f"[{played.mean.low:.2f}, {played.mean.high:.2f}]",
            f"{min(played.returns):.2f}",
            f"{max(played.returns):.2f}",
            f"{sum(played.lengths) / len(played.lengths):.1f}",
        ]
        for i, played in enumerate(found.policies)
    ]
    lines = [
        f"{len(found.policies[0].returns)} episodes of {found.env}, seeds {found.first_seed} to {last}",
        report.table(("policy", "recipe", "mean return", "95 % interval", "lowest", "highest", "mean steps"), rows),
    ]
    if found.pair is None:
        return "\n".join(lines)
    pair = found.pair
    difference, (low, high) = pair.difference, pair.verdict_interval
    lines += [
        f"B - A                 {difference.value:+.2f}, 95 % interval [{difference.low:+.2f}, {difference.high:+.2f}]",
        f"actions along A       {pair.along_a}",
        f"actions along B       {pair.along_b}",
        "",
        {
            "equivalent": f"Equivalent: the 90 % interval of the difference, [{low:+.2f}, {high:+.2f}], lies within "
            f"the margin of ±{pair.margin:.4g}.",
            "better": f"B is better: the 90 % interval of the difference, [{low:+.2f}, {high:+.2f}], lies above the "
            f"margin of {pair.margin:.4g}.",
            "worse": f"B is worse: the 90 % interval of the difference, [{low:+.2f}, {high:+.2f}], lies below the "
            f"margin of -{pair.margin:.4g}.",
            "undecided": f"Not shown to be equivalent: the 90 % interval of the difference, [{low:+.2f}, {high:+.2f}], "
            f"reaches across the margin of ±{pair.margin:.4g}. More episodes make it narrower.",
        }[pair.verdict],
    ]
    return "\n".join(lines)
