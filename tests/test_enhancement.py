"""The residual enhancement of one path against its equations, and what batch statistics are taken over."""

import functools

import jax
import numpy as np
import pytest
from reference import draw_parameters, float64, linear, normal

from jmer.layers.enhancement import COMPRESSIONS, ResidualEnhancement
from jmer.segments import Segments

B, T, D = 5, 4, 6
MASK = np.arange(T)[None] < np.array([4, 2, 3, 1, 0])[:, None]
SOURCE = np.array([True, True, False, True, True])[:, None]
"""The third conversation has nothing to be read from, the last one nothing that reads."""


def inputs(compression):
    positions = 1 if compression == "query_mean" else T
    return normal(0, B, T, D), normal(1, B, positions, D) * MASK[:, :positions, None], MASK, SOURCE


def module_and_variables(**options):
    module = ResidualEnhancement(7, **options)
    arguments = inputs(module.global_compression)
    variables = {"params": draw_parameters(module, *arguments)}
    if module.compress_norm == "batch":
        width = 1 if module.global_compression == "channel" else D
        variables["batch_stats"] = {"norm": {"mean": normal(2, width), "var": normal(3, width) ** 2 + 0.1}}
    return module, variables, arguments


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(p, x, epsilon):
    deviation = np.sqrt(((x - x.mean()) ** 2).mean() + epsilon)
    return (x - x.mean()) / deviation * p["scale"] + p["bias"]


def reference(module, variables, x, context, mask, source, train):
    """H at one position after the other, and the rows whose statistics normalise."""
    p = float64(variables["params"])
    pooled = module.global_compression in ("pooled", "pooled_plus_context", "query_mean")

    def compressed(b, i):
        if module.global_compression == "query_mean":
            return linear(p["conv"], np.float64(context[b, 0]))
        return linear(p["conv"], np.float64(context[b][mask[b]]).mean(0) if pooled else np.float64(context[b, i]))

    places = [(b, i) for b in range(B) for i in range(T) if mask[b, i]]
    rows = np.array([compressed(b, i) for b, i in places if source[b] and (i == 0 or not pooled)])
    if module.compress_norm == "batch":
        running = float64(variables["batch_stats"]["norm"])
        mean, variance = (rows.mean(0), rows.var(0)) if train else (running["mean"], running["var"])
    out = np.zeros(x.shape)
    for b, i in places:
        z = np.zeros(D)
        if source[b]:
            z = compressed(b, i)
            if module.compress_norm == "batch":
                z = (z - mean) / np.sqrt(variance + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
            else:
                z = layer_norm(p["norm"], z, 1e-5)
            z = np.maximum(z, 0) + 0.01 * np.minimum(z, 0)
        out[b, i] = x[b, i] + z
        if module.global_compression == "pooled_plus_context":
            out[b, i] += context[b, i]
        if module.use_ffn:
            inner = out[b, i] if module.ffn_input == "residual" else np.float64(x[b, i])
            if module.ffn_pre_ln:
                inner = layer_norm(p["ffn"]["norm"], inner, 1e-6)
            out[b, i] = out[b, i] + linear(p["ffn"]["outer"], gelu(linear(p["ffn"]["inner"], inner)))
    return out, rows


OPTIONS = [
    *({"global_compression": choice} for choice in COMPRESSIONS),
    {"compress_norm": "layer"},
    {"compress_norm": "layer", "global_compression": "pooled_plus_context", "ffn_input": "parallel"},
    {"ffn_pre_ln": False},
    {"use_ffn": False, "global_compression": "channel"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_form_matches_the_equations(options):
    module, variables, arguments = module_and_variables(**options)
    for train in (False, True):
        apply = jax.jit(functools.partial(module.apply, train=train, mutable=["batch_stats"]))
        found, update = apply(variables, *arguments)
        expected, rows = reference(module, variables, *arguments, train)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        if module.compress_norm == "layer":
            assert not update
            continue
        mean = variables["batch_stats"]["norm"]["mean"]
        expected_mean = 0.9 * mean + 0.1 * rows.mean(0) if train else mean
        np.testing.assert_allclose(update["batch_stats"]["norm"]["mean"], expected_mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_not_there_changes_nothing(compression):
    """Values, gradients and statistics, whatever stands on padding and in a path whose source is empty."""
    module, variables, (x, context, mask, source) = module_and_variables(global_compression=compression)

    def total(variables, x, context):
        out, update = module.apply(variables, x, context, mask, source, train=True, mutable=["batch_stats"])
        return (out**2).sum(), (out, update)

    call = jax.jit(jax.value_and_grad(total, has_aux=True))
    spoilt = np.where(mask[..., None], x, np.float32(np.nan))
    asked = mask.any(1, keepdims=True) if compression == "query_mean" else mask
    dirty = np.where(asked[..., None], context, np.float32(np.nan))
    jax.tree.map(np.testing.assert_array_equal, call(variables, x, context), call(variables, spoilt, dirty))


# Where each real position goes when the second, first and fourth conversation share a row, the third having its own.
SLOTS = {1: (0, 0), 0: (0, 1), 3: (0, 2), 2: (1, 0)}
ROW = np.repeat([0, 0, 1, 0], [4, 2, 3, 1])
COLUMN = np.array([2, 3, 4, 5, 0, 1, 0, 1, 2, 6])
NUMBER = np.array([[0, 0, 1, 1, 1, 1, 2], [0] * 7], np.int32)


def in_two_rows(x):
    """From `[B, T, ...]` to `[2, 7, ...]`, and NaN where there is nothing."""
    rows = np.full((2, 7, *x.shape[2:]), np.nan, np.float32)
    rows[ROW, COLUMN] = x[MASK]
    return rows


def in_slots(x, fill):
    """From `[B, 1, ...]` to `[2, 3, ...]`."""
    rows = np.full((2, 3, *x.shape[2:]), fill, x.dtype)
    for b, slot in SLOTS.items():
        rows[slot] = x[b, 0]
    return rows


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_conversations_that_share_a_row_are_enhanced_as_in_rows_of_their_own(compression, train):
    """Values, gradients, and statistics, for which a conversation counts wherever it stands."""
    module, variables, (x, context, mask, source) = module_and_variables(global_compression=compression)

    def total(variables, x, context, mask, source, segments):
        out, update = module.apply(
            variables, x, context, mask, source, train=train, segments=segments, mutable=["batch_stats"]
        )
        return (out**2).sum(), (out, update)

    call = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, (out, update)), gradient = call(variables, x, context, mask, source, None)
    laid = in_slots(context, np.nan) if compression == "query_mean" else in_two_rows(context)
    there = np.nan_to_num(in_two_rows(mask)) > 0
    there_too = np.nan_to_num(in_two_rows(np.repeat(source, T, axis=1))) > 0
    arguments = in_two_rows(x), laid, there, there_too, Segments(NUMBER, 3)
    (found_value, (found, found_update)), found_gradient = call(variables, *arguments)
    np.testing.assert_allclose(found[ROW, COLUMN], out[MASK], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[~there], 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        (found_value, found_update, found_gradient),
        (value, update, gradient),
    )


def test_a_lone_conversation_is_normalized_by_the_running_statistics():
    """One row has no variance: what is pooled over one conversation trains with what was seen before."""
    module, variables, arguments = module_and_variables()
    alone = [x[:1] for x in arguments]
    trained, update = module.apply(variables, *alone, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(trained, module.apply(variables, *alone))
    jax.tree.map(np.testing.assert_array_equal, update["batch_stats"], variables["batch_stats"])


def test_dropout_follows_the_conversation(key):
    module, variables, arguments = module_and_variables(dropout_rate=0.5, compress_norm="layer")
    streams, index, order = {"dropout": key()}, np.arange(B), np.array([3, 0, 4, 1, 2])
    straight = module.apply(variables, *arguments, train=True, row_ids=index, rngs=streams)
    permuted = module.apply(variables, *(x[order] for x in arguments), train=True, row_ids=index[order], rngs=streams)
    np.testing.assert_allclose(permuted, straight[order], rtol=1e-5, atol=1e-6)
    assert np.abs(straight - module.apply(variables, *arguments)).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_compression": "max"}, f"global_compression: expected one of {', '.join(COMPRESSIONS)}, got 'max'"),
        ({"compress_norm": "none"}, "compress_norm: expected one of batch, layer, got 'none'"),
        ({"ffn_input": "query"}, "ffn_input: expected one of residual, parallel, got 'query'"),
        (
            {"global_compression": "channel", "compress_norm": "layer"},
            "compress_norm: expected batch for global_compression channel, got layer",
        ),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ResidualEnhancement(7, **options).init(jax.random.key(0), *inputs("pooled"))
