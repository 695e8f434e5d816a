"""Emotions of the public corpora, in the order in which their releases number them."""

from collections.abc import Iterable

IEMOCAP6 = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
IEMOCAP4 = ("happy", "sad", "neutral", "angry")
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MELD_SENTIMENTS = ("neutral", "positive", "negative")
EMORYNLP = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")


def in_standard_order(names: Iterable[str]) -> tuple[str, ...]:
    """Returns distinct emotion names in the order of the public release that has the same ones, or sorted by name."""
    distinct = set(names)
    for standard in (IEMOCAP6, IEMOCAP4, MELD):
        if distinct == set(standard):
            return standard
    return tuple(sorted(distinct))
