import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.errors import RuntimeMissingError
from edge.interpreter import runtime_module


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the only place where interpreters are found."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> object:
        if name in ("ai_edge_litert", "tflite_runtime") and not (tmp_path / name).exists():
            return None
        return real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.syspath_prepend(tmp_path)
    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    for name in loaded():
        del sys.modules[name]


def loaded() -> list[str]:
    return [name for name in sys.modules if name.split(".")[0] in ("ai_edge_litert", "tflite_runtime")]


def install(packages: Path, name: str, text: str = "") -> None:
    (packages / name).mkdir()
    (packages / name / "__init__.py").write_text("")
    (packages / name / "interpreter.py").write_text(text)


def test_litert_comes_before_tflite_runtime(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    install(packages, "tflite_runtime")
    assert runtime_module()[1] == "tflite-runtime"
    install(packages, "ai_edge_litert")
    importlib.invalidate_caches()
    assert runtime_module()[1] == "ai-edge-litert"


def test_without_an_interpreter_the_error_says_what_to_install(packages: Path) -> None:
    with pytest.raises(
        RuntimeMissingError, match=r"No TFLite interpreter is installed\. Run `pip install ai-edge-litert`"
    ):
        runtime_module()


def test_tflite_runtime_beside_numpy_2_is_not_even_imported(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(packages, "tflite_runtime", "raise SystemExit('imported')")
    monkeypatch.setattr(np, "__version__", "2.2.0")
    with pytest.raises(RuntimeMissingError, match=r"needs numpy 1, and numpy 2\.2\.0 is installed.*'numpy<2'"):
        runtime_module()


def test_an_interpreter_that_does_not_load_is_passed_over_and_named(packages: Path) -> None:
    install(packages, "ai_edge_litert", "raise ImportError('GLIBC_2.38 not found')")
    with pytest.raises(RuntimeMissingError, match=r"ai-edge-litert is installed but does not load \(GLIBC_2.38"):
        runtime_module()
