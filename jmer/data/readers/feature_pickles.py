"""Public feature pickles: a tuple of dictionaries keyed by conversation and of a list of conversations per split.

    MMGCN, MM-DFN, DialogueRNN   ids, speakers, labels, text, audio, visual, sentences, train, test[, extra]
    DialogueRNN's MELD           ids, speakers, labels, text, audio, sentences, train, test, sentiments
    SDT                          as MMGCN, with three more RoBERTa vectors after the text
    COSMIC                       speakers, labels[, sentiments], RoBERTa (4), sentences, train, test, validation

The file of COSMIC alone gives a corpus of text. With one of the others as a second source, it gives the text and the
splits, and the other the audio and visual features. A layout is recognised by the types of its elements.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.batch import MODALITIES
from jmer.data.corpus import SPLITS, Card, Conversation, Corpus, feature_width
from jmer.data.emotions import IEMOCAP6, MELD
from jmer.data.readers.conventions import fix_encoding
from jmer.data.readers.file_kinds import kind_of
from jmer.data.readers.labels import add_label_arguments
from jmer.data.readers.restricted_unpickler import load_pickle
from jmer.data.readers.torch_archives import load_torch
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError

ROBERTA = ("text", "text2", "text3", "text4")
ROBERTA_CHOICES = ("first", "mean", "concat")
# The pickles number the conversations of MELD consecutively: training from 0, then development, then test.
MELD_VALIDATION = range(1039, 1153)
MELD_TEST = range(1153, 1433)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The elements of a file, in order."""

    name: str
    fields: tuple[str, ...]


_START, _END = ("ids", "speakers", "labels"), ("sentences", "train", "test")
LAYOUTS = (
    Layout("MMGCN", (*_START, "text", "audio", "visual", *_END)),
    Layout("MMGCN", (*_START, "text", "audio", "visual", *_END, "extra")),
    Layout("DialogueRNN's MELD", (*_START, "text", "audio", *_END, "sentiments")),
    Layout("SDT", (*_START, *ROBERTA, "audio", "visual", *_END)),
    Layout("SDT", (*_START, *ROBERTA, "audio", "visual", *_END, "extra")),
    Layout("COSMIC", ("speakers", "labels", *ROBERTA, *_END, "validation")),
    Layout("COSMIC", ("speakers", "labels", "sentiments", *ROBERTA, *_END, "validation")),
)

# The possible kinds of each element, as `_kind` returns them: a dictionary of conversations with one string, integer or
# vector per utterance, or a listing of conversations.
_KINDS = {
    "ids": ("strings", "integers"),
    "speakers": ("strings", "vectors"),
    "labels": ("integers",),
    "sentiments": ("integers",),
    "sentences": ("strings",),
    **dict.fromkeys((*ROBERTA, "audio", "visual"), ("vectors",)),
    **dict.fromkeys(("train", "test", "validation"), ("listing",)),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """The content of a file.

    Attributes:
      path: the file.
      layout: its layout.
      conversations: key in the file -> conversation.
      splits: split name -> keys, in the order of the file.
      emotions: names of the emotions if the dataset is recognised by keys, speakers and labels, else None.
      left_out: number of conversations that are in no split.
    """

    path: Path
    layout: Layout
    conversations: Mapping[Any, Conversation]
    splits: Mapping[str, Sequence]
    emotions: tuple[str, ...] | None
    left_out: int

    @property
    def described(self) -> str:
        unused = f", {self.left_out} conversations in no split left out" if self.left_out else ""
        return f"{self.path.name} ({self.layout.name}, {len(self.layout.fields)} elements{unused})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags for the emotions and the text features."""
    add_label_arguments(parser, "the six of IEMOCAP or the seven of MELD, if the file is recognised as one of these")
    parser.add_argument(
        "--roberta",
        choices=ROBERTA_CHOICES,
        default="first",
        help="the text features of a file with four RoBERTa vectors per utterance (default: first, as SDT)",
    )


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from one feature pickle, or from COSMIC's and another one.

    Args:
      sources: one or two files.
      options: parsed flags of `add_arguments`.

    Raises:
      UserError: naming the file and the element that is invalid.
    """
    files = [_read_source(Path(path), options.roberta) for path in sources]
    source = files[0] if len(files) == 1 else _merged(files)
    if options.roberta != "first" and not any(_has_roberta(file.layout) for file in files):
        raise UserError(f"--roberta {options.roberta}: {source.path} has one text vector per utterance: drop the flag")
    emotions = options.emotions or source.emotions
    if emotions is None:
        raise UserError(
            f"{source.path} has neither the six emotions of IEMOCAP nor the seven of MELD: give them in the order of "
            "their labels with --emotions A,B,..."
        )
    splits, official = _with_official_validation(source.splits)
    chosen = {split: [source.conversations[key] for key in keys] for split, keys in splits.items()}
    features = next((c.features for conversations in chosen.values() for c in conversations), {})
    text = f" Text: {options.roberta} of the RoBERTa vectors." if any(_has_roberta(f.layout) for f in files) else ""
    card = Card(
        name=source.path.stem,
        widths={m: feature_width(features[m]) for m in MODALITIES if m in features},
        emotions=emotions,
        provenance=f"Converted from {' and '.join(f.described for f in files)}.{text}{official}",
        synthetic=False,
    )
    return checked_corpus(chosen, card)


def _read_source(path: Path, roberta: str) -> Source:
    kind = kind_of(path)
    content = load_torch(path) if kind and kind.name == "torch" else load_pickle(path)
    elements = content if isinstance(content, tuple | list) else ()
    kinds = [_kind(element) for element in elements]
    layout = next((known for known in LAYOUTS if _fits(kinds, known)), None)
    if layout is None:
        raise UserError(f"{path} has an unknown layout (--help lists the known ones): it is {_description(content)}")
    fields = dict(zip(layout.fields, elements, strict=True))
    splits = {split: _ordered(fields[split]) for split in SPLITS if split in layout.fields}
    listed = dict.fromkeys(key for keys in splits.values() for key in keys)
    for field in layout.fields:
        missing = [key for key in listed if isinstance(fields[field], dict) and key not in fields[field]]
        if missing and field != "extra":
            raise UserError(
                f"{path}: conversation '{missing[0]}' has no {field}{_and_more(missing)}: get the file again"
            )
    conversations = {key: _conversation(path, key, fields, roberta) for key in listed}
    return Source(
        path=path,
        layout=layout,
        conversations=conversations,
        splits=splits,
        emotions=_known_emotions(conversations, one_hot=kinds[layout.fields.index("speakers")] == "vectors"),
        left_out=len(fields["labels"].keys() - listed.keys()),
    )


def _fits(kinds: Sequence[str], layout: Layout) -> bool:
    return len(kinds) == len(layout.fields) and all(
        field == "extra" or kind in _KINDS[field] for kind, field in zip(kinds, layout.fields, strict=True)
    )


def _kind(element: Any) -> str:
    if isinstance(element, set | frozenset) or _is_sequence(element):
        return "listing" if all(isinstance(key, str | int | np.integer) for key in element) else "values"
    if not isinstance(element, dict) or not all(_is_sequence(values) for values in element.values()):
        return type(element).__name__
    utterances = next((values for values in element.values() if len(values)), ())
    for kind, fits in (("strings", _is_string), ("integers", _is_integer), ("vectors", _is_vector)):
        if len(utterances) and all(fits(value) for value in utterances):
            return kind
    return "values"


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer)


def _is_vector(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "biuf"
    return isinstance(value, list | tuple) and all(isinstance(number, int | float | np.number) for number in value)


def _description(content: Any) -> str:
    if not isinstance(content, list | tuple):
        return f"one {type(content).__name__}, not a tuple of dictionaries"
    parts = [f"{i} {_element_description(element)}" for i, element in enumerate(content)]
    return f"a {type(content).__name__} of {len(content)}: {'; '.join(parts)}"


def _element_description(element: Any) -> str:
    kind = _kind(element)
    if not isinstance(element, dict) or not element:
        size = f" of {len(element)}" if hasattr(element, "__len__") else ""
        return f"{type(element).__name__}{size}" + (" keys" if kind == "listing" else "")
    key, values = next(iter(element.items()))
    shape = f"{len(values)} " if _is_sequence(values) else ""
    if kind == "vectors":
        shape += f"x {len(values[0])} " if len(values) else ""
    return f"dict of {len(element)}, {key!r}: {shape}{kind}"


def _ordered(keys: Any) -> list:
    # The iteration order of a set may differ between runs.
    return sorted(keys, key=lambda key: (isinstance(key, str), key)) if isinstance(keys, set | frozenset) else [*keys]


def _conversation(path: Path, key: Any, fields: Mapping[str, Any], roberta: str) -> Conversation:
    def of(field: str) -> Any:
        return fields[field][key]

    def matrix(field: str) -> np.ndarray:
        try:
            values = np.array([np.asarray(row, np.float64) for row in of(field)])
        except (ValueError, TypeError):
            values = np.empty(0)
        if values.ndim != 2:
            raise UserError(f"{path}: the {field} vectors of conversation '{key}' differ in width or are not numbers")
        return values

    labels = of("labels")
    if not len(labels):
        raise UserError(f"{path}: conversation '{key}' is empty: remove it")
    if not all(_is_integer(label) and abs(label) < 2**31 for label in labels):
        raise UserError(f"{path}: the labels of conversation '{key}' are not all integers: save them as integers")
    names = of("ids") if "ids" in fields else range(len(labels))
    matrices = {m: matrix(m) for m in ("audio", "visual") if m in fields}
    texts = [matrix(field) for field in ROBERTA if field in fields]
    matrices["text"] = _text(path, key, texts, roberta) if len(texts) > 1 else texts[0]
    features, available = {}, {}
    for modality in (m for m in MODALITIES if m in matrices):
        features[modality], available[modality] = mark_missing(matrices[modality])
    return Conversation(
        id=str(key),
        utterances=[str(name) for name in names],
        speakers=_speakers(path, key, of("speakers")),
        labels=np.array(labels, np.int32),
        features=features,
        available=available,
        sentences=[fix_encoding(str(sentence)) for sentence in of("sentences")],
    )


def _text(path: Path, key: Any, vectors: Sequence[np.ndarray], roberta: str) -> np.ndarray:
    if roberta == "first":
        return vectors[0]
    if len({values.shape for values in vectors}) > 1:
        raise UserError(
            f"{path}: the four RoBERTa vectors of conversation '{key}' differ in shape: use --roberta first"
        )
    return np.mean(vectors, axis=0) if roberta == "mean" else np.concatenate(vectors, axis=1)


def _speakers(path: Path, key: Any, speakers: Any) -> list[str]:
    if all(_is_string(speaker) for speaker in speakers):
        return [str(speaker) for speaker in speakers]
    one_hot = all(_is_vector(row) and sorted(row) == [0] * (len(row) - 1) + [1] for row in speakers)
    if not one_hot:
        raise UserError(f"{path}: the speakers of conversation '{key}' are neither names nor one-hot vectors")
    return [str(int(np.argmax(row))) for row in speakers]


def _known_emotions(conversations: Mapping[Any, Conversation], *, one_hot: bool) -> tuple[str, ...] | None:
    highest = max((c.labels.max(initial=-1) for c in conversations.values()), default=-1)
    if highest == len(IEMOCAP6) - 1 and all(str(key).startswith("Ses0") for key in conversations):
        return IEMOCAP6
    # EmoryNLP has seven other emotions and one-hot speakers too, but its keys are not integers.
    if highest == len(MELD) - 1 and one_hot and all(_is_integer(key) for key in conversations):
        return MELD
    return None


def _merged(files: Sequence[Source]) -> Source:
    """Returns the other file with the text and the splits of COSMIC's."""
    is_cosmic = [file.layout.name == "COSMIC" for file in files]
    if sorted(is_cosmic) != [False, True]:
        raise UserError(
            f"give one feature pickle, or two of which one is COSMIC's, not {', '.join(f.described for f in files)}"
        )
    cosmic, other = files[is_cosmic.index(True)], files[is_cosmic.index(False)]
    names = f"{cosmic.path} and {other.path}"
    unmatched = sorted(map(str, cosmic.conversations.keys() ^ other.conversations.keys()))
    if unmatched:
        raise UserError(f"{names} have different conversations: only one has '{unmatched[0]}'{_and_more(unmatched)}")
    differing = [
        key
        for key, conversation in other.conversations.items()
        if not np.array_equal(conversation.labels, cosmic.conversations[key].labels)
    ]
    if differing:
        raise UserError(f"{names} have different labels in conversation '{differing[0]}'{_and_more(differing)}")
    moved = sorted(map(str, set(cosmic.splits["test"]) ^ set(other.splits["test"])))
    if moved:
        raise UserError(f"{names} have different test splits: conversation '{moved[0]}'{_and_more(moved)}")
    conversations = {
        key: dataclasses.replace(
            conversation,
            features={**conversation.features, "text": cosmic.conversations[key].features["text"]},
            available={**conversation.available, "text": cosmic.conversations[key].available["text"]},
        )
        for key, conversation in other.conversations.items()
    }
    return dataclasses.replace(other, conversations=conversations, splits=cosmic.splits)


def _with_official_validation(splits: Mapping[str, Sequence]) -> tuple[Mapping[str, Sequence], str]:
    """Returns the splits with MELD's development split restored if a file lists it under training, and a note."""
    if (
        "validation" in splits
        or set(splits["test"]) != set(MELD_TEST)
        or not set(MELD_VALIDATION) <= set(splits["train"])
    ):
        return splits, ""
    train = [key for key in splits["train"] if key not in MELD_VALIDATION]
    note = " Validation: MELD's development split, which the file lists under training."
    return {"train": train, "validation": [*MELD_VALIDATION], "test": splits["test"]}, note


def _has_roberta(layout: Layout) -> bool:
    return set(ROBERTA) <= set(layout.fields)


def _and_more(items: Sequence) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""
