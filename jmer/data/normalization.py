"""Standardisation of features: fitted on the training split, stored with the model, applied before every use."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from flax import struct

from jmer.data.corpus import Conversation
from jmer.data.frames import available_rows
from jmer.errors import UserError


@struct.dataclass
class Standardization:
    """What turns one modality's features into z-scores; a pytree, so that a checkpoint can hold it.

    Attributes:
      mean: float32 `[D]`.
      scale: float32 `[D]`, the standard deviation; 1 where a column is constant.
    """

    mean: np.ndarray
    scale: np.ndarray


def fit(
    conversations: Sequence[Conversation], widths: Mapping[str, int], *, kind: str = "standard"
) -> dict[str, Standardization]:
    """Measures mean and standard deviation of every feature over the available utterances, or over their frames.

    Args:
      conversations: the training split, and nothing else.
      widths: modality -> width.
      kind: `standard`, or `none` for mean 0 and scale 1, which leave features as they are.

    Returns:
      modality -> statistics; mean 0 and scale 1 for a modality that no utterance has.

    Raises:
      UserError: for another kind.
    """
    if kind not in ("standard", "none"):
        raise UserError(f"data.normalization is '{kind}': choose standard or none")
    if kind == "none":
        return {m: _identity(width) for m, width in widths.items()}
    return {m: _moments(conversations, m, width) for m, width in widths.items()}


def apply(conversations: Sequence[Conversation], statistics: Mapping[str, Standardization]) -> list[Conversation]:
    """Returns the conversations with standardised features; unavailable ones are zero.

    Args:
      conversations: of any split.
      statistics: what `fit` returned; the conversations keep the modalities that it names.
    """
    return [
        dataclasses.replace(
            c,
            features={m: _standardize(c, m, s) for m, s in statistics.items()},
            available={m: c.available[m] for m in statistics},
        )
        for c in conversations
    ]


def _identity(width: int) -> Standardization:
    return Standardization(np.zeros(width, np.float32), np.ones(width, np.float32))


def _moments(conversations: Sequence[Conversation], modality: str, width: int) -> Standardization:
    # Part by part, in float64: a corpus with frames is larger than what should be copied at once.
    parts = [rows for c in conversations for rows in available_rows(c, modality) if len(rows)]
    count = sum(map(len, parts))
    if not count:
        return _identity(width)
    mean = sum(rows.sum(0, dtype=np.float64) for rows in parts) / count
    scale = np.sqrt(sum(np.square(rows - mean).sum(0) for rows in parts) / count)
    largest = functools.reduce(np.maximum, (np.abs(rows).max(0) for rows in parts))
    # A spread below the resolution of float32 is rounding, not signal: dividing by it would only amplify noise.
    constant = scale <= np.finfo(np.float32).eps * largest
    return Standardization(mean.astype(np.float32), np.where(constant, 1.0, scale).astype(np.float32))


def _standardize(conversation: Conversation, modality: str, s: Standardization) -> np.ndarray | list[np.ndarray]:
    features = conversation.features[modality]
    if conversation.has_frames:
        return [(frames - s.mean) / s.scale for frames in features]
    return np.where(conversation.available[modality][:, None], (features - s.mean) / s.scale, np.float32(0))
