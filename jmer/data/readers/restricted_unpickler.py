"""An unpickler that admits NumPy arrays and plain containers and refuses everything else.

A pickle is a program that may call any function it can name. Here every name is looked up in one table, and a pickle
gets a stand-in from this module, never NumPy's own object: NumPy restores arrays and dtypes from the sizes and flags
that it is given, so a forged pickle could access memory outside its arrays. Time and memory are bounded too: a pickle
that is not `is_plain` is read by an unpickler that checks each key, and arrays are counted, see `limits`.
"""

import contextlib
import gc
import math
import mmap
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jmer.data.readers.limits import EMPTY_ROWS, reading, spend
from jmer.data.readers.pickle_scan import KEY_ITEMS, is_plain
from jmer.file_kinds import check_kind
from jmer.guard import RefusalError, guarded

SHOWN_CHARACTERS = 120
AGAIN = "get the file again"
DIMENSIONS = 64
"""The most that an array of NumPy can have."""
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
    with (
        guarded(str(path), AGAIN, described="is not a pickle, or is truncated or damaged"),
        reading(path),
        path.open("rb") as file,
    ):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            unpickler = unpickler_for(content)
        with _without_collection():
            return unpickler(file, encoding="latin1").load()


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Pauses the garbage collector, which would look through what has been read again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class NameRefusedError(RefusalError):
    """A pickle asks for something that is not admitted.

    Args:
      thing: what it asks for.
    """

    def __init__(self, thing: str):
        remedy = REMEDIES.get(thing.partition(".")[0], "save the features in these")
        super().__init__(
            f"is refused and none of its code was run: it asks for {thing}, but jmer admits only NumPy arrays "
            f"and plain containers in a pickle; {remedy}"
        )


class IntegerRefusedError(RefusalError):
    """A pickle has an integer that no feature needs, and that would take long to hash or to print.

    Args:
      value: the integer.
    """

    def __init__(self, value: int):
        super().__init__(
            f"is refused: it has an integer of {value.bit_length()} bits, but jmer admits only integers of 64 bits; "
            "save the features without it"
        )


class KeyRefusedError(RefusalError):
    """A key of a dictionary or an element of a set is not admitted.

    Args:
      kind: what the key is, after "a key".
    """

    def __init__(self, kind: str):
        super().__init__(
            f"is refused: it has a key {kind}, but jmer admits only strings, integers and short tuples of them as "
            "keys, which are hashed in bounded time; save the features with such keys"
        )


class Admission:
    """What an unpickler admits.

    Attributes:
      admitted: (module, name) -> the stand-in that a pickle gets for this name.
    """

    admitted: ClassVar[Mapping[tuple[str, str], "StandIn"]] = {}

    def find_class(self, module: str, name: str) -> "StandIn":
        if (module, name) not in self.admitted:
            raise NameRefusedError(_printable(f"{module}.{name}"))
        return self.admitted[module, name]

    def persistent_load(self, reference: Any) -> Any:
        raise NameRefusedError("an object outside the file")


class RestrictedUnpickler(Admission, pickle.Unpickler):
    """An unpickler of arrays and plain containers, for pickles that are `is_plain`."""


_PythonUnpickler: Any = pickle._Unpickler


def _checked_integer(load: Callable) -> Callable:
    def load_checked(unpickler: Any) -> None:
        load(unpickler)
        if abs(unpickler.stack[-1]) >= 1 << 64:
            raise IntegerRefusedError(unpickler.stack[-1])

    return load_checked


_INTEGERS = {
    code[0]: _checked_integer(_PythonUnpickler.dispatch[code[0]])
    for code in (pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4)
}


class CarefulUnpickler(Admission, _PythonUnpickler):
    """An unpickler of arrays and plain containers that checks all keys and integers: several times slower."""

    dispatch: ClassVar[dict] = {**_PythonUnpickler.dispatch, **_INTEGERS}

    def _load_item(self) -> None:
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    def _load_items(self) -> None:
        check_keys(self.stack[::2])
        super().load_setitems()

    def _load_dict(self) -> None:
        check_keys(self.stack[::2])
        super().load_dict()

    def _load_elements(self) -> None:
        check_keys(self.stack)
        super().load_additems()

    def _load_frozenset(self) -> None:
        check_keys(self.stack)
        super().load_frozenset()

    dispatch |= {
        pickle.SETITEM[0]: _load_item,
        pickle.SETITEMS[0]: _load_items,
        pickle.DICT[0]: _load_dict,
        pickle.ADDITEMS[0]: _load_elements,
        pickle.FROZENSET[0]: _load_frozenset,
    }


def unpickler_for(
    pickled: bytes | mmap.mmap, fast: type[RestrictedUnpickler] = RestrictedUnpickler, careful: type = CarefulUnpickler
) -> type:
    """Returns the unpickler to use for a pickle, the fast one if that is safe."""
    return fast if is_plain(pickled) else careful


def check_keys(keys: Iterable[Any]) -> None:
    """Checks that keys can be hashed in bounded time.

    Raises:
      KeyRefusedError: if one cannot.
    """
    for key in keys:
        if type(key) is tuple:
            if len(key) > KEY_ITEMS or not all(_is_atom(item, 1 << 32) for item in key):
                raise KeyRefusedError("that is a long or nested tuple")
        elif not _is_atom(key, 1 << 64):
            raise KeyRefusedError(f"of type {type(key).__name__}")


def _is_atom(value: Any, limit: int) -> bool:
    # Large integers with equal hashes would make a dictionary take quadratic time.
    return abs(value) < limit if type(value) is int else isinstance(value, _ATOMS)


def _is_short(value: Any) -> bool:
    """Whether a tuple takes little time to hash."""
    return len(value) <= DIMENSIONS and not any(type(item) in (tuple, frozenset) for item in value)


_ATOMS = (str, bytes, float, bool, type(None), np.generic)


class StandIn:
    """The stand-in that a pickle gets for a name: it can be passed on and some can be called, but not changed."""

    __slots__ = ("_build", "_name")

    def __init__(self, name: str, build: Callable | None = None):
        self._name = name
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        if self._build is None:
            raise NameRefusedError(f"a call of {self._name}")
        # The unpickler of C may be asked to hash a tuple of arguments later.
        for argument in arguments:
            if type(argument) is tuple and not _is_short(argument):
                raise ValueError(f"a call of {self._name} has long or nested tuples")
        require(len(arguments) <= KEY_ITEMS, f"a call of {self._name} has too many arguments")
        return self._build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise NameRefusedError(f"a change of {self._name}")


class _Dtype:
    """A dtype under construction: a type code, to which the pickle adds the byte order."""

    __slots__ = ("plain",)

    # Structured, nested and datetime types are refused: features do not need them, and their state can be forged.
    _CODE = re.compile(r"[?bBhHiIlLqQefd]|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O[48]?")

    def __init__(self, code: Any, *_: Any):
        if not isinstance(code, str) or not self._CODE.fullmatch(code):
            raise NameRefusedError(f"the dtype {_printable(repr(code))}")
        self.plain = np.dtype("O" if code.startswith("O") else code)

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state[:5]
        if structure != [None, None, None]:
            raise NameRefusedError("a structured dtype")
        require(_is_short(state), "a dtype has another state")
        self.plain = self.plain.newbyteorder(order)


class GuardedArray(np.ndarray):
    """An array that checks its pickled state before it is restored from it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        version, shape, dtype, column_major, content = state
        require(type(version) is int and type(column_major) in (bool, int), "an array has another state")
        plain = _plain(dtype)
        if plain.hasobject:
            size = array_size(shape)
            require(type(content) is list and len(content) == size, "a list of objects does not fill its array")
        else:
            content = _array_bytes(content, shape, plain)
        checked: Any = (1, shape, plain, bool(column_major), content)
        super().__setstate__(checked)


def _array_to_fill(kind: Any, *_: Any) -> GuardedArray:
    if kind is not _NDARRAY:
        raise NameRefusedError("an array of a class other than numpy.ndarray")
    return np.empty(0, np.uint8).view(GuardedArray)


def _array_from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> GuardedArray:
    plain = _plain(dtype)
    # A copy: the array must not share memory with an object that the pickle can still reach.
    flat = np.frombuffer(_array_bytes(buffer, shape, plain), plain).copy()
    return flat.reshape(shape, order=order).view(GuardedArray)


def _scalar(dtype: Any, content: Any) -> np.generic:
    plain = _plain(dtype)
    content = _bytes(content, plain.itemsize)
    check_characters(content, plain)
    return np.frombuffer(content, plain)[0] if content else plain.type()


def _encode(text: Any, encoding: Any) -> bytes:
    # Python 3 pickles bytes in this way for Python 2.
    if encoding != "latin1":
        raise NameRefusedError(f"the codec {_printable(repr(encoding))}")
    return text.encode("latin1")


def _hashed(kind: Callable) -> Callable:
    def build(elements: Any = ()) -> Any:
        check_keys(elements)
        return kind(elements)

    return build


def _dictionary(items: Any = ()) -> dict:
    if not isinstance(items, dict):
        check_keys(key for key, _ in items)
    return dict(items)


def _plain(dtype: Any) -> np.dtype:
    require(type(dtype) is _Dtype, "an array has no dtype")
    return dtype.plain


def array_size(shape: Any) -> int:
    """Returns the number of elements of an array; raises ValueError if its shape is none."""
    require(are_sizes(shape), "an array has no shape")
    size = math.prod(shape)
    require(size > 0 or math.prod(filter(None, shape)) <= EMPTY_ROWS, f"an array has rows without any content: {shape}")
    return size


def are_sizes(values: Any) -> bool:
    """Whether a value is a tuple of integers of at least 0, as shapes and strides are."""
    return type(values) is tuple and all(type(n) is int and n >= 0 for n in values)


def _array_bytes(content: Any, shape: Any, dtype: np.dtype) -> bytes:
    count = array_size(shape)
    require(bool(dtype.itemsize) or count <= EMPTY_ROWS, f"an array has {count} strings without any content")
    content = _bytes(content, count * dtype.itemsize)
    spend(len(content), "its arrays")
    check_characters(content, dtype)
    return content


def check_characters(content: bytes | memoryview, dtype: np.dtype) -> None:
    """Raises ValueError if a text of NumPy has numbers that are no characters: Python cannot work with such strings."""
    if dtype.kind == "U":
        numbers = np.frombuffer(content, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        require(not numbers.size or numbers.max() <= sys.maxunicode, "a text has characters that do not exist")


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
        "collections.OrderedDict": _dictionary,
        "collections.defaultdict": lambda *_: {},
        "numpy.dtype": _Dtype,
    }
    # NumPy 2 renamed its core, Python 3 its built-ins.
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray._reconstruct"] = _array_to_fill
        builders[f"{core}.multiarray.scalar"] = _scalar
        builders[f"{core}.numeric._frombuffer"] = _array_from_buffer
    for builtins in ("__builtin__", "builtins"):
        builders |= {
            f"{builtins}.set": _hashed(set),
            f"{builtins}.frozenset": _hashed(frozenset),
            f"{builtins}.bytes": lambda: b"",
        }
        # Admitted as the factory of a default dictionary only, not to be called.
        builders |= {f"{builtins}.{name}": None for name in ("dict", "float", "int", "list")}
    admitted = {("numpy", "ndarray"): _NDARRAY}
    for path, build in builders.items():
        module, _, name = path.rpartition(".")
        admitted[module, name] = StandIn(path, build)
    return admitted


Admission.admitted = _admitted()
