"""Data of a page's conversation viewer."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jmer.data.corpus import Conversation
from jmer.evaluation.forward import Predictions
from jmer.evaluation.subtitles import Span

# Decimals of the viewer's numbers; more would make the page of a large corpus slow to open.
DECIMALS = 4


@dataclasses.dataclass(frozen=True)
class PredictedSplit:
    """A split and its predictions.

    Attributes:
      conversations: conversations of the split, or its single utterances, with those of a conversation adjacent.
      predictions: predictions on `conversations`.
      times: for each conversation and each of its utterances where it is in a recording, None = unknown; None = there
        are no recordings.
    """

    conversations: Sequence[Conversation]
    predictions: Predictions
    times: Sequence[Sequence[Span | None]] | None = None


def viewer_data(emotions: Sequence[str], predicted: Mapping[str, PredictedSplit]) -> dict[str, Any]:
    """Returns the data of the conversation viewer, as values for JSON.

    Args:
      emotions: names of the emotions.
      predicted: split -> its conversations and predictions.
    """
    return {
        "emotions": list(emotions),
        "splits": {split: _conversations(found) for split, found in predicted.items()},
    }


def _conversations(predicted: PredictedSplit) -> list[dict[str, Any]]:
    """Returns the conversations of a split, with single utterances of the same conversation joined."""
    parts = [_conversation(predicted, i) for i in range(len(predicted.conversations))]
    joined = []
    for _, group in itertools.groupby(parts, key=lambda part: part["id"]):
        first, *others = group
        for other in others:
            _extend(first, other)
        joined.append(first)
    return joined


def _conversation(predicted: PredictedSplit, i: int) -> dict[str, Any]:
    """Returns the viewer's data on one conversation, with a list over utterances for each field."""
    conversation, predictions = predicted.conversations[i], predicted.predictions
    # In the order of the corpus; dictionaries come out of jitted functions sorted by key.
    weights = {
        modality: np.where(available, predictions.weights[modality][i], np.nan)
        for modality, available in conversation.available.items()
        if modality in predictions.weights
    }
    spread, times = predictions.spread, predicted.times
    return {
        "id": conversation.id,
        "utterances": list(conversation.utterances),
        "speakers": list(conversation.speakers),
        "sentences": list(conversation.sentences),
        "gold": conversation.labels.tolist(),
        "predicted": predictions.probabilities[i].argmax(-1).tolist(),
        "probabilities": [_rounded(row) for row in predictions.probabilities[i]],
        "weights": {modality: _rounded(values) for modality, values in weights.items()},
        "attention": {token: _rounded(values[i]) for token, values in predictions.attention.items()},
        **({"times": [span and (span.start, span.end) for span in times[i]]} if times else {}),
        **({"agreement": _rounded(spread.agreement[i])} if spread else {}),
        **({"deviations": [_rounded(row) for row in spread.deviations[i]]} if spread else {}),
    }


def _extend(part: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Appends the utterances of `other` to those of `part`, in place."""
    for name, values in part.items():
        if isinstance(values, dict):
            _extend(values, other[name])
        elif isinstance(values, list):
            values.extend(other[name])


def _rounded(values: np.ndarray) -> list[float | None]:
    """Returns the values with `DECIMALS` decimals; None in place of NaN and infinity, which JSON does not have."""
    return [round(value, DECIMALS) if np.isfinite(value) else None for value in values.tolist()]
