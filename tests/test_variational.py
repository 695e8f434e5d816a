"""The Gaussian head against its formula, and the law of its samples."""

import jax
import numpy as np
import pytest
import reference
from reference import draw_parameters, float64, normal

from jmer.layers.gaussian import Gaussian
from jmer.layers.variational import PARAMETRIZATIONS, GaussianHead, sample


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
def test_the_head_matches_the_formula(parametrization):
    x = 4 * normal(0, 2, 5, 6)
    head = GaussianHead(3, parametrization)
    p = draw_parameters(head, x, spread=1.0)
    posterior = head.apply({"params": p}, x)
    mean, scale = reference.gaussian_head(float64(p), np.float64(x), parametrization)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(posterior.scale, scale, rtol=1e-4, atol=1e-7)
    assert (posterior.scale > 0).all()


@pytest.mark.parametrize(("parametrization", "bound"), [("log_std", np.exp(5)), ("log_var", np.exp(2.5))])
def test_logs_are_clipped(parametrization, bound):
    x = 1e4 * normal(1, 50, 6)
    head = GaussianHead(3, parametrization)
    posterior = head.apply({"params": draw_parameters(head, x)}, x)
    np.testing.assert_allclose(posterior.scale.max(), bound, rtol=1e-5)
    np.testing.assert_allclose(posterior.scale.min(), 1 / bound, rtol=1e-5)


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(ValueError, match="parametrization: expected one of softplus_std, log_std, log_var, got 'std'"):
        GaussianHead(3, "std").init(jax.random.key(0), normal(0, 2, 4))


def test_samples_follow_their_gaussian(key):
    mean, scale = np.array([-1.0, 0.0, 2.0], np.float32), np.array([0.1, 1.0, 3.0], np.float32)
    count = 40_000
    every = Gaussian(np.tile(mean, (2, count, 1)), np.tile(scale, (2, count, 1)))
    z = np.float64(sample(every, key()))
    for conversation in z:
        np.testing.assert_array_less(np.abs(conversation.mean(0) - mean), 5 * scale / np.sqrt(count))
        np.testing.assert_allclose(conversation.std(0), scale, rtol=0.02)
    # Independent between conversations, utterances and dimensions.
    noise = (z - mean) / scale
    for one, other in ((noise[0], noise[1]), (noise[0, 1:], noise[0, :-1]), (noise[..., :-1], noise[..., 1:])):
        assert abs((one * other).mean()) < 5 / np.sqrt(count)


def test_a_sample_moves_with_mean_and_scale(key):
    p = Gaussian(normal(0, 2, 3, 4), np.exp(normal(1, 2, 3, 4)))
    k = key()
    noise = (sample(p, k) - p.mean) / p.scale
    gradient = jax.grad(lambda p: sample(p, k).sum())(p)
    np.testing.assert_array_equal(gradient.mean, np.ones((2, 3, 4)))
    np.testing.assert_allclose(gradient.scale, noise, rtol=1e-4, atol=1e-5)


def test_a_conversations_sample_does_not_depend_on_its_batch(key):
    p = Gaussian(normal(0, 4, 3, 2), np.exp(normal(1, 4, 3, 2)))
    k = key()
    row_ids = np.array([7, 3, 11, 0])
    whole = sample(p, k, row_ids)
    for rows in ([2], [3, 0], [1, 2, 0]):
        part = sample(jax.tree.map(lambda x, rows=rows: x[np.array(rows)], p), k, row_ids[rows])
        np.testing.assert_array_equal(part, whole[np.array(rows)])
    np.testing.assert_array_equal(sample(p, k), sample(p, k, np.arange(4)))
    assert not np.array_equal(whole, sample(p, key(), row_ids))
