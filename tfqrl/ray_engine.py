"""Ray, which runs what is distributed: on this machine alone, or on a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from edge.errors import UserError

CONNECT_S = 5.0

# For a process that has one core: the tools in it must not take more.
ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def ray_engine(cores: int | None, address: str | None, extra: str = "study") -> Iterator[Any]:
    """The module `ray`, connected; all that it has started ends with it.

    Args:
      cores: how many cores it gives away on this machine, and has to have on a cluster; None for all that there are.
      address: of a cluster; None for this machine alone.
      extra: of this package, which installs it.

    Raises:
      UserError: Ray is not installed, or there is no such cluster, or a smaller one.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"This is run by Ray, which cannot be imported ({error}): pip install 'tfqrl[{extra}]'."
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # What the engine says of itself helps nobody here.
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        # Not what RAY_ADDRESS names, nor a cluster that happens to run here.
        ray.init("local", num_cpus=cores or len(os.sched_getaffinity(0)), include_dashboard=False, **quiet)
    else:
        try:
            _check_answers(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError) as error:
            raise UserError(
                f"No Ray cluster answers at {address} ({error}). `ray start --head` begins one and says its address; "
                "docs/studies.md and docs/actorq.md have more."
            ) from error
    try:
        if address is not None and cores is not None and (has := ray.cluster_resources().get("CPU", 0.0)) < cores:
            raise UserError(
                f"The cluster at {address} has {has:g} cores to give away, and {cores} are needed: add machines, or "
                "begin its nodes with `ray start --num-cpus N`; N may be more than there are."
            )
        # It prints there, and nowhere else, that a process died; what that means, who uses it tells.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """See whether anybody is there, for whom Ray would wait for many minutes."""
    if "://" in address:
        raise ValueError("give the address as HOST:PORT")
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_S).close()
