"""An unpickler that admits NumPy arrays and plain containers and refuses everything else.

A pickle is a program that may call any function it can name. Here every name is looked up in one table, and a pickle
gets a stand-in from this module, never NumPy's own object: NumPy restores arrays and dtypes from the sizes and flags
that it is given, so a forged pickle could access memory outside its arrays.
"""

import contextlib
import math
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jmer.data.readers.file_kinds import check_kind
from jmer.errors import UserError

SHOWN_CHARACTERS = 120
# The package whose objects a pickle asks for -> what to save instead.
REMEDIES = {
    "joblib": "load it with joblib and save it with pickle.dump",
    "pandas": "save the table as parquet and use the format `table`",
    "scipy": "save sparse matrices as arrays (matrix.toarray())",
    "torch": "save dense tensors with torch.save, or as arrays (tensor.numpy())",
}


def load_pickle(path: str | Path) -> Any:
    """Reads a pickle of NumPy arrays, numbers, strings and plain containers without running any code in it.

    Strings of Python 2 are decoded as latin-1, which all public feature files need. Ordered and default dictionaries
    are returned as plain ones, arrays as a subclass of `numpy.ndarray`.

    Raises:
      UserError: if the file is missing, is not a pickle, is truncated or damaged, or asks for anything else.
    """
    path = Path(path)
    check_kind(path, "pickle")
    with one_line_errors(path), path.open("rb") as file:
        return RestrictedUnpickler(file, encoding="latin1").load()


@contextlib.contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turns what reading a pickle raises into a UserError of one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except RefusedError as error:
        remedy = REMEDIES.get(str(error).partition(".")[0], "save the features in these")
        raise UserError(
            f"{path} is refused and none of its code was run: it asks for {error}, but jmer admits only NumPy arrays "
            f"and plain containers in a pickle; {remedy}"
        ) from error
    except Exception as error:  # damaged bytes can raise almost any exception in the unpickler
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is not a pickle, or is truncated or damaged ({reason}): get the file again") from error


class RefusedError(Exception):
    """A pickle asked for something that is not admitted; the message says what."""


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler of arrays and plain containers.

    Attributes:
      admitted: (module, name) -> the stand-in that a pickle gets for this name.
    """

    admitted: ClassVar[Mapping[tuple[str, str], "StandIn"]] = {}

    def find_class(self, module: str, name: str) -> "StandIn":
        if (module, name) not in self.admitted:
            raise RefusedError(_printable(f"{module}.{name}"))
        return self.admitted[module, name]


class StandIn:
    """The stand-in that a pickle gets for a name: it can be passed on and some can be called, but not changed."""

    __slots__ = ("_build", "_name")

    def __init__(self, name: str, build: Callable | None = None):
        self._name = name
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        if self._build is None:
            raise RefusedError(f"a call of {self._name}")
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise RefusedError(f"a change of {self._name}")


class _Dtype:
    """A dtype under construction: a type code, to which the pickle adds the byte order."""

    __slots__ = ("plain",)

    # Structured, nested and datetime types are refused: features do not need them, and their state can be forged.
    _CODE = re.compile(r"[?bBhHiIlLqQefd]|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O[48]?")

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not self._CODE.fullmatch(code):
            raise RefusedError(f"the dtype {_printable(repr(code))}")
        self.plain = np.dtype("O" if code.startswith("O") else code)

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state[:5]
        if structure != [None, None, None]:
            raise RefusedError("a structured dtype")
        self.plain = self.plain.newbyteorder(order)


class GuardedArray(np.ndarray):
    """An array that checks its pickled state before it is restored from it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, column_major, content = state
        plain, size = _plain(dtype), array_size(shape)
        if plain.hasobject:
            require(type(content) is list and len(content) == size, "a list of objects does not fill its array")
        else:
            content = _bytes(content, size * plain.itemsize)
        checked: Any = (1, shape, plain, bool(column_major), content)
        super().__setstate__(checked)


def _array_to_fill(kind: Any, *_: Any) -> GuardedArray:
    if kind is not _NDARRAY:
        raise RefusedError("an array of a class other than numpy.ndarray")
    return np.empty(0, np.uint8).view(GuardedArray)


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> GuardedArray:
    plain = _plain(dtype)
    # A copy: the array must not share memory with an object that the pickle can still reach.
    flat = np.frombuffer(_bytes(buffer, array_size(shape) * plain.itemsize), plain).copy()
    return flat.reshape(shape, order=order).view(GuardedArray)


def _scalar(dtype: Any, content: Any) -> np.generic:
    plain = _plain(dtype)
    content = _bytes(content, plain.itemsize)
    return np.frombuffer(content, plain)[0] if content else plain.type()


def _encode(text: Any, encoding: Any) -> bytes:
    # Python 3 pickles bytes in this way for Python 2.
    if encoding != "latin1":
        raise RefusedError(f"the codec {_printable(repr(encoding))}")
    return text.encode("latin1")


def _plain(dtype: Any) -> np.dtype:
    require(type(dtype) is _Dtype, "an array has no dtype")
    return dtype.plain


def array_size(shape: Any) -> int:
    """Returns the number of elements of an array; raises ValueError if its shape is none."""
    require(type(shape) is tuple and all(type(n) is int and n >= 0 for n in shape), "an array has no shape")
    return math.prod(shape)


def _bytes(content: Any, size: int) -> bytes:
    if isinstance(content, str):  # Python 2 pickles bytes as str
        content = content.encode("latin1")
    require(type(content) in (bytes, bytearray) and len(content) == size, "the bytes of an array do not fill it")
    return bytes(content)


def require(condition: bool, message: str) -> None:
    """Raises ValueError if a condition on the content of a pickle is not met."""
    if not condition:
        raise ValueError(message)


def _printable(name: str) -> str:
    name = "".join(character if character.isprintable() else "?" for character in name)
    return name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "..."


_NDARRAY = StandIn("numpy.ndarray")


def _admitted() -> dict[tuple[str, str], StandIn]:
    builders: dict[str, Callable | None] = {
        "_codecs.encode": _encode,
        "collections.OrderedDict": lambda items=(): dict(items),
        "collections.defaultdict": lambda *_: {},
        "numpy.dtype": _Dtype,
    }
    # NumPy 2 renamed its core, Python 3 its built-ins.
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray._reconstruct"] = _array_to_fill
        builders[f"{core}.multiarray.scalar"] = _scalar
        builders[f"{core}.numeric._frombuffer"] = _array_from_buffer
    for builtins in ("__builtin__", "builtins"):
        builders |= {f"{builtins}.set": set, f"{builtins}.frozenset": frozenset, f"{builtins}.bytes": lambda: b""}
        # Admitted as the factory of a default dictionary only, not to be called.
        builders |= {f"{builtins}.{name}": None for name in ("dict", "float", "int", "list")}
    admitted = {("numpy", "ndarray"): _NDARRAY}
    for path, build in builders.items():
        module, _, name = path.rpartition(".")
        admitted[module, name] = StandIn(path, build)
    return admitted


RestrictedUnpickler.admitted = _admitted()
