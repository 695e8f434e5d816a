"""MultiEMO against a float64 transcription of its equations, and what holds of it alone."""

import functools

import jax
import numpy as np
import pytest
from dialogue_reference import emotions
from hard_conversations import batch, conversations
from reference import attention, draw_parameters, float64, layer_norm, linear, one_of, rows_where
from tiny import EMOTIONS, WIDTHS, defaults

from jmer.losses import cross_entropy, focal_contrastive, soft_hgr
from jmer.modalities import MODALITIES
from jmer.models import Model, MultiEMO, MultiEMOLoss
from jmer.models.multiemo import SPEC

C = len(EMOTIONS)


def small(**options):
    sizes = {"d": 4, "num_layers": 1, "num_heads": 2, "d_ff": 5, "d_h": 3}
    return MultiEMO(**{"num_classes": C, **sizes} | options)


def multi_head(p, heads, z, y):
    parts = (np.split(linear(p[name], x), heads, axis=1) for name, x in (("query", z), ("key", y), ("value", y)))
    everything = np.ones((len(z), len(y)), bool)
    read = [attention(*head, everything)[0] for head in zip(*parts, strict=True)]
    return linear(p["output"], np.concatenate(read, axis=1))


def multiemo(p, model, conversation):
    """The logits of one conversation, `[n, C]`, and its fused vectors."""
    names = [m for m in ("text", "audio", "visual") if m in model.modalities]
    speakers = [list(dict.fromkeys(conversation.speakers)).index(s) for s in conversation.speakers]
    context = {}
    for m in names:
        x = rows_where(conversation.available[m], np.float64(conversation.features[m]))
        x = context[m] = linear(p[f"input_{m}"], x)
        if m == "text" and not model.text_context:
            continue
        read = functools.partial(emotions, p["recurrences"], kind="simple")
        context[m] = read(f"{m}_forward", x, speakers)
        if model.bidirectional:
            back = read(f"{m}_backward", x[::-1], speakers[::-1])[::-1]
            context[m] = linear(p[f"context_{m}"], np.concatenate([context[m], back], axis=1))
        context[m] = np.maximum(context[m], 0)
    last = []
    for i, m in enumerate(names):
        z, others = context[m], [y for other, y in context.items() if other != m]
        for layer in range(model.num_layers):
            part = one_of(p[f"cross_{layer}"], i)
            for k, y in enumerate(others):
                attend = part[f"attention_{k}"]
                z = layer_norm(attend["norm"], z + multi_head(attend["attention"], model.num_heads, z, y))
            forward = part["feed_forward"]
            hidden = np.maximum(linear(forward["inner"], z), 0)
            z = layer_norm(forward["norm"], z + linear(forward["outer"], hidden))
        last.append(z)
    fused = linear(p["fusion"], np.concatenate(last, axis=1))
    return linear(p["classifier"], np.maximum(linear(p["hidden"], fused), 0)), fused


OPTIONS = [
    {"num_layers": 2},
    {"bidirectional": False, "text_context": False, "initialization": "lecun_normal"},
    {"modalities": ("audio",)},
    {"modalities": ("text",), "text_context": False},
    {"modalities": ("visual", "text")},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options))
def test_forward_pass_matches_the_equations(options):
    model = small(**options)
    p = draw_parameters(model, batch())
    output = jax.jit(model.apply)({"params": p}, batch())
    for b, conversation in enumerate(conversations()):
        expected, fused = multiemo(float64(p), model, conversation)
        np.testing.assert_allclose(output.logits[b, : len(expected)], expected, rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(output.fused[b, : len(expected)], fused, rtol=1e-5, atol=2e-5)


@functools.cache
def output():
    model = small()
    return jax.jit(model.apply)({"params": draw_parameters(model, batch())}, batch())


@pytest.mark.parametrize("covariance", ["published", "features"])
def test_the_loss_has_three_terms(covariance):
    weights = (1.0, 2.0, 4.0, 5.0)
    terms = MultiEMOLoss(soft_hgr=covariance, class_weights=weights, alpha=2.0)(output(), batch())
    labelled = batch().mask & (batch().labels >= 0)
    rows = {m: x.reshape(-1, 4) for m, x in output().features.items()}
    kind = {"published": "utterances"}.get(covariance, covariance)
    expected = soft_hgr(rows, where=batch().mask.reshape(-1), covariance=kind).sum()
    weight, total, count = terms.pop("correlation")
    np.testing.assert_allclose((weight, total, count), (0.4, expected, batch().mask.sum()), rtol=1e-5)
    expected = focal_contrastive(
        output().fused.reshape(-1, 4),
        np.where(labelled, batch().labels, -1).reshape(-1),
        class_weights=np.float32([1, 4, 16, 25]) / 46,
        gamma=2.4,
        temperature=0.8,
    ).sum()
    weight, total, count = terms.pop("contrast")
    np.testing.assert_allclose((weight, total, count), (0.4, expected, labelled.sum()), rtol=1e-5)
    expected = cross_entropy(output().logits, batch().labels, where=labelled).sum()
    weight, total, count = terms.pop("classification")
    np.testing.assert_allclose((weight, total, count), (0.2, expected, labelled.sum()), rtol=1e-5)
    assert not terms


def test_terms_that_weigh_nothing_are_left_out():
    assert set(MultiEMOLoss(lambda_contrast=0.0)(output(), batch())) == {"correlation", "classification"}
    alone = output().replace(features={"text": output().features["text"]})
    assert set(MultiEMOLoss(lambda_classification=0)(alone, batch())) == {"contrast"}


def test_dropout_falls_in_training_alone():
    model = small(dropout_rate=0.3, recurrent_dropout_rate=0.3)
    p = draw_parameters(model, batch())
    trained = jax.jit(functools.partial(model.apply, train=True))
    one, other = (trained({"params": p}, batch(), rngs={"dropout": jax.random.key(i)}).logits for i in (0, 1))
    assert np.abs(one - other)[batch().mask].max() > 1e-3


def test_parameters_are_as_many_as_in_the_published_code():
    widths, mask = {"text": 768, "audio": 512, "visual": 1000}, np.ones((1, 2), bool)
    some = batch().replace(
        features={m: np.zeros((1, 2, width), np.float32) for m, width in widths.items()},
        mask=mask,
        speakers=np.zeros((1, 2), np.int32),
        available=dict.fromkeys(widths, mask),
        conversation_ids=None,
        segment_ids=None,
    )
    shapes = jax.eval_shape(MultiEMO(6).init, jax.random.key(0), some)["params"]
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 1) == 29.7
    meld = MultiEMO(7, bidirectional=False, text_context=False, num_layers=2, d_h=512)
    shapes = jax.eval_shape(meld.init, jax.random.key(0), some)["params"]
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 1) == 10.4


# What cannot be.


def test_created_from_its_default_sections():
    sections = defaults("multiemo")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, MultiEMO(C), MultiEMOLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "modalities must be some of text, audio, visual, each once"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
        ({"num_heads": 3}, "num_heads must divide d, but 3 does not divide 4"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"d_ff": 0}, "d_ff must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"recurrent_dropout_rate": -1.0}, "recurrent_dropout_rate must be at least 0 and below 1, not -1.0"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft_hgr": "samples"}, "unknown soft_hgr 'samples'; choose one of published, features"),
        ({"tau": 0.0}, "tau must be above 0, not 0.0"),
        ({"focal_gamma": -1.0}, "focal_gamma must be at least 0, not -1.0"),
    ],
)
def test_losses_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiEMOLoss(**options)


def test_class_weights_are_one_for_each_emotion():
    with pytest.raises(ValueError, match="there are 3 class_weights for 4 emotions"):
        MultiEMOLoss(class_weights=(1.0, 2.0, 3.0))(output(), batch())


def test_frames_are_refused():
    framed = batch().replace(frames={m: np.ones((*batch().mask.shape, 3), bool) for m in WIDTHS})
    with pytest.raises(ValueError, match="MultiEMO reads one vector per utterance, not frames"):
        small().init(jax.random.key(0), framed)
