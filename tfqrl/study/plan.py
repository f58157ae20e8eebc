"""What a study is to do: its file, and the cells that follow from it."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from converters.recipe import RECIPES, TRAINED_RECIPES
from edge.errors import UnknownNameError, UsageError, UserError
from edge.records import from_plain
from tfqrl import agents, envs, train_command
from tfqrl.options import check_episodes, value_of

# Options that name the run which a training begins with.
BEGINS_WITH = ("init_from", "teacher")


@dataclass(frozen=True)
class Method:
    """A way to train, and what its policies are converted to.

    Attributes:
      train: options of `tfqrl train`.
      distill: instead, options of `tfqrl distill`, whose teacher is the baseline's policy.
      recipes: of `tfqrl convert`.
      keep: which policy of a training counts: its last, or the one that was evaluated best while it was trained.
    """

    train: str = ""
    distill: str | None = None
    recipes: tuple[str, ...] = ("float32",)
    keep: Literal["last", "best"] = "last"


@dataclass(frozen=True)
class Task:
    """What is to be learnt.

    Attributes:
      algorithm: by which.
      env: where.
      steps: of a training.
      train: further options of `tfqrl train`.
      name: what to call it, where algorithm and environment are not enough.
      seeds: of its own, instead of the study's.
      methods: of its own, instead of all.
      keep: which policy counts, whatever the method says, but of students, which `train` is nothing to.
      continued: further options of those that go on.
      continued_steps: let all methods but the first go on from the first one's policy, for so many steps; by itself
        each begins anew and has all steps.
    """

    algorithm: str
    env: str
    steps: int
    train: str = ""
    name: str | None = None
    seeds: tuple[int, ...] | None = None
    methods: tuple[str, ...] | None = None
    keep: Literal["last", "best"] | None = None
    continued: str = ""
    continued_steps: int | None = None

    @property
    def label(self) -> str:
        """Its name, or one made of what it is."""
        return self.name or f"{self.algorithm}-{self.env}"


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Attributes:
      title: of its report.
      tasks: what is learnt.
      methods: by name; the first one is the baseline, which the others are compared with.
      seeds: of trainings.
      episodes: that each policy plays, the same ones for all.
      control: the method that goes on from the baseline's policy without compression: what others that go on are
        compared with, because steps alone bring something too.
    """

    title: str
    tasks: tuple[Task, ...]
    methods: dict[str, Method]
    seeds: tuple[int, ...] = (0,)
    episodes: int = 100
    control: str | None = None

    @property
    def baseline(self) -> str:
        """The name of the first method."""
        return next(iter(self.methods))


@dataclass(frozen=True)
class Cell:
    """One training, with what is made of its policy.

    Attributes:
      name: of its folder and its result.
      task, method, seed: where in the grid it stands.
      train: the words after `tfqrl train`, but for the seed; the first of them may be distill.
      recipes: what its policy is converted to.
      episodes: how many each policy plays.
      begins_with: the cell whose policy it goes on from, or learns from.
      is_baseline: whether it is of the first method; its policy is kept, so that others can begin with it.
      keep: see `Method`.
    """

    name: str
    task: str
    method: str
    seed: int
    train: tuple[str, ...]
    recipes: tuple[str, ...]
    episodes: int
    begins_with: str | None
    is_baseline: bool
    keep: Literal["last", "best"]

    def configuration(self, policies: Path) -> tuple[str, Any]:
        """Algorithm and configuration of its training, where `policies` has the baseline's.

        Raises:
          UserError: its options are wrong.
        """
        algorithm, config = _configuration(self.train, self.begins_with is not None)
        origin = None if self.begins_with is None else str(policies / self.begins_with)
        field = "teacher" if algorithm == "distill" else "init_from"
        return algorithm, dataclasses.replace(config, seed=self.seed, **({field: origin} if origin else {}))


@functools.cache
def _configuration(train: tuple[str, ...], begins_with: bool) -> tuple[str, Any]:
    """Algorithm and configuration, in which the run that it begins with is yet to be named."""
    origin = ["--teacher" if train[0] == "distill" else "--init-from", "it"] if begins_with else []
    return train_command.configuration([*train, *origin])


def load(path: Path) -> Study:
    """The study in a YAML file.

    Raises:
      UserError: it cannot be read.
      UsageError: it is not one.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    try:
        study = from_plain(Study, plain, path.name)
    except ValueError as error:
        raise UsageError(f"{path} is not a study: {error} docs/studies.md shows what one looks like.") from error
    _check(study, path)
    return study


def _check(study: Study, path: Path) -> None:
    check_episodes(study.episodes)
    if not study.methods or not study.tasks:
        raise UsageError(f"{path} has no {'tasks' if study.methods else 'methods'}: a study needs one at least.")
    if study.methods[study.baseline].distill is not None:
        raise UsageError(
            f"The first method, {study.baseline}, is the teacher of others: it cannot be distilled itself."
        )
    if study.control is not None and study.control not in study.methods:
        raise UnknownNameError("method for `control`", study.control, study.methods)
    for name, method in study.methods.items():
        if method.train and method.distill is not None:
            raise UsageError(f"The method {name} has both `train` and `distill`: give one of them.")
        for recipe in method.recipes:
            if recipe not in RECIPES | TRAINED_RECIPES:
                raise UnknownNameError(f"recipe of the method {name}", recipe, RECIPES | TRAINED_RECIPES)
    for seeds in (study.seeds, *(task.seeds for task in study.tasks if task.seeds is not None)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise UsageError(f"{path} has the seeds {list(seeds)}: give one or more, each once.")
    labels = [task.label for task in study.tasks]
    for task in study.tasks:
        if labels.count(task.label) > 1:
            raise UsageError(f"{path} has two tasks called {task.label}: give each a `name` of its own.")
        for method in task.methods or ():
            if method not in study.methods:
                raise UnknownNameError(f"method of the task {task.label}", method, study.methods)
        if task.methods is not None and study.baseline not in task.methods:
            raise UsageError(f"The task {task.label} lacks {study.baseline}, which its methods are compared with.")


def cells(study: Study) -> list[Cell]:
    """All cells of a study, the baseline's of each task first.

    Raises:
      UsageError: options that cannot be split into words, or two cells of one name.
    """
    found = [
        _cell(study, task, method, seed)
        for task in study.tasks
        for method in study.methods
        if task.methods is None or method in task.methods
        for seed in task.seeds or study.seeds
    ]
    names = [cell.name for cell in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two trainings of the study would be called {name}: give their tasks other names.")
    return found


def check_cells(cells: list[Cell], tell: Callable[[float], None] = lambda fraction: None) -> None:
    """See before anything is trained whether options and environments are right; `tell` is told the fraction seen.

    Raises:
      UserError: a training that would be refused.
    """
    looked_at: set[tuple[str, str]] = set()
    for i, cell in enumerate(cells):
        if (cell.task, cell.method) not in looked_at:
            looked_at.add((cell.task, cell.method))
            try:
                algorithm, config = cell.configuration(Path("policies"))
                agents.get(algorithm).check(config, envs.spec_of(config.env, config.env_module))
                if cell.keep == "best" and not config.evaluate_every:
                    raise UsageError("to keep the best policy, it has to be evaluated: add --evaluate-every.")
            except UserError as error:
                raise UsageError(f"The method {cell.method} of the task {cell.task}: {error}") from error
        tell((i + 1) / len(cells))


def _cell(study: Study, task: Task, method: str, seed: int) -> Cell:
    def name(method: str) -> str:
        return file_name(f"{task.label}-{method}-s{seed}")

    chosen, options, is_baseline = study.methods[method], _words(task.train), method == study.baseline
    continues = not is_baseline and (task.continued_steps is not None or chosen.distill is not None)
    if chosen.distill is None:
        steps = task.continued_steps if continues else task.steps
        more = _words(task.continued) if continues else []
        words = [task.algorithm, "--steps", str(steps), *options, *more, *_words(chosen.train)]
    else:
        module = value_of(options, "--env-module")
        words = ["distill", *(["--env-module", module] if module else []), *_words(chosen.distill)]
    train = [words[0], "--env", task.env, *words[1:]]
    return Cell(
        name=name(method),
        task=task.label,
        method=method,
        seed=seed,
        train=tuple(train),
        recipes=chosen.recipes,
        episodes=study.episodes,
        begins_with=name(study.baseline) if continues else None,
        is_baseline=is_baseline,
        keep=chosen.keep if chosen.distill is not None else task.keep or chosen.keep,
    )


def file_name(text: str) -> str:
    """A text as a file may be called."""
    return re.sub("[^A-Za-z0-9_.-]", "-", text)


def _words(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise UsageError(f"The options {options!r} cannot be split into words: {error}.") from error
