"""Reading the tensors of a file that `torch.save` wrote, without PyTorch.

Such a file (since PyTorch 1.6) is a ZIP archive: a pickle that describes the tensors, and their bytes beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.sources import ImportPolicyError, pickles, shown
from converters.sources.archive import MAX_BYTES, Archive
from edge.artifact import FloatArray


@dataclass(frozen=True)
class _Storage:
    """What lies behind tensors, and nothing that a pickle could make by itself."""

    values: FloatArray


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
    storages: dict[str, _Storage] = {}

    def storage(reference: Any) -> _Storage:
        _, kind, key, _, _ = reference
        if (name := pickles.class_name(kind)) != "torch.FloatStorage":
            raise ImportPolicyError(f"tensors in a {shown(name, 80)}, where only float32 is supported")
        if not isinstance(key, str):
            # A tuple may be nested so that hashing it never ends.
            raise ImportPolicyError("a tensor whose storage is none")
        if key not in storages:
            storages[key] = _Storage(np.frombuffer(archive.read(f"{folder}data/{key}"), "<f4"))
        return storages[key]

    plain = pickles.load(
        archive.read(described[0], pickles.MAX_BYTES),
        where,
        functions={"torch._utils._rebuild_tensor_v2": _tensor},
        persistent_load=storage,
    )
    if not isinstance(plain, dict) or not all(isinstance(value, np.ndarray) for value in plain.values()):
        raise ImportPolicyError(f"{where} holds something other than the tensors of a model.")
    # Tensors may share a storage, and layers are made of each.
    if sum(value.nbytes for value in plain.values()) > MAX_BYTES:
        raise ImportPolicyError(f"{where} describes more than {MAX_BYTES // 2**20} MiB of tensors: refused.")
    return {str(name): value for name, value in plain.items()}


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *rest: Any) -> FloatArray:
    # Another tensor would not do: of one that repeats a value, the size says nothing of what lies behind it.
    if not isinstance(storage, _Storage):
        raise ImportPolicyError("a tensor whose storage is none")
    if len(shape) != len(strides) or len(shape) > 8 or min((offset, *shape, *strides)) < 0:
        raise ImportPolicyError("a tensor without a proper shape")
    values = storage.values
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    # A stride of 0 repeats what is there, without end.
    if not 0 <= last < values.size or not 0 < math.prod(shape) <= values.size:
        raise ImportPolicyError("a tensor that is empty, or larger than its storage")
    return np.lib.stride_tricks.as_strided(values[offset:], shape, [4 * stride for stride in strides])
