"""Masked attention against a loop over heads and queries, and its behaviour at masks."""

import jax
import numpy as np
import pytest
import reference
from reference import normal

from jmer.layers.attention import attention_weights, masked_attention

B, TQ, TK, H, D = 2, 3, 5, 2, 4


def inputs():
    query, key, value = normal(0, B, TQ, H, D), normal(1, B, TK, H, D), normal(2, B, TK, H, D)
    mask = np.array([[True, True, True, False, False], [False] * TK])
    return query, key, value, mask


def expected(query, key, value, visible):
    out, weights = np.zeros((B, TQ, H, D)), np.zeros((B, H, TQ, TK))
    for b in range(B):
        for h in range(H):
            head = [np.float64(x[b, :, h]) for x in (query, key, value)]
            out[b, :, h], weights[b, h] = reference.attention(*head, visible[b])
    return out, weights


PAIR_MASKS = {
    "none": None,
    "one for all": np.tri(TQ, TK, dtype=bool),
    "one for each": np.stack([np.tri(TQ, TK, dtype=bool), np.eye(TQ, TK, dtype=bool)]),
}


@pytest.mark.parametrize("pairs", PAIR_MASKS)
@pytest.mark.parametrize("second_is_real", [False, True])
def test_matches_a_loop_over_heads_and_queries(pairs, second_is_real):
    query, key, value, mask = inputs()
    pair_mask = PAIR_MASKS[pairs]
    mask[1] = second_is_real
    visible = np.broadcast_to(mask[:, None], (B, TQ, TK))
    if pair_mask is not None:
        visible = visible & np.broadcast_to(pair_mask, (B, TQ, TK))
    out, weights = expected(query, key, value, visible)
    np.testing.assert_allclose(
        masked_attention(query, key, value, mask, pair_mask=pair_mask), out, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(attention_weights(query, key, mask, pair_mask=pair_mask), weights, rtol=1e-5, atol=1e-6)


def test_a_query_with_no_valid_key_gets_zero_and_passes_no_gradient():
    query, key, value, mask = inputs()
    np.testing.assert_array_equal(masked_attention(query, key, value, mask)[1], np.zeros((TQ, H, D)))
    gradients = jax.grad(lambda *x: (masked_attention(*x, mask) ** 2).sum(), argnums=(0, 1, 2))(query, key, value)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        np.testing.assert_array_equal(gradient[1], np.zeros_like(gradient[1]))
        assert np.abs(gradient[0]).max() > 1e-3


def test_what_stands_at_masked_keys_does_not_matter():
    query, key, value, mask = inputs()
    hidden = ~mask[..., None, None]
    other_key, other_value = np.where(hidden, 1e6 * key, key), np.where(hidden, -1e6 * value, value)
    np.testing.assert_array_equal(
        masked_attention(query, key, value, mask), masked_attention(query, other_key, other_value, mask)
    )


def test_large_scores_do_not_overflow():
    query, key, _, mask = inputs()
    weights = attention_weights(1e4 * query, 1e4 * key, mask)
    np.testing.assert_allclose(weights[0].sum(-1), np.ones((H, TQ)), rtol=1e-6)


def test_leading_axes_may_be_several_or_none():
    query, key, value, mask = inputs()
    whole = masked_attention(query, key, value, mask)
    np.testing.assert_allclose(masked_attention(query[0], key[0], value[0], mask[0]), whole[0], rtol=1e-6)
    nested = masked_attention(query[None], key[None], value[None], mask[None])
    np.testing.assert_allclose(nested, whole[None], rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(masked_attention)(query, key, value, mask), whole, rtol=1e-6)


def test_a_pair_mask_goes_along_with_any_leading_axes():
    query, key, value, mask = inputs()
    pairs = PAIR_MASKS["one for each"]
    whole = masked_attention(query, key, value, mask, pair_mask=pairs)
    alone = masked_attention(query[0], key[0], value[0], mask[0], pair_mask=pairs[0])
    np.testing.assert_allclose(alone, whole[0], rtol=1e-6)
    nested = masked_attention(query[None], key[None], value[None], mask[None], pair_mask=pairs[None])
    np.testing.assert_allclose(nested, whole[None], rtol=1e-6)
