"""A corpus: conversations in splits, as a `datasets.DatasetDict` with a card, on disk as Arrow."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from jmer.batch import UNLABELLED
from jmer.errors import UserError

SPLITS = ("train", "validation", "test")
CARD_FILE = "card.json"


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One conversation of `n` utterances, as NumPy arrays.

    Attributes:
      id: name of the conversation, unique in the corpus.
      utterances: `n` names of utterances, unique in the conversation.
      speakers: `n` names of speakers.
      labels: int32 `[n]`, emotion index, -1 = unlabelled.
      features: modality -> float32 `[n, D_m]`, zero where unavailable.
      available: modality -> bool `[n]`.
      sentences: `n` transcripts, "" where unknown.
    """

    id: str
    utterances: Sequence[str]
    speakers: Sequence[str]
    labels: np.ndarray
    features: Mapping[str, np.ndarray]
    available: Mapping[str, np.ndarray]
    sentences: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Card:
    """What a corpus is; travels with it and into every report.

    Attributes:
      name: short name, e.g. `meld`.
      widths: modality -> feature width, in the order text, audio, visual.
      emotions: names of the emotions; a label is an index into it.
      provenance: where the features come from and how they were converted, one or two sentences.
      synthetic: True if the corpus is made up.
    """

    name: str
    widths: Mapping[str, int]
    emotions: tuple[str, ...]
    provenance: str
    synthetic: bool

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of `widths`."""
        return tuple(self.widths)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Splits (a subset of train, validation, test; one row per conversation) and their card.

    Columns of a row: `conversation`, `utterances`, `speakers`, `sentences`, `labels`, and for each modality `m` the
    columns `m` (a list of `D_m` floats per utterance) and `m_available`.
    """

    splits: datasets.DatasetDict
    card: Card

    def conversations(self, split: str) -> list[Conversation]:
        """Returns a split's conversations in order; their features are views of the Arrow memory, not copies.

        Raises:
          UserError: if the corpus has no such split, or its Arrow file is damaged.
        """
        if split not in self.splits:
            raise UserError(f"corpus '{self.card.name}' has no split '{split}', only {', '.join(self.splits)}")
        table = self.splits[split].with_format("arrow")[:]
        try:
            _check_table(table)
        except (pa.ArrowException, ValueError) as error:
            raise UserError(f"split '{split}' of corpus '{self.card.name}' is damaged: convert it again") from error
        return _from_table(table, self.card)


def any_labelled(conversations: Iterable[Conversation]) -> bool:
    """Whether any utterance has a label."""
    return any((conversation.labels != UNLABELLED).any() for conversation in conversations)


def make_corpus(splits: Mapping[str, Sequence[Conversation]], card: Card) -> Corpus:
    """Builds a corpus from conversations, which must already fit the card (`jmer.data.validation` checks that).

    Args:
      splits: split name -> conversations. Splits come out in the order train, validation, test.
      card: the corpus' card.
    """
    rows = {split: _to_rows(splits[split], card) for split in SPLITS if split in splits}
    return Corpus(datasets.DatasetDict(rows), card)


def save_corpus(corpus: Corpus, path: str | Path) -> None:
    """Writes a corpus as Arrow files plus `card.json`; `load_saved` gets back the same bits.

    Raises:
      UserError: if `path` already holds something.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} already exists: name a new folder for the corpus, or remove that one")
    with _no_progress_bars():
        corpus.splits.save_to_disk(path)
    (path / CARD_FILE).write_text(json.dumps(dataclasses.asdict(corpus.card), indent=2) + "\n")


def load_saved(path: str | Path) -> Corpus:
    """Reads what `save_corpus` wrote.

    Raises:
      UserError: if the folder is missing, is no saved corpus, or is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        what = "it is a file" if path.exists() else "no such folder"
        raise UserError(f"no corpus at {path}: {what} (make one with `python -m jmer.data.convert`)")
    if not (path / CARD_FILE).is_file():
        raise UserError(f"{path} is no saved corpus: it has no {CARD_FILE} (make it with `jmer.data.convert`)")
    try:
        fields = json.loads((path / CARD_FILE).read_text())
        card = Card(**fields | {"emotions": tuple(fields["emotions"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path / CARD_FILE} is damaged ({error}): convert the corpus again") from error
    try:
        splits = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"the Arrow files under {path} are missing or damaged: convert the corpus again") from error
    expected = _row_features(card)
    for split, rows in splits.items():
        if rows.features != expected:
            raise UserError(f"{path / split} does not fit {CARD_FILE}: its columns differ; convert the corpus again")
    return Corpus(datasets.DatasetDict({split: splits[split] for split in SPLITS if split in splits}), card)


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
        columns[modality] = datasets.List(datasets.List(datasets.Value("float32"), length=width))
        columns[f"{modality}_available"] = datasets.List(datasets.Value("bool"))
    return datasets.Features(columns)


def _to_rows(conversations: Sequence[Conversation], card: Card) -> datasets.Dataset:
    offsets = pa.array(np.cumsum([0, *map(len, conversations)]), pa.int32())

    def ragged(values: pa.Array) -> pa.ListArray:
        return pa.ListArray.from_arrays(offsets, values)

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
        values = np.concatenate([c.features[modality] for c in conversations]).astype(np.float32, copy=False)
        columns[modality] = ragged(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width))
        available = np.concatenate([c.available[modality] for c in conversations])
        columns[f"{modality}_available"] = ragged(pa.array(available, pa.bool_()))
    features = _row_features(card)
    return datasets.Dataset(pa.table(columns).cast(features.arrow_schema))


def _check_table(table: pa.Table) -> None:
    """Raises ArrowInvalid or ValueError where bytes have changed so that reading on would go wrong or out of bounds."""
    table.validate(full=True)
    lengths = {column: table[column].combine_chunks().value_lengths() for column in table.column_names[1:]}
    for column, values in lengths.items():
        if not values.equals(lengths["labels"]):
            raise ValueError(f"{column} and labels differ in length")


def _from_table(table: pa.Table, card: Card) -> list[Conversation]:
    def column(name: str) -> pa.Array:
        return table[name].combine_chunks()

    ends = np.cumsum([len(labels) for labels in column("labels")])
    bounds = list(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True))
    labels = column("labels").flatten().to_numpy(zero_copy_only=False)
    strings = {name: column(name).flatten().to_pylist() for name in ("utterances", "speakers", "sentences")}
    features, available = {}, {}
    for modality, width in card.widths.items():
        features[modality] = column(modality).flatten().flatten().to_numpy().reshape(-1, width)
        available[modality] = column(f"{modality}_available").flatten().to_numpy(zero_copy_only=False)
    return [
        Conversation(
            id=name,
            labels=labels[start:end],
            features={m: values[start:end] for m, values in features.items()},
            available={m: values[start:end] for m, values in available.items()},
            **{field: values[start:end] for field, values in strings.items()},
        )
        for name, (start, end) in zip(column("conversation").to_pylist(), bounds, strict=True)
    ]
