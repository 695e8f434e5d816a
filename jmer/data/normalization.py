"""Standardisation of features: fitted on the training split, stored with the model, applied before every use.

A column that is constant in training is dropped, it is zero after normalisation wherever it is used: nothing trains the
weights that read it, so that any other value would pass through random ones. The same holds for a modality that no
training utterance has.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from flax import struct

from jmer.data.corpus import Conversation
from jmer.data.frames import available_rows
from jmer.errors import UserError

FAR = 10.0
"""Standard deviations outside the training range from which a value is far from all that training has seen."""


@struct.dataclass
class Standardization:
    """What turns one modality's features into z-scores; a pytree, so that a checkpoint can hold it.

    Attributes:
      mean: float32 `[D]`.
      scale: float32 `[D]`, the standard deviation; infinite where a column is constant, which makes it zero.
      lowest, highest: float32 `[D]`, the training range, extended by `FAR` standard deviations on either side; empty
        (`lowest > highest`) for a modality that no training utterance has.
      limit: float32 scalar, z-scores are clipped to this absolute value; infinite = they are not.
    """

    mean: np.ndarray
    scale: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    limit: np.ndarray

    @classmethod
    def unchanged(cls, width: int) -> "Standardization":
        """Returns what leaves features of a width as they are."""
        infinite = np.full(width, np.inf, np.float32)
        zeros, ones = np.zeros(width, np.float32), np.ones(width, np.float32)
        return cls(zeros, ones, -infinite, infinite, np.array(np.inf, np.float32))

    @property
    def dropped(self) -> np.ndarray:
        """bool `[D]`, the columns that are constant in training."""
        return np.isinf(self.scale)

    @property
    def unseen(self) -> bool:
        """Whether no training utterance has the modality."""
        return bool((self.lowest > self.highest).any())


def fit(
    conversations: Sequence[Conversation], widths: Mapping[str, int], *, kind: str = "standard", clip: float = 0.0
) -> dict[str, Standardization]:
    """Measures mean, standard deviation and range of every feature over the available utterances, or their frames.

    Args:
      conversations: the training split, and nothing else.
      widths: modality -> width.
      kind: `standard`, or `none` for mean 0 and scale 1, which leave features as they are; constant columns are dropped
        with both.
      clip: z-scores are clipped to this absolute value; 0 = they are not.

    Raises:
      UserError: for another kind, or a `clip` that is negative or has no standard deviations to count.
    """
    if kind not in ("standard", "none"):
        raise UserError(f"data.normalization is '{kind}': choose standard or none")
    if not clip >= 0:
        raise UserError(f"data.clip is {clip}: give a number of standard deviations, or 0 for no clipping")
    if clip and kind == "none":
        raise UserError(
            f"data.clip is {clip}, but data.normalization=none leaves features without the standard deviations that it "
            "counts: set it to 0, or choose standard"
        )
    limit = np.array(clip or math.inf, np.float32)
    return {m: dataclasses.replace(_moments(conversations, m, w, kind), limit=limit) for m, w in widths.items()}


def apply(conversations: Sequence[Conversation], statistics: Mapping[str, Standardization]) -> list[Conversation]:
    """Returns the conversations with standardised features; unavailable ones and constant columns are zero.

    Args:
      conversations: of any split.
      statistics: what `fit` returned; the conversations keep the modalities that it names. A modality that no training
        utterance has, becomes unavailable.
    """
    return [
        dataclasses.replace(
            c,
            features={m: _standardize(c, m, s) for m, s in statistics.items()},
            available={m: c.available[m] & (not s.unseen) for m, s in statistics.items()},
        )
        for c in conversations
    ]


def _moments(conversations: Sequence[Conversation], modality: str, width: int, kind: str) -> Standardization:
    # Part by part, in float64: a corpus with frames is larger than what should be copied at once.
    parts = [rows for c in conversations for rows in available_rows(c, modality) if len(rows)]
    count = sum(map(len, parts))
    made = Standardization.unchanged(width)
    if not count:
        return dataclasses.replace(made, scale=made.highest, lowest=made.highest, highest=made.lowest)
    mean = sum(rows.sum(0, dtype=np.float64) for rows in parts) / count
    deviation = np.sqrt(sum(np.square(rows - mean).sum(0) for rows in parts) / count)
    lowest = functools.reduce(np.minimum, (rows.min(0) for rows in parts))
    highest = functools.reduce(np.maximum, (rows.max(0) for rows in parts))
    # A spread below the resolution of float32 is rounding, not signal: dividing by it would only amplify noise.
    resolution = np.finfo(np.float32).eps * np.maximum(np.abs(lowest), np.abs(highest)).astype(np.float64)
    constant = deviation <= resolution
    if kind == "standard":
        made = dataclasses.replace(made, mean=mean.astype(np.float32), scale=deviation.astype(np.float32))
    beyond = FAR * np.maximum(deviation, resolution)
    return dataclasses.replace(
        made,
        scale=np.where(constant, np.float32(np.inf), made.scale),
        lowest=_float32(lowest - beyond),
        highest=_float32(highest + beyond),
    )


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a bound beyond float32 is infinite: no value lies outside it
        return values.astype(np.float32)


def _standardize(conversation: Conversation, modality: str, s: Standardization) -> np.ndarray | list[np.ndarray]:
    features = conversation.features[modality]
    if isinstance(features, np.ndarray):
        return np.where(conversation.available[modality][:, None], _z_scores(features, s), np.float32(0))
    return [_z_scores(frames[:0] if s.unseen else frames, s) for frames in features]


def _z_scores(values: np.ndarray, s: Standardization) -> np.ndarray:
    scores = (values - s.mean) / s.scale
    return scores if np.isinf(s.limit) else np.clip(scores, -s.limit, s.limit)
