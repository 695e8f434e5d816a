"""DialogueGCN against a float64 transcription of its equations, edge by edge, and what is special to its graph."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn
from hard_conversations import batch, conversations
from reference import draw_parameters, float64, linear, rows_where, softmax, stacked_rnn
from tiny import EMOTIONS, WIDTHS

from jmer.config import base_config, check_values
from jmer.errors import UserError
from jmer.experiment import change_fields
from jmer.layers import StackedRNN
from jmer.models import CrossEntropyLoss, DialogueGCN, build_model

C = len(EMOTIONS)


def small(**options):
    sizes = {"d_rnn": 3, "num_bases": 4, "d_h1": 4, "d_h2": 5, "d_hidden": 4, "window_past": 2, "window_future": 1}
    return DialogueGCN(**{"num_classes": C, "dropout_rate": 0.0} | sizes | options)


def window(model, n, i):
    """The utterances in the window of utterance i of n."""
    past = n if model.window_past < 0 else model.window_past
    future = n if model.window_future < 0 else model.window_future
    return range(max(i - past, 0), min(i + future, n - 1) + 1)


def edges(p, model, g):
    """(source, target) -> weight."""
    found = {}
    for i in range(len(g)):
        near = list(window(model, len(g), i))
        if model.edge_attention == "positional":
            query = p["edge_attention"][min(i, model.max_positions - 1)]
        else:
            query = g[i] @ p["edge_attention"]
        for j, share in zip(near, softmax(g[near] @ query), strict=True):
            found[(i, j) if model.edge_weights == "source" else (j, i)] = share
    return found


def graph(p, model, g, speakers):
    """x² of one conversation."""
    relational, count = p["relational"], model.speakers
    activation = (lambda x: np.maximum(x, 0)) if model.graph_activation == "relu" else lambda x: x
    x1 = g @ relational["root"] + relational["bias"]
    linked = edges(p, model, g)
    for (source, target), share in linked.items():
        pair = count * min(speakers[source], count - 1) + min(speakers[target], count - 1)
        r = 2 * pair + int(source >= target)
        if model.num_bases:
            kernel = np.tensordot(relational["coefficients"][r], relational["basis"], 1)
        else:
            kernel = relational["kernels"][r]
        x1[target] += share * (g[source] @ kernel)
    x1 = activation(x1)
    x2 = linear(p["graph_root"], x1)
    for source, target in linked:
        x2[target] += x1[source] @ p["graph_neighbour"]["kernel"]
    return activation(x2)


def nodal(p, model, states):
    if model.nodal_attention == "none":
        return states
    mapped = linear(p["nodal_attention"], states)
    scores = states @ mapped.T if model.nodal_attention == "key" else np.tanh(mapped @ states.T)
    return np.stack([softmax(row) for row in scores]) @ states


def dialoguegcn(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    there, features = conversation.available, conversation.features
    x = np.concatenate([rows_where(there[m], np.float64(features[m])) for m in WIDTHS if m in model.modalities], axis=1)
    if model.input_width:
        x = linear(p["input"], x)
    g = stacked_rnn(p["encoder"], x, model.rnn)
    numbers = {speaker: i for i, speaker in enumerate(dict.fromkeys(conversation.speakers))}
    x2 = graph(p, model, g, [numbers[speaker] for speaker in conversation.speakers])
    states = nodal(p, model, np.concatenate([g, x2], axis=1))
    return linear(p["classifier"], np.maximum(linear(p["hidden"], states), 0))


OPTIONS = [
    {},
    {"edge_attention": "positional", "nodal_attention": "tanh_query", "max_positions": 3},
    {"edge_weights": "target", "num_bases": 0, "graph_activation": "relu"},
    {"edge_weights": "target", "edge_attention": "positional", "nodal_attention": "none", "num_bases": 30},
    {"rnn": "gru", "input_width": 5, "window_past": -1, "modalities": ("visual", "text"), "speakers": 3},
    {"window_future": -1, "window_past": 0, "nodal_attention": "tanh_query", "modalities": ("audio",), "speakers": 1},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_logits_are_those_of_the_equations(options):
    model = small(**options)
    p = draw_parameters(model, batch())
    logits = jax.jit(model.apply)({"params": p}, batch()).logits
    for row, conversation in zip(logits, conversations(), strict=True):
        expected = dialoguegcn(float64(p), model, conversation)
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-5, atol=2e-5)


def graph_of(model, p, context):
    """x², `[B, T, d_h2]`, of a context that is given in place of the recurrent layers' output."""
    seen = []

    def interceptor(call, arguments, options, at):
        if isinstance(at.module, StackedRNN) and at.method_name == "__call__":
            return context
        if at.module.name == "hidden":
            seen.append(arguments[0])
        return call(*arguments, **options)

    with nn.intercept_methods(interceptor):
        model.clone(nodal_attention="none").apply({"params": p}, batch())
    return seen[0][..., context.shape[-1] :]


@functools.cache
def context():
    return np.random.default_rng(0).normal(size=(*batch().mask.shape, 6)).astype(np.float32)


def reached(model, at):
    """Whether a change of G at a position reaches x² at each of the first five, in some conversation."""
    assert batch().mask.sum(1).max() > 5
    p, changed = draw_parameters(model, batch()), context().copy()
    changed[:, at] += 1
    moved = np.abs(graph_of(model, p, changed) - graph_of(model, p, context())).max((0, 2))
    return (moved[:5] > 1e-6).tolist()


@pytest.mark.parametrize(("edge_weights", "windows"), [("source", 3), ("target", 2)])
def test_the_graph_reaches_two_windows_and_one_more_through_the_shares_of_a_source(edge_weights, windows):
    """A source's neighbours share its weight, so that what comes before it moves what its targets receive."""
    model = small(window_past=1, window_future=1, edge_weights=edge_weights)
    assert reached(model, at=0) == [position <= windows for position in range(5)]


@pytest.mark.parametrize(
    ("edge_weights", "expected"),
    [("source", [True, True, True, True, False]), ("target", [True, True, False, False, False])],
)
def test_a_window_counts_from_the_source_unless_the_target_normalizes(edge_weights, expected):
    """Each utterance has the next one in its window, as its target or as its source."""
    assert reached(small(window_past=0, window_future=1, edge_weights=edge_weights), at=1) == expected


def test_the_bias_of_the_keys_cancels_and_that_of_the_queries_does_not():
    for kind, silent in (("key", True), ("tanh_query", False)):
        model = small(nodal_attention=kind)

        def objective(p, model=model):
            _, total, count = CrossEntropyLoss()(model.apply({"params": p}, batch()), batch())["classification"]
            return total / count

        gradient = jax.jit(jax.grad(objective))(draw_parameters(model, batch()))["nodal_attention"]
        assert (np.abs(gradient["bias"]).max() < 1e-6) == silent
        assert np.abs(gradient["kernel"]).max() > 1e-5


def test_speakers_are_told_apart_by_their_relations_alone():
    """Exchanging the numbers of two speakers together with the relations' rows changes nothing."""
    model = small()
    p = draw_parameters(model, batch())
    other = batch().replace(speakers=np.where(batch().mask, 1 - np.clip(batch().speakers, 0, 1), -1))
    rows = [2 * (2 * (1 - source) + 1 - target) + order for source in (0, 1) for target in (0, 1) for order in (0, 1)]
    exchanged = p | {"relational": p["relational"] | {"coefficients": p["relational"]["coefficients"][rows]}}
    same = model.apply({"params": exchanged}, other).logits
    clipped = batch().replace(speakers=np.clip(batch().speakers, -1, 1))
    np.testing.assert_allclose(same, model.apply({"params": p}, clipped).logits, rtol=1e-5, atol=1e-6)
    assert not np.allclose(same, model.apply({"params": p}, other).logits, atol=1e-4)


def test_without_a_modality_it_is_the_model_without_its_rows():
    model = small()
    p = draw_parameters(model, batch())
    lacking = batch().replace(available=batch().available | {"audio": np.zeros_like(batch().mask)})
    rows = np.r_[: WIDTHS["text"], WIDTHS["text"] + WIDTHS["audio"] : sum(WIDTHS.values())]
    encoder = {
        name: x[rows] if name[:7] == "layer_0" and "input_kernel" in name else x for name, x in p["encoder"].items()
    }
    less = small(modalities=("text", "visual")).apply({"params": p | {"encoder": encoder}}, batch())
    np.testing.assert_allclose(model.apply({"params": p}, lacking).logits, less.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scale", "deviation"), [("glorot", 80**-0.5), ("published", 1 / 80)])
def test_the_edges_scores_start_in_the_range_of_glorot_or_of_the_code(key, scale, deviation):
    p = jax.jit(DialogueGCN(C, d_rnn=40, edge_scale=scale).init)(key(), batch())["params"]
    np.testing.assert_allclose(p["edge_attention"].std(), deviation, rtol=0.05)
    assert np.abs(p["relational"]["coefficients"]).max() <= (30 * 80) ** -0.5


ORIGINAL = {"edge_attention": "positional", "nodal_attention": "tanh_query"}
SIZES = {
    "text": [({}, 1_204_646), ({"nodal_attention": "none"}, 1_114_346), (ORIGINAL, 1_186_646)],
    "iemocap": [({}, 2_743_846), ({"nodal_attention": "none"}, 2_653_546), (ORIGINAL, 2_725_846)],
    "meld": [({}, 2_122_967), ({"nodal_attention": "none"}, 2_032_667), (ORIGINAL, 2_104_967)],
}
"""Corpus -> switches and the parameters in use that the public code has with them."""
CORPORA = {
    "text": ({"text": 100}, {"num_classes": 6, "modalities": ("text",)}),
    "iemocap": ({"text": 100, "audio": 1582, "visual": 342}, {"num_classes": 6}),
    "meld": ({"text": 600, "audio": 300, "visual": 342}, {"num_classes": 7, "speakers": 9}),
}


@pytest.mark.parametrize("corpus", SIZES)
def test_the_published_size(corpus):
    widths, corpus_options = CORPORA[corpus]
    wide = batch().replace(
        features={m: np.zeros((*batch().mask.shape, width), np.float32) for m, width in widths.items()}
    )
    for options, expected in SIZES[corpus]:
        variables = jax.eval_shape(DialogueGCN(**corpus_options | options).init, jax.random.key(0), wide)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edge_attention": "dot"}, "unknown edge_attention 'dot'; choose one of bilinear, positional"),
        ({"nodal_attention": "query"}, "unknown nodal_attention 'query'; choose one of key, tanh_query, none"),
        ({"edge_weights": "both"}, "unknown edge_weights 'both'; choose one of source, target"),
        ({"edge_scale": "one"}, "unknown edge_scale 'one'; choose one of glorot, published"),
        ({"graph_activation": "gelu"}, "unknown graph_activation 'gelu'; choose one of none, relu"),
        ({"rnn": "rnn"}, "unknown rnn 'rnn'; choose one of gru, lstm"),
        ({"modalities": ("smell",)}, "modalities must be some of text, audio, visual, each once"),
        ({"window_past": -2}, "window_past must be at least -1, not -2"),
        ({"num_bases": -1}, "num_bases must be at least 0, not -1"),
        ({"speakers": 0}, "speakers must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


def test_a_configuration_may_have_no_neighbours_or_all_of_them():
    fields = {"model.num_bases": "0", "model.window_past": "0", "model.window_future": "-1"}
    check_values(change_fields(base_config("dialoguegcn"), fields))
    too_low = change_fields(
        base_config("dialoguegcn"), {"model.window_past": "-2", "model.num_classes": "4", "model.modalities": "text"}
    )
    with pytest.raises(UserError, match=r"^invalid configuration: window_past must be at least -1, not -2"):
        build_model(too_low)
