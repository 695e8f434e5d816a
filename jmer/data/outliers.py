"""Features that training has not seen: columns that are constant there, and values far outside the training range."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jmer.data.corpus import Conversation
from jmer.data.frames import available_rows
from jmer.data.normalization import FAR, Standardization


class Outliers(NamedTuple):
    """How many values of a modality training has not prepared a model for, and in how many columns they are.

    Attributes:
      far, far_columns: values more than `FAR` standard deviations outside the training range.
      dropped, dropped_columns: other values than the only one in training; they are zero after normalisation.
    """

    far: int = 0
    far_columns: int = 0
    dropped: int = 0
    dropped_columns: int = 0


def count_outliers(
    conversations: Sequence[Conversation], statistics: Mapping[str, Standardization]
) -> dict[str, Outliers]:
    """Counts the outliers among features that are not normalised.

    Args:
      conversations: of any split.
      statistics: fitted on the training split.

    Returns:
      modality -> counts, of the modalities that `statistics` names.
    """
    return {m: _count(conversations, m, s) for m, s in statistics.items()}


def outlier_lines(split: str, counts: Mapping[str, Outliers], statistics: Mapping[str, Standardization]) -> list[str]:
    """Returns a line for each kind of outlier that a split has in a modality.

    Args:
      split: its name.
      counts: what `count_outliers` returned.
      statistics: that the counts are of.
    """
    lines = []
    for modality, found in counts.items():
        if found.far:
            limit = float(statistics[modality].limit)
            remedy = "data.clip bounds such values" if np.isinf(limit) else f"clipped to {limit:g} standard deviations"
            lines.append(
                f"{split}: {_values(found.far, found.far_columns, modality)} lie more than {FAR:g} standard deviations "
                f"outside the training range ({remedy})"
            )
        if found.dropped and statistics[modality].unseen:
            lines.append(f"{split}: {modality} is ignored: no training utterance has it")
        elif found.dropped:
            lines.append(
                f"{split}: {_values(found.dropped, found.dropped_columns, modality)} differ from the only value in "
                "training (these columns are ignored)"
            )
    return lines


def constant_lines(statistics: Mapping[str, Standardization]) -> Iterator[str]:
    """Yields a line for each modality with columns that are constant in training."""
    for modality, s in statistics.items():
        if s.unseen:
            yield f"{modality}: no training utterance has it; it is ignored"
        elif s.dropped.any():
            count = int(np.count_nonzero(s.dropped))
            are = "is" if count == 1 else "are"
            yield f"{modality}: {count} of {s.dropped.size} columns {are} constant in training and ignored"


def _count(conversations: Sequence[Conversation], modality: str, s: Standardization) -> Outliers:
    outside = np.zeros(s.mean.shape, np.int64)
    for conversation in conversations:
        for rows in available_rows(conversation, modality):
            outside += np.count_nonzero((rows < s.lowest) | (rows > s.highest), axis=0)
    far, dropped = outside[~s.dropped], outside[s.dropped]
    return Outliers(*(int(n) for counts in (far, dropped) for n in (counts.sum(), np.count_nonzero(counts))))


def _values(values: int, columns: int, modality: str) -> str:
    """Returns e.g. `37 values of text in 3 columns`."""
    return f"{values} value{'s' * (values != 1)} of {modality} in {columns} column{'s' * (columns != 1)}"
