"""What the commands of `tfqrl` share: parsing from a dataclass, and a quiet import of TensorFlow."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import tyro

from edge.errors import UnknownNameError, UserError


def import_tensorflow() -> None:
    """Import TensorFlow without its notices about GPUs, which no log level suppresses while it is being imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError("TensorFlow is not installed. Run `pip install 'tfqrl[train]'`.") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def parse(command_type: Any, program: str, words: list[str], default: Any = None, *also: type[Any]) -> Any:
    """Parse the options of one command, which its dataclass names, documents and gives defaults."""
    fields = [field for kind in (command_type, *also) for field in dataclasses.fields(_origin(kind))]
    known = {"--" + field.name.replace("_", "-") for field in fields if field.name != "config"}
    known |= {"--no-" + option[2:] for option in known} | {"--help"}
    for word in words:
        option = word.split("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known:
            raise UnknownNameError("option", option, known)
    keywords = {} if default is None else {"default": default}
    return tyro.cli(command_type, prog=program, args=words, config=(tyro.conf.OmitArgPrefixes,), **keywords)


def _origin(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)
