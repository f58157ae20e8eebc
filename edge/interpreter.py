"""The one place that chooses a TFLite interpreter and builds it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import NotTFLiteError, RuntimeMissingError


@dataclass(frozen=True)
class Runtime:
    """Which interpreter runs the policy.

    Attributes:
      name: the package, as pip knows it.
      version: its version.
      threads: threads that it may use.
    """

    name: str
    version: str
    threads: int


def build(flatbuffer: bytes, threads: int) -> tuple[Any, Runtime]:
    """Build an interpreter for `flatbuffer` and allocate its tensors.

    Raises:
      RuntimeMissingError: no interpreter is installed.
      NotTFLiteError: the interpreter refuses the flatbuffer.
    """
    interpreter_class, package = _interpreter_class()
    try:
        interpreter = interpreter_class(model_content=flatbuffer, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise NotTFLiteError(f"{package} cannot load the model: {error}") from error
    return interpreter, Runtime(package, importlib.metadata.version(package), threads)


def tensor_memory(interpreter: Any, index: int) -> npt.NDArray[Any]:
    """The memory of a tensor itself, as an array that may be held and written to across `invoke`.

    Writing an observation here and reading the action here costs a third of `set_tensor` and `get_tensor`, which make
    a new array at each call. The interpreter forbids holding the array that `tensor()` gives, because it cannot know
    that nobody will allocate its tensors again, which would move them; we do know: `build` allocates them once. The
    array does not keep the interpreter alive: whoever holds the one has to hold the other.
    """
    view: npt.NDArray[Any] = interpreter.tensor(index)()
    memory = (ctypes.c_byte * view.nbytes).from_address(view.ctypes.data)
    return np.frombuffer(memoryview(memory), view.dtype).reshape(view.shape)


def build_for_inspection(flatbuffer: bytes) -> Any:
    """An interpreter whose every tensor can be read after `invoke`, at the price of memory; not for acting."""
    interpreter_class, _ = _interpreter_class()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that this is for inspection
        interpreter = interpreter_class(model_content=flatbuffer, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter


def _interpreter_class() -> tuple[Any, str]:
    try:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter, "ai-edge-litert"
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter

        return Interpreter, "tflite-runtime"
    except ImportError as error:
        raise RuntimeMissingError(
            "No TFLite interpreter is installed. Run `pip install ai-edge-litert` (64-bit) or, on 32-bit ARM with "
            "Python 3.11 or older, `pip install tflite-runtime 'numpy<2'`."
        ) from error
