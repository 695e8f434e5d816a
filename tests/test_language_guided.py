"""LFVD's attention blocks against a float64 transcription of Eqs. 4-9."""

import jax
import numpy as np
import pytest
import reference
from reference import draw_parameters, float64, normal

from jmer.layers.language_guided import ConversationAtmosphere, LanguageGuidedBlock

B, T, D = 2, 5, 8
LENGTHS = (5, 3)
MASK = np.arange(T)[None] < np.array(LENGTHS)[:, None]


def streams():
    return normal(0, B, T, D), normal(1, B, T, D)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "ffn_mult", "bias"), [(2, 4, False), (1, 1, True)])
def test_the_block_matches_the_equations(causal, heads, ffn_mult, bias):
    target, source = streams()
    pair_mask = np.tri(T, dtype=bool) if causal else None
    block = LanguageGuidedBlock(heads, ffn_mult * D, qkv_bias=bias)
    for residual in (source, target):
        p = draw_parameters(block, target, source, residual, MASK)
        assert ("bias" in p["query_projection"]) == bias
        assert p["ffn_inner"]["kernel"].shape == (D, ffn_mult * D)
        out, weights = jax.jit(block.apply)({"params": p}, target, source, residual, MASK, pair_mask=pair_mask)
        for b in range(B):
            visible = np.repeat(MASK[b][None], T, axis=0) & (True if pair_mask is None else pair_mask)
            rows = (np.float64(x[b]) for x in (target, source, residual))
            expected, expected_weights = reference.language_guided_block(float64(p), *rows, visible, heads)
            np.testing.assert_allclose(out[b], expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(weights[b], expected_weights, rtol=1e-5, atol=1e-6)


def test_queries_that_blocks_share_come_projected():
    target, source = streams()
    own, shared = LanguageGuidedBlock(2), LanguageGuidedBlock(2, project_query=False)
    p = draw_parameters(own, target, source, source, MASK)
    rest = {name: value for name, value in p.items() if name != "query_projection"}
    assert jax.tree.structure(draw_parameters(shared, target, source, source, MASK)) == jax.tree.structure(rest)
    queries = target @ p["query_projection"]["kernel"]
    expected, _ = own.apply({"params": p}, target, source, source, MASK)
    out, _ = shared.apply({"params": rest}, queries, source, source, MASK)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_heads_must_divide_the_width():
    target, source = streams()
    with pytest.raises(ValueError, match="num_heads: expected a divisor of the width 8, got 3"):
        LanguageGuidedBlock(3).init(jax.random.key(0), target, source, source, MASK)


def test_the_atmosphere_matches_the_equation():
    x = streams()[0]
    module = ConversationAtmosphere(2)
    p = draw_parameters(module, x, MASK)
    t, after, weights = jax.jit(module.apply)({"params": p}, x, MASK)
    assert (t.shape, after.shape, weights.shape) == ((B, 1, D), (B, T, D), (B, 2, 1, 1 + T))
    for b, n in enumerate(LENGTHS):
        expected = reference.atmosphere(float64(p), np.float64(x[b, :n]), 2)
        np.testing.assert_allclose(t[b, 0], expected[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after[b, :n], expected[1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(weights[b, :, 0, : 1 + n], expected[2], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(weights[b, :, 0, 1 + n :], np.zeros((2, T - n)))


def test_a_causal_atmosphere_is_that_of_every_prefix():
    x = streams()[0]
    module = ConversationAtmosphere(2, causal=True)
    p = draw_parameters(module, x, MASK)
    t, after, weights = jax.jit(module.apply)({"params": p}, x, MASK)
    assert (t.shape, after.shape, weights.shape) == ((B, T, D), (B, T, D), (B, 2, T, 1 + T))
    for b, n in enumerate(LENGTHS):
        expected_t, expected_after = reference.causal_atmosphere(float64(p), np.float64(x[b, :n]), 2)
        np.testing.assert_allclose(t[b, :n], expected_t, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(after[b, :n], expected_after, rtol=1e-5, atol=1e-5)
    whole = ConversationAtmosphere(2)
    prefix, _, _ = jax.jit(whole.apply)({"params": p}, x[:, :3], MASK[:, :3])
    np.testing.assert_allclose(t[:, 2], prefix[:, 0], rtol=1e-5, atol=1e-5)


def test_an_empty_conversation_has_the_token_alone():
    x = streams()[0]
    module = ConversationAtmosphere(2)
    variables = {"params": draw_parameters(module, x, MASK)}
    nobody = np.zeros((B, T), bool)
    t, _, weights = module.apply(variables, x, nobody)
    np.testing.assert_allclose(weights[..., 0], np.ones((B, 2, 1)), rtol=1e-6)
    np.testing.assert_allclose(t[0], t[1], rtol=1e-6)


def test_padding_does_not_reach_real_positions():
    x = streams()[0]
    module = ConversationAtmosphere(2)
    apply = jax.jit(module.apply)
    variables = {"params": draw_parameters(module, x, MASK)}
    garbage = np.where(MASK[..., None], x, 1e3 * x)
    for plain, dirty in zip(apply(variables, x, MASK)[:2], apply(variables, garbage, MASK)[:2], strict=True):
        rows = MASK if plain.shape[1] == T else np.ones((B, 1), bool)
        np.testing.assert_array_equal(plain[rows], dirty[rows])
