"""DialogueCRN against a float64 transcription of its equations, and what holds for its banks and its loss."""

import functools

import jax
import numpy as np
import pytest
from packed import apart, packed
from reference import draw_parameters, float64, gru_cell, linear, normal, rows_where, sigmoid, softmax
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from jmer.config import base_config, check_values
from jmer.data.batching import batches
from jmer.errors import UserError
from jmer.experiment import change_fields
from jmer.layers import CognitiveReasoning
from jmer.modalities import MODALITIES
from jmer.models.classification import ClassifierOutput, FocalMeanLoss
from jmer.models.dialoguecrn import DialogueCRN

C = len(EMOTIONS)


@functools.cache
def conversations():
    """Four conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return tiny_corpus().conversations("train")[:4]


def batch_of(garbage=0.0, **options):
    (batch,) = batches(conversations(), WIDTHS, batch_size=4, **options)
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    return batch.replace(features=features)


def small(**options):
    fields = {"num_classes": C, "modalities": MODALITIES, "d_h": 3, "num_layers": 1, "dropout_rate": 0.0}
    return DialogueCRN(**fields | options)


def lstm_cell(p, name, x, state, cell):
    """PyTorch's gates: input, forget, candidate, output."""
    of_input = x @ p[f"{name}_input_kernel"] + p[f"{name}_input_bias"]
    i, f, g, o = np.split(of_input + state @ p[f"{name}_state_kernel"] + p[f"{name}_state_bias"], 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def recurrent(p, x, model):
    """x `[n, D]` -> `[n, 2 d_h]`, layer after layer, one direction after the other."""
    for layer in range(model.num_layers):
        outputs = []
        for direction, order in (("forward", 1), ("backward", -1)):
            name, states = f"layer_{layer}_{direction}", []
            state = cell = np.zeros(model.d_h)
            for row in x[::order]:
                if model.cell == "lstm":
                    state, cell = lstm_cell(p, name, row, state, cell)
                else:
                    state = gru_cell(p, name, row, state)
                states.append(state)
            outputs.append(np.stack(states[::order]))
        x = np.concatenate(outputs, axis=1)
    return x


def reason(p, query, bank, steps):
    """The answer for one utterance."""
    state = cell = np.zeros(bank.shape[1])
    for _ in range(steps):
        state, cell = lstm_cell(p, "lstm", query, state, cell)
        query = np.concatenate([state, softmax(bank @ state) @ bank])
    return query


def dialoguecrn(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    there, features = conversation.available, conversation.features
    x = [rows_where(there[m], np.float64(features[m])) for m in MODALITIES if m in model.modalities]
    x = np.concatenate(x, axis=1)
    situation = recurrent(p["situation"], x, model)
    speaker = np.zeros_like(situation)
    speakers = np.array(conversation.speakers)
    for party in set(conversation.speakers):
        own = speakers == party
        speaker[own] = recurrent(p["speaker"], x[own], model)
    answers = []
    for bank, name, steps in (
        (speaker, "speaker_reasoning", model.speaker_steps),
        (situation, "situation_reasoning", model.situation_steps),
    ):
        answers.append(np.stack([reason(p.get(name), linear(p["query"], row), bank, steps) for row in bank]))
    return linear(p["classifier"], np.maximum(np.concatenate(answers, axis=1), 0))


OPTIONS = [
    {"num_layers": 2, "situation_steps": 2, "speaker_steps": 3},
    {"modalities": ("visual", "text"), "situation_steps": 0, "speaker_steps": 1, "cell": "gru"},
    {"situation_steps": 0, "speaker_steps": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["both", "speaker", "none"])
def test_the_network_matches_the_equations(options):
    """Padded and packed, with garbage where nothing is."""
    model, batch = small(**options), batch_of(garbage=7.0)
    p = draw_parameters(model, batch)
    together = packed(batch_of(), ((1, 2, 3), (0,)), length=20)
    for one, laid in ((batch, lambda x: x), (together, lambda x: apart(x, together, batch))):
        logits = laid(jax.jit(model.apply)({"params": p}, one).logits)
        for b, conversation in enumerate(conversations()):
            expected = dialoguecrn(float64(p), model, conversation)
            np.testing.assert_allclose(logits[b, : len(expected)], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.5])
def test_the_loss_is_not_divided_by_weights_and_its_factor_has_no_gradient(gamma):
    batch, weights = batch_of(), (0.5, 2.0, 1.0, 3.0)
    logits = normal(1, *batch.mask.shape, C)
    step = jax.value_and_grad(
        lambda logits: FocalMeanLoss(gamma, class_weights=weights)(ClassifierOutput(logits), batch)["classification"][1]
    )
    value, gradient = jax.jit(step)(logits)
    weight, _, count = jax.jit(FocalMeanLoss(gamma, class_weights=weights))(ClassifierOutput(logits), batch)[
        "classification"
    ]
    total, wanted = 0.0, np.zeros(logits.shape)
    labelled = np.argwhere(batch.labels >= 0)
    for b, t in labelled:
        label, p = batch.labels[b, t], softmax(np.float64(logits[b, t]))
        factor = weights[label] * (1 - p[label]) ** gamma
        total -= factor * np.log(p[label])
        wanted[b, t] = factor * (p - np.eye(C)[label])
    assert weight == 1 and count == len(labelled) < batch.mask.sum()
    np.testing.assert_allclose(value, total, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_the_speakers_network_hears_its_speaker_alone():
    """Another one's utterance reaches an utterance through the situation, and through reasoning, only."""
    batch = batch_of()
    speakers = np.where(batch.mask, np.arange(batch.mask.shape[1]) % 3, -1).astype(np.int32)
    batch = batch.replace(speakers=speakers, available=dict.fromkeys(WIDTHS, batch.mask))
    other = batch.replace(features={m: x + (speakers == 1)[..., None] for m, x in batch.features.items()})
    model = small(situation_steps=0, speaker_steps=0)
    p = draw_parameters(model, batch)
    kernel = p["classifier"]["kernel"].copy()
    kernel[12:] = 0
    p["classifier"]["kernel"] = kernel
    one, two = (jax.jit(model.apply)({"params": p}, each).logits for each in (batch, other))
    np.testing.assert_array_equal(one[(speakers != 1) & batch.mask], two[(speakers != 1) & batch.mask])
    assert (np.abs(one - two).max(-1)[speakers == 1] > 1e-6).all()


def test_speakers_may_have_any_numbers():
    batch, model = batch_of(), small(speaker_steps=1)
    p = draw_parameters(model, batch)
    renamed = batch.replace(speakers=np.where(batch.mask, 5 - batch.speakers, -1))
    one, two = (jax.jit(model.apply)({"params": p}, each).logits for each in (batch, renamed))
    np.testing.assert_allclose(one[batch.mask], two[batch.mask], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_falls_between_layers_and_before_the_classifier(layers, key):
    """What it leaves of the classifier's input is twice what it is without dropout, unless layers have some between."""
    model, batch = small(num_layers=layers, situation_steps=1, dropout_rate=0.5), batch_of()
    p = draw_parameters(model, batch)

    def before_classifier(train):
        options = {"capture_intermediates": True, "mutable": "intermediates"}
        apply = functools.partial(model.apply, train=train, **options)
        _, seen = jax.jit(apply)({"params": p}, batch, rngs={"dropout": key()})
        return np.asarray(seen["intermediates"]["ConversationDropout_0"]["__call__"][0])[batch.mask]

    dropped, kept = before_classifier(True), before_classifier(False)
    assert 0.5 < (dropped == 0).mean() < 1 and dropped.shape[-1] == 24
    there = dropped > 0
    assert np.allclose(dropped[there], 2 * kept[there], rtol=1e-5) == (layers == 1)


def test_no_steps_leave_the_query_as_it_is():
    query, bank = normal(0, 2, 3, 8), normal(1, 2, 3, 4)
    answer, variables = CognitiveReasoning(0).init_with_output(jax.random.key(0), query, bank, np.ones((2, 3), bool))
    assert variables == {}
    np.testing.assert_array_equal(answer, query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps: expected at least 0, got -1"),
        ({"width": 7}, r"query: expected float \[2, 3, 8\], got float32 \[2, 3, 7\]"),
    ],
)
def test_reasoning_that_cannot_be_is_refused(options, message):
    layer = CognitiveReasoning(options.get("steps", 1))
    with pytest.raises(ValueError, match=message):
        layer.init(
            jax.random.key(0), normal(0, 2, 3, options.get("width", 8)), normal(1, 2, 3, 4), np.ones((2, 3), bool)
        )


def test_the_published_size():
    """4.08 million parameters on IEMOCAP, 3.29 million on MELD with RoBERTa; 1.85 and 1.69 million with GloVe."""
    for width, options, expected in (
        (1024, {"num_classes": 6}, 4.08),
        (1024, {"num_classes": 7, "num_layers": 1, "situation_steps": 0, "speaker_steps": 1}, 3.29),
        (100, {"num_classes": 6, "d_h": 100, "speaker_steps": 4}, 1.85),
        (600, {"num_classes": 7, "d_h": 100, "num_layers": 1, "situation_steps": 2}, 1.69),
    ):
        batch = batch_of().replace(features={"text": np.zeros((*batch_of().mask.shape, width), np.float32)})
        shapes = jax.eval_shape(DialogueCRN(**options).init, jax.random.key(0), batch)
        assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 2) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"cell": "rnn"}, "unknown cell 'rnn'; choose one of gru, lstm"),
        ({"situation_steps": -1}, "situation_steps must be at least 0, not -1"),
        ({"speaker_steps": -2}, "speaker_steps must be at least 0, not -2"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


def test_a_bank_may_be_read_without_reasoning_but_not_less_than_that():
    config = base_config("dialoguecrn")
    check_values(change_fields(config, {"model.situation_steps": "0"}))
    with pytest.raises(UserError, match=r"^model\.d_h is 0: give at least 1$"):
        check_values(change_fields(config, {"model.d_h": "0"}))


def test_losses_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"focal_gamma"):
        FocalMeanLoss(focal_gamma=-1.0)
    batch = batch_of()
    with pytest.raises(ValueError, match="there are 2 class_weights for 4 emotions"):
        FocalMeanLoss(class_weights=(1.0, 2.0))(ClassifierOutput(np.zeros((*batch.mask.shape, C))), batch)
