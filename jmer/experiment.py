"""An experiment as a command line gives it: a file, variants after a colon, and changes of single fields."""

import difflib
import math
import runpy
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jmer.config import base_config, flatten
from jmer.errors import UserError

# Fields that are no choice of the command line, and what is.
SETTLED = {
    "model.name": "the experiment's file settles it: name another --config",
    "loss.class_weight_values": "the corpus settles it: choose loss.class_weights=inverse_freq or none",
}


def load_experiment(source: str) -> ConfigDict:
    """Returns the configuration that an experiment's file makes.

    Args:
      source: path of a Python file with a function `get_config`; what follows a colon is passed to the function.

    Raises:
      UserError: naming the file and the line, if there is no such file, it fails, or makes something else.
    """
    name, colon, variants = source.partition(":")
    path = Path(name)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"--config {path} {what}: name an experiment's file, such as configs/lfvd_meld.py")
    try:
        # Run, not imported: an import would leave compiled code beside the user's file.
        defined = runpy.run_path(str(path))
        if "get_config" not in defined:
            raise UserError("the file has no function get_config, which returns the configuration: add one")
        config = defined["get_config"](*([variants] if colon else []))
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


def change_fields(config: ConfigDict, changes: Mapping[str, str]) -> ConfigDict:
    """Returns a copy of a configuration with some fields changed.

    Args:
      config: complete.
      changes: `section.field` -> text, which must fit the type of the field's value; a tuple is given as `a,b`.

    Raises:
      UserError: naming the field, if there is none of that name, or the text does not fit.
    """
    fields = flatten(config)
    values = {}
    for name, text in changes.items():
        if name in SETTLED:
            raise UserError(f"--config.{name} cannot be given, {SETTLED[name]}")
        if name not in fields:
            raise UserError(f"no field '{name}' in the configuration: {_nearest(name, fields)}")
        values[name] = _parsed(name, text, type(fields[name]))
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config


def _line(path: Path, error: Exception) -> str:
    """Says in which line of the file an error arose, as far as it did so there."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _described(error: Exception) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.replace(chr(92) + 'n', ' ').split())}"


def _nearest(name: str, fields: Collection[str]) -> str:
    """Says which fields a wrong name may have meant."""
    section, _, last = name.rpartition(".")
    last_parts = {field: field.rpartition(".")[2] for field in fields}
    close = difflib.get_close_matches(last, last_parts.values())
    alike = [field for field, part in last_parts.items() if part in close]
    of_section = [part for field, part in last_parts.items() if field == f"{section or name}.{part}"]
    if alike:
        return f"is it {' or '.join(alike)}?"
    if of_section:
        return f"section {section or name} has {', '.join(of_section)}"
    return f"it has {', '.join(dict.fromkeys(field.partition('.')[0] for field in fields))}; --help lists all fields"


def _parsed(name: str, text: str, kind: type) -> Any:
    if kind is tuple:
        return tuple(part.strip(" '\"") for part in text.strip("()[] ").split(",") if part.strip(" '\""))
    try:
        return _PARSERS[kind][0](text)
    except (ValueError, KeyError) as error:
        raise UserError(f"--config.{name} is '{text}': give {_PARSERS[kind][1]}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


# Type of a field -> what makes a value of a text, and what the text must be.
_PARSERS = {
    bool: (lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()], "true or false"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    str: (str, "a text"),
}
