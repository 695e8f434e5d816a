"""Official CSV files of MELD, `{train,dev,test}_sent_emo.csv`, with features from a table.

The table of features (npz or parquet) has one row per utterance: its split, dialogue and utterance number as in the CSV
files, and a column of vectors per modality. Features of utterances without a row are unavailable; rows that match no
utterance are reported and ignored. Blanks around the names of speakers are dropped. A source is one of the CSV files or
a folder with them.
"""

import argparse
import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus
from jmer.data.emotions import MELD, MELD_SENTIMENTS
from jmer.data.readers.conventions import SPLIT_NAMES, files_by_split, fix_encoding, split_named
from jmer.data.readers.grouping import scattered
from jmer.data.readers.labels import LabelNames, add_label_arguments
from jmer.data.readers.table_files import open_table
from jmer.data.readers.tables import Table, listing
from jmer.data.readers.text_files import csv_layout, read_text
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.file_kinds import check_kind
from jmer.guard import guarded
from jmer.modalities import MODALITIES
from jmer.warning import warn

PATTERN = "*_sent_emo.csv"
COLUMNS = ("Utterance", "Speaker", "Dialogue_ID", "Utterance_ID")
LABELS = {"emotion": ("Emotion", MELD), "sentiment": ("Sentiment", MELD_SENTIMENTS)}
"""What is recognised: its column and its names."""

Key = tuple[str, int, int]  # split, dialogue, utterance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for the labels, the table of features and its columns."""
    add_label_arguments(parser, "MELD's seven emotions or three sentiments")
    parser.add_argument("--label", choices=LABELS, default="emotion", help="what is recognised (default: %(default)s)")
    parser.add_argument("--features", type=Path, required=True, metavar="TABLE", help="a .npz or .parquet file")
    for field, default in (("split", "split"), ("dialogue", "dialogue"), ("utterance", "utt")):
        parser.add_argument(
            f"--{field}-column", default=default, metavar="COLUMN", help=f"column of the {field} (default: %(default)s)"
        )
    for modality in MODALITIES:
        parser.add_argument(f"--{modality}", metavar="COLUMN", help=f"column of the {modality} features")


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from the CSV files and joins the features to it.

    The serial numbers in the files repeat and both ids have gaps, so an utterance is identified by its split, dialogue
    and utterance number; the utterances of a dialogue are sorted by number.

    Args:
      sources: the CSV files, or the folder with them.
      options: parsed flags of `add_arguments`.

    Raises:
      UserError: naming the file, the row and the column that is invalid.
    """
    files = files_by_split([Path(source) for source in sources], PATTERN)
    column, emotions = LABELS[options.label]
    labels = LabelNames.of(options.emotions or emotions, options)
    utterances = {
        key: row for split, path in files.items() for key, row in _utterances(path, split, column, labels).items()
    }
    parts = scattered([key[:2] for key in utterances], sorted_by_order=True)
    if parts:
        split, dialogue = next(iter(parts))
        warn(
            f"the rows of {len(parts)} dialogues are not contiguous, for example of {split}, dialogue {dialogue}: if "
            "ids restart, dialogues were merged: make the ids unique"
        )
    columns = {m: getattr(options, m) for m in MODALITIES if getattr(options, m)}
    if not columns:
        raise UserError(f"no columns of features in {options.features}: give --text, --audio or --visual COLUMN")
    table = open_table(options.features, ())
    rows = _rows(table, options)
    unused = [key for key in rows if key not in utterances]
    if len(unused) == len(rows):
        raise UserError(
            f"{table.path}: no row matches an utterance of {', '.join(map(str, files.values()))}: "
            "check the columns of split, dialogue and utterance"
        )
    note = ""
    if unused:
        split, dialogue, utterance = unused[0]
        note = f"{len(unused)} of {len(rows)} rows match no utterance of the CSV files"
        warn(f"{table.path}: {note}, the first is {split}, dialogue {dialogue}, utterance {utterance}; ignored")
    matrices = {m: _matrix(table, column, len(rows)) for m, column in columns.items()}
    card = Card(
        name="meld",
        widths={m: values.shape[1] for m, values in matrices.items()},
        emotions=labels.of_corpus((u.label for u in utterances.values()), options.merge),
        provenance=f"Converted from MELD's {', '.join(path.name for path in files.values())} and {table.path.name} ("
        + "; ".join([*(f"{m} from {column}" for m, column in columns.items()), *([note] if note else [])])
        + ").",
        synthetic=False,
    )
    return checked_corpus(_conversations(utterances, rows, matrices), card)


@dataclasses.dataclass(frozen=True)
class _Utterance:
    """An utterance of the CSV files."""

    speaker: str
    sentence: str
    label: int


def _utterances(path: Path, split: str, column: str, labels: LabelNames) -> dict[Key, _Utterance]:
    check_kind(path, "text", "utf-16")
    utterances = {}
    for place, row in _rows_of_text(path, (*COLUMNS, column)):
        key = (split, _number(place, "Dialogue_ID", row), _number(place, "Utterance_ID", row))
        if key in utterances:
            raise UserError(f"{place}: dialogue {key[1]} has two utterances {key[2]}: remove one")
        label = labels.index(row[column].strip().lower())
        if label is None:
            raise UserError(f"{place}: unknown {column.lower()} '{row[column]}': they are {', '.join(labels.all)}")
        utterances[key] = _Utterance(row["Speaker"].strip(" "), fix_encoding(row["Utterance"]), label)
    if not utterances:
        raise UserError(f"{path} has a header but no utterances: get the file again")
    return utterances


def _rows_of_text(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yields the rows of a csv file with these columns, each with its place for errors."""
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=csv_layout(text).delimiter)
    remedy, described = "close its quotes, or get the file again", "is no csv"
    with guarded(str(path), remedy, described=described):
        names = reader.fieldnames or ()
    missing = [name for name in columns if name not in names]
    if missing:
        raise UserError(f"{path} has no column '{missing[0]}': it has {listing(names)}")
    while True:
        with guarded(f"{path}, after line {reader.line_num},", remedy, described=described):
            row = next(reader, None)
        if row is None:
            return
        place = f"{path}, line {reader.line_num}"
        if any(row[name] is None for name in columns):
            raise UserError(f"{place}: the row has fewer cells than the header: correct it, or get the file again")
        yield place, row


def _number(place: str, column: str, row: Mapping[str, str]) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise UserError(f"{place}: {column} is '{row[column]}': expected an integer") from None


def _rows(table: Table, options: argparse.Namespace) -> dict[Key, int]:
    """Returns the row of each utterance in the table of features."""
    columns = (options.split_column, options.dialogue_column, options.utterance_column)
    for name, flag in zip(columns, ("split", "dialogue", "utterance"), strict=True):
        if name not in table.names:
            raise UserError(f"{table.path} has no column '{name}': it has {listing(table.names)}: give --{flag}-column")
    values = [table.values(name) for name in columns]
    if len({len(column) for column in values}) > 1:
        raise UserError(f"{table.path}: the columns {', '.join(columns)} differ in length: save the table again")
    rows: dict[Key, int] = {}
    for row, (split, *numbers) in enumerate(zip(*values, strict=True)):
        place = f"{table.path}, row {row + 1}"
        named = split_named(str(split))
        if named is None:
            raise UserError(f"{place}: split '{split}' in column '{columns[0]}' is not one of {', '.join(SPLIT_NAMES)}")
        if not all(isinstance(n, int) or (isinstance(n, float) and n.is_integer()) for n in numbers):
            raise UserError(f"{place}: dialogue and utterance are {numbers}: expected integers")
        dialogue, utterance = map(int, numbers)
        key = (named, dialogue, utterance)
        if key in rows:
            raise UserError(f"{place} is the same utterance as row {rows[key] + 1}: {split}, {dialogue}, {utterance}")
        rows[key] = row
    return rows


def _matrix(table: Table, column: str, rows: int) -> np.ndarray:
    """Returns the features of a modality `[rows + 1, D]`; the last row is NaN, for utterances without a row."""
    if column not in table.names:
        raise UserError(f"{table.path} has no column '{column}': it has {listing(table.names)}")
    values = table.array(column)
    if values.ndim != 2 or len(values) != rows:
        raise UserError(f"{table.path}: column '{column}' has shape {values.shape}: expected ({rows}, width)")
    return np.concatenate([values, np.full((1, values.shape[1]), np.nan, np.float32)])


def _conversations(
    utterances: Mapping[Key, _Utterance], rows: Mapping[Key, int], matrices: Mapping[str, np.ndarray]
) -> dict[str, list[Conversation]]:
    keys_by_dialogue: dict[tuple[str, int], list[Key]] = {}
    for key in utterances:
        keys_by_dialogue.setdefault(key[:2], []).append(key)
    splits: dict[str, list[Conversation]] = {}
    for (split, dialogue), keys in keys_by_dialogue.items():
        keys = sorted(keys)
        found = [utterances[key] for key in keys]
        places = [rows.get(key, -1) for key in keys]
        features, available = {}, {}
        for modality, values in matrices.items():
            features[modality], available[modality] = mark_missing(values[places])
        conversation = Conversation(
            id=f"{split}_{dialogue}",
            utterances=[str(key[2]) for key in keys],
            speakers=[utterance.speaker for utterance in found],
            labels=np.array([utterance.label for utterance in found], np.int32),
            features=features,
            available=available,
            sentences=[utterance.sentence for utterance in found],
        )
        splits.setdefault(split, []).append(conversation)
    return splits
