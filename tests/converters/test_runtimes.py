"""What a recipe says of runtimes is so: each loads what it is to load and gives the golden actions, or refuses."""

import dataclasses
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from nets import conv_network, dense_network, observations_for, spec_of

from converters import RECIPES, convert
from converters.recipe import LITERT, TFLITE_RUNTIME, TRAINED_RECIPES
from edge import artifact
from tfqrl.runs import Run

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]

CASES = [
    (recipe if per_channel is None else dataclasses.replace(recipe, per_channel=per_channel))
    for recipe in (RECIPES | TRAINED_RECIPES).values()
    for per_channel in ((None,) if recipe.weight_bits > 8 else (True, False))
]


def name_of(recipe) -> str:
    return f"{recipe.name}{'-per-channel' if recipe.per_channel else ''}"


@pytest.fixture(scope="module")
def tflite_runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has tflite-runtime 2.14 and the numpy that it needs, and nothing else."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has wheels up to Python 3.11.")
    folder = tmp_path_factory.mktemp("tflite-runtime")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "tflite-runtime==2.14.0", "numpy<2"]
    subprocess.run(install, check=True, timeout=300)
    return python


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each recipe, with one scale a layer and one an output, of a dense and of a convolutional network."""
    folder = tmp_path_factory.mktemp("policies")
    for kind, network in (("dense", dense_network()), ("conv", conv_network())):
        spec = spec_of(network.input_shape[1:], 3)
        for recipe in CASES:
            convert(network, spec, recipe, observations_for(network)).save(folder / f"{kind}-{name_of(recipe)}.tflite")
    return folder


# Prints what became of each file: "OK ..." or the error.
PROGRAM = """
import sys
from edge import artifact
from edge.errors import UserError
from edge.policy import Policy
for path in sys.argv[1:]:
    try:
        print("OK", Policy.load(path).runtime)
    except UserError as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""


def verified(python: Path | str, folder: Path) -> dict[str, str]:
    """What loading each policy in a folder, which replays its golden pairs, gives with this Python."""
    paths = sorted(folder.rglob("*.tflite"))
    command = [str(python), "-c", PROGRAM, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    names = [str(path.relative_to(folder).with_suffix("")) for path in paths]
    return dict(zip(names, done.stdout.splitlines(), strict=True))


def test_every_recipe_gives_its_golden_actions_on_litert(policies: Path) -> None:
    assert all(recipe.runtimes[0].startswith(LITERT) for recipe in CASES)
    found = verified(sys.executable, policies)
    assert len(found) == 2 * len(CASES)
    assert {name: text for name, text in found.items() if not text.startswith("OK ai-edge-litert ")} == {}


def test_tflite_runtime_gives_them_or_refuses(policies: Path, tflite_runtime: Path) -> None:
    # Not one that it loads and gets wrong.
    found = verified(tflite_runtime, policies)
    for recipe in CASES:
        wanted = "OK tflite-runtime 2.14.0 " if TFLITE_RUNTIME in recipe.runtimes else "NotTFLiteError "
        for kind in ("dense", "conv"):
            name = f"{kind}-{name_of(recipe)}"
            assert found[name].startswith(wanted), f"{name}: {found[name]}"


EXAMPLES = ROOT / "examples" / "policies"


def test_the_example_policies_are_small_and_whole() -> None:
    folders = sorted(path.parent for path in EXAMPLES.glob("*/run"))
    assert len(folders) == 5
    for folder in folders:
        names = {path.name.split(".")[0] for path in folder.glob("*.tflite*")}
        assert names == set(RECIPES), "each recipe is there, or what was rejected"
        assert {"int8.tflite", "int8-full.tflite"} <= {path.name for path in folder.iterdir()}
        assert sum(path.stat().st_size for path in (folder / "run").iterdir()) < 300_000
        assert all(path.stat().st_size < 300_000 for path in folder.glob("*.tflite"))
        run = Run.open(folder / "run")
        assert (run.algorithm, run.config["env"]) == ("ppo", folder.name)
        assert "policy/0" in run.load_checkpoint()


@pytest.mark.parametrize("runtime", [LITERT, TFLITE_RUNTIME])
def test_the_example_policies_load_where_their_rows_say(runtime: str, request: pytest.FixtureRequest) -> None:
    python = sys.executable if runtime == LITERT else request.getfixturevalue("tflite_runtime")
    found = verified(python, EXAMPLES)
    for path in EXAMPLES.rglob("*.tflite"):
        named = artifact.read(path).manifest.recipe["runtimes"]
        text = found[str(path.relative_to(EXAMPLES).with_suffix(""))]
        assert text.startswith("OK") == any(name.startswith(runtime) for name in named), text
