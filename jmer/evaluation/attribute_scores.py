"""Scores of dimensional targets such as valence, over all labelled utterances of a split."""

import dataclasses

import numpy as np
import numpy.typing as npt

from jmer.evaluation.field_mapping import FieldMapping

ROWS = 256  # of pairs that are compared at once


@dataclasses.dataclass(frozen=True)
class AttributeScores(FieldMapping):
    r"""Scores of one attribute; 0 where the denominator is 0.

    Attributes:
      concordance: concordance correlation coefficient,
        $2\,\mathrm{cov}(\hat v, v) / (\mathrm{var}\,\hat v + \mathrm{var}\,v + (\overline{\hat v} - \bar v)^2)$.
      pearson: Pearson's correlation coefficient.
      mean_absolute_error: on the scale of the labels.
      kendall_tau: Kendall's $\tau_b$, $(C - D) / \sqrt{(n_0 - n_v)(n_0 - n_{\hat v})}$ with C pairs in the same order,
        D in the opposite one, and $n_0$ pairs, of which $n_v$ have equal labels and $n_{\hat v}$ equal predictions.
      pairwise_accuracy: share of the pairs whose labels differ by `margin` or more that the predictions order as the
        labels do; equal predictions count half. None = there is no such pair.
      margin: the smallest difference of labels, on their scale, that counts as an order; 0 = any.
      support: number of labelled utterances.
    """

    concordance: float
    pearson: float
    mean_absolute_error: float
    kendall_tau: float
    pairwise_accuracy: float | None
    margin: float
    support: int


def attribute_scores(targets: npt.ArrayLike, predictions: npt.ArrayLike, margin: float = 0.0) -> AttributeScores | None:
    """Returns the scores of an attribute's predictions.

    Args:
      targets: numbers `[N]`, NaN = unlabelled, not scored.
      predictions: numbers `[N]`, on the same scale.
      margin: see `AttributeScores`.

    Returns:
      None if fewer than two utterances are labelled.

    >>> scores = attribute_scores([1, 2, 3, np.nan], [1, 3, 2, 0])
    >>> round(scores.concordance, 3), round(scores.kendall_tau, 3), scores.support
    (0.5, 0.333, 3)
    """
    y, x = np.asarray(targets, np.float64), np.asarray(predictions, np.float64)
    labelled = ~np.isnan(y)
    y, x = y[labelled], x[labelled]
    if len(y) < 2:
        return None
    covariance = float(np.mean((x - x.mean()) * (y - y.mean())))
    same, opposite, right, compared = _ordered_pairs(y, x, margin)
    pairs = len(y) * (len(y) - 1) / 2
    differing = (pairs - _tied_pairs(y)) * (pairs - _tied_pairs(x))
    return AttributeScores(
        concordance=concordance_correlation(y, x),
        pearson=_ratio(covariance, float(x.std() * y.std())),
        mean_absolute_error=float(np.abs(x - y).mean()),
        kendall_tau=_ratio(same - opposite, float(np.sqrt(differing))),
        pairwise_accuracy=right / compared if compared else None,
        margin=float(margin),
        support=len(y),
    )


def concordance_correlation(targets: np.ndarray, predictions: np.ndarray) -> float:
    """Returns the concordance correlation coefficient of numbers `[N]`, NaN = unlabelled; 0 where it is undefined."""
    labelled = ~np.isnan(targets)
    y, x = targets[labelled].astype(np.float64), predictions[labelled].astype(np.float64)
    if len(y) < 2:
        return 0.0
    covariance = float(np.mean((x - x.mean()) * (y - y.mean())))
    return _ratio(2 * covariance, float(x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def _ordered_pairs(y: np.ndarray, x: np.ndarray, margin: float) -> tuple[int, int, float, int]:
    """Returns how many pairs have one order in both and opposite ones; of those apart, how many are right, and all."""
    order = np.argsort(y)
    y, x = y[order], x[order]
    same = opposite = compared = 0
    right = 0.0
    for first in range(0, len(y), ROWS):
        # The later of a pair has the higher label, or the same.
        here = slice(first, first + ROWS)
        difference = y[None, first:] - y[here, None]
        differ = (difference > 0) & np.triu(np.ones(difference.shape, bool), 1)
        higher, lower = x[None, first:] > x[here, None], x[None, first:] < x[here, None]
        same += int(np.count_nonzero(differ & higher))
        opposite += int(np.count_nonzero(differ & lower))
        apart = differ & (difference >= margin)
        compared += int(np.count_nonzero(apart))
        right += np.count_nonzero(apart & higher) + np.count_nonzero(apart & ~higher & ~lower) / 2
    return same, opposite, right, compared


def _tied_pairs(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1)).sum() / 2)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
