"""What a recipe says of runtimes is so: each loads what it is to load and gives the golden actions, or refuses."""

import dataclasses
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from nets import conv_network, dense_network, observations_for, spec_of

from converters import RECIPES, convert
from converters.recipe import LITERT, TFLITE_RUNTIME

ROOT = Path(__file__).parents[2]

CASES = [
    (recipe if per_channel is None else dataclasses.replace(recipe, per_channel=per_channel))
    for recipe in RECIPES.values()
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


def verify(python: Path | str, policy: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "edge.cli", "verify", str(policy)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("recipe", CASES, ids=name_of)
def test_every_recipe_gives_its_golden_actions_on_litert(policies: Path, recipe, kind: str) -> None:
    assert LITERT in recipe.runtimes
    done = verify(sys.executable, policies / f"{kind}-{name_of(recipe)}.tflite")
    assert done.returncode == 0, done.stderr
    assert "on ai-edge-litert " in done.stdout


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("recipe", CASES, ids=name_of)
def test_tflite_runtime_gives_them_or_refuses(policies: Path, tflite_runtime: Path, recipe, kind: str) -> None:
    done = verify(tflite_runtime, policies / f"{kind}-{name_of(recipe)}.tflite")
    if TFLITE_RUNTIME in recipe.runtimes:
        assert done.returncode == 0, done.stderr
        assert "on tflite-runtime 2.14.0 " in done.stdout
    elif recipe.name == "int4" and not recipe.per_channel and kind == "dense":
        # Right there too, but not promised: 4-bit convolutions are not.
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert "tflite-runtime cannot load the model" in done.stderr
