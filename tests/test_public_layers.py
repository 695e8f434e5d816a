"""What holds for every public layer: dtypes, and that masked values do not matter."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_layers import FUNCTIONS, LAYERS, MASK, B, D, T, call
from reference import normal

MULTIPLY = [name for name, (layer, _) in LAYERS.items() if "dtype" in {f.name for f in dataclasses.fields(layer)}]
# Those with a mask for all of their features.
MASKED = [
    "AttentionPool",
    "BiGRU",
    "BilinearExchange",
    "CognitiveReasoning",
    "ConversationAtmosphere",
    "DAGEncoder",
    "DAGLayer",
    "DialogueRNNs",
    "FourWayParallelAttention",
    "FrequencyAdaptiveConvolution",
    "HypergraphConvolution",
    "MaskedBatchNorm",
    "ModalityBiGRUs",
    "MultimodalGate",
    "RelationalConvolution",
    "ResidualEnhancement",
    "Segments",
    "angle_graph",
    "StackedRNN",
    "TransformerEncoderLayer",
    "cross_modal_contrastive",
    "mean_pool",
    "masked_attention",
    "masked_mean",
    "soft_hgr",
    "variational_distillation",
]


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def test_all_layers_but_dropout_multiply():
    assert LAYERS.keys() - MULTIPLY == {"ConversationDropout"}


@pytest.mark.parametrize("name", MULTIPLY)
def test_the_computation_may_have_less_precision_than_the_parameters(name):
    x = normal(3, B, T, D)
    apply, p = call(name)
    low, _ = call(name, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(p)} == {np.dtype(np.float32)}
    step = jax.jit(jax.value_and_grad(lambda p: sum(leaf.astype(jnp.float32).sum() for leaf in floats(low(p, x)))))
    assert {leaf.dtype for leaf in jax.tree.leaves(step(p)[1])} == {np.dtype(np.float32)}
    expected, found = jax.jit(apply)(p, x), jax.jit(low)(p, x)
    state = expected[1] if name == "MaskedBatchNorm" else ()
    assert {leaf.dtype for leaf in floats(expected)} == {np.dtype(np.float32)}
    kept = len(floats(state))
    assert [leaf.dtype for leaf in floats(found)] == [jnp.bfloat16] * (len(floats(found)) - kept) + [np.float32] * kept
    for a, b in zip(floats(found), floats(expected), strict=True):
        np.testing.assert_allclose(np.float32(a), b, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", MULTIPLY)
def test_parameters_may_have_less_precision(name):
    layer, arguments = LAYERS[name]
    variables = jax.eval_shape(
        lambda x: layer.clone(param_dtype=jnp.bfloat16).init(jax.random.key(0), *arguments(x)),
        jnp.ones((B, T, D)),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("name", MASKED)
def test_masked_values_do_not_matter(name):
    """NaN among them, for outputs at real positions and for gradients of parameters."""
    assert name in LAYERS | FUNCTIONS
    x, (apply, p) = normal(4, B, T, D), call(name)

    def seen(leaf):
        if leaf.shape[:2] == (B, T):
            return jnp.where(MASK.reshape(B, T, *(1,) * (leaf.ndim - 2)), leaf, 0)
        return jnp.where(MASK.reshape(-1), leaf, 0) if leaf.shape == (B * T,) else leaf

    def objective(p, x):
        out = jax.tree.map(seen, apply(p, x))
        return sum(jnp.square(leaf).sum() for leaf in floats(out)), out

    step = jax.jit(jax.value_and_grad(objective, has_aux=True) if name in LAYERS else objective)
    dirty = np.where(MASK[..., None], x, np.float32(np.nan))
    jax.tree.map(np.testing.assert_array_equal, step(p, dirty), step(p, x))
