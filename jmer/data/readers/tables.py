"""A table of utterances, whatever file it comes from: named columns that are read on access."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

SHOWN_NAMES = 50
DIGITS = 9
"""The most that the number of a numbered column has."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose columns are read on access.

    Attributes:
      path: the file, or in a folder with a dataset per split, the folder of this one.
      names: names of the columns.
      values: name -> the column as a list with one entry per row, None where a cell is empty; raises UserError if a
        cell is not one value.
      array: name -> the column as numbers `[rows]` or `[rows, D]`, NaN where a cell is empty; raises UserError if it
        contains anything else.
      split: that the name of the file says; None = none.
      classes: column -> names of its values in the order in which the file numbers them, where it does; `values` has
        the names.
      by_utterance: name of a column with a list per row -> the table with a row per element of the lists, or None if
        the column has no lists.
    """

    path: Path
    names: Sequence[str]
    values: Callable[[str], list]
    array: Callable[[str], np.ndarray]
    split: str | None = None
    classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    by_utterance: Callable[[str], "Table | None"] = lambda column: None


def numbered_columns(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Groups names such as `text_0`, `text_1` or `text0`, `text1`: prefix -> number -> name."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)_?(\d+)", name)
        if match and match[1] and len(match[2]) <= DIGITS:
            groups.setdefault(match[1], {})[int(match[2])] = name
    return groups


def listing(names: Sequence[str]) -> str:
    """Returns names for a message, with numbered columns as a range; the first `SHOWN_NAMES` if there are more."""
    groups = {prefix: numbers for prefix, numbers in numbered_columns(names).items() if len(numbers) > 2}
    range_of: dict[str, str] = {}
    for numbers in groups.values():
        range_of |= dict.fromkeys(numbers.values(), f"{numbers[min(numbers)]}..{numbers[max(numbers)]}")
    shown = list(dict.fromkeys(range_of.get(name, name) for name in names))
    more = f" and {len(shown) - SHOWN_NAMES} more" if len(shown) > SHOWN_NAMES else ""
    return ", ".join(shown[:SHOWN_NAMES]) + more if shown else "no columns"
