"""Scores of dimensional targets, against their definitions and SciPy."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jmer.evaluation.attribute_scores import attribute_scores, concordance_correlation


def drawn(seed, count, levels=None):
    rng = np.random.default_rng(seed)
    targets, predictions = rng.normal(size=count), rng.normal(size=count)
    if levels:
        targets, predictions = np.round(targets * levels) / levels, np.round(predictions)
    return targets, targets + 2 * predictions


@pytest.mark.parametrize(("count", "levels"), [(40, None), (40, 2), (700, 3)])
def test_scores_are_those_of_their_definitions(count, levels):
    targets, predictions = drawn(1, count, levels)
    found = attribute_scores([*targets, np.nan], [*predictions, 3.0], margin=0.7)
    assert found.support == count and found.margin == 0.7
    np.testing.assert_allclose(found.pearson, stats.pearsonr(targets, predictions)[0])
    np.testing.assert_allclose(found.kendall_tau, stats.kendalltau(targets, predictions)[0])
    np.testing.assert_allclose(found.mean_absolute_error, np.abs(targets - predictions).mean())
    covariance = np.cov(targets, predictions, bias=True)
    spread = covariance[0, 0] + covariance[1, 1] + (targets.mean() - predictions.mean()) ** 2
    np.testing.assert_allclose(found.concordance, 2 * covariance[0, 1] / spread)
    pairs = [
        0.5 if predictions[i] == predictions[j] else predictions[i] > predictions[j]
        for i, j in itertools.permutations(range(count), 2)
        if targets[i] - targets[j] >= 0.7
    ]
    np.testing.assert_allclose(found.pairwise_accuracy, np.mean(pairs))


def test_without_a_margin_any_difference_is_an_order():
    found = attribute_scores([1, 1, 2], [5, 4, 6])
    assert (found.pairwise_accuracy, found.kendall_tau) == (1, pytest.approx(2 / np.sqrt(2 * 3)))


@pytest.mark.parametrize(("targets", "predictions"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_what_is_undefined_is_0(targets, predictions):
    found = attribute_scores(targets, predictions)
    assert (found.concordance, found.pearson, found.kendall_tau) == (0, 0, 0)
    assert found.pairwise_accuracy == (None if targets == [1, 1, 1] else 0.5)


def test_a_single_label_has_no_scores():
    assert attribute_scores([1, np.nan], [1, 2]) is None
    assert concordance_correlation(np.array([1, np.nan]), np.array([1, 2])) == 0
