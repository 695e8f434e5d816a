"""The concat MLP against a float64 transcription of its equations, and what it must not look at."""

import functools

import jax
import numpy as np
import pytest
from hard_conversations import batch, conversations
from reference import draw_parameters, float64, linear, rows_where
from tiny import EMOTIONS, defaults

from jmer.modalities import MODALITIES
from jmer.models import ConcatMLP, CrossEntropyLoss, Model
from jmer.models.concat_mlp import SPEC

C = len(EMOTIONS)


def small(**options):
    return ConcatMLP(**{"num_classes": C, "d_h": 5, "d_f": 3, "dropout_rate": 0.0} | options)


def perceptron(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    there, features = conversation.available, conversation.features
    hidden = [
        np.maximum(linear(p[f"input_{m}"], rows_where(there[m], np.float64(features[m]))), 0)
        for m in ("text", "audio", "visual")
        if m in model.modalities
    ]
    return linear(p["classifier"], np.maximum(linear(p["hidden"], np.concatenate(hidden, axis=1)), 0))


@pytest.mark.parametrize("modalities", [MODALITIES, ("visual", "text"), ("audio",)], ids="+".join)
def test_the_logits_are_those_of_the_equations(modalities):
    model = small(modalities=modalities)
    p = draw_parameters(model, batch())
    logits = model.apply({"params": p}, batch()).logits
    for row, conversation in zip(logits, conversations(), strict=True):
        expected = perceptron(float64(p), model, conversation)
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-5, atol=1e-5)


def test_an_utterance_is_predicted_by_itself():
    """Not by its place, its neighbours or its speaker."""
    model, rows = small(), batch()
    variables = {"params": draw_parameters(model, rows)}
    order = np.random.default_rng(0).permutation(rows.mask.shape[1])
    moved = jax.tree.map(lambda x: x[:, order], rows.replace(conversation_ids=None, segment_ids=None))
    moved = moved.replace(speakers=np.zeros_like(moved.speakers))
    logits = model.apply(variables, rows).logits
    np.testing.assert_allclose(model.apply(variables, moved).logits, logits[:, order], rtol=1e-6, atol=1e-6)


def test_dropout_falls_after_both_layers(key):
    model = small(dropout_rate=0.5)
    apply = functools.partial(model.apply, train=True, capture_intermediates=True, mutable="intermediates")
    _, seen = apply({"params": draw_parameters(model, batch())}, batch(), rngs={"dropout": key()})
    layers = {name: calls["__call__"] for name, calls in seen["intermediates"].items() if "__call__" in calls}
    before = np.concatenate([layers[f"input_{m}"][0] for m in MODALITIES], axis=-1), layers["hidden"][0]
    for x, dropped in zip(before, layers["dropout"], strict=True):
        kept = np.maximum(x, 0) / 0.5
        assert ((dropped == 0) | np.isclose(dropped, kept)).all()
        assert 0.3 < (np.asarray(dropped) == 0)[kept > 0].mean() < 0.7


def test_it_is_built_from_its_sections():
    sections = defaults("concat_mlp")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, ConcatMLP(C), CrossEntropyLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"d_f": 0}, "d_f must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()
