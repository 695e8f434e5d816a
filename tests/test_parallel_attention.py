"""Four attention paths in one, against a loop over paths, positions and heads in float64."""

import functools

import jax
import numpy as np
import pytest

from jmer.layers.parallel_attention import FOUR_PATHS, FourWayParallelAttention
from jmer.segments import Segments, one_per_row

B, D = 3, 4
LENGTHS = {"text": 5, "audio": 8, "visual": 2}
FORMS = [
    {},
    {"num_heads": 2},
    {"projections": "shared"},
    {"projections": "identity", "num_heads": 2},
    {"output_projection": True, "num_heads": 4},
    {"projections": "shared", "output_projection": True},
    {"qkv_bias": True, "num_heads": 2},
    {"qkv_bias": True, "projections": "shared", "output_projection": True},
    {"paths": (("text", "text"), ("audio", "audio"))},
    {"paths": tuple((s, t) for t in LENGTHS for s in LENGTHS), "num_heads": 2},
]


def sample(seed, lengths=LENGTHS):
    rng = np.random.default_rng(seed)
    x = {m: rng.normal(size=(B, t, D)).astype(np.float32) for m, t in lengths.items()}
    masks = {m: rng.random((B, t)) < 0.7 for m, t in lengths.items()}
    masks["audio"][0] = False
    return x, masks


def module_and_variables(key, options):
    x, masks = sample(0)
    module = FourWayParallelAttention(**options)
    return module, module.init(key(), x, masks)


def reference(
    variables, x, masks, num_heads=1, projections="per_path", qkv_bias=False, output_projection=False, paths=FOUR_PATHS
):
    params = jax.tree.map(np.float64, variables.get("params", {}))
    modalities = sorted({m for path in paths for m in path})
    contexts = {}
    for p, (source, target) in enumerate(paths):

        def project(name, modality, p=p):
            rows = np.float64(x[modality])
            if projections == "identity":
                return rows
            entry = p if projections == "per_path" else modalities.index(modality)
            return rows @ params[name][entry] + (params[f"{name}_bias"][entry] if qkv_bias else 0)

        query, key, value = project("query", target), project("key", source), project("value", source)
        context = np.zeros(query.shape)
        width = D // num_heads
        for b in range(B):
            real = np.flatnonzero(masks[source][b])
            for i in np.flatnonzero(masks[target][b]):
                for h in range(num_heads) if len(real) else ():
                    part = slice(h * width, (h + 1) * width)
                    powers = np.exp(key[b, real, part] @ query[b, i, part] / np.sqrt(width))
                    context[b, i, part] = powers / powers.sum() @ value[b, real, part]
                if output_projection:
                    context[b, i] = context[b, i] @ params["output"][p] + params["output_bias"][p]
        contexts[source, target] = context
    return contexts


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_every_form_matches_the_loop(key, options):
    module, variables = module_and_variables(key, options)
    x, masks = sample(1)
    contexts = jax.jit(module.apply)(variables, x, masks)
    expected = reference(variables, x, masks, **options)
    assert set(contexts) == set(expected)
    for path, context in contexts.items():
        np.testing.assert_allclose(context, expected[path], rtol=1e-5, atol=1e-6)


def test_parameter_shapes_and_start(key):
    """Twelve matrices, six when shared; each drawn on its own within PyTorch's bounds."""
    for options, stack in (({}, 4), ({"projections": "shared"}, 2)):
        _, variables = module_and_variables(key, options)
        assert jax.tree.map(np.shape, variables["params"]) == dict.fromkeys(("query", "key", "value"), (stack, D, D))
    _, variables = module_and_variables(key, {"projections": "identity"})
    assert variables == {}
    wide = jax.jit(FourWayParallelAttention().init)(key(), *sample_of_width(400))["params"]["query"]
    bound = 1 / 20
    assert 0.99 * bound < np.abs(wide).max() <= bound
    np.testing.assert_allclose(np.std(wide, axis=(1, 2)), np.full(4, bound / np.sqrt(3)), rtol=0.02)
    assert len({float(kernel[0, 0]) for kernel in wide}) == 4


def test_each_bias_is_drawn_within_pytorchs_bounds(key):
    module = FourWayParallelAttention(qkv_bias=True, output_projection=True)
    params = jax.jit(module.init)(key(), *sample_of_width(400))["params"]
    for name in ("query", "key", "value", "output"):
        biases = params[f"{name}_bias"]
        assert biases.shape == (4, 400)
        assert 0.95 / 20 < np.abs(biases).max() <= 1 / 20
        assert len({float(bias[0]) for bias in biases}) == 4


def dropped_weights(rate, train, key, row_ids=None, seed=7, rows=40, length=8):
    """Attention weights as training sees them, `[paths, rows, length, length]`, and without dropout.

    Values that are the rows of an identity matrix make the context equal the weights.
    """
    scale = 1.5
    one = np.broadcast_to(scale * np.eye(length, dtype=np.float32), (rows, length, length))
    x, masks = {"text": one, "audio": one}, dict.fromkeys(("text", "audio"), np.ones((rows, length), bool))
    module = FourWayParallelAttention(projections="identity", dropout_rate=rate)
    apply = jax.jit(functools.partial(module.apply, {}, train=train))
    out = apply(x, masks, row_ids=row_ids, rngs={"dropout": key} if train else {})
    powers = np.exp(scale**2 * np.eye(length) / np.sqrt(length))
    weights = np.stack(list(out.values())) / scale
    return weights, np.broadcast_to(powers / powers.sum(-1, keepdims=True), weights.shape)


def test_dropout_leaves_out_its_share_of_the_weights(key):
    found, weights = dropped_weights(0.3, True, key())
    kept = found != 0
    np.testing.assert_allclose(found[kept], weights[kept] / 0.7, rtol=1e-5)
    np.testing.assert_allclose(1 - kept.mean((1, 2, 3)), np.full(4, 0.3), atol=0.04)
    # Paths, conversations, queries and keys are drawn apart: two of them agree as often as chance has it.
    for axis in range(4):
        agreeing = (kept == np.roll(kept, 1, axis)).mean()
        np.testing.assert_allclose(agreeing, 0.3**2 + 0.7**2, atol=0.03)
    for rate, train in ((0.3, False), (0.0, True)):
        found, weights = dropped_weights(rate, train, key())
        np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_dropout_follows_the_conversation(key):
    drawn, row_ids, order = key(), np.arange(40) + 3, np.random.default_rng(8).permutation(40)
    found, _ = dropped_weights(0.5, True, drawn, row_ids)
    moved, _ = dropped_weights(0.5, True, drawn, row_ids[order])
    np.testing.assert_array_equal(moved, found[:, order])
    assert (dropped_weights(0.5, True, drawn, row_ids + 1)[0] != found).any()
    assert (dropped_weights(0.5, True, key(), row_ids)[0] != found).any()
    np.testing.assert_array_equal(
        dropped_weights(0.5, True, drawn)[0], dropped_weights(0.5, True, drawn, np.arange(40))[0]
    )


def sample_of_width(width):
    return {m: np.ones((1, 2, width), np.float32) for m in LENGTHS}, {m: np.ones((1, 2), bool) for m in LENGTHS}


@pytest.mark.parametrize("options", [{}, {"output_projection": True}], ids=str)
def test_padding_and_its_content_change_nothing(key, options):
    module, variables = module_and_variables(key, options)
    x, masks = sample(2)

    def total(variables, x, masks):
        contexts = module.apply(variables, x, masks)
        return sum(np.float32(i + 1) * (c**2).sum() for i, c in enumerate(contexts.values())), contexts

    call = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    spoilt = {m: np.where(masks[m][..., None], v, np.nan).astype(np.float32) for m, v in x.items()}
    clean = call(variables, x, masks)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    jax.tree.map(np.testing.assert_array_equal, clean, call(variables, spoilt, masks))
    extra = {"text": 6, "audio": 1, "visual": 0}
    longer = {m: np.pad(v, ((0, 0), (0, extra[m]), (0, 0)), constant_values=7) for m, v in x.items()}
    longer_masks = {m: np.pad(v, ((0, 0), (0, extra[m]))) for m, v in masks.items()}
    for path, context in jax.jit(module.apply)(variables, longer, longer_masks).items():
        kept = LENGTHS[path[1]]
        np.testing.assert_allclose(context[:, :kept], clean[0][1][path], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(context[:, kept:], 0)


def test_order_of_positions_and_batching_do_not_matter(key):
    module, variables = module_and_variables(key, {"num_heads": 2})
    x, masks = sample(3)
    apply = jax.jit(module.apply)
    contexts = apply(variables, x, masks)
    order = {m: np.random.default_rng(4).permutation(t) for m, t in LENGTHS.items()}
    permuted = apply(
        variables, {m: v[:, order[m]] for m, v in x.items()}, {m: v[:, order[m]] for m, v in masks.items()}
    )
    alone = [apply(variables, *jax.tree.map(lambda v, b=b: v[b], (x, masks))) for b in range(B)]
    for path, context in contexts.items():
        np.testing.assert_allclose(permuted[path], context[:, order[path[1]]], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.stack([one[path] for one in alone]), context, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_has_finite_gradients(key):
    module, variables = module_and_variables(key, {"output_projection": True})
    x, masks = sample(5)
    nothing = {m: np.zeros_like(mask) for m, mask in masks.items()}

    def total(variables, x):
        return sum(c.sum() for c in module.apply(variables, x, nothing).values())

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(variables, x)
    assert value == 0
    for leaf in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(leaf, 0)


def test_refusals_name_what_is_wrong(key):
    x, masks = sample(6)
    for options, features, message in (
        ({"projections": "none"}, x, "projections: expected one of per_path, shared, identity, got 'none'"),
        ({"num_heads": 3}, x, "num_heads: expected a divisor of the width 4, got 3"),
        ({}, {"text": x["text"]}, "features: expected the modalities audio, text, got text"),
        (
            {},
            x | {"audio": x["audio"][..., :2]},
            r"features\['text'\]: expected float \[3, T, 2\], got float32 \[3, 5, 4\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            FourWayParallelAttention(**options).init(key(), features, masks)


@pytest.mark.parametrize("options", [{}, {"projections": "shared", "num_heads": 2, "output_projection": True}], ids=str)
def test_pooled_queries_ask_once_for_all(key, options):
    """The mean of the queries is the query of the mean: as if the target were its mean alone."""
    paths = (("audio", "text"), ("audio", "visual"))
    module, variables = module_and_variables(key, {**options, "paths": paths, "pool_queries": True})
    x, masks = sample(3)
    masks["text"][1] = False
    masks["visual"][:] = [False, True]
    found = jax.jit(module.apply)(variables, x, masks)
    for m in ("text", "visual"):
        rows = np.where(masks[m][..., None], x[m], 0)
        x[m] = rows.sum(1, keepdims=True) / np.maximum(masks[m].sum(1), 1)[:, None, None].astype(np.float32)
        masks[m] = masks[m].any(1, keepdims=True)
    expected = reference(variables, x, masks, **options, paths=paths)
    for path in paths:
        assert found[path].shape == (B, 1, D)
        np.testing.assert_allclose(found[path], expected[path], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["audio", "text"][1], 0)


NUMBER = np.array([[0, 0, 1, 1, 1, 2, 2], [0] * 7, [0, 1, 1, 1, 1, 1, 1]], np.int32)


@pytest.mark.parametrize("options", [{}, {"projections": "shared", "num_heads": 2, "output_projection": True}], ids=str)
@pytest.mark.parametrize("pool_queries", [False, True])
def test_conversations_of_one_row_do_not_see_each_other(key, options, pool_queries):
    module, variables = module_and_variables(key, options | {"pool_queries": pool_queries})
    x, masks = sample(7, dict.fromkeys(LENGTHS, 7))
    masks["text"][2] = [True] + [False] * 6
    spoilt = {m: np.where(masks[m][..., None], v, np.nan).astype(np.float32) for m, v in x.items()}
    found = jax.jit(module.apply)(variables, spoilt, masks, segments=Segments(NUMBER, 3))
    assert {context.shape for context in found.values()} == {(B, 3 if pool_queries else 7, D)}
    apply = jax.jit(module.apply)
    for k in range(3):
        here = np.equal(NUMBER, k)
        # Alone in its row, everything else being padding.
        alone = apply(variables, x, {m: mask & here for m, mask in masks.items()})
        for path, context in found.items():
            place = np.s_[:, k : k + 1] if pool_queries else here
            expected = alone[path] if pool_queries else alone[path][place]
            np.testing.assert_allclose(context[place], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool_queries", [False, True])
def test_segments_of_one_conversation_change_nothing(key, pool_queries):
    module, variables = module_and_variables(key, {"pool_queries": pool_queries})
    x, masks = sample(8, dict.fromkeys(LENGTHS, 7))
    without, with_one = (module.apply(variables, x, masks, segments=s) for s in (None, one_per_row(B, 7)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), without, with_one)
