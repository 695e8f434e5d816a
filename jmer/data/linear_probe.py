"""A linear classifier with a closed solution, and what it scores inside a sample and outside of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

FOLDS = 5


class Moments(NamedTuple):
    """Sums over utterances that a classifier is made of: those of two samples add up to those of both.

    Attributes:
      counts: `[C]`, utterances of each class.
      sums: `[C, D]`, of their features.
      products: `[D, D]`, sum of the outer products of the features.
    """

    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray


class Classifier(NamedTuple):
    """Scores `x @ weights + bias`, the highest of which is the class."""

    weights: np.ndarray  # [D, C]
    bias: np.ndarray  # [C]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores of utterances, `[N, D]` -> `[N, C]`."""
        return features @ self.weights + self.bias


def moments(features: np.ndarray, labels: np.ndarray, classes: int) -> Moments:
    """Returns the sums over a sample of features `[N, D]` with labels `[N]`."""
    chosen = np.eye(classes, dtype=features.dtype)[labels]
    parts = chosen.sum(0), chosen.T @ features, features.T @ features
    return Moments(*(part.astype(np.float64) for part in parts))


def discriminant(found: Moments) -> Classifier:
    r"""Returns the linear discriminant analysis of a sample.

    .. math:: s_c(x) = \mu_c^\top \Sigma^{-1} x - \tfrac12 \mu_c^\top \Sigma^{-1} \mu_c + \log \pi_c

    The covariance $\Sigma$ within classes is shrunk towards a multiple of the identity by the oracle approximating
    shrinkage (Chen et al., 2010), so that nothing is to be tuned. A class that does not occur is never the highest.
    """
    counts, total = found.counts, found.counts.sum()
    means = found.sums / np.maximum(counts, 1)[:, None]
    covariance = (found.products - (means * counts[:, None]).T @ means) / total
    width, trace, squares = len(covariance), np.trace(covariance), np.square(covariance).sum()
    excess = (total + 1 - 2 / width) * (squares - trace**2 / width)
    shrinkage = min(1.0, ((1 - 2 / width) * squares + trace**2) / excess) if excess > 0 else 1.0
    covariance = (1 - shrinkage) * covariance
    # Where nothing varies at all, any multiple of the identity will do.
    covariance[np.diag_indices(width)] += shrinkage * trace / width or 1.0
    weights = cho_solve(cho_factor(covariance, overwrite_a=True, check_finite=False), means.T)
    with np.errstate(divide="ignore"):
        bias = np.log(counts / total) - 0.5 * (means.T * weights).sum(0)
    return Classifier(weights.astype(np.float32), bias.astype(np.float32))


def held_out_scores(
    features: np.ndarray, labels: np.ndarray, folds: np.ndarray, classes: int
) -> tuple[np.ndarray, Moments]:
    """Scores each utterance by a classifier that has not seen its fold.

    Args:
      features: float32 `[N, D]`.
      labels: int `[N]`.
      folds: int `[N]`, the fold of each utterance.
      classes: number of classes.

    Returns:
      The scores `[N, C]`, and the moments of the whole sample.
    """
    parts = {fold: moments(features[folds == fold], labels[folds == fold], classes) for fold in np.unique(folds)}
    whole = Moments(*(np.sum(group, axis=0) for group in zip(*parts.values(), strict=True)))
    scores = np.empty((len(features), classes), np.float32)
    for fold, part in parts.items():
        rest = Moments(*(a - b for a, b in zip(whole, part, strict=True)))
        scores[folds == fold] = discriminant(rest).scores(features[folds == fold])
    return scores, whole


def conversation_folds(conversations: np.ndarray, strata: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
    """Divides utterances into folds by whole conversations, at random with a fixed seed.

    Args:
      conversations: int `[N]`, the conversation of each utterance, from 0.
      strata: a number for each conversation; those of each number are spread evenly. None = all of one.

    Returns:
      The fold of each utterance, int `[N]`.
    """
    count = conversations.max() + 1
    kinds = np.zeros(count, int) if strata is None else np.asarray(strata)
    shuffled = np.random.default_rng(0).permutation(count)
    fold = np.empty(count, int)
    fold[shuffled[np.argsort(kinds[shuffled], kind="stable")]] = np.arange(count) % FOLDS
    return fold[conversations]
