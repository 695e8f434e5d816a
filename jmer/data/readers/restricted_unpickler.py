"""Pickles without their power: NumPy arrays and plain containers come in, whatever else one asks for is refused.

A pickle is a program that may call any function it can name. Here every name is looked up in one table, and what a
pickle gets for it is a stand-in of this module, never NumPy's own object: NumPy restores arrays and dtypes from the
sizes and flags that it is given, so that a forged one could reach memory that is not its own.
"""

import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jmer.errors import UserError

SHOWN_LETTERS = 120


def load(path: str | Path) -> Any:
    """Reads a pickle that holds NumPy arrays, numbers, strings and plain containers, and runs nothing of it.

    Strings of Python 2 are read as latin-1, as all the public feature files need. Ordered and default dictionaries
    come back as plain ones, arrays as a subclass of `numpy.ndarray`.

    Raises:
      UserError: if the file is missing, is no pickle, is cut short or damaged, or asks for anything else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except _RefusedError as error:
        raise UserError(
            f"{path} is refused and nothing of it was run: it asks for {error}, but jmer admits only NumPy arrays and "
            "plain containers in a pickle; save the features as such"
        ) from error
    except Exception as error:  # there is no list of what damaged bytes can raise inside the unpickler
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is no pickle, or is cut short or damaged ({reason}): get the file again") from error


class _RefusedError(Exception):
    """Says what a pickle asked for that it does not get."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> "_Admitted":
        if (module, name) not in _ADMITTED:
            raise _RefusedError(_printable(f"{module}.{name}"))
        return _ADMITTED[module, name]


class _Admitted:
    """What a pickle gets for a name: it can be passed on and perhaps called, but not changed."""

    __slots__ = ("_build", "_name")

    def __init__(self, name: str, build: Callable | None = None):
        self._name = name
        self._build = build

    def __call__(self, *arguments):
        if self._build is None:
            raise _RefusedError(f"a call of {self._name}")
        return self._build(*arguments)

    def __setstate__(self, state):
        raise _RefusedError(f"a change of {self._name}")


class _Dtype:
    """A dtype in the making: a type code, to which the pickle then adds the byte order."""

    __slots__ = ("plain",)

    # Structured, nested and dated types are left out: features do not need them, and their state can be forged.
    _CODE = re.compile(r"[?bBhHiIlLqQefd]|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O[48]?")

    def __init__(self, code: Any, *_):
        if not isinstance(code, str) or not self._CODE.fullmatch(code):
            raise _RefusedError(f"the dtype {_printable(repr(code))}")
        self.plain = np.dtype("O" if code.startswith("O") else code)

    def __setstate__(self, state):
        _, order, *structure = state[:5]
        if structure != [None, None, None]:
            raise _RefusedError("a structured dtype")
        self.plain = self.plain.newbyteorder(order)


class _Array(np.ndarray):
    """An array that checks a pickle's state before it restores itself from it."""

    __slots__ = ()

    def __setstate__(self, state):
        _, shape, dtype, column_major, content = state
        plain, size = _plain(dtype), _size(shape)
        if plain.hasobject:
            _expect(type(content) is list and len(content) == size, "a list of objects does not fill its array")
        else:
            content = _bytes(content, size * plain.itemsize)
        super().__setstate__((1, shape, plain, bool(column_major), content))


def _array_to_fill(kind: Any, *_) -> _Array:
    if kind is not _NDARRAY:
        raise _RefusedError("an array of a foreign class")
    return np.empty(0, np.uint8).view(_Array)


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    plain = _plain(dtype)
    # A copy: the array must not share memory with an object that the pickle can still reach.
    flat = np.frombuffer(_bytes(buffer, _size(shape) * plain.itemsize), plain).copy()
    return flat.reshape(shape, order=order).view(_Array)


def _scalar(dtype: Any, content: Any) -> np.generic:
    plain = _plain(dtype)
    content = _bytes(content, plain.itemsize)
    return np.frombuffer(content, plain)[0] if content else plain.type()


def _encode(text: Any, encoding: Any) -> bytes:
    # Python 3 writes bytes in this way for Python 2.
    if encoding != "latin1":
        raise _RefusedError(f"the codec {_printable(repr(encoding))}")
    return text.encode("latin1")


def _plain(dtype: Any) -> np.dtype:
    _expect(type(dtype) is _Dtype, "an array has no dtype")
    return dtype.plain


def _size(shape: Any) -> int:
    _expect(type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape), "an array has no shape")
    return math.prod(shape)


def _bytes(content: Any, size: int) -> bytes:
    if isinstance(content, str):  # how Python 2 kept bytes
        content = content.encode("latin1")
    _expect(type(content) in (bytes, bytearray) and len(content) == size, "the bytes of an array do not fill it")
    return bytes(content)


def _expect(condition: bool, otherwise: str):
    if not condition:
        raise ValueError(otherwise)


def _printable(name: str) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= SHOWN_LETTERS else name[:SHOWN_LETTERS] + "..."


_NDARRAY = _Admitted("numpy.ndarray")


def _admitted() -> dict[tuple[str, str], _Admitted]:
    builders = {
        "_codecs.encode": _encode,
        "collections.OrderedDict": lambda items=(): dict(items),
        "collections.defaultdict": lambda *_: {},
        "numpy.dtype": _Dtype,
    }
    # NumPy 2 has renamed its core, Python 3 its built-ins.
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray._reconstruct"] = _array_to_fill
        builders[f"{core}.multiarray.scalar"] = _scalar
        builders[f"{core}.numeric._frombuffer"] = _array_from_buffer
    for builtins in ("__builtin__", "builtins"):
        builders |= {f"{builtins}.set": set, f"{builtins}.frozenset": frozenset, f"{builtins}.bytes": lambda: b""}
        # As the factory of a default dictionary only.
        builders |= {f"{builtins}.{name}": None for name in ("dict", "float", "int", "list")}
    names = {tuple(name.rsplit(".", 1)): _Admitted(name, build) for name, build in builders.items()}
    return names | {("numpy", "ndarray"): _NDARRAY}


_ADMITTED = _admitted()
