"""What the public feature files have in common: names of splits, file names, encoding errors."""

import re
from collections.abc import Sequence
from pathlib import Path

from jmer.errors import UserError

SPLIT_NAMES = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
}

# Windows-1252 has printable characters where latin-1 and Unicode have these control characters.
_CONTROL_CHARACTERS = re.compile("[\x80-\x9f]")


def split_named(name: str) -> str | None:
    """Returns the split that a cell names, in any case; None if it names none."""
    return SPLIT_NAMES.get(name.strip().lower())


def files_by_split(sources: Sequence[Path], pattern: str) -> dict[str, Path]:
    """Finds one file per split, by the prefix of its name, as in `train_data.json`.

    Args:
      sources: files, or folders that contain them.
      pattern: glob pattern of the files in a folder.

    Returns:
      split name -> file.

    Raises:
      UserError: if a file is missing, its name has no such prefix, or two files are of the same split.
    """
    paths = []
    for source in sources:
        if not source.exists():
            raise UserError(f"no file {source}: check its path")
        found = sorted(source.glob(pattern)) if source.is_dir() else [source]
        if not found:
            raise UserError(f"{source} contains no {pattern}: give the folder with the files, or the files")
        paths += found
    files: dict[str, Path] = {}
    for path in paths:
        prefix = path.name.split("_")[0]
        if prefix not in SPLIT_NAMES:
            raise UserError(
                f"{path}: rename it to begin with its split and _ (the splits are {', '.join(SPLIT_NAMES)})"
            )
        split = SPLIT_NAMES[prefix]
        if split in files:
            raise UserError(f"{files[split]} and {path} are both {split}: give one file per split")
        files[split] = path
    return files


def fix_encoding(sentence: str) -> str:
    """Restores quotes and dashes of Windows-1252 text that was decoded as latin-1."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("latin1").decode("cp1252", "replace"), sentence)
