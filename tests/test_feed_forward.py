"""The position-wise feed-forward part against its formula in float64."""

import functools

import jax
import numpy as np
import pytest
from reference import draw_parameters, float64, linear, normal

from jmer.layers.feed_forward import PositionwiseFeedForward


def gelu(x):
    """The tanh approximation."""
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def transcribed(p, x, epsilon):
    """`epsilon` None = without the layer norm."""
    if epsilon is not None:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        x = centred / deviation * p["norm"]["scale"] + p["norm"]["bias"]
    return linear(p["outer"], gelu(linear(p["inner"], x)))


# Features that vary as little as the layer norm's epsilon show which one it has.
@pytest.mark.parametrize("spread", [1.0, 1e-3], ids=["plain", "hardly varying"])
@pytest.mark.parametrize(("options", "epsilon"), [({}, 1e-6), ({"epsilon": 1e-5}, 1e-5), ({"normalize": False}, None)])
def test_matches_the_formula(options, epsilon, spread):
    module, x = PositionwiseFeedForward(7, **options), spread * normal(0, 2, 3, 4)
    p = draw_parameters(module, x)
    assert jax.tree.map(np.shape, p).get("norm") == (None if epsilon is None else {"scale": (4,), "bias": (4,)})
    found = module.apply({"params": p}, x)
    np.testing.assert_allclose(found, transcribed(float64(p), np.float64(x), epsilon), rtol=1e-5, atol=2e-6)


def test_starts_as_pytorchs_linear_layers(key):
    p = jax.jit(PositionwiseFeedForward(900).init)(key(), normal(0, 1, 1, 400))["params"]
    for name, fan in (("inner", 400), ("outer", 900)):
        for part in ("kernel", "bias"):
            largest = np.abs(p[name][part]).max()
            assert 0.98 * fan**-0.5 < largest <= fan**-0.5


def test_dropout_falls_after_either_layer(key):
    module, x = PositionwiseFeedForward(40, dropout_rate=0.3), normal(1, 30, 20, 6)
    variables = {"params": draw_parameters(module, x)}
    apply = functools.partial(module.apply, variables, x, capture_intermediates=True, mutable="intermediates")
    out, seen = apply(train=True, rngs={"dropout": key()})
    values = {
        name: np.float64(seen["intermediates"][name]["__call__"][0]) for name in seen["intermediates"] if name[0] != "_"
    }
    for before, after in (
        (gelu(values["inner"]), values["ConversationDropout_0"]),
        (values["outer"], values["ConversationDropout_1"]),
    ):
        np.testing.assert_allclose((after == 0).mean(), 0.3, atol=0.03)
        np.testing.assert_allclose(after[after != 0], before[after != 0] / 0.7, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(out, values["ConversationDropout_1"])
    np.testing.assert_array_equal(module.apply(variables, x), PositionwiseFeedForward(40).apply(variables, x))


def test_dropout_follows_the_conversation(key):
    module, x, index, order = (
        PositionwiseFeedForward(5, dropout_rate=0.5),
        normal(2, 4, 3, 6),
        np.arange(4) + 7,
        [2, 0, 3, 1],
    )
    variables, streams = {"params": draw_parameters(module, x)}, {"dropout": key()}
    out = module.apply(variables, x, train=True, row_ids=index, rngs=streams)
    moved = module.apply(variables, x[order], train=True, row_ids=index[order], rngs=streams)
    np.testing.assert_allclose(moved, out[np.array(order)], rtol=1e-5, atol=1e-6)
    assert not np.allclose(out, module.apply(variables, x, train=True, row_ids=index + 1, rngs=streams))
