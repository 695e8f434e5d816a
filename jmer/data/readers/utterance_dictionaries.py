"""Dictionaries of splits with one row per utterance, as MMSA, CMU-MultimodalSDK and MulT save them.

    {split: {text: [N, T, D], audio: [N, T, D], vision: [N, T, D], id: [N], ...}}

Features `[N, D]` are vectors of utterances, `[N, T, D]` sequences, of which padding is removed: what lies beyond
`audio_lengths` and `vision_lengths`, or else rows of zeros at either end. The ids give conversations, which are videos
here, and their order; a video is one speaker unless there are `speakers`.
"""

import argparse
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus, Features
from jmer.data.emotions import in_standard_order
from jmer.data.readers.attribute_columns import AttributeColumn, attribute_columns, scales_of
from jmer.data.readers.conventions import fix_encoding, split_named
from jmer.data.readers.labels import LabelNames, labels_of
from jmer.data.readers.limits import reading
from jmer.data.readers.padded_sequences import check_nesting, vectors_or_sequences
from jmer.data.readers.pickle_elements import FIELDS, NAMES, is_sequence, is_string, type_name
from jmer.data.readers.pooling import NOTE, pooled
from jmer.data.readers.regression_labels import CONVERSIONS, to_classes
from jmer.data.readers.utterance_names import Place, grouped, place_of, places
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.modalities import MODALITIES
from jmer.warning import warn

TEXTS = ("ids", "speakers", "sentences", "annotations")
CLASSES, NUMBERS = "classification_labels", "regression_labels"
LENGTHS = {"text": ("text_lengths",), "audio": ("audio_lengths",), "visual": ("vision_lengths", "visual_lengths")}


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The utterances of a split.

    Attributes:
      where: file and split, for errors.
      fields: field -> a value per utterance.
      labels: key and values `[N]` of the labels: integers, numbers or names.
      places: of the utterances.
      features: modality -> vectors `[N, D]`, or a sequence of frames `[F_i, D]` per utterance.
      replaced: number of values in sequences that are not finite and became 0.
      attributes: name -> float32 `[N]`, NaN = unlabelled.
    """

    where: str
    fields: Mapping[str, Any]
    labels: tuple[str, np.ndarray]
    places: Sequence[Place]
    features: Mapping[str, np.ndarray | list[np.ndarray]]
    replaced: int
    attributes: Mapping[str, np.ndarray]

    @property
    def has_frames(self) -> bool:
        return any(isinstance(values, list) for values in self.features.values())


def is_one(content: Any) -> bool:
    """Whether the content of a file is a dictionary of splits, each of them a dictionary."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(split_named(_string(key)) and isinstance(value, dict) for key, value in content.items())
    )


def read(path: Path, content: Mapping[Any, Mapping[Any, Any]], options: argparse.Namespace) -> Corpus:
    """Builds a corpus from a dictionary of splits.

    Args:
      path: the file.
      content: what it contains.
      options: with `layout`, `splits`, `emotions`, `regression`, `attributes`, `alone`, `pool` and `dest`.

    Raises:
      UserError: naming the split and the field that is missing or invalid.
    """
    if options.splits:
        raise UserError(f"--splits: {path} names its splits: drop the flag")
    rows: dict[str, _Rows] = {}
    attributes = attribute_columns(options.attributes or ())
    for key, part in content.items():
        split = str(split_named(_string(key)))
        if split in rows:
            raise UserError(f"{path} has two {split} splits: remove one")
        with reading(path):
            named = {_string(k): v for k, v in part.items()}
            rows[split] = _rows(f"{path}, {_string(key)}", named, options, attributes)
    names = LabelNames.of(_emotions(path, rows, options), options)
    shared = _shared(rows)
    if shared and all("ids" in one.fields for one in rows.values()):
        warn(f"{path}: {len(shared)} conversations are in several splits, for example '{shared[0]}': kept as several")
    frames = any(one.has_frames for one in rows.values())
    chosen = {
        split: _conversations(one, names, options.regression, frames=frames, prefix=f"{split}_" if shared else "")
        for split, one in rows.items()
    }
    note = ""
    if frames and options.pool:
        chosen, frames, note = pooled(chosen), False, NOTE
    replaced = sum(one.replaced for one in rows.values())
    if replaced:
        note += f" {replaced} values in sequences that were infinite or NaN became 0."
        warn(f"{path}: {replaced} values in sequences that were infinite or NaN became 0")
    labels = f" Labels: {options.regression} of regression labels." if options.regression else ""
    first = next(iter(rows.values())).features
    card = Card(
        name=path.stem,
        widths={m: np.shape(first[m][0])[-1] for m in MODALITIES if m in first},
        emotions=names.of_corpus(labels_of(chosen), options.merge),
        provenance=f"Converted from {path.name}, a dictionary of splits with a row per utterance.{labels}{note}",
        synthetic=False,
        frames=frames,
        attributes=scales_of(attributes),
    )
    if not frames:
        return checked_corpus(chosen, card)
    options.dest.parent.mkdir(parents=True, exist_ok=True)
    return checked_corpus(chosen, card, folder=options.dest.parent)


def _rows(
    where: str, part: Mapping[str, Any], options: argparse.Namespace, attributes: Sequence[AttributeColumn]
) -> _Rows:
    fields = _fields(where, part, options.layout)
    key, labels = _labels(where, part, fields, options.regression)
    if not len(labels):
        raise UserError(f"{where} is empty: remove it")
    for name, values in fields.items():
        count = len(values) if is_sequence(values) else f"one {type_name(values)} for"
        if count != len(labels):
            raise UserError(f"{where}: {count} {name} but {len(labels)} {key}: give one per utterance")
    for name in (name for name in TEXTS if name in fields):
        for row, value in enumerate(fields[name]):
            items = value if isinstance(value, list | tuple) else (value,)
            if any(isinstance(item, list | tuple | dict | set | frozenset) for item in items):
                raise UserError(f"{where}: {name} has lists in lists in row {row}: give a string per utterance")
    features, replaced = {}, 0
    for modality in (m for m in MODALITIES if m in fields):
        lengths = next((part[name] for name in LENGTHS[modality] if name in part), None)
        features[modality], wrong = vectors_or_sequences(where, modality, fields[modality], lengths)
        replaced += wrong
    if not features:
        raise UserError(
            f"{where} has no features, only {', '.join(part)}: name them with --layout text=KEY,audio=KEY,visual=KEY"
        )
    found = _places(where, fields, len(labels), alone=options.alone)
    numbers = {attribute.name: _numbers(where, part, attribute, len(labels)) for attribute in attributes}
    return _Rows(where, fields, (key, labels), found, features, replaced, numbers)


def _numbers(where: str, part: Mapping[str, Any], attribute: AttributeColumn, count: int) -> np.ndarray:
    """Returns the values of an attribute, float32 `[N]`."""
    key = attribute.column
    if key not in part:
        raise UserError(f"{where} has no '{key}' for {attribute.name}, only {', '.join(part)}")
    check_nesting(f"{where}: {key}", part[key], 2)
    try:
        values = np.asarray(part[key], np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {key} is not a number per utterance ({error}): correct it") from error
    if values.ndim == 0 or len(values) != count or values.size != count:
        raise UserError(f"{where}: {key} has shape {list(values.shape)}: expected a number for each of {count} rows")
    return values.reshape(-1)


def _fields(where: str, part: Mapping[str, Any], layout: Mapping[int | str, str] | None) -> dict[str, Any]:
    """Returns the fields of a split but the labels, which `_labels` chooses."""
    if layout is not None:
        missing = [key for key in layout if key not in part]
        if missing:
            raise UserError(
                f"--layout: {where} has no '{missing[0]}': give NAME=KEY,..., with keys of {', '.join(part)}"
            )
        return {name: part[str(key)] for key, name in layout.items() if name in FIELDS}
    known = {NAMES[key]: value for key, value in part.items() if NAMES.get(key) in FIELDS and NAMES[key] != "labels"}
    if "text" in known and is_sequence(known["text"]) and all(map(is_string, known["text"])):
        known.setdefault("sentences", known.pop("text"))
    return known | ({"annotations": part["annotations"]} if "annotations" in part else {})


def _labels(
    where: str, part: Mapping[str, Any], fields: dict[str, Any], regression: str | None
) -> tuple[str, np.ndarray]:
    preferred = (NUMBERS, CLASSES) if regression else (CLASSES, NUMBERS)
    keys = [key for key in (*preferred, *part) if key in part and (key in preferred or NAMES.get(key) == "labels")]
    if "labels" not in fields and not keys:
        raise UserError(f"{where} has no labels, only {', '.join(part)}: name them with --layout labels=KEY,...")
    key, values = ("labels", fields.pop("labels")) if "labels" in fields else (keys[0], part[keys[0]])
    check_nesting(f"{where}: {key}", values, 2)
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise UserError(f"{where}: {key} have different shapes: expected one per utterance") from error
    if values.ndim == 0 or values.size != len(values):
        raise UserError(f"{where}: {key} have shape {list(values.shape)}: expected one per utterance")
    values = values.reshape(-1)
    if values.dtype.kind in "OS":
        values = np.array([_string(value) for value in values])
    if values.dtype.kind == "f" and not regression:
        if key != CLASSES or not (values == np.rint(values)).all():
            raise UserError(f"{where}: {key} are regression labels: give --regression {'|'.join(CONVERSIONS)}")
        values = values.astype(np.int64)
    return key, values


def _places(where: str, fields: Mapping[str, Any], count: int, *, alone: bool) -> list[Place]:
    if "ids" not in fields:
        if not alone:
            raise UserError(
                f"{where} has no id, which gives conversations: name it with --layout ids=KEY,..., or give --alone"
            )
        return [Place(str(row), None, None) for row in range(count)]
    if alone or not is_sequence(fields["ids"][0]):
        return places(where, _names(fields["ids"]), alone=alone)
    return [_segment(where, row, one) for row, one in enumerate(fields["ids"])]


def _segment(where: str, row: int, one: Any) -> Place:
    """Returns the place of CMU-MultimodalSDK's video, start and end; the video may have the number of the segment."""
    try:
        video, start = _string(one[0]), float(_string(one[1]))
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"{where}: the id in row {row} is not video, start, end as the first is: correct it") from error
    return (place_of(video) if video.endswith("]") else None) or Place(video, start, None)


def _names(ids: Sequence) -> list[str]:
    return ["_".join(map(_string, one[:2])) if is_sequence(one) else _string(one) for one in ids]


def _emotions(path: Path, rows: Mapping[str, _Rows], options: argparse.Namespace) -> tuple[str, ...]:
    if options.emotions:
        return options.emotions
    if options.regression:
        return CONVERSIONS[options.regression].emotions
    labels = [one.labels[1] for one in rows.values()]
    if all(values.dtype.kind == "U" for values in labels):
        return in_standard_order(name for values in labels for name in values.tolist())
    pairs = {
        (int(label), _string(name).lower())
        for one in rows.values()
        if "annotations" in one.fields and one.labels[1].dtype.kind != "U"
        for label, name in zip(one.labels[1], one.fields["annotations"], strict=True)
    }
    if pairs and [label for label, _ in sorted(pairs)] == list(range(len(pairs))):
        return tuple(name for _, name in sorted(pairs))
    raise UserError(f"{path} does not name the classes: give them in the order of their labels, --emotions A,B,...")


def _shared(rows: Mapping[str, _Rows]) -> list[str]:
    """Returns the conversations that are in several splits."""
    counts = Counter(name for one in rows.values() for name in {place.conversation for place in one.places})
    return sorted(name for name, count in counts.items() if count > 1)


def _conversations(
    rows: _Rows, names: LabelNames, regression: str | None, *, frames: bool, prefix: str
) -> list[Conversation]:
    utterances = _names(rows.fields["ids"]) if "ids" in rows.fields else [str(row) for row in range(len(rows.places))]
    labels = _class_indices(rows, names, regression)
    return [
        Conversation(
            id=prefix + name,
            utterances=[utterances[row] for row in own],
            speakers=[_speaker(rows, row) for row in own],
            labels=labels[own],
            sentences=[
                fix_encoding(_string(rows.fields["sentences"][row])) if "sentences" in rows.fields else ""
                for row in own
            ],
            attributes={name: values[own] for name, values in rows.attributes.items()},
            **_features_of(rows.features, own, frames=frames),
        )
        for name, own in grouped(rows.places).items()
    ]


def _features_of(features: Mapping[str, Any], rows: Sequence[int], *, frames: bool) -> dict[str, Any]:
    """Returns the features and availability of a conversation; a vector beside sequences becomes one frame."""
    values: dict[str, Features] = {}
    available = {}
    for modality, every in features.items():
        if isinstance(every, list):
            values[modality] = [every[row] for row in rows]
            available[modality] = np.array([len(every[row]) > 0 for row in rows])
            continue
        vectors, available[modality] = mark_missing(every[rows])
        there = available[modality]
        values[modality] = [v[None][: int(a)] for v, a in zip(vectors, there, strict=True)] if frames else vectors
    return {"features": values, "available": available}


def _class_indices(rows: _Rows, names: LabelNames, regression: str | None) -> np.ndarray:
    key, values = rows.labels
    if regression and values.dtype.kind in "fiu":
        return to_classes(values.astype(np.float64), regression)
    if values.dtype.kind != "U":
        return np.where(np.abs(values) < 2**31, values, -(2**31)).astype(np.int32)
    indices = [names.index(label) for label in values.tolist()]
    if None in indices:
        label = values[indices.index(None)]
        raise UserError(f"{rows.where}: {key} has '{label}', not one of {names.described()}: {names.remedy}")
    return np.array(indices, np.int32)


def _speaker(rows: _Rows, row: int) -> str:
    if "speakers" in rows.fields:
        return _string(rows.fields["speakers"][row])
    return rows.places[row].speaker or rows.places[row].conversation


def _string(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
