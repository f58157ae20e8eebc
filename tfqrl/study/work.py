"""The work of one cell: train, convert, play. It runs in a process of its own, on any node of a cluster."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from converters import recipe as recipes
from converters.compare import rejection
from converters.conversion import VERSIONS_OF
from converters.stripping import plain
from edge.conditions import Conditions
from edge.errors import UserError
from tfqrl import agents, envs
from tfqrl.compress.report import report
from tfqrl.convert import Original, original
from tfqrl.options import EVALUATION_SEED, Margin
from tfqrl.runs import Run
from tfqrl.signals import Interrupted
from tfqrl.study.outcome import SCHEMA_VERSION, Outcome, Policy, Weights
from tfqrl.study.plan import BEGINS_WITH, Cell
from tfqrl.training.inheritance import heritage

BINS = 60


def work(cell: Cell, out: Path, *after: str | None) -> str | None:
    """Do all that is missing of a cell.

    Args:
      cell: the cell.
      out: the study's folder, which all nodes share.
      after: what this returned for the cells that have to be done before.

    Returns:
      None, and the result is in `out`; or the sentence that says why it is not.
    """
    log = out / "runs" / f"{cell.name}.log"
    if not log.parent.is_dir():
        return (
            f"{out} is not there on {os.uname().nodename}: on a cluster, --out must be a folder that all nodes share."
        )
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if any(after):
        return f"{cell.begins_with}, which it begins with, was not trained."
    try:
        _work(cell, out)
    except UserError as error:
        return str(error)
    except Interrupted:
        return "stopped; it will be gone on with."
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}. See {log}."
    return None


def _work(cell: Cell, out: Path) -> None:
    origin = None if cell.begins_with is None else _origin(cell.begins_with, out)
    run = _trained(cell, out)
    # Of a compressor that did not get as far as it was to, there is no best.
    deployed = run.best if cell.keep == "best" and run.best.has_checkpoint() else run
    if cell.is_baseline:
        deployed.copy_to(out / "policies" / cell.name, heritage(deployed))
    trained = agents.load_trained(deployed)[0]
    config, steps = agents.config_of(run), int(deployed.load_checkpoint()["steps"])
    policy = original(deployed, episodes=cell.episodes, margin=Margin(0.02, True), env=None, observations=None)
    assert policy.float_returns is not None
    assert policy.env is not None
    Outcome(
        schema_version=SCHEMA_VERSION,
        cell=cell.name,
        task=cell.task,
        method=cell.method,
        seed=cell.seed,
        algorithm=run.algorithm,
        env=policy.env,
        train=cell.train,
        begins_with=cell.begins_with,
        config=_located(run.config),
        origin=None if origin is None else _located(origin.config),
        versions={package: version(package) for package in (*VERSIONS_OF, "gymnasium", "mujoco")},
        conditions=Conditions.now(),
        training_s=run.metrics()[-1]["elapsed_s"],
        first_seed=EVALUATION_SEED,
        returns=tuple(policy.float_returns.tolist()),
        policies=tuple(_converted(policy, name, out / "runs" / cell.name) for name in cell.recipes),
        weights=_weights(policy.network),
        layers=report(trained),
        curve=tuple(
            (int(record["steps"]), record["evaluation_return"])
            for record in run.metrics()
            if "evaluation_return" in record
        ),
        keep=cell.keep,
        deployed_steps=steps,
        complete=config.compress is None or config.compress.complete(trained, steps / config.steps),
        origin_sha256=None if origin is None else origin.fingerprint(),
    ).save(out / "cells" / f"{cell.name}.json")


def _located(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that names the run which it begins with by its place in the study's folder."""
    return {k: f"policies/{Path(v).name}" if k in BEGINS_WITH and v is not None else v for k, v in config.items()}


def _origin(name: str, out: Path) -> Run:
    """The policy that a cell begins with."""
    run = out / "policies" / name
    if not (run / "checkpoint.npz").exists():
        raise UserError(
            f"{run} is not there, which it begins with. Remove cells/{name}.json, to make it again; what of its "
            "training is in runs/ is not repeated."
        )
    return Run.open(run)


def _trained(cell: Cell, out: Path) -> Run:
    algorithm, config = cell.configuration(out / "policies")
    # So that a run that was cut short ends as it would have otherwise; memories of frames take gigabytes.
    if hasattr(config, "save_replay") and not envs.spec_of(config.env, config.env_module).observation.frames:
        config = replace(config, save_replay=True)
    folder = out / "runs" / cell.name
    if (folder / "config.json").exists():
        run = Run.open(folder)
        # The study's folder may have been moved.
        begins_with = {name: getattr(config, name) for name in BEGINS_WITH if hasattr(config, name)}
        if replace(agents.config_of(run), **begins_with) != config:
            raise UserError(f"{folder} was trained with other options than are asked for. Remove it, to train anew.")
        run = run.reconfigured(config)
    else:
        run = Run.create(folder, algorithm, config)
    train = agents.get(algorithm).train
    assert train is not None
    if not run.has_checkpoint() or run.load_checkpoint()["steps"] < config.steps:
        train(run)
    return run


def _converted(policy: Original, name: str, folder: Path) -> Policy:
    recipe = recipes.get(name)
    try:
        conversion = policy.to(recipe)
    except UserError as error:
        return Policy(name, failure=str(error))
    path = folder / f"{name}.tflite"
    conversion.save(path, force=True)
    manifest = conversion.artifact.manifest
    assert conversion.returns is not None
    return Policy(
        recipe=name,
        sha256=manifest.flatbuffer_sha256,
        file_bytes=path.stat().st_size,
        model_bytes=manifest.flatbuffer_bytes,
        compressed_bytes=manifest.compressed_bytes,
        comparison=manifest.comparison,
        returns=tuple(conversion.returns.tolist()),
        rejection=rejection(manifest.comparison, recipe),
    )


def _weights(network: keras.Sequential) -> tuple[Weights, ...]:
    return tuple(
        _distribution(layer.name, np.asarray(layer.kernel)) for layer in plain(network).layers if layer.weights
    )


def _distribution(layer: str, kernel: Any) -> Weights:
    counts, edges = np.histogram(kernel, BINS)
    return Weights(
        layer=layer,
        shape=tuple(kernel.shape),
        zeros=float((kernel == 0).mean()),
        low=float(kernel.min()),
        high=float(kernel.max()),
        deviation=float(kernel.std()),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
