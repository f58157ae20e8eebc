"""The wheel in the virtual Pi, and its actions beside this machine's. `make virtual-pi` builds the Pi and runs this."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA
from virtual_pi import FOLDER, RUNTIMES

from converters.tflite import output_step
from edge import artifact
from edge.artifact import Manifest
from edge.loop_report import RunReport
from edge.records import from_plain
from edge.report import table

POLICIES = sorted(DATA.glob("*.tflite"))
EXAMPLES = sorted((DATA.parents[1] / "examples" / "policies").glob("*/*.tflite"))
NEAR = 400  # observations about the golden ones, such as the policy visits


def loads(runtime: str, path: Path) -> bool:
    """Whether the recipe says so; where a file names no runtimes, it is for both."""
    named = artifact.read(path).manifest.recipe.get("runtimes", RUNTIMES)
    return any(name.startswith(runtime) for name in named)


INTEGER = [path for path in POLICIES if output_step(artifact.read(path).flatbuffer) is not None]
PAIRS = [(runtime, path) for runtime in RUNTIMES for path in POLICIES if loads(runtime, path)]
# Those that are float throughout, and those that make integers of their activations as they go.
FLOAT = [pair for pair in PAIRS if artifact.read(pair[1]).manifest.recipe.get("activations") == "float32"]
DYNAMIC = [pair for pair in PAIRS if artifact.read(pair[1]).manifest.recipe.get("activations") == "dynamic-int8"]

in_both = pytest.mark.parametrize("runtime", RUNTIMES)


def of_pairs(pairs: list[tuple[str, Path]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("runtime", "path"), pairs, ids=lambda value: getattr(value, "stem", value))


of_each = of_pairs(PAIRS)


def python(runtime: str, *words: object) -> str:
    """What the virtual Pi's Python prints."""
    command = [str(word) for word in (FOLDER / runtime / "python", *words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def edge(runtime: str, *words: object) -> str:
    return python(runtime, "-m", "edge.cli", *words)


def observations_for(path: Path) -> np.ndarray:
    """The golden ones, random ones about them and far from them, and the corners of what a sensor may say."""
    source = artifact.read(path)
    golden, spec = source.golden.observations, source.manifest.spec.observation
    rng = np.random.default_rng(0)
    if spec.frames:
        noise = rng.integers(0, 256, (NEAR, *spec.shape), np.uint8)
        black_and_white = rng.choice(np.array([0, 255], np.uint8), (100, *spec.shape))
        return np.concatenate([golden, noise, black_and_white])
    centre, spread = golden.mean(axis=0), golden.std(axis=0)
    near = rng.normal(centre, spread, (NEAR, *spec.shape))
    far = rng.normal(centre, 10 * spread, (100, *spec.shape))
    # Beyond 2^31 quantisation steps tflite-runtime takes a negative number for a positive one: docs/virtual-pi.md.
    corners = np.array([np.full(spec.shape, value) for value in (0.0, 1e-30, 1.0, -1.0, 1e6, -1e6)])
    low, high = (
        np.reshape([otherwise if bound is None else bound for bound in bounds], spec.shape)
        for bounds, otherwise in ((spec.low, -np.inf), (spec.high, np.inf))
    )
    return np.clip(np.concatenate([golden, near, far, corners]), low, high).astype(np.float32)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What `act.py` wrote here and with each runtime in the virtual Pi."""
    folder = tmp_path_factory.mktemp("results")
    given = folder / "observations.npz"
    np.savez(given, **{path.stem: observations_for(path) for path in POLICIES})
    act = [Path(__file__).with_name("act.py"), given]
    subprocess.run([sys.executable, *act, folder / "here.npz", *POLICIES], check=True)
    for runtime in RUNTIMES:
        python(runtime, *act, folder / f"{runtime}.npz", *(path for name, path in PAIRS if name == runtime))
    loaded = {name: dict(np.load(folder / f"{name}.npz")) for name in ("here", *RUNTIMES)}
    (FOLDER / "agreement.txt").write_text(agreement(loaded))
    return loaded


def agreement(results: dict[str, dict[str, np.ndarray]]) -> str:
    """How the actions there compare with those here, for docs/virtual-pi.md; `make virtual-pi` prints it."""
    rows = []
    for runtime, path in sorted(PAIRS, key=lambda pair: pair[1]):
        step = output_step(artifact.read(path).flatbuffer)
        spec = artifact.read(path).manifest.spec.action
        here, there = (results[name][f"{path.stem}/actions"].astype(float) for name in ("here", runtime))
        difference = np.abs(there - here)
        if spec.discrete:
            found = f"{int((difference > 0).sum())} of {len(here)} choices differ"
        elif step is None:
            found = f"within {difference.max():.1g}"
        else:
            steps = np.rint(difference / (step * np.subtract(spec.high, spec.low) / 2))
            equal, near = (steps == 0).mean(), (steps <= 1).mean()
            found = f"{equal:.1%} equal, {near:.1%} within a step, all within {steps.max():.0f}"
        rows.append([f"{path.stem}, {runtime}", found])
    return table(("policy and runtime there", "actions beside those here"), rows) + "\n"


@in_both
def test_the_virtual_pi_is_an_arm64_debian_12_with_the_wheel(runtime: str) -> None:
    program = (
        "import edge, importlib.metadata as m, platform, sys; print(platform.machine(), sys.version_info[:2],"
        f"platform.freedesktop_os_release()['VERSION_ID'], edge.__file__, m.version({runtime!r}), sep='|')"
    )
    machine, version, debian, imported, _ = python(runtime, "-c", program).strip().split("|")
    assert (machine, version, debian) == ("aarch64", "(3, 11)", "12")
    assert f"virtual-pi/{runtime}/packages/edge" in imported


@in_both
def test_a_program_there_can_start_another(runtime: str) -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    assert python(runtime, "-c", program, "import edge, platform; print(platform.machine())") == "aarch64\n"


@of_each
def test_info_prints_the_manifest_there(runtime: str, path: Path) -> None:
    there = from_plain(Manifest, json.loads(edge(runtime, "info", path, "--json")), "manifest")
    assert there == artifact.read(path).manifest


@of_each
def test_verify_replays_the_golden_pairs_there(runtime: str, path: Path) -> None:
    manifest = artifact.read(path).manifest
    pairs = len(artifact.read(path).golden.actions)
    assert f"OK: {manifest.name} gives its {pairs} golden actions on {runtime} " in edge(runtime, "verify", path)


@in_both
def test_the_example_policies_give_their_golden_actions_there(runtime: str) -> None:
    program = "import sys, edge; [edge.Policy.load(path) for path in sys.argv[1:]]; print(len(sys.argv) - 1)"
    paths = [path for path in EXAMPLES if loads(runtime, path)]
    assert int(python(runtime, "-c", program, *paths)) == len(paths) > 10


@in_both
def test_bench_measures_there(runtime: str, tmp_path: Path) -> None:
    # What it measures are qemu's times: nothing is asked of them, and nothing keeps them.
    out = tmp_path / "bench.json"
    assert runtime in edge(
        runtime, "bench", DATA / "arm-int8.tflite", "--n", "200", "--energy-windows", "0", "--json", out
    )
    report = json.dumps(json.loads(out.read_text()))
    assert f'"{runtime}"' in report
    assert '"arm"' in report


@in_both
def test_run_drives_a_loop_there(runtime: str, tmp_path: Path) -> None:
    # Pendulum's three observations suit the lever, whose one action is Pendulum's torque.
    out = tmp_path / "loop.json"
    lever = DATA / "lever-int8.tflite"
    assert "Running lever" in edge(runtime, "run", lever, "--env", "Pendulum-v1", "--duration", "2", "--json", out)
    report = from_plain(RunReport, json.loads(out.read_text()), "report")
    assert report.loop.ticks + report.loop.missed_periods == 40
    assert report.loop.ticks > 0
    assert report.loop.failsafes == {}
    assert f'"{runtime}"' in out.read_text()


@of_pairs(FLOAT)
def test_float_actions_agree_to_1e_5(runtime: str, path: Path, results: dict) -> None:
    here, there = (results[name][f"{path.stem}/actions"] for name in ("here", runtime))
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5)


@of_pairs(DYNAMIC)
def test_actions_from_scales_of_the_moment_agree_within_the_files_tolerance(
    runtime: str, path: Path, results: dict
) -> None:
    source = artifact.read(path)
    visited = len(source.golden.observations) + NEAR
    here, there = (results[name][f"{path.stem}/actions"][:visited] for name in ("here", runtime))
    assert (np.abs(there - here) <= np.asarray(source.manifest.golden_tolerance)).all()


@pytest.mark.parametrize("path", INTEGER, ids=lambda path: path.stem)
def test_integer_actions_agree_to_the_last_step_with_the_same_runtime(path: Path, results: dict) -> None:
    here, there = (results[name][f"{path.stem}/actions"] for name in ("here", "ai-edge-litert"))
    source = artifact.read(path)
    action = source.manifest.spec.action
    if action.discrete:
        np.testing.assert_array_equal(there, here)
        return
    half_range = np.subtract(action.high, action.low) / 2
    assert (np.abs(there - here) <= 1.001 * output_step(source.flatbuffer) * half_range).all()


@in_both
@pytest.mark.parametrize("path", INTEGER, ids=lambda path: path.stem)
def test_each_integer_layer_agrees_to_the_last_step_if_it_reads_the_same(
    runtime: str, path: Path, results: dict
) -> None:
    """Runtimes round differently, and what one layer rounds differently, the next ones enlarge; so layer by layer."""
    here, there = results["here"], results[runtime]
    layers = [name for name in here if name.startswith(f"{path.stem}/layers/")]
    assert len(layers) >= 3
    assert layers == [name for name in there if name.startswith(f"{path.stem}/layers/")]
    same: dict[int, np.ndarray] = {}
    for name in layers:
        difference = np.abs(there[name].astype(int) - here[name]).reshape(len(here[name]), -1).max(axis=1)
        *read, written = here[f"{path.stem}/tensors/{name.split('/')[2]}"]
        reads_the_same = np.all([same[tensor] for tensor in read if tensor in same] or [difference >= 0], axis=0)
        assert reads_the_same.mean() > 0.5, name
        assert difference[reads_the_same].max() <= 1, name
        same[written] = difference == 0


@pytest.mark.parametrize("path", INTEGER, ids=lambda path: path.stem)
def test_integer_actions_of_the_older_runtime_stay_within_the_files_tolerance(path: Path, results: dict) -> None:
    """A few are several steps off (docs/virtual-pi.md); where the policy is at home, never by more than is allowed."""
    source = artifact.read(path)
    visited = len(source.golden.observations) + NEAR
    here, there = (results[name][f"{path.stem}/actions"][:visited] for name in ("here", "tflite-runtime"))
    if source.manifest.spec.action.discrete:
        assert (there == here).mean() > 0.99
    else:
        assert (np.abs(there - here) <= np.asarray(source.manifest.golden_tolerance)).all()
