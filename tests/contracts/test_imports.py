"""tfqrl -> converters -> edge, and never the other way."""

import ast
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from edge import artifact

ROOT = Path(__file__).parents[2]

# What each package may import, besides the standard library and itself. An import inside a function is a deliberate
# one, made only when it is needed (edge's plant of simulated environments needs gymnasium).
ALLOWED = {
    "edge": {"numpy"},
    "converters": {"edge", "numpy", "scipy", "tensorflow", "tf_keras", "ai_edge_litert", "flatbuffers"}
    | {"tensorflow_model_optimization"},
    "tfqrl": {"edge", "converters", "numpy", "scipy", "tensorflow", "tf_keras", "gymnasium", "mujoco", "tyro", "rich"}
    | {"tensorboard", "matplotlib", "yaml", "tensorflow_model_optimization", "tensorflow_probability"},
}
ALLOWED_WHEN_NEEDED = {
    "edge": {
        "ai_edge_litert",
        "tflite_runtime",
        "cryptography",
        "gymnasium",
        "gpiozero",
        "onnxruntime",
        "serial",
        "zmq",
    },
    "converters": {"onnx"},
    "tfqrl": {"zmq", "ray", "dm_control", "ale_py", "cv2", "envpool"},
}


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            found.add(str(node.module).split(".")[0])
    return found


class TopLevel(ast.NodeTransformer):
    """Drops the bodies of functions: what is left is executed on import."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return None


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_each_package_imports_only_what_lies_below_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        ours = set(sys.stdlib_module_names) | {package}
        everywhere = imports(ast.parse(path.read_text())) - ours
        on_import = imports(TopLevel().visit(ast.parse(path.read_text()))) - ours
        assert on_import <= ALLOWED[package], path
        assert everywhere <= ALLOWED[package] | ALLOWED_WHEN_NEEDED[package], path


def run(program: str, *, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT / "tests", env=environment
    )


def test_edge_loads_nothing_of_what_lies_above() -> None:
    program = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfqrl", "converters", "tensorflow", "tf_keras", "gymnasium", "mujoco", "rich"):
            raise ImportError(f"edge must not import {name}")
sys.meta_path.insert(0, Block())
import edge, edge.cli, edge.bench, edge.plants.gym
print("tensorflow" in sys.modules, "ai_edge_litert" in sys.modules)
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False"]


def test_importing_edge_costs_little_beside_numpy() -> None:
    program = """
import time
import numpy
began = time.perf_counter()
import edge
print(time.perf_counter() - began)
"""
    # The best of a few: a noisy machine makes a run slower, never faster.
    assert min(float(run(program).stdout) for _ in range(5)) < 0.2


def install(folder: Path, *what: str) -> Path:
    """A venv with `what` and, from a copy so that the checkout stays clean, this project; returns its bin."""
    venv.create(folder / "venv", with_pip=True)
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in files:
        if (ROOT / name).exists():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
    commands = (
        [[*pip, *what], [*pip, "--no-deps", str(folder / "source")]] if what else [[*pip, str(folder / "source")]]
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with only `pip install .`."""
    return install(tmp_path_factory.mktemp("bare"))


def test_the_edge_works_where_only_it_is_installed(bare: Path) -> None:
    packages = subprocess.run([bare / "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True)
    assert "tensorflow==" not in packages.stdout
    assert "gymnasium==" not in packages.stdout
    for recipe in ("float32", "int8"):
        policy = ROOT / f"tests/data/arm-{recipe}.tflite"
        for words in (["info"], ["verify"], ["bench", "--energy-windows", "0", "--n", "400"]):
            done = subprocess.run([bare / "tfqrl-edge", *words, policy], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_bare_edge_fits_on_a_small_computer(bare: Path) -> None:
    installed_bytes = sum(path.lstat().st_size for path in bare.parent.rglob("*") if not path.is_dir())
    assert installed_bytes < 200e6
    # In a process of its own, whose only child is the command.
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True);"
        "print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    verify = [str(bare / "tfqrl-edge"), "verify", str(ROOT / "tests/data/arm-int8.tflite")]
    done = subprocess.run([bare / "python", "-c", program, *verify], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120e6


def test_the_workstations_command_says_what_it_lacks(bare: Path) -> None:
    done = subprocess.run([bare / "tfqrl", "train", "ppo"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'tfqrl[train]'" in done.stderr


def test_the_bare_edge_names_what_a_simulated_plant_needs(bare: Path) -> None:
    words = ["run", ROOT / "tests/data/lever-int8.tflite", "--env", "Pendulum-v1", "--duration", "1"]
    done = subprocess.run([bare / "tfqrl-edge", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs Gymnasium" in done.stderr


OLDER_RUNTIMES = [
    pytest.param(
        ("tflite-runtime==2.14.0", "numpy<2"),
        marks=pytest.mark.skipif(
            sys.version_info >= (3, 12), reason="tflite-runtime ends at Python 3.11: run the tests with that"
        ),
    ),
    pytest.param(
        ("ai-edge-litert==2.1.0", "numpy==1.26.4"),
        marks=pytest.mark.skipif(
            sys.version_info >= (3, 13), reason="numpy 1.26 ends at Python 3.12: run the tests with that"
        ),
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("packages", OLDER_RUNTIMES)
def test_policies_keep_their_golden_pairs_on_older_runtimes(packages: tuple[str, ...], tmp_path: Path) -> None:
    older = install(tmp_path, *packages)
    name, _, version = packages[0].partition("==")
    for policy in sorted((ROOT / "tests/data").glob("**/*.tflite")):
        # A recipe names the runtimes that load its files; "ai-edge-litert 2.1.5", if it needs one that new.
        named = artifact.read(policy).manifest.recipe.get("runtimes", [name])
        if not any(runtime.split()[0] == name and version.startswith(runtime[len(name) + 1 :]) for runtime in named):
            continue
        done = subprocess.run([older / "tfqrl-edge", "verify", policy], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert packages[0].replace("==", " ") in done.stdout
