"""What the commands of `tfqrl` share: parsing from a dataclass, a quiet import of TensorFlow, episodes and margins."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

from edge.errors import UnknownNameError, UsageError, UserError

# Far from the seeds that one would train with: the episodes that prove a policy are not those that it learned on.
CALIBRATION_SEED = 1_000_000
EVALUATION_SEED = 2_000_000
# Of the episodes that show how a training goes: what is chosen by them is not proven by them.
MONITORING_SEED = 4_000_000

MAX_EPISODES = 100_000


def import_tensorflow() -> None:
    """Import TensorFlow without its notices about GPUs, which no log level suppresses while it is being imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silent_stderr():
        try:
            import tensorflow  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError("TensorFlow is not installed. Run `pip install 'tfqrl[train]'`.") from error


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep what libraries of C++ write to stderr from being seen."""
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def parse(
    command_type: Any,
    program: str,
    words: list[str],
    default: Any = None,
    *also: type[Any],
    description: str | None = None,
) -> Any:
    """Parse the options of one command, which its dataclass names, documents and gives defaults.

    Args:
      command_type: the dataclass.
      program: the command, for its help.
      words: what was typed after it.
      default: an instance whose values are the defaults, instead of those of the dataclass.
      *also: dataclasses nested in it whose options are this command's too.
      description: what its help begins with, instead of the dataclass's docstring.
    """
    fields = [field for kind in (command_type, *also) for field in dataclasses.fields(_origin(kind))]
    # Annotations are text (`from __future__ import annotations`); what stands at a place has no option.
    # And so have those whose own options these are.
    nested = ("config", "compression", "distribution", "method")
    named = [field.name for field in fields if field.name not in nested and "Positional[" not in str(field.type)]
    known = {"--" + name.replace("_", "-") for name in named}
    known |= {"--no-" + option[2:] for option in known} | {"--help"}
    for word in words:
        option = word.split("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known:
            raise UnknownNameError("option", option, known)
    keywords = {} if default is None else {"default": default}
    return tyro.cli(
        command_type,
        prog=program,
        description=description,
        args=words,
        config=(tyro.conf.OmitArgPrefixes,),
        **keywords,
    )


def value_of(words: Sequence[str], option: str) -> str | None:
    """The value that `words` give to `option`, before they are parsed: the last one, of `--env X` and `--env=X`.

    None if the option is not there, or has no value.
    """
    value = None
    for word, following in zip(words, [*words[1:], "--"]):
        if word == option and not following.startswith("-"):
            value = following
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


@dataclasses.dataclass(frozen=True)
class Margin:
    """Below which difference two mean returns are called equivalent.

    Attributes:
      value: a return, or a fraction of one.
      relative: which of them.
    """

    value: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Margin:
        """The margin that `--margin` gives: "2%" or "50".

        Raises:
          UsageError: it is neither.
        """
        relative = text.endswith("%")
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError(
                f"--margin takes a percentage of the mean return, such as 2%, or a return, such as 50; it was given "
                f"{text!r}."
            )
        return cls(value / 100 if relative else value, relative)

    def beside(self, mean: float) -> float:
        """The margin as a return, beside a policy whose mean return is `mean`."""
        return self.value * abs(mean) if self.relative else self.value


def check_episodes(episodes: int) -> None:
    """Refuse numbers of episodes from which no interval can be had, or that nobody could wait for.

    Raises:
      UsageError: it is such a number.
    """
    if not 2 <= episodes <= MAX_EPISODES:
        raise UsageError(
            f"--episodes must be at least 2 to give an interval, and at most {MAX_EPISODES}; it was given {episodes}."
        )


def optional(metavar: str) -> Any:
    """An option whose default is None, for `Annotated`; its own help says in words what that means."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def _origin(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)
