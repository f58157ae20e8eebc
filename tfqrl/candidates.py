"""What `tfqrl evaluate` lets play: the policy of a run, or a policy file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.compare import Act
from converters.export import DeployedPolicy
from edge.artifact import PolicySpec
from edge.errors import UsageError
from edge.policy import Policy
from tfqrl import agents, envs
from tfqrl.runs import Run


@dataclass(frozen=True)
class Candidate:
    """A policy that can play.

    Attributes:
      path: where it is.
      name: what it is called.
      recipe: how it was converted; "run" for the trained network itself.
      sha256: of its model; None for a run.
      spec: what it reads and gives.
      act: actions for a batch of observations.
      env: the environment that it says it was trained in; None if it names none.
    """

    path: Path
    name: str
    recipe: str
    sha256: str | None
    spec: PolicySpec
    act: Act
    env: str | None


def load(path: Path) -> Candidate:
    """The policy in a run's folder or in a policy file.

    Raises:
      RunError: the folder is no run, or has no checkpoint.
      ArtifactError: the file is no policy, or its golden pairs do not come out right here.
    """
    if path.is_dir():
        run = Run.open(path)
        return of_run(run, DeployedPolicy(*agents.load_policy(run)))
    policy = Policy.load(path)
    manifest = policy.manifest
    assert manifest is not None
    return Candidate(
        path,
        manifest.name,
        str(manifest.recipe["name"]),
        manifest.flatbuffer_sha256,
        policy.spec,
        lambda batch: np.stack([np.asarray(policy.act(observation)) for observation in batch]),
        _trained_in(manifest.training),
    )


def of_run(run: Run, policy: DeployedPolicy) -> Candidate:
    """The policy of a run, which has been loaded."""
    env = _trained_in(run.config)
    name = f"{run.algorithm}-{env or run.path.resolve().name}"
    return Candidate(run.path, name, "run", None, policy.spec, policy.act, env)


def common_env(candidates: Sequence[Candidate], asked: str | None) -> str:
    """The environment that all of them can play in: the one asked for, or the one that they were trained in.

    Raises:
      UsageError: they name none or different ones, or do not fit it or each other.
    """
    named = {candidate.env: candidate for candidate in candidates if candidate.env is not None}
    if asked is None and len(named) != 1:
        if not named:
            raise UsageError(f"{candidates[0].path} does not say where it was trained. Name an environment: --env ENV.")
        (first, a), (second, b) = named.items()
        raise UsageError(
            f"{a.path} was trained in {first}, {b.path} in {second}. Name the one to play in with --env ENV."
        )
    env = asked or next(iter(named))
    theirs = envs.spec_of(env)
    for candidate in candidates:
        envs.check_fits(str(candidate.path), candidate.spec, env, theirs)
    return env


def _trained_in(training: dict[str, Any]) -> str | None:
    env = training.get("env")
    return env if isinstance(env, str) and env else None
