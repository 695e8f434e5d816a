"""What public releases of IEMOCAP and MELD have in common: the order of the emotions, and quirks of their text."""

import argparse
import re
from collections.abc import Sequence

IEMOCAP6 = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
IEMOCAP4 = ("happy", "sad", "neutral", "angry")
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

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
        type=lambda text: tuple(name.strip() for name in text.split(",")),
        metavar="A,B,...",
        help=f"names of the emotions in the order of their labels (default: {otherwise})",
    )


def in_standard_order(names: Sequence[str]) -> tuple[str, ...]:
    """Returns emotion names in the order that the public releases number them, or else in alphabetical order."""
    for standard in (IEMOCAP6, IEMOCAP4, MELD):
        if set(names) == set(standard):
            return standard
    return tuple(sorted(set(names)))


def mended(sentence: str) -> str:
    """Returns a sentence with the quotes and dashes that a wrong encoding turned into control characters."""
    return _MISREAD.sub(lambda match: match[0].encode("latin1").decode("cp1252", "replace"), sentence)
