"""Classes out of regression labels, as the sentiment of CMU-MOSI and CMU-MOSEI has them, from -3 to 3."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jmer.batch import UNLABELLED


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A conversion of regression labels to classes.

    Attributes:
      described: for the help.
      emotions: names of the classes.
      classes: numbers `[n]` -> classes `[n]`, -1 = unlabelled.
    """

    described: str
    emotions: tuple[str, ...]
    classes: Callable[[np.ndarray], np.ndarray]


_SEVEN = (
    "strongly negative",
    "negative",
    "weakly negative",
    "neutral",
    "weakly positive",
    "positive",
    "strongly positive",
)
CONVERSIONS: Mapping[str, Conversion] = {
    "binary": Conversion("negative < 0 <= positive", ("negative", "positive"), lambda x: (x >= 0).astype(np.int32)),
    "nonzero": Conversion(
        "negative < 0 < positive, and 0 is unlabelled",
        ("negative", "positive"),
        lambda x: np.where(x == 0, UNLABELLED, x > 0).astype(np.int32),
    ),
    "ternary": Conversion(
        "negative, neutral (0), positive",
        ("negative", "neutral", "positive"),
        lambda x: np.sign(x).astype(np.int32) + 1,
    ),
    "seven": Conversion(
        "rounded to integers from -3 to 3", _SEVEN, lambda x: np.rint(np.clip(x, -3, 3)).astype(np.int32) + 3
    ),
}


def add_regression_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--regression`."""
    choices = "; ".join(f"{name}: {conversion.described}" for name, conversion in CONVERSIONS.items())
    parser.add_argument("--regression", choices=CONVERSIONS, help=f"classes out of regression labels. {choices}")


def to_classes(values: np.ndarray, conversion: str) -> np.ndarray:
    """Converts regression labels `[n]` to classes int32 `[n]`; NaN becomes -1, unlabelled."""
    missing = np.isnan(values)
    return np.where(missing, UNLABELLED, CONVERSIONS[conversion].classes(np.where(missing, 0, values))).astype(np.int32)
