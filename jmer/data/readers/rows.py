"""The rows of tables become conversations; signs of ids that restart, which would merge conversations, are reported."""

import contextlib
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from jmer.data.corpus import Conversation
from jmer.data.readers.grouping import (
    Key,
    Places,
    columns_that_tell_apart,
    conversation_names,
    grouped,
    repeated_rows,
    scattered,
    sort_keys,
)
from jmer.data.readers.mapping import COLUMN_FLAGS, Columns
from jmer.data.readers.tables import Table, numbered_columns
from jmer.errors import UserError
from jmer.modalities import MODALITIES
from jmer.warning import warn


@dataclasses.dataclass(frozen=True)
class Rows:
    """The mapped columns of tables, one entry per utterance."""

    conversation: list[Key]
    order: list[Any] | None
    speaker: list[str]
    label: list[int]
    split: list[str]
    fold: list[str] | None
    split_per_fold: dict[str, list[str]]
    utterance: list[str] | None
    sentence: list[str]
    features: dict[str, np.ndarray]
    available: dict[str, np.ndarray]
    attributes: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tables:
    """The tables whose rows were concatenated.

    Attributes:
      tables: they.
      counts: the number of rows of each.
    """

    tables: Sequence[Table]
    counts: Sequence[int]

    @property
    def places(self) -> Places:
        return Places({table.path: count for table, count in zip(self.tables, self.counts, strict=True)})

    def other_columns(self, columns: Columns) -> dict[str, list]:
        """Returns the columns that no field is mapped to and that have one value per row, for a remedy."""
        mapped = {*columns.texts(), columns.order, *columns.modalities.values()}
        mapped |= {attribute.column for attribute in columns.attributes}
        numbered = {
            n for group in numbered_columns(self.tables[0].names).values() if len(group) > 2 for n in group.values()
        }
        found = {}
        for name in self.tables[0].names:
            if name not in mapped | numbered and all(name in table.names for table in self.tables):
                with contextlib.suppress(UserError):  # a column of vectors
                    found[name] = [value for table in self.tables for value in table.values(name)]
        return {name: values for name, values in found.items() if len(values) == sum(self.counts)}


def concatenated(parts: Sequence[Rows]) -> Rows:
    """Returns the rows of several tables as those of one."""

    def join(name: str) -> list:
        return [value for part in parts for value in getattr(part, name)]

    def join_columns(name: str) -> dict[str, list[str]]:
        return {c: [value for part in parts for value in getattr(part, name)[c]] for c in getattr(parts[0], name)}

    def stack(name: str) -> dict[str, np.ndarray]:
        return {m: np.concatenate([getattr(part, name)[m] for part in parts]) for m in getattr(parts[0], name)}

    fields = [f for f in COLUMN_FLAGS if f not in MODALITIES and getattr(parts[0], f) is not None]
    joined: dict[str, Any] = {name: join(name) for name in fields}
    return dataclasses.replace(
        parts[0],
        **joined,
        split_per_fold=join_columns("split_per_fold"),
        features=stack("features"),
        available=stack("available"),
        attributes=stack("attributes"),
    )


def conversations_of(rows: Rows, columns: Columns, tables: Tables) -> dict[str, list[Conversation]]:
    """Groups rows to conversations.

    Args:
      rows: of all tables.
      columns: their mapping.
      tables: where they come from.

    Returns:
      split name -> conversations.

    Raises:
      UserError: if a conversation is in several splits, or has an order or an utterance twice.
    """
    names = conversation_names(rows.conversation)
    keys = list(zip(rows.split, (names[key] for key in rows.conversation), strict=True))
    ids = conversation_ids(rows, columns)
    groups = grouped(keys)
    order = _sort_keys(rows.order, groups) if rows.order else list(range(len(keys)))
    grouping = _Grouping(keys, groups, columns, tables)
    if not columns.ids_per_split:
        grouping.check_one_split(order)
    if rows.order:
        grouping.check_unique("order", rows.order, order)
    if rows.utterance:
        grouping.check_unique("utterance", rows.utterance, rows.utterance)
    grouping.warn_of_scattered_rows()
    splits: dict[str, list[Conversation]] = {}
    for (split, _), indices in groups.items():
        ordered = sorted(indices, key=order.__getitem__)
        conversation = Conversation(
            id=ids[ordered[0]],
            utterances=[rows.utterance[i] if rows.utterance else str(n) for n, i in enumerate(ordered)],
            speakers=[rows.speaker[i] for i in ordered],
            labels=np.array([rows.label[i] for i in ordered], np.int32),
            features={m: values[ordered] for m, values in rows.features.items()},
            available={m: values[ordered] for m, values in rows.available.items()},
            sentences=[rows.sentence[i] for i in ordered],
            attributes={name: values[ordered] for name, values in rows.attributes.items()},
        )
        splits.setdefault(split, []).append(conversation)
    return splits


def conversation_ids(rows: Rows, columns: Columns) -> list[str]:
    """Returns the id of the conversation of each row."""
    names = conversation_names(rows.conversation)
    plain = [names[key] for key in rows.conversation]
    return [f"{s}_{name}" for s, name in zip(rows.split, plain, strict=True)] if columns.ids_per_split else plain


def _sort_keys(order: Sequence[Any], groups: Mapping[tuple[str, str], Sequence[int]]) -> list[Any]:
    keys = list(order)
    for (_, name), indices in groups.items():
        for row, key in zip(indices, sort_keys([order[row] for row in indices], name), strict=True):
            keys[row] = key
    return keys


@dataclasses.dataclass(frozen=True)
class _Grouping:
    """Rows by conversation: (split, name) of each row, and its rows."""

    keys: Sequence[tuple[str, str]]
    groups: Mapping[tuple[str, str], Sequence[int]]
    columns: Columns
    tables: Tables

    def check_one_split(self, order: Sequence[Hashable]) -> None:
        """Raises UserError if a conversation is in several splits."""
        splits: dict[str, list[str]] = {}
        for split, name in self.groups:
            splits.setdefault(name, []).append(split)
        name, found = max(splits.items(), key=lambda item: len(item[1]))
        if len(found) > 1:
            more = self._more_columns(order if self.columns.order else None, [name for _, name in self.keys])
            raise UserError(
                f"conversation '{name}' is in more than one split: {', '.join(found)}: give --ids-per-split if ids "
                f"restart in every split{f', --conversation {more} if they restart more often' if more else ''}, or "
                "correct the split of its rows"
            )

    def check_unique(self, field: str, values: Sequence[Any], compared: Sequence[Hashable]) -> None:
        """Raises UserError if a conversation has a value of a field twice, which ids that restart look like."""
        found = []
        for (_, name), indices in self.groups.items():
            positions = repeated_rows([compared[row] for row in indices])
            if positions:
                found.append((name, [indices[position] for position in positions]))
        if not found:
            return
        name, rows = found[0]
        column = getattr(self.columns, field)
        others = f", and {len(found) - 1} more have such rows" if len(found) > 1 else ""
        more = self._more_columns(compared, self.keys)
        remedy = (
            f"conversations with the same id are told apart by --conversation {more}"
            if more
            else "if ids of conversations restart, give all columns that form them, --conversation A,B,C; if a row is "
            f"there twice, remove it; otherwise give --{field} another column, or none (--{field}=)"
        )
        raise UserError(
            f"{self.tables.places.files}: conversation '{name}' has {field} {values[rows[0]]!r} of column '{column}' "
            f"in {self.tables.places.rows(rows)}{others}: {remedy}"
        )

    def warn_of_scattered_rows(self) -> None:
        """Warns of conversations whose rows are not contiguous, which ids that restart look like."""
        found = scattered(self.keys, sorted_by_order=bool(self.columns.order))
        if not found:
            return
        (_, name), parts = next(iter(found.items()))
        again = self.tables.places.rows([first for first, _ in parts[1:]])
        more = self._more_columns(None, self.keys) or "A,B,C with all columns that form them"
        warn(
            f"{self.tables.places.files}: the rows of {len(found)} of {len(self.groups)} conversations are not "
            f"contiguous, for example '{name}' begins again in {again}: if ids of conversations restart, this merged "
            f"them: give --conversation {more}" + ("" if self.columns.order else "; if rows are shuffled, give --order")
        )

    def _more_columns(self, within: Sequence[Hashable] | None, keys: Sequence[Hashable]) -> str:
        more = columns_that_tell_apart(keys, within, self.tables.other_columns(self.columns))
        return ",".join([*more, *self.columns.id_columns(self.tables.tables[0].names)]) if more else ""
