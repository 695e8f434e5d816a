"""Corpora from tables: npz, parquet or csv, one row per utterance, features in columns.

A mapping gives the column of each field. It is combined from a preset, a YAML file and flags, each of which overrides
the one before (an empty name, such as `--audio=`, leaves the column out):

    conversation: dialogue         # rows with the same value are one conversation
    order: start                   # optional: sorts the utterances of a conversation (default: order of the file)
    speaker: speaker               # may be the column of the conversations, if each has one speaker
    label: emotion                 # names or indices; -1 or an empty cell = unlabelled
    emotions: [calm, angry]        # in the order of the indices
    split: split                   # train, valid, validation, dev, val or test
    utterance: utt_id              # optional (default: utterances are numbered)
    sentence: sentence             # optional
    text: text_minilm384           # at least one of text, audio, visual
    ids_per_split: false           # true if conversations of different splits have the same ids

A column of features is a 2-D array in npz, a list column or numbered columns (`text_0`, `text_1`, ...) in parquet, and
numbered columns in csv.
"""

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.batch import MODALITIES, UNLABELLED
from jmer.data.corpus import Card, Conversation, Corpus, feature_width
from jmer.data.readers.conventions import SPLIT_NAMES
from jmer.data.readers.mapping import COLUMN_FLAGS, TEXT_FIELDS, Columns, add_mapping_arguments, read_mapping
from jmer.data.readers.table_files import Table, open_table
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rows:
    """The mapped columns of one table, one entry per utterance."""

    conversation: list[str]
    order: list[Any] | None
    speaker: list[str]
    label: list[int]
    split: list[str]
    utterance: list[str] | None
    sentence: list[str]
    features: dict[str, np.ndarray]
    available: dict[str, np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a mapping of columns."""
    add_mapping_arguments(parser, tuple(COLUMN_FLAGS))


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from the rows of one or more tables.

    Args:
      sources: .npz, .parquet or .csv files with the same columns, whose rows are concatenated.
      options: parsed flags of `add_arguments`.

    Raises:
      UserError: naming the file and the column that is missing or invalid.
    """
    columns = read_mapping(options, tuple(COLUMN_FLAGS))
    if not columns.modalities:
        raise UserError("no column of features: give --text, --audio or --visual COLUMN, or a preset")
    splits = read_splits(sources, columns, predict_only=options.predict_only)
    some = next(iter(splits.values()))[0]
    features = ", ".join(f"{modality} from {column}" for modality, column in columns.modalities.items())
    card = Card(
        name=options.preset or sources[0].stem,
        widths={m: feature_width(some.features[m]) for m in columns.modalities},
        emotions=columns.emotions,
        provenance=f"Converted from the table {', '.join(source.name for source in sources)}: {features}.",
        synthetic=False,
    )
    return checked_corpus(splits, card, for_training=not options.predict_only)


def read_splits(sources: Sequence[Path], columns: Columns, *, predict_only: bool) -> dict[str, list[Conversation]]:
    """Reads the rows of one or more tables as conversations in splits.

    Args:
      sources: as for `read`.
      columns: the mapping from `read_mapping`.
      predict_only: whether the training split is optional.

    Raises:
      UserError: as `read` does.
    """
    texts = [getattr(columns, field) for field in TEXT_FIELDS if getattr(columns, field)]
    parts = [_read_rows(open_table(source, texts), columns) for source in sources]
    widths = {m: parts[0].features[m].shape[1] for m in columns.modalities}
    for source, part in zip(sources, parts, strict=True):
        for modality, width in widths.items():
            if part.features[modality].shape[1] != width:
                raise UserError(
                    f"{modality} has width {width} in {sources[0]} but {part.features[modality].shape[1]} in "
                    f"{source}: give files with the same features"
                )
    splits = _conversations(_concatenated(parts), columns.ids_per_split)
    if "train" not in splits and not predict_only:
        raise UserError(
            f"{sources[0]}: no row of column '{columns.split}' is train, only {', '.join(splits)}: add training rows, "
            "or give --predict-only if the corpus is only predicted"
        )
    return splits


def _read_rows(table: Table, columns: Columns) -> Rows:
    conversation = _texts(table, "conversation", columns.conversation)
    count = len(conversation)
    if not count:
        raise UserError(f"{table.path} has no rows: expected one per utterance")
    features, available = {}, {}
    for modality, column in columns.modalities.items():
        features[modality], available[modality] = mark_missing(_matrix(table, modality, column))
    rows = Rows(
        conversation=conversation,
        order=_values(table, "order", columns.order) if columns.order else None,
        speaker=_texts(table, "speaker", columns.speaker),
        label=_labels(table, columns.label, columns.emotions) if columns.label else [UNLABELLED] * count,
        split=_splits(table, columns.split) if columns.split else ["test"] * count,
        utterance=_texts(table, "utterance", columns.utterance) if columns.utterance else None,
        sentence=_texts(table, "sentence", columns.sentence, required=False) if columns.sentence else [""] * count,
        features=features,
        available=available,
    )
    mapped = (f for f in COLUMN_FLAGS if f not in MODALITIES and getattr(columns, f))
    lengths = {getattr(columns, field): len(getattr(rows, field)) for field in mapped}
    lengths |= {column: len(features[modality]) for modality, column in columns.modalities.items()}
    for name, length in lengths.items():
        if length != count:
            raise UserError(
                f"{table.path}: column '{name}' has {length} rows but '{columns.conversation}' has {count}: "
                "expected one per utterance"
            )
    return rows


def _values(table: Table, field: str, column: str) -> list:
    if column not in table.names:
        raise UserError(f"{table.path} has no column '{column}' for the {field}: it has {_listing(table.names)}")
    return table.values(column)


def _texts(table: Table, field: str, column: str, required: bool = True) -> list[str]:
    texts = ["" if value is None else str(value) for value in _values(table, field, column)]
    if required and "" in texts:
        raise UserError(f"{table.path}: column '{column}' is empty in row {texts.index('') + 1}: give the {field}")
    return texts


def _splits(table: Table, column: str) -> list[str]:
    names = _texts(table, "split", column)
    for row, name in enumerate(names):
        if name not in SPLIT_NAMES:
            raise UserError(
                f"{table.path}: column '{column}' has split '{name}' in row {row + 1}: "
                f"expected one of {', '.join(SPLIT_NAMES)}"
            )
    return [SPLIT_NAMES[name] for name in names]


def _labels(table: Table, column: str, emotions: Sequence[str]) -> list[int]:
    indices = {emotion: index for index, emotion in enumerate(emotions)}
    # Indices may be floats: pandas makes floats of integer columns with empty cells.
    known = {None: UNLABELLED, "": UNLABELLED, UNLABELLED: UNLABELLED} | indices | {i: i for i in indices.values()}
    values = [None if value != value else value for value in _values(table, "label", column)]
    for row, value in enumerate(values):
        if value not in known:
            raise UserError(
                f"{table.path}: column '{column}' has label {value!r} in row {row + 1}: the emotions are "
                + ", ".join(f"{i} {name}" for name, i in indices.items())
            )
    return [known[value] for value in values]


def _matrix(table: Table, modality: str, column: str) -> np.ndarray:
    if column in table.names:
        values = table.array(column)
        if values.ndim != 2:
            raise UserError(
                f"{table.path}: column '{column}' for {modality} has shape {values.shape}: expected [rows, width]"
            )
        return values
    numbered = _numbered(table.names).get(column)
    if numbered is None:
        raise UserError(f"{table.path} has no column '{column}' for {modality}: it has {_listing(table.names)}")
    first, last = min(numbered), max(numbered)
    for number in range(first, last):
        if number not in numbered:
            raise UserError(
                f"{table.path}: of the columns {numbered[first]} to {numbered[last]} for {modality}, "
                f"number {number} is missing"
            )
    vectors = [table.array(numbered[number]) for number in range(first, last + 1)]
    for number, vector in enumerate(vectors, first):
        if vector.shape != vectors[0].shape[:1]:
            raise UserError(
                f"{table.path} has no column '{column}' for {modality}, and '{numbered[number]}' of shape "
                f"{vector.shape} is not a numbered column of it: give the full name of a column"
            )
    return np.stack(vectors, axis=1)


def _numbered(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Groups names such as `text_0`, `text_1` or `text0`, `text1`: prefix -> number -> name."""
    groups: dict[str, dict[int, str]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)_?(\d+)", name)
        if match and match[1]:
            groups.setdefault(match[1], {})[int(match[2])] = name
    return groups


def _listing(names: Sequence[str]) -> str:
    """Returns names for a message, with numbered columns as a range."""
    groups = {prefix: numbers for prefix, numbers in _numbered(names).items() if len(numbers) > 2}
    range_of = {
        name: f"{numbers[min(numbers)]}..{numbers[max(numbers)]}"
        for numbers in groups.values()
        for name in numbers.values()
    }
    return ", ".join(dict.fromkeys(range_of.get(name, name) for name in names))


def _concatenated(parts: Sequence[Rows]) -> Rows:
    def join(name: str) -> list:
        return [value for part in parts for value in getattr(part, name)]

    def stack(name: str) -> dict[str, np.ndarray]:
        return {m: np.concatenate([getattr(part, name)[m] for part in parts]) for m in getattr(parts[0], name)}

    fields = [f for f in COLUMN_FLAGS if f not in MODALITIES and getattr(parts[0], f) is not None]
    joined: dict[str, Any] = {name: join(name) for name in fields}
    return dataclasses.replace(
        parts[0],
        **joined,
        features=stack("features"),
        available=stack("available"),
    )


def _conversations(rows: Rows, ids_per_split: bool) -> dict[str, list[Conversation]]:
    rows_by_conversation: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(rows.split, rows.conversation, strict=True)):
        rows_by_conversation.setdefault(key, []).append(row)
    splits: dict[str, list[Conversation]] = {}
    for (split, name), indices in rows_by_conversation.items():
        ordered = _sorted(indices, rows.order, name) if rows.order else indices
        conversation = Conversation(
            id=f"{split}_{name}" if ids_per_split else name,
            utterances=[rows.utterance[i] if rows.utterance else str(n) for n, i in enumerate(ordered)],
            speakers=[rows.speaker[i] for i in ordered],
            labels=np.array([rows.label[i] for i in ordered], np.int32),
            features={m: values[ordered] for m, values in rows.features.items()},
            available={m: values[ordered] for m, values in rows.available.items()},
            sentences=[rows.sentence[i] for i in ordered],
        )
        splits.setdefault(split, []).append(conversation)
    return splits


def _sorted(indices: Sequence[int], order: Sequence[Any], conversation: str) -> list[int]:
    keys = [order[i] for i in indices]
    if any(key is None or key != key for key in keys) or len({isinstance(key, str) for key in keys}) > 1:
        raise UserError(f"conversation '{conversation}': the order has empty cells, or both numbers and text")
    return sorted(indices, key=order.__getitem__)
