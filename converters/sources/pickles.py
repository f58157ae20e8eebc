"""Reading pickles without running what is in them.

A pickle is a program: it names functions and has them called. Here no name is looked up and nothing is imported. A few
functions, without which numpy arrays and PyTorch tensors cannot be read, are our own; other classes that are known to
occur are stood in for by `Inert`, which only keeps what it is given; any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from converters.sources import ImportPolicyError, shown

# Each byte may become an object of some fifty.
MAX_BYTES = 8 * 2**20
MAX_DIMENSIONS = 8

# Names in these packages are stood in for.
KNOWN_PACKAGES = ("stable_baselines3", "gymnasium", "gym", "torch", "numpy")

# Opcodes that saved arrays, tensors, spaces and settings are made of. Left out are sets, which hash what may take for
# ever to hash, and the opcodes that make instances, or look names up, in the ways of pickle's first versions.
_OPCODES = """
PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE
SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS
EMPTY_DICT SETITEM SETITEMS BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD
BINPERSID
"""
_CODES = {getattr(pickle, name)[0] for name in _OPCODES.split()}


class Inert:
    """What stands for an instance of a class that was not looked up. Its attributes are those that were saved."""

    def __new__(cls, *arguments: Any) -> Inert:
        """Keep no arguments."""
        return object.__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        """Do nothing."""


class Dictionary(dict[Any, Any]):
    """What stands for an OrderedDict; it may be given attributes."""


class _DType:
    """What stands for a numpy.dtype of plain numbers."""

    def __init__(self, code: str, *flags: Any) -> None:
        if not isinstance(code, str) or code[:1] not in "biuf" or code[1:] not in ("1", "2", "4", "8"):
            # Objects and records are ways for a pickle to point into memory.
            raise ImportPolicyError(f"an array of dtype {shown(code, 40)}, which is not of plain numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """What stands for a numpy.ndarray."""

    values: npt.NDArray[Any]

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _array(data, dtype, shape, "F" if fortran else "C")


def load(
    data: bytes,
    where: str,
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """What a pickle describes: plain values, and `Inert` where it has instances of classes that are known to occur.

    A class itself, rather than an instance of it, is a subclass of `Inert`. Arrays are read by `array`.

    Args:
      data: the pickle.
      where: names it in error messages.
      functions: our own in place of further functions, by full name.
      persistent_load: what a reference to something outside the pickle stands for.

    Raises:
      ImportPolicyError: the pickle is damaged, or names what is not known. Nothing was executed.
    """
    if len(data) > MAX_BYTES:
        raise ImportPolicyError(f"{where} has {len(data)} bytes; up to {MAX_BYTES} are read: refused.")
    reader = _Reader(data, dict(functions or {}), persistent_load)
    try:
        return reader.load()
    except ImportPolicyError as error:
        raise ImportPolicyError(f"{where} has in it {error}. It was refused; nothing in it was executed.") from error
    except Exception as error:
        # A damaged pickle may stumble over anything.
        raise ImportPolicyError(
            f"{where} cannot be read: it is damaged, or not of a kind that tfqrl knows ({type(error).__name__}). "
            "Nothing in it was executed."
        ) from error


def array(value: Any) -> npt.NDArray[Any] | None:
    """The array that a loaded value stands for; None if it stands for none."""
    return value.values if isinstance(value, _Array) and hasattr(value, "values") else None


def class_name(value: Any) -> str:
    """The full name of the class that a loaded value stands for, or stands for an instance of."""
    return value.__name__ if isinstance(value, type) else type(value).__name__


# The unpickler in C finds names before it can be asked, and reserves as much memory as a pickle likes to name.
class _Reader(pickle._Unpickler):  # type: ignore[misc, name-defined]
    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code in _CODES  # type: ignore[attr-defined]
    }

    def __init__(
        self, data: bytes, functions: dict[str, Callable[..., Any]], persistent: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(io.BytesIO(data))
        self._persistent = persistent
        self._stand_ins: dict[str, Any] = {
            "collections.OrderedDict": lambda: Dictionary(),
            "numpy.dtype": _DType,
            **functions,
        }
        self._stand_ins["numpy.ndarray"] = _Array
        for numpy in ("numpy.core", "numpy._core"):
            self._stand_ins |= {
                f"{numpy}.multiarray._reconstruct": lambda *arguments: _Array(),
                f"{numpy}.multiarray.scalar": lambda dtype, data: _array(data, dtype, (1,)).item(),
                f"{numpy}.numeric._frombuffer": _from_buffer,
            }

    def find_class(self, module: str, name: str) -> Any:
        """Our own stand-in; never what the name means to Python."""
        full = f"{module}.{name}"
        if full not in self._stand_ins:
            if module.split(".")[0] not in KNOWN_PACKAGES:
                raise ImportPolicyError(f"the name {full[:120]!r}, which is none that tfqrl knows")
            self._stand_ins[full] = type(full, (Inert,), {})
        return self._stand_ins[full]

    def persistent_load(self, reference: Any) -> Any:
        """What is outside the pickle."""
        if self._persistent is None:
            raise ImportPolicyError("a reference to something outside it")
        return self._persistent(reference)

    def load_build(self) -> None:
        """Give an instance its state, where it is one of what stands in."""
        state, instance = self.stack.pop(), self.stack[-1]
        if isinstance(instance, (_DType, _Array)):
            instance.__setstate__(state)
        elif not isinstance(instance, (Inert, Dictionary)):
            raise ImportPolicyError("a state for something that has none")
        elif isinstance(state, dict):
            vars(instance).update({str(name): value for name, value in state.items()})

    def load_setitem(self) -> None:
        """As in pickle, for keys that are quick to hash."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def load_setitems(self) -> None:
        """As in pickle, for keys that are quick to hash."""
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2]):
            self._set(key, value)

    def load_bytearray8(self) -> None:
        """As in pickle, but the memory is that of the bytes that are there."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(key, (str, int, float, bytes)) or not isinstance(self.stack[-1], dict):
            raise ImportPolicyError("a dictionary with keys other than text and numbers")
        self.stack[-1][key] = value

    dispatch |= {
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, *axes: Any) -> _Array:
    made = _Array()
    made.values = _array(data, dtype, shape, order)
    return made


def _array(data: Any, dtype: Any, shape: Any, order: str = "C") -> npt.NDArray[Any]:
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise ImportPolicyError("an array that is not of plain numbers")
    # The product of a list and a number is a list of that length.
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        raise ImportPolicyError("an array with a shape that is none")
    values = np.frombuffer(data, dtype.dtype)
    # Before the product, which of many large numbers takes hours.
    if len(shape) > MAX_DIMENSIONS or not all(0 <= size <= values.size for size in shape):
        raise ImportPolicyError("an array with a shape that does not fit its elements")
    if values.size != math.prod(shape):
        raise ImportPolicyError("an array with another number of elements than its shape says")
    return values.reshape(shape, order="F" if order == "F" else "C")
