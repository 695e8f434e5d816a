"""MMGCN against a float64 transcription of its equations, with each of its switches, and what is special to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_reference import batch, check_forward, check_loss_and_gradient, conversations, logits_of, mmgcn
from reference import draw_parameters, softmax
from tiny import EMOTIONS, defaults

from jmer.modalities import MODALITIES
from jmer.models import MMGCN, FocalClassificationLoss, Model
from jmer.models.mmgcn import SPEC

C = len(EMOTIONS)
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def small(**options):
    sizes = {"num_classes": C, "d_rnn": 3, "d_graph": 4, "graph_layers": 2, "dropout_rate": 0.0}
    return MMGCN(**sizes | options)


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.3, "lamda": 1.5, "graph_layers": 3, "cross_weight": 0.4, "speaker_on": "all"},
        {"speaker_on": "none", "audio_visual_rnn": True, "modality_embedding": True},
        {"modalities": ("visual", "audio"), "initialization": "lecun_normal"},
        {"modalities": ("text",), "speakers": 1},
    ],
    ids=named,
)
def test_the_logits_are_those_of_the_equations(options):
    check_forward(small(**options), mmgcn)


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [("audio",), ("visual",), ("text", "audio"), ("text", "visual")], ids="+".join)
@pytest.mark.parametrize("speaker_on", ["text", "all", "none"])
@pytest.mark.parametrize("audio_visual_rnn", [False, True])
def test_the_logits_are_those_of_the_equations_for_every_subset(modalities, speaker_on, audio_visual_rnn):
    model = small(modalities=modalities, speaker_on=speaker_on, audio_visual_rnn=audio_visual_rnn)
    check_forward(model, mmgcn)


def reference_loss(p, model, loss):
    """The mean over labelled utterances, of which each counts as much as its emotion's weight."""
    total = count = 0.0
    for conversation in conversations():
        for row, label in zip(mmgcn(p, model, conversation), conversation.labels, strict=True):
            if label < 0:
                continue
            log_p, gamma = np.log(softmax(row)), loss.focal_gamma
            wrong = log_p.sum() - log_p[label]
            value = {
                "cross_entropy": -log_p[label],
                "focal": -((1 - np.exp(log_p[label])) ** gamma) * log_p[label],
                "published_focal": -((1 - log_p[label]) ** gamma * log_p[label] + wrong) / C,
            }[loss.criterion]
            weight = loss.class_weights[label] if loss.class_weights else 1.0
            total, count = total + weight * value, count + weight
    return total / count


@pytest.mark.parametrize(
    "loss",
    [
        FocalClassificationLoss(),
        *(FocalClassificationLoss(kind, 1.5, WEIGHTS) for kind in ("focal", "published_focal")),
    ],
    ids=lambda loss: loss.criterion,
)
def test_loss_and_gradient_are_those_of_the_equations(loss):
    model = small()
    check_loss_and_gradient(model, loss, lambda p, at: reference_loss(p, model, loss))


def without(batch, modality):
    """The batch in which no utterance has a modality."""
    nothing = np.zeros_like(batch.mask)
    return batch.replace(available=dict(batch.available) | {modality: nothing})


def test_a_modality_that_no_utterance_has_is_one_that_the_model_does_not_read():
    whole, part = small(), small(modalities=("text", "visual"))
    p = draw_parameters(whole, batch())
    kernel = p["fusion"]["classifier"]["kernel"]
    less = {name: value for name, value in p.items() if name != "input_audio"}
    classifier = p["fusion"]["classifier"] | {"kernel": np.delete(kernel, np.s_[10:20], axis=0)}
    less["fusion"] = p["fusion"] | {"classifier": classifier}
    found = logits_of(whole, p, without(batch(), "audio"))
    expected = logits_of(part, less, batch())
    np.testing.assert_allclose(found[batch().mask], expected[batch().mask], rtol=1e-5, atol=1e-6)


def test_the_speakers_table_starts_as_large_as_asked():
    for init, scale in (("normal", 1.0), ("small", 0.02)):
        model = small(d_rnn=200, speakers=9, speaker_init=init)
        table = jax.jit(lambda key, of: of.init(key, batch())["params"]["speaker_embedding"], static_argnums=1)
        found = table(jax.random.key(0), model)["embedding"].std()
        assert abs(found / scale - 1) < 0.1


def test_further_speakers_share_the_last_row():
    model = small(speakers=2)
    p = draw_parameters(model, batch())
    many = batch().replace(speakers=np.where(batch().mask, batch().speakers * 5, -1))
    assert many.speakers.max() > 2
    np.testing.assert_array_equal(logits_of(model, p, many), logits_of(model, p, batch()))


def test_dropout_falls_in_training_alone(key):
    model = small(dropout_rate=0.4)
    variables = {"params": draw_parameters(model, batch())}
    apply = jax.jit(functools.partial(model.apply, variables, train=True))
    one, other = (apply(batch(), rngs={"dropout": key()}).logits for _ in range(2))
    assert jnp.abs(one - other).max() > 1e-3
    still = jax.jit(functools.partial(small().apply, variables, train=True))(batch()).logits
    np.testing.assert_allclose(still, logits_of(model, variables["params"], batch()), rtol=1e-5, atol=1e-6)


def test_it_is_built_from_its_sections():
    sections = defaults("mmgcn")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, MMGCN(C), FocalClassificationLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"speaker_on": "audio"}, "unknown speaker_on 'audio'; choose one of text, all, none"),
        ({"speaker_init": "large"}, "unknown speaker_init 'large'; choose one of normal, small"),
        ({"graph_layers": 0}, "graph_layers must be at least 1, not 0"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], not 1.5"),
        ({"lamda": 0.0}, "lamda must be above 0, not 0.0"),
        ({"cross_weight": -1.0}, "cross_weight must be at least 0, not -1.0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "hinge"}, "unknown criterion 'hinge'; choose one of cross_entropy, focal, published_focal"),
        ({"focal_gamma": -1.0}, "focal_gamma must be at least 0, not -1.0"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FocalClassificationLoss(**options)
