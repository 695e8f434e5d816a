"""Corpora from tables: npz, parquet, csv or a dataset of Hugging Face, one row per utterance, features in columns.

A mapping gives the column of each field. It is combined from a preset, a YAML file and flags, each of which overrides
the one before (an empty name, such as `--audio=`, leaves the column out):

    conversation: dialogue         # rows with the same value are one conversation; [a, b] if both form the id
    order: start                   # optional: sorts the utterances of a conversation (default: order of the file)
    speaker: speaker               # may be the column of the conversations, if each has one speaker
    label: emotion                 # names or indices (2, "2", 2.0); -1 or an empty cell = unlabelled
    emotions: [calm, angry]        # in the order of the indices
    fold: fold                     # optional: folds for cross-validation; a conversation is tested in its own
    split: split                   # train, valid, validation, dev, val or test (default: names of files, as train.csv)
    utterance: utt_id              # optional (default: utterances are numbered)
    sentence: sentence             # optional
    text: text_minilm384           # at least one of text, audio, visual
    attributes: [valence=V:1:5]    # optional: dimensional targets, numbers on a scale from 1 to 5, empty = unlabelled
    ids_per_split: false           # true if conversations of different splits have the same ids

If the ids of conversations restart, as scenes do in every episode, name all columns that form them:
`--conversation Season,Episode,Scene_ID`.

A column of features is a 2-D array in npz, a list column or numbered columns (`text_0`, `text_1`, ...) in parquet, and
numbered columns in csv (separated by commas, semicolons or tabs).

A source is a file, a folder of files, or a folder that `save_to_disk` of Hugging Face's datasets wrote. Its rows are
utterances, or conversations whose labels or speakers are lists; then lists are columns of utterances. If there are no
emotions in the mapping, they are the names of the column's `ClassLabel`.

IEMOCAP with six, five and four emotions from one table that has its raw labels, and MELD's sentiments:

    --label emotion --emotions hap,sad,neu,ang,exc,fru --unlabelled xxx,oth,sur,fea,dis
    --label emotion --emotions hap,sad,neu,ang,fru --merge exc=hap --unlabelled xxx,oth,sur,fea,dis
    --label emotion --emotions hap,sad,neu,ang --merge exc=hap --unlabelled xxx,oth,sur,fea,dis,fru
    --preset meld --label sentiment --emotions neutral,positive,negative
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jmer.batch import UNLABELLED
from jmer.data.corpus import Card, Conversation, Corpus, Folds, feature_width
from jmer.data.readers.attribute_columns import attribute_values, scales_of
from jmer.data.readers.conventions import SPLIT_NAMES, fix_encoding, split_named
from jmer.data.readers.fold_columns import declared_folds
from jmer.data.readers.grouping import repeated_rows
from jmer.data.readers.labels import LabelNames, labels_of
from jmer.data.readers.mapping import COLUMN_FLAGS, Columns, add_mapping_arguments, read_mapping
from jmer.data.readers.rows import Rows, Tables, concatenated, conversation_ids, conversations_of
from jmer.data.readers.table_files import open_tables
from jmer.data.readers.tables import Table, listing, numbered_columns
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.modalities import MODALITIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a mapping of columns."""
    add_mapping_arguments(parser, tuple(COLUMN_FLAGS))


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from the rows of one or more tables.

    Args:
      sources: files, or folders of them or of a saved dataset, with the same columns; their rows are concatenated.
      options: parsed flags of `add_arguments`.

    Raises:
      UserError: naming the file and the column that is missing or invalid.
    """
    columns = read_mapping(options, tuple(COLUMN_FLAGS))
    if not columns.modalities:
        raise UserError("no column of features: give --text, --audio or --visual COLUMN, or a preset")
    splits, emotions, folds = read_splits(sources, columns, options)
    some = next(iter(splits.values()))[0]
    features = ", ".join(f"{modality} from {column}" for modality, column in columns.modalities.items())
    card = Card(
        name=options.preset or sources[0].stem,
        widths={m: feature_width(some.features[m]) for m in columns.modalities},
        emotions=emotions,
        provenance=f"Converted from the table {', '.join(source.name for source in sources)}: {features}.",
        synthetic=False,
        attributes=scales_of(columns.attributes),
    )
    return checked_corpus(splits, card, for_training=not options.predict_only, folds=folds)


def read_splits(
    sources: Sequence[Path], columns: Columns, options: argparse.Namespace
) -> tuple[dict[str, list[Conversation]], tuple[str, ...], Folds]:
    """Reads the rows of one or more tables as conversations in splits.

    Args:
      sources: as for `read`.
      columns: the mapping from `read_mapping`.
      options: parsed flags of `add_mapping_arguments`.

    Returns:
      splits: split name -> conversations.
      emotions: names of the labels, including those that `--unlabelled` and `--merge` will remove.
      folds: those that columns declare.

    Raises:
      UserError: as `read` does.
    """
    _check_distinct(sources)
    opened = [table for source in sources for table in open_tables(source, columns.texts())]
    tables = [_with_row_per_utterance(table, columns) for table in opened]
    _check_splits(tables, columns, predict_only=options.predict_only)
    names = LabelNames.of(columns.emotions or _classes(tables, columns), options)
    parts = [_read_rows(table, columns, names) for table in tables]
    widths = {m: parts[0].features[m].shape[1] for m in columns.modalities}
    for table, part in zip(tables, parts, strict=True):
        for modality, width in widths.items():
            if part.features[modality].shape[1] != width:
                raise UserError(
                    f"{modality} has width {width} in {tables[0].path} but {part.features[modality].shape[1]} in "
                    f"{table.path}: give files with the same features"
                )
    rows = concatenated(parts)
    splits = conversations_of(rows, columns, Tables(tables, [len(part.label) for part in parts]))
    if "train" not in splits and not options.predict_only:
        what = f"no row of column '{columns.split}'" if columns.split else "no file"
        raise UserError(
            f"{sources[0]}: {what} is train, only {', '.join(splits)}: add training rows, or give --predict-only if "
            "the corpus is only predicted"
        )
    folds = declared_folds(rows, columns, conversation_ids(rows, columns))
    return splits, names.of_corpus(labels_of(splits), options.merge), folds


def _with_row_per_utterance(table: Table, columns: Columns) -> Table:
    """Returns the table itself, or if it has a row per conversation, with lists of labels or speakers, one of them."""
    for column in (columns.label, columns.speaker):
        by_utterance = table.by_utterance(column) if column else None
        if by_utterance:
            return dataclasses.replace(by_utterance, split=table.split)
    return table


def _check_splits(tables: Sequence[Table], columns: Columns, *, predict_only: bool) -> None:
    unknown = next((table.path for table in tables if not table.split), None)
    if columns.split or columns.declares_folds or predict_only or not unknown:
        return
    raise UserError(
        f"no column for the split: give --split COLUMN, or --predict-only to do without; or name files after their "
        f"split, as in train.csv, dev.csv and test.csv, which {unknown} is not"
    )


def _classes(tables: Sequence[Table], columns: Columns) -> tuple[str, ...]:
    """Returns the emotions that the column of labels itself names.

    Raises:
      UserError: if it names none, or others in different tables.
    """
    if not columns.label:
        return ()
    first, *others = (table.classes.get(columns.label, ()) for table in tables)
    if not first:
        raise UserError("no emotions: give --emotions A,B,... in the order of their labels")
    if any(names != first for names in others):
        raise UserError(f"the classes of column '{columns.label}' differ between the sources: give --emotions A,B,...")
    return first


def _read_rows(table: Table, columns: Columns, names: LabelNames) -> Rows:
    ids = columns.id_columns(table.names)
    parts = [_texts(table, "conversation", column) for column in ids]
    count = len(parts[0])
    if not count:
        raise UserError(f"{table.path} has no rows: expected one per utterance")
    features, available = {}, {}
    for modality, column in columns.modalities.items():
        features[modality], available[modality] = mark_missing(_matrix(table, modality, column))
    rows = Rows(
        conversation=list(zip(*parts, strict=False)),  # lengths are checked below
        order=_values(table, "order", columns.order) if columns.order else None,
        speaker=_texts(table, "speaker", columns.speaker),
        label=_labels(table, columns.label, names) if columns.label else [UNLABELLED] * count,
        split=_splits(table, columns.split) if columns.split else [_default_split(table, columns)] * count,
        fold=_texts(table, "fold", columns.fold) if columns.fold else None,
        split_per_fold={column: _splits(table, column, required=False) for column in columns.split_per_fold},
        utterance=_texts(table, "utterance", columns.utterance) if columns.utterance else None,
        sentence=_sentences(table, columns.sentence) if columns.sentence else [""] * count,
        features=features,
        available=available,
        attributes={attribute.name: attribute_values(table, attribute) for attribute in columns.attributes},
    )
    mapped = (f for f in COLUMN_FLAGS if f not in ("conversation", *MODALITIES) and getattr(columns, f))
    lengths = {column: len(values) for column, values in zip(ids, parts, strict=True)}
    lengths |= {getattr(columns, field): len(getattr(rows, field)) for field in mapped}
    lengths |= {column: len(values) for column, values in rows.split_per_fold.items()}
    lengths |= {column: len(features[modality]) for modality, column in columns.modalities.items()}
    lengths |= {attribute.column: len(rows.attributes[attribute.name]) for attribute in columns.attributes}
    for name, length in lengths.items():
        if length != count:
            raise UserError(
                f"{table.path}: column '{name}' has {length} rows but '{ids[0]}' has {count}: "
                "expected one per utterance"
            )
    return rows


def _values(table: Table, field: str, column: str) -> list:
    if column not in table.names:
        raise UserError(f"{table.path} has no column '{column}' for the {field}: it has {listing(table.names)}")
    return table.values(column)


def _texts(table: Table, field: str, column: str, required: bool = True) -> list[str]:
    texts = ["" if value is None else str(value) for value in _values(table, field, column)]
    if required and "" in texts:
        raise UserError(f"{table.path}: column '{column}' is empty in row {texts.index('') + 1}: give the {field}")
    return texts


def _sentences(table: Table, column: str) -> list[str]:
    return [fix_encoding(sentence) for sentence in _texts(table, "sentence", column, required=False)]


def _default_split(table: Table, columns: Columns) -> str:
    return table.split or ("train" if columns.declares_folds else "test")


def _splits(table: Table, column: str, *, required: bool = True) -> list[str]:
    names = _texts(table, "split", column, required)
    splits = [split_named(name) if name else "" for name in names]
    for row, (name, split) in enumerate(zip(names, splits, strict=True)):
        if split is None:
            raise UserError(
                f"{table.path}: column '{column}' has split '{name}' in row {row + 1}: "
                f"expected one of {', '.join(SPLIT_NAMES)}"
            )
    return [split or "" for split in splits]


def _labels(table: Table, column: str, names: LabelNames) -> list[int]:
    labels = []
    for row, value in enumerate(_values(table, "label", column)):
        index = names.index(value)
        if index is None:
            raise UserError(
                f"{table.path}: column '{column}' has label {value!r} in row {row + 1}: the emotions are "
                f"{names.described()}: {names.remedy}"
            )
        labels.append(index)
    return labels


def _matrix(table: Table, modality: str, column: str) -> np.ndarray:
    if column in table.names:
        values = table.array(column)
        if values.ndim != 2:
            raise UserError(
                f"{table.path}: column '{column}' for {modality} has shape {values.shape}: expected [rows, width]"
            )
        return values
    numbered = numbered_columns(table.names).get(column)
    if numbered is None:
        raise UserError(f"{table.path} has no column '{column}' for {modality}: it has {listing(table.names)}")
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


def _check_distinct(sources: Sequence[Path]) -> None:
    for source in repeated_rows([source.resolve() for source in sources])[1:]:
        raise UserError(f"{sources[source]} is given twice: give each file once")
