"""JSON files of DAG-ERC and MultiDAG: `{train,dev,test}_data_*.json.feature`, a list of conversations per split.

A conversation is a list of utterances `{"text": ..., "speaker": ..., "label": ..., "cls": ...}`. An utterance without
`label` is unlabelled; `cls` is one vector, of the text (DAG-ERC), or a list of three: text, audio, visual (MultiDAG).
A source is one of these files or a folder with one per split. The files do not name conversations: their ids are
`SPLIT_POSITION`.
"""

import argparse
import contextlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.data.corpus import Card, Conversation, Corpus, feature_width
from jmer.data.readers.conventions import files_by_split, fix_encoding
from jmer.data.readers.labels import LabelNames, add_label_arguments, emotions_found, labels_of
from jmer.data.readers.text_files import read_text
from jmer.data.validation import checked_corpus, mark_missing
from jmer.errors import UserError
from jmer.file_kinds import check_kind
from jmer.guard import guarded
from jmer.modalities import MODALITIES

PATTERN = "*_data_*.json.feature"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that names the emotions."""
    add_label_arguments(
        parser, "those in the files, in the usual order of IEMOCAP or MELD, or alphabetical if they are others"
    )


def read(sources: Sequence[Path], options: argparse.Namespace) -> Corpus:
    """Reads a corpus from one file per split.

    Args:
      sources: the files, or one folder with them.
      options: parsed flags of `add_arguments`.

    Raises:
      UserError: naming the file, the conversation and the utterance that is invalid.
    """
    files = files_by_split([Path(source) for source in sources], PATTERN)
    content = {split: _load(path) for split, path in files.items()}
    found = options.emotions or _emotions(files, content, options)
    names = LabelNames.of(found, options)
    splits = {
        split: [
            _conversation(f"{split}_{number}", f"{files[split]}, conversation {number}", utterances, names)
            for number, utterances in enumerate(conversations)
        ]
        for split, conversations in content.items()
    }
    first = next(conversation for conversations in splits.values() for conversation in conversations)
    kind = "DAG-ERC's JSON" if tuple(first.features) == ("text",) else "MultiDAG's JSON"
    card = Card(
        name=next(iter(files.values())).resolve().parent.name,
        widths={m: feature_width(values) for m, values in first.features.items()},
        emotions=names.of_corpus(labels_of(splits), options.merge),
        provenance=f"Converted from {kind}: {', '.join(path.name for path in files.values())}.",
        synthetic=False,
    )
    return checked_corpus(splits, card)


def _load(path: Path) -> list:
    check_kind(path, "json", "utf-16")
    text = read_text(path)
    with guarded(str(path), "get the file again", described="is not a JSON file, or is truncated"):
        content = json.loads(text, object_hook=_compact)
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} contains no list of conversations: it is not in the format of DAG-ERC")
    for number, utterances in enumerate(content):
        if not isinstance(utterances, list) or not utterances:
            raise UserError(f"{path}: conversation {number} is not a list of utterances, or is empty: remove it")
        for position, utterance in enumerate(utterances):
            for field in ("text", "speaker", "cls"):
                if not isinstance(utterance, dict) or field not in utterance:
                    raise UserError(f"{path}, conversation {number}: utterance {position} has no {field}: add it")
            for field, kinds in (("text", str), ("speaker", str | int)):
                if not isinstance(utterance[field], kinds):
                    raise UserError(
                        f"{path}, conversation {number}: {field} of utterance {position} is "
                        f"{reprlib.repr(utterance[field])}: expected a string"
                    )
    return content


def _compact(utterance: dict) -> dict:
    """Converts `cls` to a list of float32 arrays while the file is parsed: Python lists take eight times the memory.

    Values that are not one or more vectors are kept, so that an error can name their conversation and utterance.
    """
    vectors = utterance.get("cls")
    if isinstance(vectors, list) and vectors:
        nested = vectors if isinstance(vectors[0], list) else [vectors]
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            utterance["cls"] = [np.array(vector, np.float32) for vector in nested]
    return utterance


def _emotions(files: Mapping[str, Path], content: Mapping[str, list], options: argparse.Namespace) -> tuple[str, ...]:
    labels = set()
    for split, conversations in content.items():
        for label in (utterance.get("label") for utterances in conversations for utterance in utterances):
            if isinstance(label, str):
                labels.add(label)
            elif label is not None:
                raise UserError(f"{files[split]} has label {label!r}, not a name: give --emotions A,B,...")
    if not labels:
        raise UserError(f"{', '.join(map(str, files.values()))}: no utterance has a label: give --emotions A,B,...")
    return emotions_found(labels, options)


def _conversation(name: str, place: str, utterances: Sequence[Mapping], names: LabelNames) -> Conversation:
    features, available = {}, {}
    for modality, values in _matrices(place, [utterance["cls"] for utterance in utterances]).items():
        features[modality], available[modality] = mark_missing(values)
    return Conversation(
        id=name,
        utterances=[str(position) for position in range(len(utterances))],
        speakers=[str(utterance["speaker"]) for utterance in utterances],
        labels=np.array([_label(place, utterance.get("label"), names) for utterance in utterances], np.int32),
        features=features,
        available=available,
        sentences=[fix_encoding(str(utterance["text"])) for utterance in utterances],
    )


def _matrices(place: str, vectors: Sequence[Any]) -> dict[str, np.ndarray]:
    for position, of_utterance in enumerate(vectors):
        count = len(of_utterance) if isinstance(of_utterance, list) else 0
        if count not in (1, len(MODALITIES)) or not all(
            isinstance(v, np.ndarray) and v.ndim == 1 for v in of_utterance
        ):
            raise UserError(
                f"{place}: cls of utterance {position} is neither a vector of numbers nor three (text, audio, visual)"
            )
    modalities = MODALITIES[: len(vectors[0])]
    matrices = {}
    for number, modality in enumerate(modalities):
        column = [of_utterance[number] for of_utterance in vectors if len(of_utterance) == len(modalities)]
        if len(column) < len(vectors) or len({vector.size for vector in column}) > 1:
            raise UserError(f"{place}: cls differs in size between utterances: give {modality} features of one width")
        matrices[modality] = np.stack(column)
    return matrices


def _label(place: str, label: Any, names: LabelNames) -> int:
    index = names.index(label)
    if index is None:
        raise UserError(f"{place}: label {label!r} is not one of the emotions {names.described()}: {names.remedy}")
    return index
