"""Corpora: conversations in splits with a card, held as a `datasets.DatasetDict` and saved as Arrow files."""

import contextlib
import dataclasses
import functools
import itertools
import json
import mmap
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from jmer.batch import UNLABELLED
from jmer.data.attributes import Scales, checked_scales
from jmer.data.dataset_folders import load_datasets
from jmer.data.extractors import Identities, check_identities
from jmer.data.identity import Identity, identify
from jmer.data.integrity import check_digests, write_digests
from jmer.errors import UserError
from jmer.files import atomically, check_new_folder, local_path
from jmer.guard import guarded
from jmer.json_values import from_json

SPLITS = ("train", "validation", "test")
CARD_FILE = "card.json"
FOLDS_FILE = "folds.json"
AGAIN = "convert the corpus again"
IN_MEMORY = "in-memory"
"""The source of a corpus that was made in memory."""

# Folds for cross-validation: name -> split -> ids of its conversations.
Folds = Mapping[str, Mapping[str, Sequence[str]]]

# One modality of a conversation: vectors [n, D], or the frames [F_i, D] of each of n utterances.
Features = np.ndarray | Sequence[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One conversation of `n` utterances, as NumPy arrays.

    Attributes:
      id: name of the conversation, unique in the corpus.
      utterances: `n` names of utterances, unique in the conversation.
      speakers: `n` names of speakers.
      labels: int32 `[n]`, emotion index, -1 = unlabelled.
      features: modality -> float32 `[n, D_m]`, zero where unavailable; in a corpus with frames a sequence of `n` arrays
        float32 `[F_i, D_m]`, with `F_i = 0` where unavailable.
      available: modality -> bool `[n]`.
      sentences: `n` transcripts, "" where unknown.
      attributes: dimensional targets, e.g. valence: name -> float32 `[n]` on the scale of the card, NaN = unlabelled.
    """

    id: str
    utterances: Sequence[str]
    speakers: Sequence[str]
    labels: np.ndarray
    features: Mapping[str, Features]
    available: Mapping[str, np.ndarray]
    sentences: Sequence[str]
    attributes: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_frames(self) -> bool:
        """Whether an utterance is a sequence of frames rather than one vector."""
        return not all(isinstance(values, np.ndarray) for values in self.features.values())


@dataclasses.dataclass(frozen=True)
class Card:
    """Description of a corpus, saved with it and quoted in every report.

    Attributes:
      name: short name, e.g. `meld`.
      widths: modality -> feature width, in the order text, audio, visual.
      emotions: names of the emotions; a label is an index into it.
      provenance: where the features come from and how they were converted, one or two sentences.
      synthetic: True if the data are artificial.
      frames: True if an utterance is a sequence of frames (word pieces, 20 ms of audio) in every modality, False if it
        is one vector.
      extractors: modality -> what identifies the extractor of its features; features that `jmer.extract` did not make
        have none.
      attributes: dimensional targets that utterances may have -> the ends of their scales, e.g. valence from 1 to 5,
        see `jmer.data.attributes`; usually none.
    """

    name: str
    widths: Mapping[str, int]
    emotions: tuple[str, ...]
    provenance: str
    synthetic: bool
    frames: bool = False
    extractors: Identities = dataclasses.field(default_factory=dict)
    attributes: Scales = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_identities(self.extractors)
        object.__setattr__(self, "attributes", checked_scales(self.attributes))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of `widths`."""
        return tuple(self.widths)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Splits (a subset of train, validation, test), with one row per conversation, and their card.

    Columns of a row: `conversation`, `utterances`, `speakers`, `sentences`, `labels`, and for each modality `m` the
    columns `m` (a list of `D_m` floats per utterance, or a list of such lists, its frames) and `m_available`; for each
    attribute `a` the column `attribute_a`.

    Attributes:
      splits: the rows.
      card: the corpus' card.
      source: the name or the folder that `jmer.data.load_corpus` reads it from, as it was given there.
      folds: those that the corpus declares for cross-validation, see `jmer.data.folds`; usually none.
      recorded: fingerprint that `datasets` gave a saved split -> that of its contents when it was saved; what is made
        of such a split has another one.
    """

    splits: datasets.DatasetDict
    card: Card
    source: str = IN_MEMORY
    folds: Folds = dataclasses.field(default_factory=dict)
    recorded: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def identity(self) -> Identity:
        """What the corpus contains, in digests; computed when it is first asked for.

        Raises:
          UserError: if a split is not what was saved.
        """
        found = identify({split: self.conversations(split) for split in self.splits}, self.card)
        for split, rows in self.splits.items():
            fingerprint = found.splits[split].fingerprint
            if self.recorded.get(rows._fingerprint, fingerprint) != fingerprint:
                raise self._damaged(split)
        return found

    def checked(self) -> "Corpus":
        """Returns the corpus itself. Raises UserError if a split is not what was saved."""
        _ = self.identity
        return self

    def conversations(self, split: str) -> list[Conversation]:
        """Returns a split's conversations in order; their features are views of the Arrow memory, not copies.

        Raises:
          UserError: if the corpus has no such split, or its Arrow file is damaged.
        """
        if split not in self.splits:
            raise UserError(f"corpus '{self.card.name}' has no split '{split}', only {', '.join(self.splits)}")
        table = self.splits[split].with_format("arrow")[:]
        try:
            _check_table(table, self.card)
        except (pa.ArrowException, ValueError) as error:
            raise self._damaged(split) from error
        return [c for rows in table.to_batches() for c in _from_rows(rows, self.card)]

    def _damaged(self, split: str) -> UserError:
        return UserError(f"split '{split}' of corpus '{self.card.name}' is damaged: convert it again")


def feature_width(values: Features) -> int:
    """Returns the width `D` of vectors `[n, D]` or of frames `[F_i, D]`; 0 if there are no utterances."""
    return next((np.shape(utterance)[-1] for utterance in values if np.ndim(utterance)), 0)


def any_labelled(conversations: Iterable[Conversation]) -> bool:
    """Whether any utterance has a label."""
    return any((conversation.labels != UNLABELLED).any() for conversation in conversations)


def build_corpus(
    splits: Mapping[str, Sequence[Conversation]],
    card: Card,
    *,
    folder: str | Path | None = None,
    folds: Folds | None = None,
) -> Corpus:
    """Builds a corpus from conversations that fit the card, which `jmer.data.make_corpus` checks and this does not.

    Args:
      splits: split name -> conversations. Splits come out in the order train, validation, test.
      card: the corpus' card.
      folder: None = the corpus is in memory; otherwise it is in unnamed temporary files in this folder, which are
        deleted with it, and only one conversation at a time is in memory.
      folds: that the corpus declares; None = none.
    """
    rows = {}
    for split in SPLITS:
        if split in splits:
            if folder is None:
                table = _to_table(splits[split], card)
            else:
                table = _memory_mapped((_to_table([c], card) for c in splits[split]), card, folder)
            rows[split] = _dataset(table)
    return Corpus(datasets.DatasetDict(rows), card, folds=folds or {})


def with_labels(corpus: Corpus, labels: Mapping[str, Sequence[np.ndarray]], card: Card) -> Corpus:
    """Returns a corpus with other labels and card; nothing else is copied.

    Args:
      corpus: the corpus.
      labels: split -> int32 `[n]` for each of its conversations, in order.
      card: differs from the corpus' at most in the name, the emotions and the provenance.
    """
    rows = {}
    for split, found in corpus.splits.items():
        table = found.with_format("arrow")[:]
        field = table.schema.field("labels")
        values = _lists(pa.array(np.concatenate(labels[split]), pa.int32()), map(len, labels[split]))
        rows[split] = _dataset(table.set_column(table.column_names.index("labels"), field, values.cast(field.type)))
    return dataclasses.replace(corpus, splits=datasets.DatasetDict(rows), card=card)


def _dataset(table: pa.Table) -> datasets.Dataset:
    # Without a fingerprint, `datasets` would compute one from the whole table, which copies it.
    return datasets.Dataset(table, fingerprint=datasets.fingerprint.generate_random_fingerprint())


def save_corpus(corpus: Corpus, path: str | Path) -> None:
    """Writes a corpus as Arrow files, `card.json` and any `folds.json`, which `load_saved` reads back bit for bit.

    The same corpus with the same card gives the same files.

    Raises:
      UserError: if `path` exists and is not an empty folder, or cannot be written; nothing is left there then.
    """
    path = local_path(path)
    check_new_folder(path, "for the corpus")
    # The fingerprint that `datasets` gave the rows is random, and files of the same contents would differ by it.
    rows = {
        split: found.select(range(len(found)), new_fingerprint=corpus.identity.splits[split].fingerprint)
        for split, found in corpus.splits.items()
    }
    with atomically(path) as temporary:
        with _no_progress_bars():
            datasets.DatasetDict(rows).save_to_disk(temporary)
        (temporary / CARD_FILE).write_text(json.dumps(_card_fields(corpus.card), indent=2) + "\n")
        if corpus.folds:
            (temporary / FOLDS_FILE).write_text(json.dumps(corpus.folds, indent=2) + "\n")
        write_digests(temporary, {split: identity.fingerprint for split, identity in corpus.identity.splits.items()})


def _card_fields(card: Card) -> dict[str, Any]:
    """Returns the fields of a card; without attributes, those that a card had before there were any."""
    fields = dataclasses.asdict(card)
    return fields if card.attributes else {name: value for name, value in fields.items() if name != "attributes"}


def load_saved(path: str | Path) -> Corpus:
    """Reads a corpus that `save_corpus` wrote.

    Raises:
      UserError: if the folder is missing, is not a saved corpus, or is damaged.
    """
    path = local_path(path)
    if not path.is_dir():
        what = "it is a file" if path.exists() else "no such folder"
        raise UserError(f"no corpus at {path}: {what} (make one with `python -m jmer.data.convert`)")
    if not (path / CARD_FILE).is_file():
        raise UserError(
            f"{path} is not a saved corpus: it has no {CARD_FILE} (make one with `python -m jmer.data.convert`)"
        )
    recorded = check_digests(path)
    with guarded(str(path / CARD_FILE), AGAIN, described="is damaged"):
        card = from_json(Card, json.loads((path / CARD_FILE).read_text(encoding="utf-8")))
    splits = load_datasets(path, AGAIN)
    expected = _row_features(card)
    for split, rows in splits.items():
        if rows.features != expected:
            raise UserError(f"{path / split} does not match {CARD_FILE}: its columns differ; convert the corpus again")
    ordered = datasets.DatasetDict({split: splits[split] for split in SPLITS if split in splits})
    of_rows = {rows._fingerprint: recorded[split] for split, rows in ordered.items() if split in recorded}
    return Corpus(ordered, card, source=str(path), folds=_load_folds(path / FOLDS_FILE), recorded=of_rows)


def _load_folds(path: Path) -> Folds:
    if not path.exists():
        return {}
    with guarded(str(path), AGAIN, described="is damaged"):
        return from_json(dict[str, dict[str, tuple[str, ...]]], json.loads(path.read_text(encoding="utf-8")))


@contextlib.contextmanager
def _no_progress_bars():
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _row_features(card: Card) -> datasets.Features:
    columns = {
        "conversation": datasets.Value("string"),
        "utterances": datasets.List(datasets.Value("string")),
        "speakers": datasets.List(datasets.Value("string")),
        "sentences": datasets.List(datasets.Value("string")),
        "labels": datasets.List(datasets.Value("int32")),
    }
    for modality, width in card.widths.items():
        vector = datasets.List(datasets.Value("float32"), length=width)
        columns[modality] = datasets.List(datasets.List(vector) if card.frames else vector)
        columns[f"{modality}_available"] = datasets.List(datasets.Value("bool"))
    columns |= {_column(name): datasets.List(datasets.Value("float32")) for name in card.attributes}
    return datasets.Features(columns)


def _column(attribute: str) -> str:
    return f"attribute_{attribute}"


def _to_table(conversations: Sequence[Conversation], card: Card) -> pa.Table:
    def ragged(values: pa.Array) -> pa.ListArray:
        return _lists(values, map(len, conversations))

    def strings(field: str) -> pa.ListArray:
        return ragged(pa.array([item for c in conversations for item in getattr(c, field)], pa.string()))

    columns = {
        "conversation": pa.array([c.id for c in conversations], pa.string()),
        "utterances": strings("utterances"),
        "speakers": strings("speakers"),
        "sentences": strings("sentences"),
        "labels": ragged(pa.array(np.concatenate([c.labels for c in conversations]), pa.int32())),
    }
    for modality, width in card.widths.items():
        parts = [c.features[modality] for c in conversations]
        if card.frames:
            parts = list(itertools.chain(*parts))
        values = np.concatenate(parts).astype(np.float32, copy=False)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
        columns[modality] = ragged(_lists(vectors, map(len, parts)) if card.frames else vectors)
        available = np.concatenate([c.available[modality] for c in conversations])
        columns[f"{modality}_available"] = ragged(pa.array(available, pa.bool_()))
    for name in card.attributes:
        values = np.concatenate([c.attributes[name] for c in conversations])
        columns[_column(name)] = ragged(pa.array(values, pa.float32()))
    return pa.table(columns).cast(_row_features(card).arrow_schema)


def _lists(values: pa.Array, lengths: Iterable[int]) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), values)


def _memory_mapped(tables: Iterable[pa.Table], card: Card, folder: str | Path) -> pa.Table:
    """Writes tables to an unnamed temporary file and returns them as one memory-mapped table."""
    with tempfile.TemporaryFile(dir=folder) as file:
        with pa.ipc.new_stream(file, _row_features(card).arrow_schema) as writer:
            for table in tables:
                writer.write_table(table)
        file.flush()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()


def _check_table(table: pa.Table, card: Card) -> None:
    """Raises ArrowInvalid or ValueError if the Arrow data are corrupt, before they are read out of bounds."""
    table.validate(full=True)
    for rows in table.to_batches():
        for name in rows.schema.names[1:]:
            if not rows.column(name).value_lengths().equals(rows.column("labels").value_lengths()):
                raise ValueError(f"{name} and labels differ in length")
        for name in (*card.modalities, *map(_column, card.attributes)):
            values = rows.column(name)
            while pa.types.is_nested(values.type):
                values = values.flatten()
                if values.null_count:
                    raise ValueError(f"{name} contains nulls")


def _from_rows(rows: pa.RecordBatch, card: Card) -> list[Conversation]:
    bounds = _bounds(rows.column("labels"))
    labels = rows.column("labels").flatten().to_numpy(zero_copy_only=False)
    strings = {name: rows.column(name).flatten().to_pylist() for name in ("utterances", "speakers", "sentences")}
    features, available = {}, {}
    for modality, width in card.widths.items():
        utterances = rows.column(modality).flatten()
        if card.frames:
            frames = utterances.flatten().flatten().to_numpy().reshape(-1, width)
            features[modality] = [frames[start:end] for start, end in _bounds(utterances)]
        else:
            features[modality] = utterances.flatten().to_numpy().reshape(-1, width)
        available[modality] = rows.column(f"{modality}_available").flatten().to_numpy(zero_copy_only=False)
    attributes = {name: rows.column(_column(name)).flatten().to_numpy() for name in card.attributes}
    return [
        Conversation(
            id=name,
            labels=labels[start:end],
            features={m: values[start:end] for m, values in features.items()},
            available={m: values[start:end] for m, values in available.items()},
            attributes={name: values[start:end] for name, values in attributes.items()},
            **{field: values[start:end] for field, values in strings.items()},
        )
        for name, (start, end) in zip(rows.column("conversation").to_pylist(), bounds, strict=True)
    ]


def _bounds(lists: pa.ListArray) -> list[tuple[int, int]]:
    """Returns the start and end of each list in the flattened values."""
    return list(itertools.pairwise(np.cumsum([0, *lists.value_lengths().to_numpy()]).tolist()))
