"""Pooling a sequence to one vector, against a loop over its real positions."""

import jax
import numpy as np
import pytest
from reference import normal, softmax

from jmer.layers.pooling import AttentionPool, mean_pool

X = normal(0, 3, 2, 5, 4)
MASK = np.random.default_rng(1).random((3, 2, 5)) < 0.6
MASK[1, 0] = False
WEIGHTS = normal(2, 4, 1)


def attention_pool(x, mask):
    return AttentionPool().apply({"params": {"score": {"kernel": WEIGHTS}}}, x, mask)


def expected(pool):
    out = np.zeros((3, 2, 4))
    for place in np.ndindex(3, 2):
        rows = np.float64(X[place][MASK[place]])
        if len(rows):
            out[place] = rows.mean(0) if pool is mean_pool else softmax((rows @ WEIGHTS)[:, 0]) @ rows
    return out


@pytest.mark.parametrize("pool", [mean_pool, attention_pool], ids=["mean", "attention"])
def test_only_real_positions_are_pooled(pool):
    """In values and gradients, whatever stands elsewhere; a sequence without any becomes zero."""
    np.testing.assert_allclose(jax.jit(pool)(X, MASK), expected(pool), rtol=1e-5, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: (pool(x, MASK) ** 2).sum()))
    spoilt = np.where(MASK[..., None], X, np.float32(np.nan))
    np.testing.assert_array_equal(gradient(spoilt), gradient(X))
    np.testing.assert_array_equal(np.asarray(gradient(X))[~MASK], 0)
    np.testing.assert_array_equal(pool(spoilt, MASK)[1, 0], 0)


def test_the_weights_start_within_pytorchs_bounds(key):
    params = AttentionPool().init(key(), np.ones((1, 2, 400), np.float32), np.ones((1, 2), bool))["params"]
    assert 0.9 / 20 < np.abs(params["score"]["kernel"]).max() <= 1 / 20
