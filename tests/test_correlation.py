"""Soft-HGR and the focal contrast against float64 NumPy, and on several devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import normal, softmax

from jmer.losses import focal_contrastive, soft_hgr
from jmer.modalities import MODALITIES

N, D = 16, 5
LABELS = np.array([0, 1, 2, 1, -1, 0, 3, 1, 0, 2, 0, 1, 0, 0, 1, 2], np.int32)
# The last device of eight has nothing.
WHERE = np.arange(N) < N - 2
CLASS_WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4], np.float32)


def features():
    return {m: normal(i, N, D) for i, m in enumerate(MODALITIES)}


def hgr(x, covariance):
    """The loss, with covariances as they are defined."""
    x = [np.float64(rows[WHERE]) for rows in x.values()]
    n, total = len(x[0]), 0.0
    for one, other in itertools.combinations(x, 2):
        if covariance == "utterances":
            total -= ((one * other).sum() / n - np.trace(np.cov(one) @ np.cov(other)) / (2 * n)) / n
        else:
            centred = [rows - rows.mean(0) for rows in (one, other)]
            joint = (centred[0] * centred[1]).sum(1).mean()
            total -= joint - np.trace(np.cov(one.T) @ np.cov(other.T)) / 2
    return total


@pytest.mark.parametrize("covariance", ["utterances", "features"])
def test_the_correlation_is_that_of_its_definition(covariance):
    values = soft_hgr(features(), where=WHERE, covariance=covariance)
    assert not values[~WHERE].any()
    np.testing.assert_allclose(values.sum() / WHERE.sum(), hgr(features(), covariance), rtol=1e-5)
    assert not soft_hgr({"text": features()["text"]}, covariance=covariance).any()


@pytest.mark.parametrize("covariance", ["utterances", "features"])
def test_the_correlation_of_one_utterance_is_finite(covariance):
    step = jax.grad(lambda x: soft_hgr(x, where=np.arange(N) < 1, covariance=covariance).sum())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step(features())))


def test_a_modality_that_is_the_other_is_correlated_most():
    x, y = normal(0, 200, D), normal(1, 200, D)
    same, other = (soft_hgr({"text": x, "audio": z}, covariance="features").mean() for z in (x, y))
    # -(D - D / 2), up to the sample, and nothing in common.
    np.testing.assert_allclose((same, other), (-D / 2, D / 2), rtol=0.2)


def contrast(x, gamma, temperature):
    """The values, pair by pair."""
    unit = np.float64(x) / np.linalg.norm(np.float64(x), axis=1, keepdims=True)
    real, values = [i for i in range(N) if WHERE[i] and LABELS[i] >= 0], np.zeros(N)
    for i in real:
        others = [j for j in real if j != i]
        p = dict(zip(others, softmax(unit[others] @ unit[i] / temperature), strict=True))
        positives = [p[j] for j in others if LABELS[j] == LABELS[i]]
        if positives:
            values[i] = -CLASS_WEIGHTS[LABELS[i]] * np.mean([(1 - q) ** gamma * np.log(q) for q in positives])
    return values


@pytest.mark.parametrize(("gamma", "temperature"), [(2.4, 0.8), (0.0, 0.1)])
def test_the_contrast_is_that_of_its_definition(gamma, temperature):
    x = features()["text"]
    found = focal_contrastive(x, LABELS, where=WHERE, class_weights=CLASS_WEIGHTS, gamma=gamma, temperature=temperature)
    np.testing.assert_allclose(found, contrast(x, gamma, temperature), rtol=1e-4, atol=1e-6)
    assert not found[LABELS == 3].any()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_contrast_of_two_has_a_finite_gradient(gamma):
    """The other one is all that there is to be compared with, so that p is 1."""
    gradient = jax.grad(lambda x: focal_contrastive(x, np.array([1, 1, -1]), gamma=gamma).sum())(normal(0, 3, D))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ["utterances", "features", "contrast"])
def test_eight_devices_equal_one(loss):
    weight = normal(9, D, D)

    def total(weight, rows, axis=None):
        x = {m: jnp.tanh(v @ weight) for m, v in rows["x"].items()}
        if loss == "contrast":
            values = focal_contrastive(x["text"], rows["labels"], where=rows["where"], axis=axis)
        else:
            values = soft_hgr(x, where=rows["where"], covariance=loss, axis=axis)
        return values.sum()

    def step(rows):
        value, gradient = jax.value_and_grad(total)(weight, rows, "batch")
        return jax.lax.psum((value, gradient), "batch")

    rows = {"x": features(), "labels": LABELS, "where": WHERE}
    split = jax.tree.map(lambda x: x.reshape(8, 2, *x.shape[1:]), rows)
    expected = jax.jit(jax.value_and_grad(total))(weight, rows)
    found = jax.tree.map(lambda x: x[3], jax.pmap(step, axis_name="batch")(split))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)
