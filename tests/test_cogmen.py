"""COGMEN against a float64 transcription of its equations, edge by edge, and what is special to its graph."""

import functools

import jax
import numpy as np
import pytest
from hard_conversations import batch, conversations
from reference import (
    draw_parameters,
    float64,
    linear,
    post_norm_encoder_layer,
    read_heads,
    rows_where,
    sigmoid,
)
from tiny import EMOTIONS, WIDTHS

from jmer.config import base_config, check_values
from jmer.errors import UserError
from jmer.experiment import change_fields
from jmer.models import COGMEN, build_model
from jmer.models.cogmen import usual_heads

C = len(EMOTIONS)


def small(**options):
    sizes = {"encoder_layers": 1, "d_ff": 5, "d_h": 4, "window_past": 2, "window_future": 1}
    return COGMEN(**{"num_classes": C, "dropout_rate": 0.0} | sizes | options)


def variables_of(model):
    """Random parameters, and running statistics that are not those of the beginning."""
    rng = np.random.default_rng(1)
    width = model.graph_heads * model.d_h
    statistics = {"mean": rng.normal(size=width), "var": rng.random(width) + 0.5}
    statistics = {"graph_norm": {name: x.astype(np.float32) for name, x in statistics.items()}}
    return {"params": draw_parameters(model, batch()), "batch_stats": statistics}


def edges(model, n):
    """The sources of each target, bool [n, n]."""
    back = n if model.window_past < 0 else model.window_past
    ahead = n if model.window_future < 0 else model.window_future
    return np.array([[t - back <= s <= t + ahead for s in range(n)] for t in range(n)])


def relation(model, speakers, source, target):
    count = model.speakers
    if model.relations == "same_or_other":
        return 2 * int(speakers[source] == speakers[target]) + int(source >= target)
    own, other = (min(speakers[i], count - 1) for i in (source, target))
    return 2 * (count * own + other) + int(source >= target)


def relational(p, model, g, speakers, visible):
    h = linear({"kernel": p["root"], "bias": p["bias"]}, g)
    for target in range(len(g)):
        by_relation = {}
        for source in np.nonzero(visible[target])[0]:
            by_relation.setdefault(relation(model, speakers, source, target), []).append(source)
        for r, sources in by_relation.items():
            h[target] += g[sources].mean(0) @ p["kernels"][r]
    return h


def cogmen(variables, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    p, norm = variables["params"], variables["batch_stats"]["graph_norm"]
    there, features = conversation.available, conversation.features
    x = np.concatenate([rows_where(there[m], np.float64(features[m])) for m in WIDTHS if m in model.modalities], axis=1)
    if model.encoder_width:
        x = linear(p["input"], x)
    for i in range(model.encoder_layers):
        x = post_norm_encoder_layer(p[f"encoder_{i}"], x, model.num_heads or usual_heads(x.shape[1]))
    g, visible = linear(p["encoder_out"], x), edges(model, len(x))
    numbers = {speaker: i for i, speaker in enumerate(dict.fromkeys(conversation.speakers))}
    h = relational(p["relational"], model, g, [numbers[speaker] for speaker in conversation.speakers], visible)
    o = read_heads(p["graph_attention"], h, h, h, visible, model.graph_heads) + linear(p["graph_skip"], h)
    u = (o - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * p["graph_norm"]["scale"] + p["graph_norm"]["bias"]
    u = np.where(u > 0, u, 0.01 * u)
    if model.concat_context:
        u = np.concatenate([g, u], axis=1)
    if model.highway:
        gate = sigmoid(linear(p["highway_gate"], u))
        u = gate * np.maximum(linear(p["highway_changed"], u), 0) + (1 - gate) * linear(p["highway_carried"], u)
    return linear(p["classifier"], np.maximum(linear(p["hidden"], u), 0))


OPTIONS = [
    {"encoder_layers": 2},
    {"encoder_width": 14, "graph_heads": 2, "speakers": 1},
    {"num_heads": 3, "concat_context": True, "relations": "same_or_other"},
    {"highway": True, "window_past": -1, "window_future": 0, "modalities": ("text", "audio"), "speakers": 3},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_logits_are_those_of_the_equations(options):
    model = small(**options)
    variables = variables_of(model)
    logits = jax.jit(model.apply)(variables, batch()).logits
    for row, conversation in zip(logits, conversations(), strict=True):
        expected = cogmen(float64(variables), model, conversation)
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-5, atol=2e-5)


def test_the_encoders_heads_divide_its_width_as_published():
    assert [usual_heads(width) for width in (1380, 2948, 1666, 24, 10, 15)] == [10, 11, 7, 8, 10, 1]


def test_statistics_are_those_of_the_batchs_real_utterances():
    model = small()
    variables = variables_of(model)
    wider = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 2), *[(0, 0)] * (x.ndim - 2))), batch())
    apply = jax.jit(functools.partial(model.apply, train=True, mutable="batch_stats"))
    (one, of_one), (other, of_other) = apply(variables, batch()), apply(variables, wider)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), of_one, of_other)
    np.testing.assert_allclose(one.logits[batch().mask], other.logits[wider.mask], rtol=1e-5, atol=1e-5)
    assert not np.allclose(of_one["batch_stats"]["graph_norm"]["mean"], variables["batch_stats"]["graph_norm"]["mean"])


def test_the_published_size():
    """At the published 1380 features: 27.0 million, without what the code creates and never uses."""
    widths = {"text": 768, "audio": 100, "visual": 512}
    wide = batch().replace(
        features={m: np.zeros((*batch().mask.shape, width), np.float32) for m, width in widths.items()}
    )
    params = jax.eval_shape(COGMEN(6).init, jax.random.key(0), wide)["params"]
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    encoder = 2 * (4 * 1380**2 + 2 * 1380 * 2048 + 4 * 1380 + 2048 + 1380 + 4 * 1380)
    graph = 1380 * 100 + 100 + 9 * 100**2 + 100 + 4 * (100**2 + 100) + 200 + 100**2 + 100 + 100 * 6 + 6
    assert size == encoder + graph


def test_initial_values(key):
    p = jax.jit(COGMEN(C, d_h=40, d_ff=20, encoder_width=30).init)(key(), batch())["params"]
    bound = np.sqrt(6 / 80)
    assert 0.97 * bound < np.abs(p["relational"]["kernels"]).max() <= bound
    assert 0.97 * bound < np.abs(p["relational"]["root"]).max() <= bound
    assert (p["relational"]["bias"] == 0).all()
    assert 0 < np.abs(p["graph_attention"]["query"]["bias"]).max() <= 40**-0.5
    attention = [p[f"encoder_{i}"]["self_attention"]["attention"] for i in (0, 1)]
    assert not np.allclose(attention[0]["query"]["kernel"], attention[1]["query"]["kernel"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": "gender"}, "unknown relations 'gender'; choose one of speakers, same_or_other"),
        ({"modalities": ()}, r"modalities must be some of text, audio, visual, each once, not \(\)"),
        ({"encoder_layers": 0}, "encoder_layers must be at least 1, not 0"),
        ({"encoder_width": -1}, "encoder_width must be at least 0, not -1"),
        ({"window_future": -2}, "window_future must be at least -1, not -2"),
        ({"dropout_rate": -0.1}, "dropout_rate must be at least 0 and below 1, not -0.1"),
        ({"num_heads": 4}, "num_heads: expected a divisor of the width 15, got 4"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch())


def test_a_configuration_may_have_no_neighbours_or_all_of_them():
    fields = {"model.window_past": "0", "model.window_future": "-1"}
    check_values(change_fields(base_config("cogmen"), fields))
    too_low = change_fields(
        base_config("cogmen"), {"model.window_past": "-2", "model.num_classes": "4", "model.modalities": "text"}
    )
    with pytest.raises(UserError, match=r"^invalid configuration: window_past must be at least -1, not -2"):
        build_model(too_low)
