"""Tuned configurations: a file for each algorithm, of what differs from its defaults in the environments it names.

    # tfqrl/zoo/ppo.yaml
    HalfCheetah-v5:
      num_envs: 64

Keys are those of the algorithm's configuration; an environment without any is one that the defaults are known to suit.
Comments in the files say where the values come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from edge.errors import UnknownNameError

Overrides = dict[str, Any]


@cache
def _files() -> dict[str, dict[str, Overrides]]:
    files = [path for path in resources.files(__name__).iterdir() if path.name.endswith(".yaml")]
    return {path.name.removesuffix(".yaml"): yaml.safe_load(path.read_text("utf-8")) for path in files}


def algorithms() -> list[str]:
    """The algorithms that have tuned configurations."""
    return sorted(_files())


def environments(algorithm: str) -> dict[str, Overrides]:
    """What is tuned for `algorithm`: by environment, in the order of its file, keys of its configuration and values.

    Raises:
      UnknownNameError: there is no such algorithm.
    """
    if algorithm not in _files():
        raise UnknownNameError("algorithm", algorithm, _files())
    return _files()[algorithm]


def tuned(algorithm: str, env: str) -> Overrides:
    """What differs from the defaults of `algorithm` in the environment called `env`; empty where nothing does.

    Raises:
      UnknownNameError: there is no such algorithm.
    """
    return dict(environments(algorithm).get(env, {}))


def text(overrides: Mapping[str, Any]) -> str:
    """Values for people, by the names of their options."""
    if not overrides:
        return "nothing: they suit it"
    return ", ".join(_option_text(key.replace("_", "-"), value) for key, value in overrides.items())


def _option_text(option: str, value: Any) -> str:
    if isinstance(value, bool):
        return option if value else f"no-{option}"
    if isinstance(value, list):
        return " ".join(map(str, [option, *value]))
    return f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
