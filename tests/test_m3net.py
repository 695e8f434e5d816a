"""M3NET against a float64 transcription of its equations, and what holds of it alone."""

import jax
import numpy as np
import pytest
from hard_conversations import batch, conversations
from reference import draw_parameters, float64, gru_cell, linear, rows_where
from tiny import EMOTIONS, WIDTHS, defaults

from jmer.modalities import MODALITIES
from jmer.models import M3NET, Model
from jmer.models.classification import FocalClassificationLoss
from jmer.models.m3net import SPEC

C = len(EMOTIONS)
STATISTICS = {"text_norm": {"mean": np.linspace(-0.5, 0.5, 6), "var": np.linspace(0.5, 2, 6)}}


def small(**options):
    layers = {"rnn_layers": 1, "hyperedge_layers": 2, "gate_layers": 2}
    return M3NET(**{"num_classes": C, "d_g": 8, "d_q": 5, "speakers": 2, "dropout_rate": 0.0, **layers} | options)


def variables_of(model, seed=0):
    statistics = jax.tree.map(np.float32, STATISTICS) if "text" in model.modalities else {}
    return {"params": draw_parameters(model, batch(), seed=seed), "batch_stats": statistics}


def bigru_layer(p, layer, x):
    """x [n, D] -> [n, both directions]."""
    outputs = []
    for direction, order in (("forward", 1), ("backward", -1)):
        name, states = f"layer_{layer}_{direction}", []
        h = np.zeros(p[f"{name}_state_kernel"].shape[0])
        for row in x[::order]:
            h = gru_cell(p, name, row, h)
            states.append(h)
        outputs.append(np.stack(states[::order]))
    return np.concatenate(outputs, axis=1)


def encoded(p, model, modality, conversation):
    """Utterances of a modality, `[n, d_g]`."""
    there = conversation.available[modality]
    x = rows_where(there, np.float64(conversation.features[modality]))
    if modality != "text":
        return linear(p[f"input_{modality}"], x)
    norm = STATISTICS["text_norm"]
    x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * p["text_norm"]["scale"] + p["text_norm"]["bias"]
    x = rows_where(there, x)
    if "input_text" in p:
        x = linear(p["input_text"], x)
    for layer in range(model.rnn_layers):
        x = bigru_layer(p["gru"], layer, x)
    if model.speaker_embedding:
        first_seen, last = list(dict.fromkeys(conversation.speakers)), model.speakers - 1
        x = x + np.stack([p["speakers"]["embedding"][min(first_seen.index(s), last)] for s in conversation.speakers])
    return x


def m3net(p, model, conversation):
    """The logits of one conversation, `[n, C]`, node by node and hyperedge by hyperedge."""
    names = [m for m in ("text", "audio", "visual") if m in model.modalities]
    start = {m: linear(p["node"], encoded(p, model, m, conversation)) for m in names}
    n, branches = len(conversation), []
    nodes = [(m, t) for m in names for t in range(n)]
    if model.use_hyperedges:
        y = {(m, t): start[m][t] for m, t in nodes}
        # Hyperedge -> its weight and its nodes.
        w, gamma = np.ones(len(names) + 1), dict.fromkeys(names, 1.0)
        if model.hyperedge_weights == "learned_by_kind":
            w = np.exp(p["log_hyperedge_weights"])
            gamma = dict(zip(names, np.exp(p["log_node_weights"]), strict=True))
        edges = [(w[i + 1], [(m, t) for t in range(n)]) for i, m in enumerate(names)]
        edges += [(w[0], [(m, t) for m in names]) for t in range(n)]
        for layer in range(model.hyperedge_layers):
            means = [sum(gamma[m] * y[m, t] for m, t in e) / sum(gamma[m] for m, _ in e) for _, e in edges]
            new = {}
            for node in nodes:
                joined = [(weight, mean) for (weight, e), mean in zip(edges, means, strict=True) if node in e]
                assert len(joined) == 2
                x = sum(weight * mean for weight, mean in joined) / sum(weight for weight, _ in joined)
                x = x + p[f"hyperedge_layer_{layer}"]["bias"]
                new[node] = np.where(x > 0, x, 0.01 * x)
            y = new
        branches.append(y)
    if model.use_gates:
        z = {(m, t): start[m][t] for m, t in nodes}
        for layer in range(model.gate_layers):
            q, new = p[f"gate_layer_{layer}"], {}
            for m, t in nodes:
                neighbours = [(o, s) for o, s in nodes if (o == m) != (s == t)]
                assert len(neighbours) == n + len(names) - 2
                total = 0
                for neighbour in neighbours:
                    gate = np.tanh(z[m, t] @ q["target_kernel"] + z[neighbour] @ q["source_kernel"] + q["bias"])
                    total = total + gate * z[neighbour]
                new[m, t] = z[m, t] + total / max(len(neighbours), 1)
            z = new
        branches.append(z)
    together = [np.concatenate([branch[m, t] for m in names for branch in branches]) for t in range(n)]
    return linear(p["classifier"], np.maximum(together, 0))


OPTIONS = [
    {"hyperedge_weights": "learned_by_kind"},
    {"modalities": ("audio", "text"), "d_g": 6, "gate_layers": 1, "rnn_layers": 2},
    {"modalities": ("visual",), "hyperedge_weights": "learned_by_kind"},
    {"use_gates": False, "speaker_embedding": False, "modalities": ("text",)},
    {"use_hyperedges": False, "modalities": ("visual", "audio"), "gate_layers": 3},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_the_logits_are_those_of_the_equations(options):
    model = small(**options)
    variables = variables_of(model)
    logits = jax.jit(model.apply)(variables, batch()).logits
    p = float64(variables["params"])
    assert ("input_text" in p) == ("text" in model.modalities and model.d_g != WIDTHS["text"])
    for row, conversation in zip(logits, conversations(), strict=True):
        expected = m3net(p, model, conversation)
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-4, atol=2e-5)


def test_learned_weights_start_where_the_fixed_ones_are():
    model = small(modalities=("audio",), hyperedge_weights="learned_by_kind")
    params = jax.jit(model.init)(jax.random.key(0), batch())["params"]
    np.testing.assert_array_equal(np.exp(params["log_hyperedge_weights"]), np.ones(2))
    np.testing.assert_array_equal(np.exp(params["log_node_weights"]), np.ones(1))


def test_a_further_speaker_counts_as_the_last():
    model, rows = small(), batch()
    variables = variables_of(model)
    more = rows.replace(speakers=np.where(rows.speakers == 1, 5, rows.speakers))
    assert (more.speakers == 5).any()
    apply = jax.jit(model.apply)
    np.testing.assert_array_equal(apply(variables, more).logits, apply(variables, rows).logits)


def test_it_is_built_from_its_sections():
    sections = defaults("m3net")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, M3NET(C), FocalClassificationLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_g": 7}, "d_g must be even, as two directions share it, not 7"),
        ({"d_q": 0}, "d_q must be at least 1, not 0"),
        ({"gate_layers": 0}, "gate_layers must be at least 1, not 0"),
        (
            {"hyperedge_weights": "by_place"},
            "unknown hyperedge_weights 'by_place'; choose one of fixed, learned_by_kind",
        ),
        ({"use_hyperedges": False, "use_gates": False}, "nothing is left: set one to True"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()
