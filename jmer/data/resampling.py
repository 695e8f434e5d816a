"""Scores whose uncertainty comes from conversations, since the utterances of one depend on each other."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t

DRAWS = 2000


def confusions(labels: np.ndarray, classes: np.ndarray, conversations: np.ndarray, number: int) -> np.ndarray:
    """Returns the confusion matrix of each conversation that has an utterance, `[K, C, C]`, gold in rows."""
    _, own = np.unique(conversations, return_inverse=True)
    found = np.zeros((own.max(initial=-1) + 1, number, number))
    np.add.at(found, (own, labels, classes), 1)
    return found


def weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the F1 of each class weighted by its utterances, `[..., C, C]` -> `[...]`."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    gold, given = confusion.sum(-1), confusion.sum(-2)
    f1 = 2 * right / np.maximum(gold + given, 1)
    return (gold * f1).sum(-1) / np.maximum(gold.sum(-1), 1)


class Estimate(NamedTuple):
    """A weighted F1 and its uncertainty.

    Attributes:
      value: of all conversations together.
      error: standard error.
      conversations: their number.
    """

    value: float
    error: float
    conversations: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        margin = _margin(self.conversations, self.error)
        return max(0.0, self.value - margin), min(1.0, self.value + margin)


def estimate(per_conversation: np.ndarray) -> Estimate:
    """Returns the weighted F1 of conversations `[K, C, C]`; its error comes from leaving out each (jackknife)."""
    count, total = len(per_conversation), per_conversation.sum(0)
    if count < 2:
        return Estimate(float(weighted_f1(total)), np.inf, count)
    without = weighted_f1(total - per_conversation)
    error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
    return Estimate(float(weighted_f1(total)), float(error), count)


def largest_drop(inside: Estimate, outside: Estimate) -> float:
    """Returns the upper end of the 95 % interval of how much a score falls from inside to outside."""
    error = np.hypot(inside.error, outside.error)
    return inside.value - outside.value + _margin(min(inside.conversations, outside.conversations), error)


def exchange_test(
    inside: np.ndarray, outside: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> float:
    """Returns how probable a statistic as large is when conversations are dealt to the two samples at random.

    Args:
      inside, outside: `[K, ...]` and `[L, ...]`, a summand of each conversation.
      statistic: takes the sums over both, `[P, ...]` each, and returns `[P]`.
    """
    pooled = np.concatenate([inside, outside])
    flat = pooled.reshape(len(pooled), -1)
    keys = np.random.default_rng(0).random((DRAWS, len(pooled)), np.float32)
    dealt = np.argpartition(keys, len(outside) - 1, axis=1)[:, : len(outside)]
    chosen = np.zeros((DRAWS + 1, len(pooled)))
    chosen[0, len(inside) :] = 1
    np.put_along_axis(chosen[1:], dealt, 1, axis=1)
    out = (chosen @ flat).reshape(-1, *pooled.shape[1:])
    values = statistic(pooled.sum(0) - out, out)
    return float(np.mean(values >= values[0] - 1e-12))


def _margin(count: int, error: float) -> float:
    """Returns half the width of a 95 % interval: Student's, since conversations may be few."""
    return float(student_t.ppf(0.975, count - 1) * error) if count > 1 else np.inf
