"""Files and folders with networks, as their authors publish them. Nothing is downloaded."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jmer.errors import UserError

# The kind of a file -> it only stands for the file, which `jmer.file_kinds` says how to get.
_NOT_ITSELF = {"empty", "zeros", "git-lfs", "git-annex", "dvc", "html", "xml"}


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Raises UserError if a folder, which should have files of some names, is none."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist (nothing is downloaded)"
        listed = " and ".join([", ".join(names[:-1]), names[-1]])
        raise UserError(f"{folder} {what}: name a folder with {listed}")


def check_kind(path: Path, *expected: str) -> None:
    """Checks that a file is the file itself, not what stands for it, and not recognised as of another kind.

    Args:
      path: the file.
      expected: the kind that it should be, and others that are read; empty = any text.

    Raises:
      UserError: if it is not, or cannot be read.
    """
    # The room imports JAX, which naming an extractor does not need.
    from jmer.file_kinds import kind_of

    kind = kind_of(path)
    if kind and kind.name not in expected and (kind.name in _NOT_ITSELF or expected):
        remedy = kind.remedy if kind.name in _NOT_ITSELF else f"get the {expected[0]} file"
        raise UserError(f"{path} is {kind.what}: {remedy}")


def read_config(path: Path, families: Collection[str]) -> dict[str, Any]:
    """Returns what a config.json of transformers says.

    Args:
      path: of the file.
      families: architectures (`model_type`) of which it may be.

    Raises:
      UserError: if it cannot be read or is of another architecture.
    """
    check_kind(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): get the file again") from error
    family = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(family, str) or family not in families:
        raise UserError(f"{path}: model_type is {family!r}: only {', '.join(families)} are supported")
    return content


def whole_number(path: Path, content: dict[str, Any], name: str, default: int | None = None, *, least: int = 1) -> int:
    """Returns an entry of a config.json. Raises UserError if it is no whole number, or too small."""
    value = content.get(name, default)
    if type(value) is not int or value < least:
        found = "is missing" if value is None else f"is {value!r}"
        raise UserError(f"{path}: {name} {found}: expected a whole number of at least {least}")
    return value
