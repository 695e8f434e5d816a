"""The post-norm transformer's layers against their formulas in float64, and against PyTorch's own."""

import jax
import numpy as np
import pytest
import torch
from reference import draw_parameters, normal

from experiments.benchmarks.plain_torch.convert import load_linear, load_norm, set_parameter
from jmer.layers import MultiHeadAttention, PostNormAttention, Segments, TransformerEncoderLayer

torch.set_num_threads(1)

MASK = np.arange(5)[None] < np.array([5, 3, 0])[:, None]


def load_attention(layer, p):
    """Copies a `MultiHeadAttention` into PyTorch's."""
    set_parameter(layer.in_proj_weight, np.concatenate([p[m]["kernel"].T for m in ("query", "key", "value")]))
    set_parameter(layer.in_proj_bias, np.concatenate([p[m]["bias"] for m in ("query", "key", "value")]))
    load_linear(layer.out_proj, p["output"])


def test_attention_is_that_of_pytorch_where_queries_keys_and_values_differ():
    query, key, value = normal(0, 3, 4, 6), normal(1, 3, 5, 6), normal(2, 3, 5, 6)
    pairs = np.random.default_rng(0).random((3, 4, 5)) < 0.7
    pairs[..., 0] = True
    module = MultiHeadAttention(3)
    p = draw_parameters(module, query, key, value, MASK)
    other = torch.nn.MultiheadAttention(6, 3, batch_first=True)
    load_attention(other, p)
    found = module.apply({"params": p}, query, key, value, MASK, pair_mask=pairs)
    hidden = torch.from_numpy(~(pairs & MASK[:, None]).repeat(3, axis=0))
    expected, _ = other(*map(torch.from_numpy, (query, key, value)), attn_mask=hidden)
    np.testing.assert_allclose(found[:2], expected.detach()[:2], rtol=1e-5, atol=1e-6)
    # Without any key, the last layer's bias is left.
    np.testing.assert_allclose(found[2], np.broadcast_to(p["output"]["bias"], (4, 6)), rtol=1e-6)


def test_heads_may_be_wider_than_the_query_and_have_no_layer_after_them():
    x, module = normal(0, 3, 5, 4), MultiHeadAttention(2, features=10, output_projection=False)
    p = draw_parameters(module, x, x, x, MASK)
    assert p.keys() == {"query", "key", "value"} and p["query"]["kernel"].shape == (4, 10)
    assert module.apply({"params": p}, x, x, x, MASK).shape == (3, 5, 10)


def test_an_encoder_layer_is_that_of_pytorch():
    x, module = normal(0, 3, 5, 6), TransformerEncoderLayer(3, 7)
    p = draw_parameters(module, x, MASK)
    other = torch.nn.TransformerEncoderLayer(6, 3, 7, dropout=0.0, batch_first=True)
    load_attention(other.self_attn, p["self_attention"]["attention"])
    load_norm(other.norm1, p["self_attention"]["norm"])
    load_norm(other.norm2, p["feed_forward"]["norm"])
    load_linear(other.linear1, p["feed_forward"]["inner"])
    load_linear(other.linear2, p["feed_forward"]["outer"])
    found = np.asarray(module.apply({"params": p}, x, MASK))
    expected = other(torch.from_numpy(x), src_key_padding_mask=torch.from_numpy(~MASK)).detach().numpy()
    np.testing.assert_allclose(found[MASK], expected[MASK], rtol=1e-5, atol=1e-5)
    assert (found[~MASK] == 0).all()


def test_conversations_of_one_row_do_not_see_each_other():
    x, module = normal(0, 1, 5, 6), TransformerEncoderLayer(2, 7)
    p = draw_parameters(module, x, np.ones((1, 5), bool))
    segments = Segments(np.array([[0, 0, 0, 1, 1]], np.int32), 2)
    together = module.apply({"params": p}, x, np.ones((1, 5), bool), segments=segments)
    for part in (slice(0, 3), slice(3, 5)):
        alone = module.apply({"params": p}, x[:, part], np.ones((1, part.stop - part.start), bool))
        np.testing.assert_allclose(together[:, part], alone, rtol=1e-5, atol=1e-6)


def test_parameters_start_as_in_pytorch(key):
    p = jax.jit(TransformerEncoderLayer(2, 30).init)(key(), normal(0, 1, 2, 100), np.ones((1, 2), bool))["params"]
    attention, joint = p["self_attention"]["attention"], np.sqrt(6 / 400)
    largest = {name: np.abs(layer["kernel"]).max() for name, layer in attention.items()}
    assert all(0.98 * joint < largest[name] <= joint for name in ("query", "key", "value"))
    assert 0.098 < largest["output"] <= 0.1
    assert all((layer["bias"] == 0).all() for layer in attention.values())
    assert 0 < np.abs(p["feed_forward"]["inner"]["bias"]).max() <= 0.1


def test_dropout_falls_on_the_attention_weights_and_after_the_attention(key):
    x = normal(0, 3, 5, 6)
    module = PostNormAttention(2, dropout_rate=0.5)
    variables = {"params": draw_parameters(module, x, x, MASK)}
    out, seen = module.apply(
        variables,
        x,
        x,
        MASK,
        train=True,
        rngs={"dropout": key()},
        capture_intermediates=True,
        mutable="intermediates",
    )
    seen = seen["intermediates"]
    weights = np.asarray(seen["attention"]["ConversationDropout_0"]["__call__"][0])
    update = np.asarray(seen["ConversationDropout_0"]["__call__"][0])
    assert weights.shape == (3, 2, 5, 5) and 0.2 < (weights[:2, ..., :3] == 0).mean() < 0.8
    assert 0.2 < (update == 0).mean() < 0.8
    assert not np.allclose(out, module.apply(variables, x, x, MASK))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (TransformerEncoderLayer(4), "num_heads: expected a divisor of the width 6, got 4"),
        (TransformerEncoderLayer(2, 0), "hidden_features: expected at least 1, got 0"),
        (TransformerEncoderLayer(2, dropout_rate=1.0), r"dropout_rate: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_layers_that_cannot_be_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), normal(0, 3, 5, 6), MASK)
