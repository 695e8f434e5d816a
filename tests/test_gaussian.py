"""Divergences between diagonal Gaussians, against float64 formulas and at extreme scales."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer.layers.gaussian import Gaussian, gaussian_kl, log_density, standard_normal_like, symmetric_kl


def draw(seed, shape=(3, 4, 6), spread=1.0):
    rng = np.random.default_rng(seed)
    mean, log_scale = rng.normal(size=(2, *shape)) * spread
    return Gaussian(mean.astype(np.float32), np.exp(log_scale).astype(np.float32))


def reference_kl(p, q):
    """The textbook formula, one dimension at a time, float64."""
    total = np.zeros(p.mean.shape[:-1])
    for k in range(p.mean.shape[-1]):
        m1, s1, m2, s2 = (np.asarray(a, np.float64)[..., k] for a in (p.mean, p.scale, q.mean, q.scale))
        total += np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
    return total


def test_kl_matches_the_formula():
    p, q = draw(1), draw(2)
    np.testing.assert_allclose(gaussian_kl(p, q), reference_kl(p, q), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(gaussian_kl)(p, q), reference_kl(p, q), rtol=1e-5)


def test_kl_to_the_prior():
    p = draw(3)
    mean, scale = np.asarray(p.mean, np.float64), np.asarray(p.scale, np.float64)
    expected = 0.5 * (mean**2 + scale**2 - 1 - np.log(scale**2)).sum(-1)
    np.testing.assert_allclose(gaussian_kl(p, standard_normal_like(p)), expected, rtol=1e-5)


def test_symmetric_form_is_the_average_of_both_directions():
    p, q = draw(4), draw(5)
    np.testing.assert_allclose(symmetric_kl(p, q), (reference_kl(p, q) + reference_kl(q, p)) / 2, rtol=1e-5)
    np.testing.assert_allclose(symmetric_kl(p, q), symmetric_kl(q, p), rtol=1e-6)


def test_zero_exactly_for_equal_gaussians_and_positive_otherwise():
    p = draw(6)
    np.testing.assert_array_equal(gaussian_kl(p, p), np.zeros((3, 4)))
    np.testing.assert_array_equal(symmetric_kl(p, p), np.zeros((3, 4)))
    for shift in (1e-3, 1e-2, 1.0):
        for q in (p.replace(mean=p.mean + shift), p.replace(scale=p.scale * (1 + shift))):
            assert (gaussian_kl(p, q) > 0).all()
            assert (symmetric_kl(p, q) > 0).all()


@pytest.mark.parametrize("ratio", [1e-10, 1e-4, 1 - 1e-4, 1 + 1e-4, 1e4, 1e10])
def test_accurate_at_any_ratio_of_scales(ratio):
    p = Gaussian(jnp.full((1, 2), 0.3), jnp.full((1, 2), ratio))
    q = Gaussian(jnp.full((1, 2), 0.3), jnp.ones((1, 2)))
    for scale in (1e-7, 1.0, 1e6):
        a, b = (Gaussian(g.mean, g.scale * jnp.float32(scale)) for g in (p, q))
        np.testing.assert_allclose(gaussian_kl(a, b), reference_kl(a, b), rtol=2e-3)
        np.testing.assert_allclose(symmetric_kl(a, b), (reference_kl(a, b) + reference_kl(b, a)) / 2, rtol=2e-3)


@pytest.mark.parametrize("divergence", [gaussian_kl, symmetric_kl])
def test_gradients(divergence):
    p, q = draw(7, (4,)), draw(8, (4,))
    gradients = jax.grad(divergence, argnums=(0, 1))(p, q)
    step = 1e-6
    for which, field in ((0, "mean"), (0, "scale"), (1, "mean"), (1, "scale")):
        for k in range(4):
            values = []
            for sign in (1, -1):
                pair = [Gaussian(np.float64(g.mean), np.float64(g.scale)) for g in (p, q)]
                getattr(pair[which], field)[k] += sign * step
                forward, backward = reference_kl(*pair), reference_kl(*pair[::-1])
                values.append(forward if divergence is gaussian_kl else (forward + backward) / 2)
            expected = (values[0] - values[1]) / (2 * step)
            np.testing.assert_allclose(getattr(gradients[which], field)[k], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", [gaussian_kl, symmetric_kl])
def test_gradient_is_zero_where_the_gaussians_are_equal(divergence):
    p = draw(9, (5,))
    for leaf in jax.tree.leaves(jax.grad(divergence, argnums=(0, 1))(p, p)):
        np.testing.assert_allclose(leaf, np.zeros(5), atol=1e-6)


@pytest.mark.parametrize("divergence", [gaussian_kl, symmetric_kl])
def test_gradients_stay_finite_at_extreme_scales(divergence):
    for small, large in ((1e-7, 1.0), (1.0, 1e-7), (1e6, 1e-3)):
        p, q = (Gaussian(jnp.full(3, 0.1), jnp.full(3, scale)) for scale in (small, large))
        gradients = jax.grad(divergence, argnums=(0, 1))(p, q)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("function", [gaussian_kl, symmetric_kl])
def test_vmap_equals_loop(function):
    p, q = draw(10), draw(11)
    looped = np.stack([function(*jax.tree.map(lambda x, i=i: x[i], (p, q))) for i in range(3)])
    np.testing.assert_allclose(jax.vmap(function)(p, q), looped, rtol=1e-6)


def test_log_density_matches_the_formula():
    p = draw(12, (2, 3))
    z = np.random.default_rng(13).normal(size=(2, 3)).astype(np.float32)
    expected = np.zeros(2)
    for i in range(2):
        for k in range(3):
            m, s = float(p.mean[i, k]), float(p.scale[i, k])
            expected[i] += math.log(math.exp(-((float(z[i, k]) - m) ** 2) / (2 * s * s)) / (s * math.sqrt(2 * math.pi)))
    np.testing.assert_allclose(log_density(p, z), expected, rtol=1e-5)


def test_kl_is_the_expected_difference_of_log_densities():
    p, q = draw(14, (3,), 0.3), draw(15, (3,), 0.3)
    z = p.mean + p.scale * np.random.default_rng(16).normal(size=(200_000, 3)).astype(np.float32)
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, z.shape), (p, q))
    estimate = log_density(every[0], z) - log_density(every[1], z)
    error = 4 * np.std(estimate) / math.sqrt(len(z))
    assert abs(float(np.mean(estimate)) - float(gaussian_kl(p, q))) < error
