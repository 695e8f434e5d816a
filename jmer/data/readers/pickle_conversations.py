"""Conversations out of the elements of a feature pickle."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jmer.data.corpus import Conversation
from jmer.data.readers.conventions import fix_encoding
from jmer.data.readers.limits import spend
from jmer.data.readers.pickle_elements import ROBERTA, is_flat, is_integer, is_number, is_one_hot, is_string
from jmer.data.readers.regression_labels import CONVERSIONS, to_classes
from jmer.data.validation import mark_missing
from jmer.errors import UserError
from jmer.modalities import MODALITIES


def conversation(
    path: Path, key: Any, fields: Mapping[str, Mapping[Any, Any]], *, roberta: str, regression: str | None
) -> Conversation:
    """Builds one conversation.

    Args:
      path: the file, for errors.
      key: of the conversation.
      fields: field -> conversation -> a value per utterance.
      roberta: how four text vectors per utterance become one: first, mean or concat.
      regression: how labels that are no integers become classes, see `regression_labels`; None = they are refused.

    Raises:
      UserError: naming the file, the field and the conversation.
    """
    own = {field: values[key] for field, values in fields.items()}
    labels = _labels(path, key, own["labels"], regression)
    matrices: dict[str, np.ndarray] = {m: _matrix(path, key, m, own[m]) for m in ("audio", "visual") if m in own}
    texts = [_matrix(path, key, field, own[field]) for field in ROBERTA if field in own]
    if texts:
        matrices["text"] = _text(path, key, texts, roberta) if len(texts) > 1 else texts[0]
    features, available = {}, {}
    for modality in (m for m in MODALITIES if m in matrices):
        features[modality], available[modality] = mark_missing(matrices[modality])
    return Conversation(
        id=str(key),
        utterances=_names(path, key, own["ids"]) if "ids" in own else [str(n) for n in range(len(labels))],
        speakers=_speakers(path, key, own["speakers"]) if "speakers" in own else [str(key)] * len(labels),
        labels=labels,
        features=features,
        available=available,
        sentences=_sentences(path, key, own["sentences"]) if "sentences" in own else [""] * len(labels),
    )


def _labels(path: Path, key: Any, labels: Sequence, regression: str | None) -> np.ndarray:
    if not len(labels):
        raise UserError(f"{path}: conversation '{key}' is empty: remove it")
    if regression and all(map(is_number, labels)):
        return to_classes(np.array(labels, np.float64), regression)
    if not all(is_integer(label) and abs(label) < 2**31 for label in labels):
        raise UserError(
            f"{path}: the labels of conversation '{key}' are not all integers: save them as integers, or, if they are "
            f"regression labels, give --regression {'|'.join(CONVERSIONS)}"
        )
    return np.array(labels, np.int32)


def _names(path: Path, key: Any, names: Sequence) -> list[str]:
    if not all(is_string(name) or is_integer(name) for name in names):
        raise UserError(f"{path}: the ids of conversation '{key}' are not all names or numbers: correct them")
    return [str(name) for name in names]


def _sentences(path: Path, key: Any, sentences: Sequence) -> list[str]:
    if not all(map(is_string, sentences)):
        raise UserError(f"{path}: the sentences of conversation '{key}' are not all strings: correct them")
    return [fix_encoding(sentence) for sentence in sentences]


def _matrix(path: Path, key: Any, field: str, rows: Any) -> np.ndarray:
    values = np.empty(0)
    if all(map(is_flat, rows)):
        spend(sum(map(len, rows)) * values.itemsize, f"the {field} vectors")
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            values = np.array([np.asarray(row, np.float64) for row in rows])
    if values.ndim != 2:
        raise UserError(f"{path}: the {field} vectors of conversation '{key}' differ in width or are not numbers")
    return values


def _text(path: Path, key: Any, vectors: Sequence[np.ndarray], roberta: str) -> np.ndarray:
    if roberta == "first":
        return vectors[0]
    if len({values.shape for values in vectors}) > 1:
        raise UserError(
            f"{path}: the four RoBERTa vectors of conversation '{key}' differ in shape: use --roberta first"
        )
    return np.mean(vectors, axis=0) if roberta == "mean" else np.concatenate(vectors, axis=1)


def _speakers(path: Path, key: Any, speakers: Any) -> list[str]:
    if all(is_string(speaker) or is_integer(speaker) for speaker in speakers):
        return [str(speaker) for speaker in speakers]
    if not all(map(is_one_hot, speakers)):
        raise UserError(f"{path}: the speakers of conversation '{key}' are neither names, numbers nor one-hot vectors")
    return [str(int(np.argmax(row))) for row in speakers]
