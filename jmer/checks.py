"""Checks of the arguments of layers and losses, made while JAX traces: a compiled program does not contain them.

Every error names the argument, what was expected and what was given, as in "mask: expected bool [2, 5], got int32
[2, 4]". Values are checked where they are known; those of traced arrays are not.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_KINDS = {"bool": np.bool_, "int": jnp.integer, "float": jnp.floating}
_NOTATION = re.compile(r"(?P<mapping>modality -> )?(?P<kind>bool|int|float) \[(?P<axes>.*)\](?P<optional>\?)?")


def check_arrays(**arguments: tuple[Any, str]) -> dict[str, Any]:
    """Checks the kinds and shapes of arguments, and that axes of one name have one size.

    Args:
      **arguments: an argument's name -> its value and its description, see `check_array`.

    Returns:
      The sizes of all axes by name; that of `...` is a tuple.

    Raises:
      TypeError, ValueError: see `check_array`.

    Examples:
      >>> check_arrays(x=(np.zeros((2, 5, 3)), "float [B, T, D]"), mask=(np.ones((2, 4), int), "bool [B, T]"))
      Traceback (most recent call last):
      ValueError: mask: expected bool [2, 5], got int64 [2, 4]
    """
    sizes: dict[str, Any] = {}
    for name, (value, description) in arguments.items():
        check_array(name, value, description, sizes)
    return sizes


def check_array(name: str, value: Any, description: str, sizes: dict[str, Any]) -> None:
    """Checks the kind and the shape of one argument.

    Its description has a kind (`bool`, `int` or `float` of any width) and axes: names, numbers, `_` for an axis of any
    size, and `...` for any number of leading axes, the same wherever `...` stands. `modality -> ` before it describes a
    mapping from names to such arrays, and `?` after it admits None.

    Args:
      name: the argument's.
      value: what was given.
      description: what is expected, as `float [B, T, D]`, `modality -> bool [...]` or `int [B]?`.
      sizes: of the axes that are known; those of this argument are added.

    Raises:
      TypeError: if an array is given for a mapping, a mapping for an array, or neither.
      ValueError: if the kind, the number of axes or a size differs.
    """
    parts = _NOTATION.fullmatch(description)
    assert parts, description
    if value is None and parts["optional"]:
        return
    if not parts["mapping"]:
        _check_one(name, value, parts["kind"], parts["axes"], sizes)
        return
    check_mapping(name, value, f"{parts['kind']} [{_shown(parts['axes'], sizes)}]")
    for modality, array in value.items():
        _check_one(f"{name}[{modality!r}]", array, parts["kind"], parts["axes"], sizes)


def _check_one(name: str, value: Any, kind: str, axes: str, sizes: dict[str, Any]) -> None:
    expected = f"{kind} [{_shown(axes, sizes)}]"
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(f"{name}: expected {expected}, got {describe(value)}")
    found = _matched(axes, value.shape, sizes)
    if found is None or not jnp.issubdtype(value.dtype, _KINDS[kind]):
        raise ValueError(f"{name}: expected {expected}, got {describe(value)}")
    sizes |= found


def _matched(axes: str, shape: tuple[int, ...], sizes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the sizes that a shape gives its axes, or None if it contradicts those that are known."""
    names, found = axes.split(", ") if axes else [], {}
    if names[:1] == ["..."]:
        names = names[1:]
        leading = len(shape) - len(names)
        if leading < 0 or sizes.get("...", shape[:leading]) != shape[:leading]:
            return None
        found["..."], shape = shape[:leading], shape[leading:]
    if len(names) != len(shape):
        return None
    for axis, size in zip(names, shape, strict=True):
        if axis == "_":
            continue
        known = int(axis) if axis.isdigit() else found.setdefault(axis, sizes.get(axis, size))
        if known != size:
            return None
    return found


def _shown(axes: str, sizes: Mapping[str, Any]) -> str:
    shown = (sizes.get(axis, axis) for axis in axes.split(", "))
    return ", ".join(str(size) for axis in shown for size in (axis if isinstance(axis, tuple) else (axis,)))


def describe(value: Any) -> str:
    """Returns what an argument is, for an error: `float32 [2, 5]`, `a mapping of text, audio`, `a list`."""
    if isinstance(value, Mapping):
        return f"a mapping of {_listed(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} [{', '.join(map(str, value.shape))}]"
    return "None" if value is None else f"a {type(value).__name__}"


def check_mapping(name: str, value: Any, entries: str) -> None:
    """Checks that an argument is a mapping from modality to `entries`, of at least one.

    Raises:
      TypeError: for something other than a mapping.
      ValueError: for an empty one.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping from modality to {entries}, got {describe(value)}")
    if not value:
        raise ValueError(f"{name}: expected at least one modality, got none")


def check_modalities(name: str, given: Collection[Any], expected: Collection[Any]) -> None:
    """Raises ValueError unless all of the expected modalities are given; others may be."""
    if not set(expected) <= set(given):
        raise ValueError(f"{name}: expected the modalities {_listed(expected)}, got {_listed(given)}")


def _listed(names: Collection[Any]) -> str:
    return ", ".join(map(str, names)) or "none"


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {_listed(choices)}, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raises ValueError unless a number is above 0; the value of a traced one is not known."""
    if is_concrete(value) and not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def check_not_negative(name: str, value: Any) -> None:
    """Raises ValueError if a number is below 0; the value of a traced one is not known."""
    if is_concrete(value) and not value >= 0:
        raise ValueError(f"{name}: expected a number of at least 0, got {value}")


def check_rate(name: str, value: float) -> None:
    """Raises ValueError unless a rate of dropout is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")


def check_at_least_one(**values: int) -> None:
    """Raises ValueError for the first number that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def check_odd(name: str, value: int) -> None:
    """Raises ValueError unless a number is odd and positive."""
    if value < 1 or value % 2 == 0:
        raise ValueError(f"{name}: expected an odd number, got {value}")


def check_divides(name: str, value: int, width: int) -> None:
    """Raises ValueError unless a positive number divides the width of the features."""
    if value < 1 or width % value:
        raise ValueError(f"{name}: expected a divisor of the width {width}, got {value}")


def check_multiple(name: str, value: int, factor: int) -> None:
    """Raises ValueError unless a positive number is a multiple of `factor`."""
    if value < 1 or value % factor:
        raise ValueError(f"{name}: expected a multiple of {factor}, got {value}")


def is_concrete(value: Any) -> bool:
    """Returns whether the values of an array are known on this process, as they are not while JAX traces."""
    return not isinstance(value, jax.core.Tracer) and getattr(value, "is_fully_addressable", True)
