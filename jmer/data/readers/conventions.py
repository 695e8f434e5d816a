"""What the public feature files have in common: names of splits, file names, encoding errors."""

import argparse
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

# Windows-1252 has letters where latin-1 and Unicode have control characters.
_MISREAD = re.compile("[\x80-\x9f]")


def add_emotions_argument(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Adds `--emotions A,B,...`, parsed into a tuple of names; None if it is not given.

    Args:
      parser: to add it to.
      otherwise: what holds without it, for the help.
    """
    parser.add_argument(
        "--emotions",
        type=_names,
        metavar="A,B,...",
        help=f"names of the emotions in the order of their labels (default: {otherwise})",
    )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"'{text}' has an empty name, or one twice: give each emotion once")
    return names


def files_by_split(sources: Sequence[Path], pattern: str) -> dict[str, Path]:
    """Finds one file per split, where names begin with the split as in `train_data.json`.

    Args:
      sources: files, or folders of them.
      pattern: what the names of the files in a folder match.

    Returns:
      split name -> file.

    Raises:
      UserError: if a file is missing, its name begins otherwise, or two are of one split.
    """
    paths = []
    for source in sources:
        if not source.exists():
            raise UserError(f"no file {source}: check its path")
        found = sorted(source.glob(pattern)) if source.is_dir() else [source]
        if not found:
            raise UserError(f"{source} holds no {pattern}: name the folder of the files, or the files")
        paths += found
    files = {}
    for path in paths:
        prefix = path.name.split("_")[0]
        if prefix not in SPLIT_NAMES:
            raise UserError(f"{path}: a file's name begins with its split ({', '.join(SPLIT_NAMES)}) and _: rename it")
        split = SPLIT_NAMES[prefix]
        if split in files:
            raise UserError(f"{files[split]} and {path} are both {split}: name the files that belong together")
        files[split] = path
    return files


def mended(sentence: str) -> str:
    """Returns a sentence with the quotes and dashes that a wrong encoding turned into control characters."""
    return _MISREAD.sub(lambda match: match[0].encode("latin1").decode("cp1252", "replace"), sentence)
