"""The one place that chooses a TFLite interpreter and builds it."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import edgetpu
from edge.errors import NotTFLiteError, RuntimeMissingError, UsageError

# The interpreters start as many as they are told, and end the process where the system has no more.
MAX_THREADS = 64


@dataclass(frozen=True)
class Runtime:
    """Which interpreter runs the policy.

    Attributes:
      name: the package, as pip knows it.
      version: its version.
      threads: threads that it may use.
      delegate: what runs the operations that the interpreter gave away: "XNNPACK" (its fast kernels for the processor),
        an Edge TPU by its device name, or "none".
    """

    name: str
    version: str
    threads: int
    delegate: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.name} {self.version} with {self.threads} thread(s), delegate {self.delegate}"


def build(flatbuffer: bytes, threads: int, *, device: str = "cpu", plain_kernels: bool = False) -> tuple[Any, Runtime]:
    """Build an interpreter for `flatbuffer` and allocate its tensors.

    Args:
      flatbuffer: the model.
      threads: threads of the processor, at most `MAX_THREADS`.
      device: "cpu", "edgetpu" (the first that is found), "edgetpu:usb:N" or "edgetpu:pci:N".
      plain_kernels: keep to the kernels that every TFLite runtime has, without the XNNPACK delegate: what other
        runtimes and machines may compute.

    Raises:
      UsageError: `threads` is not a number of threads, or there is no such device.
      RuntimeMissingError: no interpreter is installed.
      NotTFLiteError: the interpreter refuses the flatbuffer.
      EdgeTpuError: one of its subclasses, if the Edge TPU was asked for and cannot be had.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"The number of threads must be from 1 to {MAX_THREADS}; it was given {threads}.")
    module, package = runtime_module()
    version = _version(package)
    if edgetpu.delegate_options(device) is not None:
        edgetpu.probe(flatbuffer, device, threads)
        return edgetpu.build(module, flatbuffer, device, threads), Runtime(package, version, threads, device)
    options: dict[str, Any] = {}
    if plain_kernels:
        options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = module.Interpreter(model_content=flatbuffer, num_threads=threads, **options)
        interpreter.allocate_tensors()
        # No public method tells it. The delegate appends an operation of its own to the graph.
        delegated = any(operation["op_name"] == "DELEGATE" for operation in interpreter._get_ops_details())
    except (ValueError, RuntimeError) as error:
        hint = " It was compiled for the Edge TPU: give --device edgetpu." if edgetpu.CUSTOM_OP in flatbuffer else ""
        raise NotTFLiteError(f"{package} cannot load the model: {error}{hint}") from error
    return interpreter, Runtime(package, version, threads, "XNNPACK" if delegated else "none")


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
    """The module of the interpreter that is installed, imported, and the name of its package.

    Raises:
      RuntimeMissingError: none is, or none that loads.
    """
    failures = []
    for name, package in (
        ("ai_edge_litert.interpreter", "ai-edge-litert"),
        ("tflite_runtime.interpreter", "tflite-runtime"),
    ):
        try:
            # Found before it is imported: beside numpy 2, tflite-runtime fills the terminal before it fails.
            if importlib.util.find_spec(name.split(".")[0]) is None:
                continue
            if package == "tflite-runtime" and not np.__version__.startswith("1."):
                failures.append(f"tflite-runtime needs numpy 1, and numpy {np.__version__} is installed.")
                continue
            return importlib.import_module(name), package
        except (ImportError, AttributeError) as error:
            # It is there and does not load: an old C library, for one.
            failures.append(f"{package} is installed but does not load ({error}).")
    hint = (
        "Run `pip install ai-edge-litert` (64-bit) or, on 32-bit ARM with Python 3.11 or older, "
        "`pip install tflite-runtime 'numpy<2'`."
    )
    raise RuntimeMissingError(
        " ".join([*failures, hint] if failures else ["No TFLite interpreter is installed.", hint])
    )


@functools.cache
def _version(package: str) -> str:
    """That of an installed package, which takes long to find."""
    return importlib.metadata.version(package)
