"""A program that stands for edgetpu_compiler on the PATH, and reports as the real one prints them.

The reports are constructed: the lines, their order and their words are those of reports that users of versions 14 to 16
published, the models and numbers are ours.
"""

import os
from pathlib import Path

import pytest

SUCCESS = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 21 ms.

Input model: model.tflite
Input size: 2.81KiB
Output model: model_edgetpu.tflite
Output size: 24.53KiB
On-chip memory used for caching model parameters: 1.25KiB
On-chip memory remaining for caching model parameters: 7.73MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 5
Operation log: model_edgetpu.log

Operator                       Count      Status

FULLY_CONNECTED                3          Mapped to Edge TPU
TANH                           2          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""

PARTLY = """\
Edge TPU Compiler version 15.0.340273435

Model compiled successfully in 93 ms.

Input model: model.tflite
Input size: 20.41MiB
Output model: model_edgetpu.tflite
Output size: 20.62MiB
On-chip memory used for caching model parameters: 6.50MiB
On-chip memory remaining for caching model parameters: 1.75KiB
Off-chip memory used for streaming uncached model parameters: 13.00MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 9
Operation log: model_edgetpu.log

Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will \
instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported by \
the Edge TPU. For details, visit g.co/coral/model-reqs.
Number of operations that will run on Edge TPU: 3
Number of operations that will run on CPU: 6

Operator                       Count      Status

CONV_2D                        3          Mapped to Edge TPU
ELU                            1          Operation not supported
RESIZE_NEAREST_NEIGHBOR        1          Operation version not supported
FULLY_CONNECTED                1          More than one subgraph is not supported
QUANTIZE                       1          Operation is otherwise supported, but not mapped due to some unspecified \
limitation
DEQUANTIZE                     1          Operation is working on an unsupported data type
MUL                            1          Tensor has unsupported rank (up to 3 innermost dimensions mapped)
"""


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, says: str = SUCCESS, output: bytes | None = None, then: str = ""
) -> Path:
    """Put a compiler on the PATH that prints `says`, writes `output`, and runs the shell commands `then`.

    Returns the file to which it copies the model that it was given.
    """
    home = folder / "compiler"
    home.mkdir()
    (home / "says").write_text(says)
    write = ""
    if output is not None:
        (home / "output").write_bytes(output)
        write = f'cp "{home}/output" "$3/$(basename "$4" .tflite)_edgetpu.tflite"\n'
        write += f'cp "{home}/says" "$3/$(basename "$4" .tflite)_edgetpu.log"\n'
    program = home / "edgetpu_compiler"
    program.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-s -o" ] || exit 64\ncp "$4" "{home}/seen"\ncat "{home}/says"\n{write}{then}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}{os.pathsep}{os.environ['PATH']}")
    return home / "seen"
