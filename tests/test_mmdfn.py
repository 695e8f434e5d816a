"""MM-DFN against a float64 transcription of its equations, with each of its switches, and what is special to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_reference import batch, check_forward, check_loss_and_gradient, conversations, logits_of, mmdfn
from reference import draw_parameters, softmax
from tiny import EMOTIONS, defaults

from jmer.modalities import MODALITIES
from jmer.models import MMDFN, ClassifierOutput, FocalMeanLoss, Model
from jmer.models.mmdfn import SPEC

C = len(EMOTIONS)
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def small(**options):
    sizes = {"num_classes": C, "d_rnn": 3, "d_graph": 4, "graph_layers": 2, "dropout_rate": 0.0}
    return MMDFN(**sizes | options)


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"party_weights": (1.5, 0.5, 0.5), "alpha": 0.3, "lamda": 1.5, "graph_layers": 3, "cross_weight": 0.4},
        {"recurrence": "none", "party_weights": (0.0, 0.0, 2.0)},
        {"modalities": ("visual", "audio"), "initialization": "lecun_normal"},
        {"modalities": ("text",), "party_weights": (0.0, 1.0, 1.0)},
    ],
    ids=named,
)
def test_the_logits_are_those_of_the_equations(options):
    check_forward(small(**options), mmdfn)


@pytest.mark.slow
@pytest.mark.parametrize("modalities", [("audio",), ("visual",), ("text", "audio"), ("text", "visual")], ids="+".join)
@pytest.mark.parametrize("recurrence", ["lstm", "none"])
def test_the_logits_are_those_of_the_equations_for_every_subset(modalities, recurrence):
    check_forward(small(modalities=modalities, recurrence=recurrence), mmdfn)


def reference_loss(p, model, loss, frozen=None):
    """The mean over labelled utterances; `frozen` parameters give the factor that is a constant to the gradient."""
    total = count = 0.0
    for conversation in conversations():
        logits = mmdfn(p, model, conversation)
        for_factor = logits if frozen is None else mmdfn(frozen, model, conversation)
        for row, other, label in zip(logits, for_factor, conversation.labels, strict=True):
            if label >= 0:
                weight = loss.class_weights[label] if loss.class_weights else 1.0
                factor = (1 - softmax(other)[label]) ** loss.focal_gamma
                total, count = total - weight * factor * np.log(softmax(row)[label]), count + 1
    return total / count


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (FocalMeanLoss(0.5, class_weights=WEIGHTS), {}),
        (FocalMeanLoss(1.5, focal_detach=False), {"recurrence": "none"}),
    ],
    ids=["published", "gradient through the factor"],
)
def test_loss_and_gradient_are_those_of_the_equations(loss, options):
    model = small(**options)

    def objective(p, at):
        return reference_loss(p, model, loss, frozen=at if loss.focal_detach else None)

    check_loss_and_gradient(model, loss, objective)


def test_the_loss_is_a_mean_over_utterances_whatever_their_weights():
    rng = np.random.default_rng(0)
    output = ClassifierOutput(rng.normal(size=(*batch().mask.shape, C)).astype(np.float32))
    ((_, (weight, total, count)),) = FocalMeanLoss(class_weights=WEIGHTS)(output, batch()).items()
    assert (weight, count) == (1.0, (batch().labels >= 0).sum())
    _, scaled, same = FocalMeanLoss(class_weights=tuple(6 * w for w in WEIGHTS))(output, batch())["classification"]
    np.testing.assert_allclose(scaled, 6 * total, rtol=1e-6)
    assert same == count


def test_parties_are_numbered_in_any_way():
    model = small()
    p = draw_parameters(model, batch())
    other = batch().replace(speakers=np.where(batch().mask, 8 - batch().speakers, -1))
    found, expected = (logits_of(model, p, b)[b.mask] for b in (other, batch()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    together = batch().replace(speakers=np.where(batch().mask, 0, -1))
    assert np.abs(logits_of(model, p, together)[batch().mask] - expected).max() > 1e-3


def test_a_network_that_has_no_weight_is_not_built():
    def names(**options):
        return set(jax.eval_shape(small(**options).init, jax.random.key(0), batch())["params"])

    assert "party" in names()
    assert "party" not in names(party_weights=(0.0, 0.0, 0.0))
    assert "party" not in names(modalities=("visual",))
    assert "party" not in names(modalities=("text", "visual"), party_weights=(0.0, 3.0, 0.0))


def test_a_modality_that_no_utterance_has_is_one_that_the_model_does_not_read():
    whole, part = small(), small(modalities=("text", "audio"))
    p = draw_parameters(whole, batch())
    kernel = p["fusion"]["classifier"]["kernel"]
    less = {name: value for name, value in p.items() if name != "input_visual"}
    less["fusion"] = p["fusion"] | {"classifier": p["fusion"]["classifier"] | {"kernel": kernel[:20]}}
    available = dict(batch().available) | {"visual": np.zeros_like(batch().mask)}
    found = logits_of(whole, p, batch().replace(available=available))
    expected = logits_of(part, less, batch())
    np.testing.assert_allclose(found[batch().mask], expected[batch().mask], rtol=1e-5, atol=1e-6)


def test_dropout_falls_in_training_alone_and_follows_the_conversation(key):
    model, order = small(dropout_rate=0.4), np.array([2, 0, 3, 1])
    variables = {"params": draw_parameters(model, batch())}
    apply, streams = jax.jit(functools.partial(model.apply, variables, train=True)), {"dropout": key()}
    one = apply(batch(), rngs=streams).logits
    permuted = apply(jax.tree.map(lambda x: x[order], batch()), rngs=streams).logits
    np.testing.assert_allclose(permuted, one[order], rtol=1e-5, atol=1e-6)
    assert jnp.abs(one - apply(batch(), rngs={"dropout": key()}).logits).max() > 1e-3
    still = jax.jit(functools.partial(small().apply, variables, train=True))(batch()).logits
    np.testing.assert_allclose(still, logits_of(model, variables["params"], batch()), rtol=1e-5, atol=1e-6)


def test_it_is_built_from_its_sections():
    sections = defaults("mmdfn")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, MMDFN(C), FocalMeanLoss(0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        ({"recurrence": "gru"}, "unknown recurrence 'gru'; choose one of none, lstm"),
        ({"party_weights": (1.0, 3.0)}, r"party_weights must be three, of text, audio, visual, not \(1.0, 3.0\)"),
        ({"graph_layers": 0}, "graph_layers must be at least 1, not 0"),
        ({"d_rnn": 0}, "d_rnn must be at least 1, not 0"),
        ({"alpha": -0.1}, r"alpha must be in \[0, 1\], not -0.1"),
        ({"dropout_rate": -0.1}, "dropout_rate must be at least 0 and below 1, not -0.1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


def test_a_loss_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"focal_gamma must be at least 0, not -0\.5"):
        FocalMeanLoss(-0.5)
