"""MMGCN and MM-DFN in float64 NumPy, one conversation at a time: a dense matrix of all nodes' edges, nothing padded.

A node is a pair of modality and utterance. Parameters have the names that the Flax modules give them.
"""

import functools

import jax
import numpy as np
from reference import draw_parameters, float64, gru_cell, linear, rows_where, sigmoid
from tiny import WIDTHS, tiny_corpus

from jmer.data.batching import batches

ORDER = ("text", "audio", "visual")
KAPPA = 0.99999


def lstm_cell(p, name, x, state):
    """PyTorch's gates: input, forget, candidate, output; returns output and cell."""
    h, c = state
    together = x @ p[f"{name}_input_kernel"] + p[f"{name}_input_bias"] + h @ p[f"{name}_state_kernel"]
    i, f, g, o = np.split(together + p[f"{name}_state_bias"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def context(p, x, cell):
    """Two bidirectional layers over `x` `[n, D]`."""
    if not len(x):
        return np.zeros((0, 2 * len(p["layer_0_forward_state_kernel"])))
    for layer in range(2):
        outputs = []
        for direction, order in (("forward", 1), ("backward", -1)):
            name = f"layer_{layer}_{direction}"
            zero = np.zeros(len(p[f"{name}_state_kernel"]))
            state, states = (zero, zero), []
            for row in x[::order]:
                state = lstm_cell(p, name, row, state) if cell == "lstm" else (gru_cell(p, name, row, state[0]), zero)
                states.append(state[0])
            outputs.append(np.stack(states[::order]))
        x = np.concatenate(outputs, axis=1)
    return x


def context_where(p, x, chosen, cell):
    """The network over the chosen rows alone, zero elsewhere."""
    out = np.zeros((len(x), 2 * len(p["layer_0_forward_state_kernel"])))
    out[chosen] = context(p, x[chosen], cell)
    return out


def weight(u, v):
    return 1 - np.arccos(KAPPA * (u @ v) / np.linalg.norm(u) / np.linalg.norm(v)) / np.pi


def weights_of(nodes, cross_weight=1.0):
    """Every edge of `{(modality, utterance): vector}`, a dense matrix in the order of its keys."""
    result = np.zeros((len(nodes), len(nodes)))
    for a, ((m, i), u) in enumerate(nodes.items()):
        for b, ((other, j), v) in enumerate(nodes.items()):
            if a == b:
                result[a, b] = 1 - np.arccos(KAPPA) / np.pi
            elif m == other or i == j:
                result[a, b] = weight(u, v) * (1.0 if m == other else cross_weight)
    return result


def normalized(weights):
    degrees = weights.sum(1)
    return weights / np.sqrt(degrees[:, None] * degrees)


def layers(p, h0, edges, *, alpha, lamda, recurrence):
    """The graph's layers on nodes `[N, G]`, with their weights `p["kernels"]` `[L, 2G, G]`."""
    x, state = h0, (np.zeros_like(h0), np.zeros_like(h0))
    for depth, kernel in enumerate(p["kernels"], start=1):
        source = x
        if recurrence == "lstm":
            state = lstm_cell(p, "lstm", x, state)
            source = state[0]
        around, theta = edges @ source, np.log(lamda / depth + 1)
        mapped = np.concatenate([around, h0], axis=1) @ kernel
        y = np.maximum(theta * mapped + (1 - theta) * ((1 - alpha) * around + alpha * h0), 0)
        x = x + y if recurrence == "lstm" else y
    return x


def classify(p, model, encoded, there, recurrence):
    """Logits `[n, C]` of encodings `{modality: [n, D]}` where `there` `{modality: bool [n]}`."""
    count = len(next(iter(there.values())))
    nodes = {(m, i): encoded[m][i] for m in encoded for i in range(count) if there[m][i]}
    states = {m: np.zeros((count, model.d_graph)) for m in encoded}
    if nodes:
        h0 = np.maximum(linear(p["graph_input"], np.stack(list(nodes.values()))), 0)
        edges = normalized(weights_of(nodes, model.cross_weight))
        out = layers(p["graph"], h0, edges, alpha=model.alpha, lamda=model.lamda, recurrence=recurrence)
        for (m, i), row in zip(nodes, out, strict=True):
            states[m][i] = row
    joined = [np.concatenate([rows_where(there[m], encoded[m]), states[m]], axis=1) for m in encoded]
    return linear(p["classifier"], np.maximum(np.concatenate(joined, axis=1), 0))


def mapped_inputs(p, model, conversation):
    """Each modality's linear map, and where it is there."""
    names = [m for m in ORDER if m in model.modalities]
    there = {m: np.asarray(conversation.available[m]) for m in names}
    x = {m: linear(p[f"input_{m}"], rows_where(there[m], np.float64(conversation.features[m]))) for m in names}
    return x, there


def mmgcn(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    encoded, there = mapped_inputs(p, model, conversation)
    for i, m in enumerate(encoded):
        if m == "text" or model.audio_visual_rnn:
            encoded[m] = context_where(p[f"context_{m}"], encoded[m], there[m], "lstm")
        if model.speaker_on == "all" or (model.speaker_on == "text" and (m == "text" or "text" not in encoded)):
            table = p["speaker_embedding"]["embedding"]
            by_appearance = list(dict.fromkeys(conversation.speakers))
            numbers = [min(by_appearance.index(s), len(table) - 1) for s in conversation.speakers]
            encoded[m] = encoded[m] + table[numbers]
        if model.modality_embedding:
            encoded[m] = encoded[m] + p["modality_embedding"][i]
    return classify(p["fusion"], model, encoded, there, "none")


def mmdfn(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    mapped, there = mapped_inputs(p, model, conversation)
    encoded = dict(mapped)
    if "text" in encoded:
        encoded["text"] = context_where(p["context_text"], mapped["text"], there["text"], "gru")
    for m, party_weight in zip(ORDER, model.party_weights, strict=True):
        if m in encoded and party_weight:
            for party in set(conversation.speakers):
                own = there[m] & (np.asarray(conversation.speakers) == party)
                encoded[m] = encoded[m] + party_weight * context_where(p["party"], mapped[m], own, "gru")
    return classify(p["fusion"], model, encoded, there, model.recurrence)


# Conversations, and how the models are compared with the above.


@functools.cache
def conversations():
    """Four conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return tiny_corpus().conversations("train")[:4]


@functools.cache
def batch():
    """The conversations, with garbage where a feature is unavailable."""
    (padded,) = batches(conversations(), WIDTHS, batch_size=4)
    features = {m: np.where(padded.available[m][..., None], x, np.float32(7)) for m, x in padded.features.items()}
    return padded.replace(features=features)


def logits_of(model, p, rows):
    return jax.jit(model.apply)({"params": p}, rows).logits


def check_forward(model, reference):
    """Compares a network with `reference(p, model, conversation)`."""
    p = draw_parameters(model, batch())
    logits = logits_of(model, p, batch())
    for row, conversation in zip(logits, conversations(), strict=True):
        expected = reference(float64(p), model, conversation)
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-5, atol=2e-5)


def check_loss_and_gradient(model, loss, objective):
    """In float64; the gradient of every parameter along a random direction, against differences.

    Args:
      model, loss: jmer's.
      objective: (parameters, those at which the gradient is taken) -> the loss.
    """
    p = float64(draw_parameters(model, batch(), spread=0.3))

    def mean_loss(p):
        _, total, count = loss(model.apply({"params": p}, batch()), batch())["classification"]
        return total / count

    with jax.enable_x64(True):
        value, gradients = jax.device_get(jax.jit(jax.value_and_grad(mean_loss))(p))
    np.testing.assert_allclose(value, objective(p, p), rtol=1e-7)
    leaves, structure = jax.tree.flatten(p)
    rng, length = np.random.default_rng(1), 1e-5
    for i, (leaf, gradient) in enumerate(zip(leaves, jax.tree.leaves(gradients), strict=True)):
        direction = rng.normal(size=leaf.shape)
        ahead, behind = (
            objective(structure.unflatten([*leaves[:i], leaf + sign * length * direction, *leaves[i + 1 :]]), p)
            for sign in (1, -1)
        )
        np.testing.assert_allclose((gradient * direction).sum(), (ahead - behind) / (2 * length), rtol=1e-4, atol=1e-7)
