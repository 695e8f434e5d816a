"""Values that are read back from JSON, checked against the types that they were written from."""

import collections.abc
import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

_SHOWN_CHARACTERS = 60
_WHOLE_NUMBERS = range(-(2**63), 2**63)
_SCALARS = {
    str: ("a text", lambda value: isinstance(value, str)),
    # A bool is an int to Python.
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: type(value) is int and value in _WHOLE_NUMBERS),
    float: ("a number", lambda value: type(value) in (int, float) and abs(value) < math.inf and _is_float(value)),
}


def from_json(kind: Any, value: Any, name: str = "") -> Any:
    """Returns a value of a type from what `dataclasses.asdict` and JSON made of it.

    Args:
      kind: a dataclass; `str`, `bool`, `int` (of 64 bits) or `float` (finite; whole numbers stay such); a `Sequence`,
        `list` or `tuple[X, ...]`, or a `Mapping` from `str`, of these; `X | None`; `Any`, for whatever JSON has.
      value: what JSON gave.
      name: of the field, for the error.

    Raises:
      ValueError: naming the first field that is missing, unknown, or of another type.

    >>> from_json(dict[str, tuple[int, ...]], {"train": [3, 2.5]})
    Traceback (most recent call last):
    ValueError: train[1] is 2.5: expected a whole number
    """
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (one for one in arguments if one is not types.NoneType)
        return None if value is None else from_json(kind, value, name)
    if origin in (dict, collections.abc.Mapping):
        fields = _fields(value, name)
        return {key: from_json(arguments[1], one, _joined(name, key)) for key, one in fields.items()}
    if origin in (list, tuple, collections.abc.Sequence):
        if not isinstance(value, list | tuple):
            raise _unexpected(name, value, "a list")
        found = [from_json(arguments[0], one, f"{name}[{number}]") for number, one in enumerate(value)]
        return tuple(found) if origin is tuple else found
    expected, is_such = _SCALARS[kind]
    if not is_such(value):
        raise _unexpected(name, value, expected)
    return value


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    fields, hints = _fields(value, name), typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in fields.keys() - known.keys():
        raise ValueError(f"{_joined(name, key)} is an unknown field")
    for key, field in known.items():
        if key not in fields and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_joined(name, key)} is missing")
    return kind(**{key: from_json(hints[key], fields[key], _joined(name, key)) for key in known if key in fields})


def _fields(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _unexpected(name, value, "a table of names and values")
    return value


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _unexpected(name: str, value: Any, expected: str) -> ValueError:
    return ValueError(f"{name or 'the whole'} is {_shown(value)}: expected {expected}")


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | Mapping):
        return f"a {'table' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _is_float(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True
