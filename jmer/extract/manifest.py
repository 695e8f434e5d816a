"""Manifests: tables of utterances that say where each is in which recording, who says what, and how it is labelled.

A csv file with a header, or a jsonl file with an object per line, in UTF-8, with these columns or fields:

    conversation   name or number; rows with the same one are one conversation
    order          optional: sorts the utterances of a conversation (default: by start, then as in the file)
    speaker        optional: name of the speaker
    transcript     what is said
    file           the recording, relative to the manifest
    start, end     optional: in the recording, in seconds or as [hh:]mm:ss[.mmm] (default: its start and end)
    label          optional: an emotion's name or index; empty or -1 = unlabelled
    split          optional: train, valid, validation, dev, val or test
    utterance      optional: name of the utterance (default: utterances are numbered)
    face_x, face_y, face_w, face_h
                   optional: where the speaker's face is, in pixels of the recording

A row needs a conversation, and a transcript or a file.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jmer.data.readers.conventions import SPLIT_NAMES, split_named
from jmer.data.readers.grouping import grouped, sort_keys
from jmer.errors import UserError
from jmer.extract.protocol import Box
from jmer.text import LONGEST_TRANSCRIPT, name_fault, storable

FACE = ("face_x", "face_y", "face_w", "face_h")
COLUMNS = (
    "conversation",
    "order",
    "speaker",
    "transcript",
    "file",
    "start",
    "end",
    "label",
    "split",
    "utterance",
    *FACE,
)
SPEAKER = "speaker"
"""Who speaks where a manifest does not say."""
SHOWN_DEFECTS = 10

_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d*)?|[.,]\d+)")


@dataclasses.dataclass(frozen=True)
class Row:
    """An utterance of a manifest.

    Attributes:
      line: where it is in the manifest, for messages, e.g. "talk.csv, line 3".
      conversation, speaker, transcript, utterance: "" where unknown.
      label: as it is written, "" = unlabelled.
      split: train, validation or test, "" = unknown.
      order: sorts the utterances of its conversation; None = by start.
      file: the recording; None = there is none.
      start, end: in seconds, in the recording; None = its start or end, or unknown.
      box: of the speaker's face.
    """

    line: str
    conversation: str
    speaker: str = SPEAKER
    transcript: str = ""
    file: Path | None = None
    start: float | None = None
    end: float | None = None
    order: Any = None
    label: str = ""
    split: str = ""
    utterance: str = ""
    box: Box | None = None


def read_manifest(path: Path, encoding: str = "utf-8-sig") -> list[Row]:
    """Reads a manifest, with the utterances of each conversation together and in their order.

    Args:
      path: a .csv or .jsonl file.
      encoding: of its text.

    Raises:
      UserError: with a line per defect, the first ten of them.
    """
    return rows_of_objects(_objects(path, encoding), path.parent)


def rows_of_objects(objects: Iterable[tuple[str, Mapping[str, Any]]], folder: Path) -> list[Row]:
    """Returns the rows that mappings of columns describe.

    Args:
      objects: where each stands, for messages, and column -> value.
      folder: that paths of recordings are relative to.

    Raises:
      UserError: with a line per defect, the first ten of them.
    """
    rows: list[Row] = []
    defects: list[str] = []
    unknown: set[str] = set()
    for line, fields in objects:
        for column in fields.keys() - unknown - set(COLUMNS):
            unknown.add(column)
            defects.append(f"{line}: unknown column '{column}': the columns are {', '.join(COLUMNS)}")
        found = _Fields(line, fields)
        row = found.row(folder)
        defects += found.defects
        if row:
            rows.append(row)
    if not defects:
        rows, defects = _ordered(rows)
    if defects:
        more = len(defects) - SHOWN_DEFECTS
        raise UserError(*defects[:SHOWN_DEFECTS], *([f"and {more} more"] if more > 0 else []))
    if not rows:
        raise UserError("the manifest has no rows: give one per utterance")
    return rows


def parse_time(text: str) -> float:
    """Returns the seconds of `12.5`, `1:12.5` or `1:01:12.500`. Raises ValueError for anything else."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise ValueError(f"'{text}' is no time: write seconds, or hh:mm:ss.mmm")
    hours, minutes, seconds = found[1], found[2], float(found[3].replace(",", "."))
    if minutes is not None and (seconds >= 60 or (hours is not None and int(minutes) >= 60)):
        raise ValueError(f"'{text}' is no time: minutes and seconds are below 60")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def _objects(path: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields where each row of a file stands, and its fields."""
    text = _text(path, encoding)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        yield from _json_lines(path.name, text)
    elif suffix in (".csv", ".tsv"):
        yield from _csv_lines(path.name, text, "\t" if suffix == ".tsv" else ",")
    else:
        raise UserError(f"{path}: expected a manifest that ends in .csv or .jsonl")


def _text(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise UserError(
            f"--encoding {encoding} is unknown: utf-8, cp1252 and utf-16 are known, among others"
        ) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: is not {encoding.removesuffix('-sig').upper()}: save it as UTF-8, or say what it is "
            "(--encoding cp1252)"
        ) from error


def _json_lines(name: str, text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is no JSON ({error}): write an object per line") from error
        if not isinstance(fields, dict):
            raise UserError(f'{where}: is no object: write {{"conversation": ..., "transcript": ...}}')
        yield where, fields


def _csv_lines(name: str, text: str, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{name}, line {first}: is no row of a csv file ({error}): check its quotes") from error
        if cells is None:
            return
        where = f"{name}, line {first}"
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            twice = next((column for column in header if header.count(column) > 1), None)
            if twice is not None:
                raise UserError(f"{where}: column '{twice}' is there twice: remove one")
            continue
        if len(cells) != len(header):
            raise UserError(f"{where}: has {len(cells)} cells, the header has {len(header)}: put commas in quotes")
        # Columns of nothing come of commas at the ends of all lines.
        yield where, {column: cell for column, cell in zip(header, cells, strict=True) if column or cell}


class _Fields:
    """The fields of one row, whose defects are collected."""

    def __init__(self, line: str, fields: Mapping[str, Any]):
        self.line, self.fields = line, fields
        self.defects: list[str] = []

    def row(self, folder: Path) -> Row | None:
        """Returns the row, None if it has defects."""
        # What the corpus will hold, so that features are those of the same text.
        transcript, file = storable(self._text("transcript")), self._name("file")
        if len(transcript) > LONGEST_TRANSCRIPT:
            self._defect(f"transcript has {len(transcript)} characters, at most {LONGEST_TRANSCRIPT} are kept")
        order = self._text("order")
        start, end = self._times()
        row = Row(
            line=self.line,
            conversation=self._name("conversation"),
            speaker=self._name("speaker") or SPEAKER,
            transcript=transcript,
            file=folder / file if file else None,
            start=start,
            end=end,
            order=order or None,
            label=self._name("label"),
            split=self._split(),
            utterance=self._name("utterance"),
            box=self._box(),
        )
        if not row.conversation:
            self._defect("conversation is empty: name the conversation of each row")
        if not row.transcript and not row.file and not self.defects:
            self._defect("has neither a transcript nor a file: give one of them")
        return None if self.defects else row

    def _defect(self, text: str) -> None:
        self.defects.append(f"{self.line}: {text}")

    def _text(self, column: str) -> str:
        value = self.fields.get(column)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self._defect(f"{column} is a {type(value).__name__}: expected text or a number")
            return ""
        return str(value).strip()

    def _name(self, column: str) -> str:
        text = self._text(column)
        if fault := name_fault(text):
            self._defect(f"{column} {fault}")
        return text

    def _parsed(self, column: str, parse: Callable[[str], float]) -> float | None:
        text = self._text(column)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self._defect(f"{column}: {error}")
            return None

    def _times(self) -> tuple[float | None, float | None]:
        start, end = self._parsed("start", parse_time), self._parsed("end", parse_time)
        if end is not None and end <= (start or 0.0):
            self._defect(f"end {end:g} is not after start {start or 0:g}")
        return start, end

    def _split(self) -> str:
        text = self._text("split")
        split = split_named(text) if text else ""
        if split is None:
            self._defect(f"split is '{text}': expected one of {', '.join(SPLIT_NAMES)}")
        return split or ""

    def _box(self) -> Box | None:
        values = [self._parsed(column, _number) for column in FACE]
        given = [value for value in values if value is not None]
        if not given:
            return None
        if len(given) < len(FACE) or given[2] <= 0 or given[3] <= 0:
            self._defect(f"the box of the face needs {', '.join(FACE)}, with a width and height above 0")
            return None
        return Box(*given)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is not finite")
    return value


def _ordered(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Returns the rows sorted inside their conversations, and lines on what is there twice or contradicts itself."""
    ordered, defects = [], []
    for name, positions in grouped(row.conversation for row in rows).items():
        found = [rows[position] for position in positions]
        with_order = [row for row in found if row.order is not None]
        if with_order and len(with_order) < len(found):
            empty = next(row for row in found if row.order is None)
            defects.append(f"{empty.line}: order is empty, and other rows of conversation '{name}' have one")
            continue
        keys = sort_keys([row.order for row in found], name) if with_order else _by_start(found)
        defects += _repeated("order", keys if with_order else [], found, name)
        named = [row for row in found if row.utterance]
        defects += _repeated("utterance", [row.utterance for row in named], named, name)
        splits = list(dict.fromkeys(row.split for row in found))
        if len(splits) > 1:
            other = next(row for row in found if row.split != splits[0])
            defects.append(
                f"{other.line}: conversation '{name}' is in the splits {' and '.join(s or 'none' for s in splits)}: a "
                "conversation is in one"
            )
        ordered += [row for _, row in sorted(zip(keys, found, strict=True), key=lambda pair: pair[0])]
    return ordered, defects


def _by_start(rows: Sequence[Row]) -> list[Any]:
    """Returns sort keys: by start where all utterances have one, in one recording or in none, else as in the file."""
    starts = [row.start for row in rows]
    if None in starts or len({row.file for row in rows}) > 1:
        return list(range(len(rows)))
    return list(zip(starts, range(len(rows)), strict=True))


def _repeated(column: str, values: Sequence[Any], rows: Sequence[Row], conversation: str) -> list[str]:
    lines = []
    for value, positions in grouped(values).items():
        if len(positions) > 1:
            first, second = rows[positions[0]], rows[positions[1]]
            shown = value if isinstance(value, str) else f"{value:g}"
            lines.append(
                f"{second.line}: {column} {shown} of conversation '{conversation}' is also in "
                f"{first.line.rpartition(', ')[2]}"
            )
    return lines
