"""How fast, how large and how hungry a policy is on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge import artifact, interpreter
from edge.conditions import Conditions, resident_bytes
from edge.errors import UsageError
from edge.meters import DEFAULT_CPU_WATTS, Meter, best_meter
from edge.meters.sampler import Sampler
from edge.policy import Policy
from edge.stats import Histogram, Percentiles

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Energy:
    """Energy of acting back to back.

    Attributes:
      joules_per_action: gross energy (idle power included) over actions.
      measured: false if it is an estimate.
      meter: the meter's name.
      scope: what the meter sees and how.
      actions: how many actions the window held.
      window_s: how long it was.
    """

    joules_per_action: float
    measured: bool
    meter: str
    scope: str
    actions: int
    window_s: float


@dataclass(frozen=True)
class BenchReport:
    """What `bench` found.

    Attributes:
      schema_version: version of this report's layout.
      policy: the policy's name.
      recipe: its conversion recipe.
      flatbuffer_sha256: which flatbuffer it was.
      file_bytes: size of the policy file.
      flatbuffer_bytes: size of the model in it.
      import_ms: importing the interpreter's package; near 0 if the process had done so.
      load_ms: reading the file and building the interpreter, once.
      verify_ms: replaying the golden pairs, first actions included.
      act_us: `Policy.act`, all its checks included.
      invoke_us: the interpreter's bare `invoke`.
      act_histogram: the distribution behind `act_us`.
      timer_us: median cost of reading the timer, which is included in the times above.
      resident_bytes: memory of the whole process after load, Python and numpy included; None if unknown.
      energy: energy per action.
      warmup: actions before the measurement began.
      conditions: machine, runtime and versions.
    """

    schema_version: int
    policy: str
    recipe: str
    flatbuffer_sha256: str
    file_bytes: int
    flatbuffer_bytes: int
    import_ms: float
    load_ms: float
    verify_ms: float
    act_us: Percentiles
    invoke_us: Percentiles
    act_histogram: Histogram
    timer_us: float
    resident_bytes: int | None
    energy: Energy
    warmup: int
    conditions: Conditions


def bench(
    path: str | Path,
    *,
    n: int = 20_000,
    warmup: int = 1_000,
    threads: int = 1,
    energy_window_s: float = 2.0,
    cpu_watts: float = DEFAULT_CPU_WATTS,
    trust: Sequence[str | Path] | None = None,
) -> BenchReport:
    """Measure the policy in `path` on its own golden observations.

    Args:
      path: the policy file.
      n: calls of `act` and of `invoke` to time.
      warmup: calls before.
      threads: interpreter threads.
      energy_window_s: how long to act back to back for the energy figure.
      cpu_watts: power per busy core to assume where no meter is present.
      trust: files of public keys, by one of which the file must be signed; None asks for no signature.

    Raises:
      ArtifactError: the file is not a policy that can run here.
      UsageError: a number that makes no sense.
    """
    if not 100 <= n <= 10_000_000:
        raise UsageError(f"A bench takes from 100 to 10 million calls; it was given {n}.")
    if not 0 < energy_window_s < math.inf:
        raise UsageError(f"The energy window must be above 0 s; it was given {energy_window_s:g}.")
    if not 0 < cpu_watts < math.inf:
        raise UsageError(f"The power per busy core must be above 0 W; it was given {cpu_watts:g}.")
    import_ns = time.perf_counter_ns()
    interpreter.runtime_module()
    began_ns = time.perf_counter_ns()
    source = artifact.read(path, trust=trust)
    manifest = source.manifest
    policy = Policy(source.flatbuffer, manifest.spec, name=manifest.name, threads=threads)
    loaded_ns = time.perf_counter_ns()
    policy.replay(source.golden, manifest.golden_tolerance)
    verified_ns = time.perf_counter_ns()

    conditions = Conditions.now(policy.runtime)
    observations = list(source.golden.observations)
    act = policy.act
    for i in range(warmup):
        act(observations[i % len(observations)])
    act_ns = np.zeros(n, np.int64)
    for i in range(n):
        observation = observations[i % len(observations)]
        start_ns = time.perf_counter_ns()
        act(observation)
        act_ns[i] = time.perf_counter_ns() - start_ns
    invoke_us = Percentiles.of_ns(_time_calls(policy.invoke, n))
    act_us = Percentiles.of_ns(act_ns)
    assert invoke_us is not None
    assert act_us is not None
    return BenchReport(
        schema_version=SCHEMA_VERSION,
        policy=manifest.name,
        recipe=str(manifest.recipe["name"]),
        flatbuffer_sha256=manifest.flatbuffer_sha256,
        file_bytes=Path(path).stat().st_size,
        flatbuffer_bytes=manifest.flatbuffer_bytes,
        import_ms=(began_ns - import_ns) / 1e6,
        load_ms=(loaded_ns - began_ns) / 1e6,
        verify_ms=(verified_ns - loaded_ns) / 1e6,
        act_us=act_us,
        invoke_us=invoke_us,
        act_histogram=Histogram.of_ns(act_ns),
        timer_us=float(np.median(_time_calls(lambda: None, 2000))) / 1e3,
        resident_bytes=resident_bytes(),
        energy=_energy(policy, observations, best_meter(cpu_watts), energy_window_s),
        warmup=warmup,
        conditions=conditions,
    )


def _time_calls(call: Callable[[], None], n: int) -> npt.NDArray[np.int64]:
    times_ns = np.zeros(n, np.int64)
    for i in range(n):
        start_ns = time.perf_counter_ns()
        call()
        times_ns[i] = time.perf_counter_ns() - start_ns
    return times_ns


def _energy(policy: Policy, observations: list[artifact.FloatArray], meter: Meter, window_s: float) -> Energy:
    actions = 0
    with Sampler(meter) as sampled:
        energy_j, start_s = sampled.energy_j(), time.perf_counter()
        while (elapsed_s := time.perf_counter() - start_s) < window_s:
            for observation in observations:
                policy.act(observation)
            actions += len(observations)
        joules = sampled.energy_j() - energy_j
    return Energy(joules / actions, meter.measured, meter.name, meter.scope, actions, elapsed_s)
