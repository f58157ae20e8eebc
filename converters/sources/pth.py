"""Reading the tensors of a file that `torch.save` wrote, without PyTorch.

Such a file (since PyTorch 1.6) is a ZIP archive: a pickle that describes the tensors, and their bytes beside it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converters.sources import ImportPolicyError, pickles
from converters.sources.archive import Archive
from edge.artifact import FloatArray


def tensors(data: bytes, where: str) -> dict[str, FloatArray]:
    """The tensors of a state dictionary, by name; `where` names the file in error messages.

    Raises:
      ImportPolicyError: the file is damaged, hostile or of another kind, or has tensors that are not float32.
    """
    archive = Archive(data, where)
    described = [name for name in archive.names if name.endswith("/data.pkl")]
    if len(described) != 1:
        raise ImportPolicyError(f"{where} is not of PyTorch 1.6 or later. Save the model again with a newer one.")
    folder = described[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.names and archive.read(f"{folder}byteorder") != b"little":
        raise ImportPolicyError(f"{where} was written on a big-endian computer. Save the model on another.")
    storages: dict[str, FloatArray] = {}

    def storage(reference: Any) -> FloatArray:
        _, kind, key, _, _ = reference
        if (name := pickles.class_name(kind)) != "torch.FloatStorage":
            raise ImportPolicyError(f"tensors in a {name[:80]}, where only float32 is supported")
        if key not in storages:
            storages[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), "<f4")
        return storages[key]

    plain = pickles.load(
        archive.read(described[0], pickles.MAX_BYTES),
        where,
        functions={"torch._utils._rebuild_tensor_v2": _tensor},
        persistent_load=storage,
    )
    if not isinstance(plain, dict) or not all(isinstance(value, np.ndarray) for value in plain.values()):
        raise ImportPolicyError(f"{where} holds something other than the tensors of a model.")
    return {str(name): value for name, value in plain.items()}


def _tensor(storage: FloatArray, offset: int, shape: Any, strides: Any, *rest: Any) -> FloatArray:
    if len(shape) != len(strides) or len(shape) > 8 or min((offset, *shape, *strides)) < 0:
        raise ImportPolicyError("a tensor without a proper shape")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    # A stride of 0 repeats what is there, without end.
    if not 0 <= last < storage.size or not 0 < math.prod(shape) <= storage.size:
        raise ImportPolicyError("a tensor that is empty, or larger than its storage")
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [4 * stride for stride in strides])
