"""Which rows of a table are a conversation: ids of one or several columns, order, and signs of ids that restart."""

import dataclasses
import itertools
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.errors import UserError

Key = tuple[str, ...]
"""The values of the columns that form the id of a conversation."""

SHOWN_ROWS = 3
MOST_CANDIDATES = 12  # of columns that could tell conversations apart: their combinations are tried
MOST_ADDED = 3  # columns of a combination
SHUFFLED = 0.5  # runs per row above which a file is shuffled, rather than made of conversations with the same id

_NUMERAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*")


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the rows of concatenated files are.

    Attributes:
      counts: file -> its number of rows, in order.
    """

    counts: Mapping[Path, int]

    @property
    def files(self) -> str:
        """The files, for the beginning of a message."""
        first, *others = self.counts
        return f"{first} and {len(others)} more" if others else str(first)

    def rows(self, rows: Sequence[int]) -> str:
        """Describes rows, numbered from 1 in their file."""
        numbers: dict[str, list[str]] = {}
        for row in rows[:SHOWN_ROWS]:
            name, number = self._place(row)
            numbers.setdefault(name, []).append(str(number))
        if len(self.counts) == 1:
            (shown,) = numbers.values()
        else:
            shown = [f"{_listed(found)} of {name}" for name, found in numbers.items()]
        more = [f"{len(rows) - SHOWN_ROWS} more"] if len(rows) > SHOWN_ROWS else []
        return f"row{'s' if len(rows) > 1 else ''} {_listed([*shown, *more])}"

    def _place(self, row: int) -> tuple[str, int]:
        for path, count in self.counts.items():
            if row < count:
                same_name = [other for other in self.counts if other.name == path.name]
                return path.name if len(same_name) == 1 else f"{path.parent.name}/{path.name}", row + 1
            row -= count
        raise IndexError(row)


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def conversation_names(keys: Iterable[Key]) -> dict[Key, str]:
    """Names conversations by the values that identify them: `("1", "12")` is `1_12`.

    If two would have the same name, as `("a_b", "c")` and `("a", "b_c")`, the underscores in values become `\\_`.
    """
    names = {key: "_".join(key) for key in keys}
    if len(set(names.values())) == len(names):
        return names
    return {key: "_".join(re.sub(r"([\\_])", r"\\\1", value) for value in key) for key in names}


def grouped(keys: Iterable[Hashable]) -> dict[Any, list[int]]:
    """Returns the rows of each key, both in order of appearance."""
    rows: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def sort_keys(values: Sequence[Any], conversation: str) -> list[Any]:
    """Returns keys that sort the utterances of a conversation; text of numerals only is sorted by number.

    Raises:
      UserError: if cells are empty, or some are numbers and others text.
    """
    if any(value is None or value != value for value in values) or len({isinstance(v, str) for v in values}) > 1:
        raise UserError(f"conversation '{conversation}': the order has empty cells, or both numbers and text")
    if all(isinstance(value, str) and _NUMERAL.fullmatch(value) for value in values):
        return [float(value) for value in values]
    return list(values)


def repeated_rows(values: Sequence[Hashable]) -> list[int]:
    """Returns the positions of the first value that occurs more than once; none if all are distinct."""
    return next((positions for positions in grouped(values).values() if len(positions) > 1), [])


def runs(keys: Sequence[Hashable]) -> dict[Any, list[tuple[int, int]]]:
    """Returns the first and last row of each run of rows with the same key."""
    found: dict[Any, list[tuple[int, int]]] = {}
    start = 0
    for key, rows in itertools.groupby(keys):
        end = start + sum(1 for _ in rows)
        found.setdefault(key, []).append((start, end - 1))
        start = end
    return found


def scattered(keys: Sequence[Hashable], *, sorted_by_order: bool) -> dict[Any, list[tuple[int, int]]]:
    """Returns the runs of the conversations whose rows are not contiguous, which ids that restart look like.

    Args:
      keys: the conversation of each row.
      sorted_by_order: whether an order sorts the rows, so that those of a shuffled file tell nothing.
    """
    found = runs(keys)
    if sorted_by_order and sum(map(len, found.values())) > SHUFFLED * len(keys):
        return {}
    return {key: parts for key, parts in found.items() if len(parts) > 1}


def columns_that_tell_apart(
    keys: Sequence[Hashable], within: Sequence[Hashable] | None, candidates: Mapping[str, Sequence[Hashable]]
) -> tuple[str, ...]:
    """Finds the fewest columns that divide conversations with the same id into contiguous ones.

    Args:
      keys: the conversation of each row.
      within: values that must be distinct in a conversation, such as the order; None = none.
      candidates: column -> a value per row.

    Returns:
      Names of columns; none if no combination does.
    """
    base = _codes(keys)
    distinct = None if within is None else _codes(within)
    halves = len(base) / 2  # conversations of one utterance each would satisfy any condition
    codes: dict[str, np.ndarray] = {}
    for name, values in candidates.items():
        coded = _codes(values)
        if coded.any() and np.count_nonzero(np.diff(coded)) < halves and len(codes) < MOST_CANDIDATES:
            codes[name] = coded
    for size in range(1, MOST_ADDED + 1):
        for names in itertools.combinations(codes, size):
            divided = _combined(base, *(codes[name] for name in names))
            groups = int(divided.max()) + 1
            contiguous = np.count_nonzero(np.diff(divided)) + 1 == groups
            if groups <= halves and contiguous and (distinct is None or _all_differ(divided, distinct)):
                return names
    return ()


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _combined(*codes: np.ndarray) -> np.ndarray:
    return _codes(list(zip(*(code.tolist() for code in codes), strict=True)))


def _all_differ(groups: np.ndarray, values: np.ndarray) -> bool:
    return int(_combined(groups, values).max()) + 1 == len(groups)
