"""Experiments by name or by file, their variants after a colon, and changes of single fields."""

import contextlib
import difflib
import functools
import hashlib
import math
import numbers
import sys
import traceback
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jmer.config import base_config, flatten, with_variants
from jmer.errors import UserError
from jmer.files import local_path
from jmer.models.registry import model_names

# Fields that nobody can change, and what to do instead.
FIXED = {
    "model.name": "it comes with the experiment; choose another one",
    "loss.class_weight_values": "they come from the corpus; choose a rule with loss.class_weights",
    "data.speakers": "they come from the corpus; choose data.speaker_index",
    "attributes.scales": "they come from the corpus; choose attributes.names",
}


def get_config(source: str | Path, changes: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns the configuration of an experiment or, with its default values, of a model.

    Args:
      source: the name of an experiment that comes with jmer (`lfvd_meld`), the path of a Python file that defines
        `get_config()`, or the name of a registered model (`lfvd`); variants of the model after a colon, joined by
        commas (`lfvd_meld:without_cear,tiny`). What ends with `.py` or is a file counts as a path.
      changes: `section.field` -> value, see `change_fields`.

    Raises:
      UserError: if there is no such experiment, its file fails or returns something else, or a variant or a change does
        not fit.
    """
    if not isinstance(source, str | Path):
        raise UserError(f"source is of type {type(source).__name__}: give the name or the file of an experiment")
    local_path(source)
    name, _, variants = str(source).partition(":")
    path = _experiment_file(name)
    config = base_config(name) if path is None else _from_file(path)
    try:
        config = with_variants(config, variants)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    return change_fields(config, changes or {})


def change_fields(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a configuration with some fields changed.

    Args:
      config: complete.
      changes: `section.field` -> value of the field's type; also an integer for a number, a list for a tuple, and a
        text for either of them, as on the command line, where a tuple is `a,b`.

    Raises:
      UserError: naming the field, for an unknown one or a value that does not fit.
    """
    if not isinstance(changes, Mapping):
        raise UserError(f"changes is of type {type(changes).__name__}: give a mapping from section.field to a value")
    fields = flatten(config)
    values = {}
    for name, value in changes.items():
        if name in FIXED:
            raise UserError(f"{name} cannot be changed: {FIXED[name]}")
        if name not in fields:
            raise UserError(f"unknown field '{name}': {_nearest_field(name, fields)}")
        values[name] = _converted(name, value, fields[name])
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config


def experiment_files() -> dict[str, Path]:
    """Returns the name and the file of each experiment that comes with jmer."""
    package = Path(__file__).parent
    installed, checkout = package / "configs", package.parent / "configs"
    folder = installed if installed.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def _experiment_file(name: str) -> Path | None:
    """Returns an experiment's file, None for a model's name."""
    path, known, models = Path(name), experiment_files(), model_names()
    if path.is_file():
        return path
    if path.suffix != ".py" and name in known:
        return known[name]
    if path.suffix != ".py" and name in models:
        return None
    close = difflib.get_close_matches(path.stem, [*known, *models], n=1)
    problem = "is a folder" if path.is_dir() else "does not exist" if path.suffix == ".py" else "is unknown"
    hint = f"did you mean {close[0]}? Otherwise " if close else ""
    raise UserError(
        f"experiment {name} {problem}: {hint}choose one of {', '.join(known)}, a model ({', '.join(models)}) or a "
        "Python file of your own"
    )


def _from_file(path: Path) -> ConfigDict:
    """Returns the configuration that an experiment's file makes, which has the fields of its model."""
    try:
        module = _loaded(path.resolve(), path.read_bytes())
        if not hasattr(module, "get_config"):
            raise UserError("the file has no function get_config, which returns the configuration: add one")
        config = module.get_config()
        complete = flatten(base_config(config.model.name))
        differing = sorted(complete.keys() ^ flatten(config).keys())
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # the file is a program, which can raise anything
        raise UserError(f"{path}{_line(path, error)}: {_described(error)}: correct the file") from error
    if differing:
        raise UserError(
            f"{path}: its configuration has other fields than jmer.config.base_config('{config.model.name}'), for "
            f"instance {differing[0]}: start from that one and add none"
        )
    return config


@functools.cache
def _loaded(path: Path, source: bytes) -> types.ModuleType:
    """Runs a file once per content, as a module that can import its neighbours.

    A model that it registers is so one class for the life of the process. Unlike an import, this leaves no compiled
    code beside the user's file.
    """
    module = types.ModuleType(f"{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}")
    module.__file__ = str(path)
    code = compile(source, str(path), "exec")
    with _registered(module), _importing_from(path.parent):
        exec(code, module.__dict__)
    return module


@contextlib.contextmanager
def _registered(module: types.ModuleType) -> Iterator[None]:
    """Registers a module under its name, for good unless the block fails."""
    sys.modules[module.__name__] = module
    try:
        yield
    except BaseException:
        del sys.modules[module.__name__]
        raise


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _line(path: Path, error: Exception) -> str:
    """Returns in which line of the file an error arose, empty if in none."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path.resolve())]
    return f", line {lines[-1]}" if lines else ""


def _described(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.replace(chr(92) + 'n', ' ').split())}"


def _nearest_field(name: str, fields: Collection[str]) -> str:
    """Returns a hint at the fields that a wrong name may have meant."""
    section, _, last = name.rpartition(".")
    last_parts = {field: field.rpartition(".")[2] for field in fields}
    close = difflib.get_close_matches(last, last_parts.values())
    alike = [field for field, part in last_parts.items() if part in close]
    in_section = [field for field in alike if field.rpartition(".")[0] == section]
    of_section = [part for field, part in last_parts.items() if field == f"{section or name}.{part}"]
    if alike:
        return f"did you mean {' or '.join(in_section or alike)}?"
    if of_section:
        return f"section {section or name} has {', '.join(of_section)}"
    sections = dict.fromkeys(field.partition(".")[0] for field in fields)
    return f"the configuration has {', '.join(sections)}; --help with --config lists all fields"


def _converted(name: str, value: Any, current: Any) -> Any:
    """Returns a value as the type of the field's current one."""
    value = value.item() if isinstance(value, np.generic) else value
    try:
        if isinstance(current, tuple):
            return _tuple(value, type(current[0]) if current else str)
        return _scalar(value, type(current))
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}: expected {_EXPECTED[type(current)]}, got {value!r}") from error


def _tuple(value: Any, kind: type) -> tuple:
    if isinstance(value, str):
        parts = [part.strip(" '\"") for part in value.strip("()[] ").split(",")]
        value = [part for part in parts if part]
    if not isinstance(value, tuple | list):
        raise ValueError(value)
    return tuple(_scalar(part, kind) for part in value)


def _scalar(value: Any, kind: type) -> Any:
    if isinstance(value, str):
        return _PARSERS[kind](value)
    if kind is not bool and isinstance(value, bool):
        raise ValueError(value)
    if kind is float and isinstance(value, numbers.Real):
        return _finite(value)
    if kind is int and isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, kind):
        return value
    raise ValueError(value)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


# Type of a field -> what parses a text.
_PARSERS: dict[type, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    int: int,
    float: _finite,
    str: str,
}

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "values separated by commas",
}
