"""Calibration: how well the predicted probabilities agree with the observed accuracy."""

import dataclasses

import numpy as np
import numpy.typing as npt

from jmer.batch import UNLABELLED
from jmer.errors import UserError

# Largest deviation of a row's sum from 1: allows for float32 and for files with four decimals.
TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy in `M` bins of the predicted emotion's probability, and the calibration errors.

    Attributes:
      confidence: float64 `[M]`, mean probability of the predicted emotion; NaN in an empty bin.
      accuracy: float64 `[M]`, fraction of utterances predicted correctly; NaN in an empty bin.
      count: int64 `[M]`, number of labelled utterances.
      expected_error: expected calibration error (ECE), a fraction.
      maximum_error: maximum calibration error (MCE), a fraction.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    expected_error: float
    maximum_error: float


def calibration(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 15) -> Calibration:
    r"""Returns confidence and accuracy in bins of equal width (Guo et al. 2017, Eqs. 3 and 5).

    Bin $B_m$ holds the utterances whose predicted emotion has a probability in $((m - 1) / M, m / M]$. With $n$
    labelled utterances,

    .. math::
      \text{ECE} = \sum_{m=1}^{M} \frac{|B_m|}{n} \left| \text{acc}(B_m) - \text{conf}(B_m) \right|, \quad
      \text{MCE} = \max_{m : |B_m| > 0} \left| \text{acc}(B_m) - \text{conf}(B_m) \right|

    Args:
      probabilities: `[N, C]`, each row a distribution; the emotion with the largest probability is the prediction.
      labels: int `[N]`, gold emotion indices; -1 = unlabelled, not counted.
      bins: number of bins $M$.

    Raises:
      UserError: if the shapes do not agree, a row is not a distribution, a label is out of range, no utterance is
        labelled, or `bins` is less than 1.

    >>> found = calibration([[0.9, 0.1], [0.6, 0.4]], [0, 1], bins=2)
    >>> found.count, found.accuracy, round(found.expected_error, 3)
    (array([0, 2]), array([nan, 0.5]), 0.25)
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    _check(probabilities, labels, bins)
    labelled = labels != UNLABELLED
    top = probabilities[labelled].max(1)
    correct = probabilities[labelled].argmax(1) == labels[labelled]
    bin_ids = np.digitize(top, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    count = np.bincount(bin_ids, minlength=bins)
    confidence, accuracy = (_bin_means(values, bin_ids, count) for values in (top, correct))
    gap = np.abs(accuracy - confidence)[count > 0]
    return Calibration(
        confidence=confidence,
        accuracy=accuracy,
        count=count,
        expected_error=float(np.average(gap, weights=count[count > 0])),
        maximum_error=float(gap.max()),
    )


def _bin_means(values: np.ndarray, bin_ids: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Returns the mean of the values in each bin, NaN in an empty one."""
    total = np.bincount(bin_ids, weights=values, minlength=len(count))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _check(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> None:
    if bins < 1:
        raise UserError(f"bins is {bins}: give at least 1")
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise UserError(
            f"probabilities {probabilities.shape} and labels {labels.shape} do not fit: give shapes [N, C] and [N]"
        )
    # Written so that NaN fails.
    distributions = (probabilities >= 0).all(1) & (np.abs(probabilities.sum(1) - 1) <= TOLERANCE)
    if not distributions.all():
        raise UserError(
            f"row {np.flatnonzero(~distributions)[0]} of the probabilities is not a distribution: give the output of a "
            "softmax"
        )
    count, labelled = probabilities.shape[1], labels[labels != UNLABELLED]
    outside = labelled[(labelled < 0) | (labelled >= count)]
    if outside.size:
        raise UserError(
            f"label {outside[0]} is not an index into {count} emotions: use 0..{count - 1}, or -1 for a missing label"
        )
    if not labelled.size:
        raise UserError("no utterance has a label, so there is no accuracy to compare with: choose a split with labels")
