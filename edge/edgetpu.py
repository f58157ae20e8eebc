"""Coral's Edge TPU as the device that a policy runs on.

`libedgetpu` is a shared library that the interpreter loads. Where the two were built from different versions of
TensorFlow Lite it can take the process down with it, so a child process tries first. Not yet run on hardware.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from edge import children
from edge.errors import (
    EdgeTpuCrashError,
    EdgeTpuDeviceError,
    EdgeTpuError,
    EdgeTpuLibraryError,
    EdgeTpuModelError,
    UsageError,
)

LIBRARY = "libedgetpu.so.1"

# What `edgetpu_compiler` leaves in the place of the operations that the Edge TPU takes over.
CUSTOM_OP = b"edgetpu-custom-op"

# The first inference loads the model into the device; a minute means that it hangs.
PROBE_TIMEOUT_S = 60.0


def delegate_options(device: str) -> dict[str, str] | None:
    """What libedgetpu is asked for, for `device`; None for the processor.

    Raises:
      UsageError: there is no such device.
    """
    if device == "cpu":
        return None
    match = re.fullmatch(r"edgetpu(?::((?:usb|pci):\d+))?", device)
    if not match:
        raise UsageError(
            "A device is cpu, edgetpu (the first that is found), edgetpu:usb:N or edgetpu:pci:N; "
            f"it was given {device!r}."
        )
    return {"device": match[1]} if match[1] else {}


def build(module: Any, flatbuffer: bytes, device: str, threads: int) -> Any:
    """An interpreter of `module` whose delegated part runs on `device`, with its tensors allocated.

    What the device does not take over runs on `threads` threads of the processor.

    Raises:
      EdgeTpuError: one of its subclasses, by what is wrong.
    """
    try:
        delegate = module.load_delegate(LIBRARY, delegate_options(device))
    except (OSError, AttributeError) as error:
        raise EdgeTpuLibraryError(
            f"The Edge TPU's library {LIBRARY} cannot be loaded ({error}). Install libedgetpu1-std: from Coral's "
            "package source up to Debian 11, for newer systems from the builds of github.com/feranick/libedgetpu."
        ) from error
    except ValueError as error:
        # The library's own words follow in the second line. There are often none.
        words = " ".join(str(error).splitlines()[1:]).strip() or "it gave no reason"
        raise EdgeTpuDeviceError(
            f"There is no Edge TPU to use as {device} ({words}). USB: `lsusb` must show 1a6e:089a or 18d1:9302, and "
            "you must be in the group plugdev. PCIe: /dev/apex_0 must exist, and you must be in the group apex."
        ) from error
    try:
        interpreter = module.Interpreter(
            model_content=flatbuffer, num_threads=threads, experimental_delegates=[delegate]
        )
        interpreter.allocate_tensors()
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        words = " ".join(str(error).split()).rstrip(".")
        raise EdgeTpuModelError(
            f"The Edge TPU does not take this model: {words}. Compile it again with an edgetpu_compiler that fits the "
            "installed libedgetpu."
        ) from error
    return interpreter


def probe(flatbuffer: bytes, device: str, threads: int) -> None:
    """Find out in a child process whether `build` would succeed.

    Raises:
      EdgeTpuError: one of its subclasses, by what is wrong.
    """
    if CUSTOM_OP not in flatbuffer:
        raise EdgeTpuModelError(
            "This policy was not compiled for the Edge TPU, which would run none of it. Run it with --device cpu, or "
            "convert it with `tfqrl convert --recipe int8-full --target edgetpu`."
        )
    command = children.command("edge.edgetpu", device, str(threads))
    try:
        child = subprocess.run(command, input=flatbuffer, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise EdgeTpuDeviceError(
            f"The Edge TPU {device} did not answer within {PROBE_TIMEOUT_S:g} s. Unplug it, plug it in, and try again."
        ) from error
    if child.returncode < 0:
        raise EdgeTpuCrashError(
            f"{LIBRARY} and the TFLite interpreter do not get on: a trial ended with "
            f"{signal.Signals(-child.returncode).name}. They must be built from the same version of TensorFlow Lite; "
            "install a libedgetpu that was built for it."
        )
    if child.returncode:
        lines = child.stdout.decode(errors="replace").splitlines() or ["{}"]
        try:
            answer = json.loads(lines[-1])
            kind = {kind.__name__: kind for kind in EdgeTpuError.__subclasses__()}[answer["error"]]
        except (ValueError, KeyError, TypeError):
            words = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise EdgeTpuCrashError(f"A trial of {LIBRARY} failed and said: {words[0]}.") from None
        raise kind(answer["message"])


def main(words: Sequence[str]) -> int:
    """What the child process does, given DEVICE THREADS and the flatbuffer on its standard input: build and run once.

    An error goes to standard output as JSON.
    """
    from edge.interpreter import runtime_module

    module, _ = runtime_module()
    try:
        build(module, sys.stdin.buffer.read(), words[0], int(words[1]))
    except EdgeTpuError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return 1
    return 0
