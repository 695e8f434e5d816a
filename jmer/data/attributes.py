"""Dimensional targets of utterances, such as valence and arousal: numbers on a scale, NaN where there is none.

A scale has two ends, which models see as -1 and 1. It is no limit: IEMOCAP has a 5.5 on its scale from 1 to 5.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jmer.data.corpus import Conversation

# Attribute -> the lower and the upper end of its scale.
Scales = Mapping[str, tuple[float, float]]

BEYOND = 0.5
"""How far values may lie beyond a scale, in its lengths; farther away it is another scale's."""


def checked_scales(scales: Any) -> dict[str, tuple[float, float]]:
    """Returns scales as pairs of floats.

    Raises:
      ValueError: naming the first attribute whose name or scale is none.
    """
    if not isinstance(scales, Mapping):
        raise ValueError(f"attributes are of type {type(scales).__name__}: expected a mapping from names to scales")
    return {name: _checked_scale(name, ends) for name, ends in scales.items()}


def _checked_scale(name: Any, ends: Any) -> tuple[float, float]:
    # Names are also parts of columns, of metrics and of lists with commas.
    if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
        raise ValueError(f"attribute {str(name)[:60]!r}: a name has letters, digits, '_' and '-' alone")
    try:
        low, high = map(float, ends)
    except (TypeError, ValueError) as error:
        raise ValueError(f"attribute '{name}' has the scale {str(ends)[:60]}: expected its two ends") from error
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"attribute '{name}' has the scale {low:g} to {high:g}: expected the lower end first")
    return low, high


def attribute_defects(conversation: "Conversation", scales: Scales) -> Iterator[str]:
    """Yields what is wrong with the attributes of a conversation, a line each."""
    for name in scales.keys() ^ conversation.attributes.keys():
        missing = f"no {name}, which the card has" if name in scales else f"{name}, but the card has no such attribute"
        yield missing
    for name, (low, high) in scales.items():
        if name not in conversation.attributes:
            continue
        values = np.asarray(conversation.attributes[name])
        if values.shape != (len(conversation),) or not np.issubdtype(values.dtype, np.floating):
            yield f"{name} is {values.dtype} of shape {values.shape}, not one float per utterance"
            continue
        margin = BEYOND * (high - low)
        wrong = np.flatnonzero(~np.isnan(values) & ~((values >= low - margin) & (values <= high + margin)))
        if wrong.size:
            more = f" (and {wrong.size - 1} more)" if wrong.size > 1 else ""
            yield (
                f"utterance {wrong[0] + 1} has {name} {values[wrong[0]]:g}{more}, far beyond its scale from {low:g} to "
                f"{high:g}: give the scale that the values have"
            )


def scaled(conversation: "Conversation", scales: Scales) -> np.ndarray:
    """Returns some attributes of a conversation with the ends of their scales at -1 and 1, float32 `[n, A]`."""
    columns = [
        (2 * conversation.attributes[name] - np.float32(low + high)) / np.float32(high - low)
        for name, (low, high) in scales.items()
    ]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)


def unlabelled(count: int) -> np.ndarray:
    """Returns the values of an attribute that none of `count` utterances has, float32 `[n]`."""
    return np.full(count, np.nan, np.float32)


def values_of(conversation: "Conversation", name: str) -> np.ndarray:
    """Returns the values of an attribute, float32 `[n]`; NaN if the conversation does not have it."""
    return conversation.attributes.get(name, unlabelled(len(conversation)))


def any_attribute(conversations: Sequence["Conversation"], name: str) -> bool:
    """Whether any utterance has a value of an attribute."""
    return any(name in c.attributes and bool(np.isfinite(c.attributes[name]).any()) for c in conversations)
