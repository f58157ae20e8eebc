"""The one place that chooses a TFLite interpreter and builds it."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import NotTFLiteError, RuntimeMissingError, UsageError


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


def build(flatbuffer: bytes, threads: int, *, plain_kernels: bool = False) -> tuple[Any, Runtime]:
    """Build an interpreter for `flatbuffer` and allocate its tensors.

    `plain_kernels` keeps to the kernels that every TFLite runtime has, without the XNNPACK delegate: what other
    runtimes and machines may compute.

    Raises:
      UsageError: `threads` is not a number of threads.
      RuntimeMissingError: no interpreter is installed.
      NotTFLiteError: the interpreter refuses the flatbuffer.
    """
    if threads < 1:
        raise UsageError(f"The number of threads must be at least 1; it was given {threads}.")
    module, package = runtime_module()
    options: dict[str, Any] = {}
    if plain_kernels:
        options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = module.Interpreter(model_content=flatbuffer, num_threads=threads, **options)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise NotTFLiteError(f"{package} cannot load the model: {error}") from error
    return interpreter, Runtime(package, importlib.metadata.version(package), threads)


def tensor_memory(interpreter: Any, index: int) -> npt.NDArray[Any]:
    """The memory of a tensor itself, as an array that may be held and written to across `invoke`.

    It spares the arrays that `set_tensor` and `get_tensor` make at each call. The interpreter forbids holding the array
    that `tensor()` gives, because tensors may move when they are allocated again; `build` allocates them once, and
    whoever uses this has to see that `invoke` does not move them either (a tensor of dynamic shape would). The array
    does not keep the interpreter alive: whoever holds the one has to hold the other.
    """
    view: npt.NDArray[Any] = interpreter.tensor(index)()
    memory = (ctypes.c_byte * view.nbytes).from_address(view.ctypes.data)
    return np.frombuffer(memoryview(memory), view.dtype).reshape(view.shape)


def build_for_inspection(flatbuffer: bytes) -> Any:
    """An interpreter whose every tensor can be read after `invoke`, at the price of memory; not for acting."""
    module, _ = runtime_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that this is for inspection
        interpreter = module.Interpreter(model_content=flatbuffer, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    return interpreter


def runtime_module() -> tuple[Any, str]:
    """The module of the interpreter that is installed, imported, and the name of its package."""
    failures = []
    for module, package in (
        ("ai_edge_litert.interpreter", "ai-edge-litert"),
        ("tflite_runtime.interpreter", "tflite-runtime"),
    ):
        try:
            return importlib.import_module(module), package
        except ModuleNotFoundError:
            continue
        except (ImportError, AttributeError) as error:
            # It is there and does not load: an old C library, or tflite-runtime beside numpy 2.
            failures.append(f"{package} is installed but does not load ({error}).")
    hint = (
        "Run `pip install ai-edge-litert` (64-bit) or, on 32-bit ARM with Python 3.11 or older, "
        "`pip install tflite-runtime 'numpy<2'`."
    )
    raise RuntimeMissingError(
        " ".join([*failures, hint] if failures else ["No TFLite interpreter is installed.", hint])
    )
