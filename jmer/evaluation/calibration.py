"""Calibration: whether an emotion that is predicted with probability p is right in a share p of the utterances."""

import dataclasses

import numpy as np

from jmer.batch import UNLABELLED
from jmer.errors import UserError

# How far the probabilities of an utterance may be from a sum of 1: float32, and files with four decimals.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy in `M` bins of the predicted emotion's probability; all float64 but the counts.

    Attributes:
      confidence: `[M]`, mean probability of the predicted emotion; NaN in an empty bin.
      accuracy: `[M]`, share of utterances predicted right; NaN in an empty bin.
      count: int64 `[M]`, labelled utterances.
      expected_error: mean distance of accuracy and confidence over the utterances' bins (ECE), a fraction.
      maximum_error: the largest distance in any bin (MCE), a fraction.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    expected_error: float
    maximum_error: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> Calibration:
    """Compares confidence and accuracy in bins of equal width (Guo et al. 2017, Eqs. 3 and 5).

    Bin `m` of `M` holds the utterances whose predicted emotion has a probability in `((m - 1) / M, m / M]`.

    Args:
      probabilities: `[N, C]`, rows sum to 1; the emotion with the largest one is the prediction.
      labels: int `[N]`, gold emotion index; -1 = unlabelled, left out.
      bins: `M`.

    Raises:
      UserError: if shapes do not fit, a row is no distribution, a label is no index, no utterance is labelled, or
        there is no bin.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    _check(probabilities, labels, bins)
    labelled = labels != UNLABELLED
    top = probabilities[labelled].max(1)
    right = probabilities[labelled].argmax(1) == labels[labelled]
    member = np.digitize(top, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    count = np.bincount(member, minlength=bins)
    confidence, accuracy = (_mean(values, member, count) for values in (top, right))
    distance = np.abs(accuracy - confidence)[count > 0]
    return Calibration(
        confidence=confidence,
        accuracy=accuracy,
        count=count,
        expected_error=float(np.average(distance, weights=count[count > 0])),
        maximum_error=float(distance.max()),
    )


def _mean(values: np.ndarray, member: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Averages the values in each bin."""
    total = np.bincount(member, weights=values, minlength=len(count))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _check(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> None:
    if bins < 1:
        raise UserError(f"bins is {bins}: give at least 1")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise UserError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit: give [N, C] and N labels"
        )
    # Written so that NaN does not pass.
    distributions = (probabilities >= 0).all(1) & (np.abs(probabilities.sum(1) - 1) <= TOLERANCE)
    if not distributions.all():
        raise UserError(
            f"row {np.flatnonzero(~distributions)[0]} of the probabilities is no distribution: give a softmax's results"
        )
    count, labelled = probabilities.shape[1], labels[labels != UNLABELLED]
    outside = labelled[(labelled < 0) | (labelled >= count)]
    if outside.size:
        raise UserError(f"label {outside[0]} is no index into {count} emotions: use 0..{count - 1}, or -1 as a label")
    if not labelled.size:
        raise UserError(
            "no utterance has a label, so calibration has nothing to compare with: choose a split with labels"
        )
