"""GraphSmile against a float64 transcription of its equations, its three losses, and sentiments out of names."""

import dataclasses
import functools

import golden
import jax
import numpy as np
import pytest
from hard_conversations import batch, conversations
from reference import draw_parameters, float64, linear, rows_where, softmax
from tiny import EMOTIONS, defaults, tiny_corpus

from jmer.config import base_config, fit_to_corpus
from jmer.data.emotions import EMORYNLP, IEMOCAP6, MELD, MELD_SENTIMENTS
from jmer.errors import UserError
from jmer.experiment import change_fields
from jmer.modalities import MODALITIES
from jmer.models import GraphSmile, GraphSmileLoss, GraphSmileOutput, Model
from jmer.models.graphsmile import SPEC
from jmer.models.sentiments import sentiments_of

C = len(EMOTIONS)
STATISTICS = {"text_norm": {"mean": np.linspace(-0.5, 0.5, 6), "var": np.linspace(0.5, 2, 6)}}


@functools.cache
def corpus():
    return tiny_corpus()


def small(**options):
    sizes = {"d_h": 5, "window_past": 2, "window_future": 1, "pair_layers": (3, 2, 1), "shift_window": 3}
    return GraphSmile(**{"num_classes": C, "dropout_rate": 0.0, **sizes} | options)


def variables_of(model):
    statistics = jax.tree.map(np.float32, STATISTICS) if "text" in model.modalities else {}
    return {"params": draw_parameters(model, batch()), "batch_stats": statistics}


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def encoded(p, modality, conversation):
    there = conversation.available[modality]
    x = rows_where(there, np.float64(conversation.features[modality]))
    if modality == "text":
        norm = STATISTICS["text_norm"]
        x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * p["text_norm"]["scale"] + p["text_norm"]["bias"]
        x = rows_where(there, x)
    return leaky(linear(p[f"input_{modality}"], x))


def graphsmile(p, model, conversation):
    """Logits of emotions `[n, C]`, of sentiments `[n, 3]` and of shifts, (i, j) -> `[2]`, of one conversation."""
    n = len(conversation)
    x = {m: encoded(p, m, conversation) for m in model.modalities}
    past, future = (n if w < 0 else w for w in (model.window_past, model.window_future))
    edges = np.array([[-past <= k - j <= future for k in range(n)] for j in range(n)])
    degree = edges.sum(1)
    adjacency = np.array([[edges[j, k] / np.sqrt(degree[j] * degree[k]) for k in range(n)] for j in range(n)])
    pairs = [("text", "visual"), ("text", "audio"), ("visual", "audio")]
    counted = [
        (pair, count)
        for pair, count in zip(pairs, model.pair_layers, strict=True)
        if set(pair) <= set(model.modalities)
    ]
    if len(model.modalities) == 1:
        counted = [(model.modalities, model.pair_layers[0])]
    results = []
    for pair, count in counted:
        q = p["_".join(pair)]
        y, s = {m: x[m] for m in pair}, {m: x[m] for m in pair}
        other = dict(zip(pair, pair[::-1], strict=True))
        for i in range(count):
            y = {m: adjacency @ y[other[m]] @ q[f"layer_{i}_graph_kernel"] + q[f"layer_{i}_graph_bias"] for m in pair}
            s = {m: s[m] + leaky(y[m] @ q[f"layer_{i}_output_kernel"] + q[f"layer_{i}_output_bias"]) for m in pair}
        results += s.values()
    fused = np.mean([leaky(linear(p["fusion"], s)) for s in results], axis=0)
    width = model.shift_window
    shifts = {
        (i, j): np.concatenate([fused[i], fused[j]]) @ p["shift_kernel"] + p["shift_bias"]
        for start in range(0, n, width)
        for i in range(start, min(start + width, n))
        for j in range(start, min(start + width, n))
    }
    return linear(p["classifier"], fused), linear(p["sentiment"], fused), shifts


def losses(results, sentiments, labels):
    """Each term's sum and count, of the results of conversations and their labels."""
    terms = {name: [0.0, 0] for name in ("emotion", "sentiment", "shift")}

    def add(name, logits, target):
        terms[name][0] -= np.log(softmax(np.float64(logits))[target])
        terms[name][1] += 1

    number = {"negative": 0, "neutral": 1, "positive": 2, "none": None}
    for (emotion, sentiment, shifts), of_one in zip(results, labels, strict=True):
        felt = [None if label < 0 else number[sentiments[label]] for label in of_one]
        for i, label in enumerate(of_one):
            if label >= 0:
                add("emotion", emotion[i], label)
            if felt[i] is not None:
                add("sentiment", sentiment[i], felt[i])
        for (i, j), logits in shifts.items():
            if felt[i] is not None and felt[j] is not None:
                add("shift", logits, int(felt[i] != felt[j]))
    return terms


OPTIONS = [
    {},
    {"modalities": ("audio", "text"), "window_past": -1, "window_future": 0},
    {"modalities": ("visual",), "window_future": -1, "shift_window": 20},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["all", "text+audio", "visual"])
def test_the_outputs_are_those_of_the_equations(options):
    model = small(**options)
    variables = variables_of(model)
    output = jax.device_get(jax.jit(model.apply)(variables, batch()))
    p = float64(variables["params"])
    for b, conversation in enumerate(conversations()):
        n, (emotion, sentiment, shifts) = len(conversation), graphsmile(p, model, conversation)
        np.testing.assert_allclose(output.logits[b, :n], emotion, rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(output.sentiment_logits[b, :n], sentiment, rtol=1e-4, atol=2e-5)
        assert {tuple(pair) for pair in np.argwhere(output.shift_pairs[b]).tolist()} == set(shifts)
        for pair, expected in shifts.items():
            np.testing.assert_allclose(output.shift_logits[b][pair], expected, rtol=1e-4, atol=2e-5)


def test_the_shifts_are_those_of_the_published_code():
    model, variables, rows, arrays = golden.from_golden(golden.GOLDEN / "graphsmile.npz")
    with jax.enable_x64(True):
        output = jax.device_get(model.module.apply(variables, rows))
    np.testing.assert_allclose(output.shift_logits[output.shift_pairs], arrays["shift_logits"], rtol=1e-10, atol=1e-10)


@functools.cache
def drawn():
    """Random outputs for the batch, all pairs of a conversation compared."""
    rng, (rows, length) = np.random.default_rng(0), batch().mask.shape
    pairs = batch().mask[:, :, None] & batch().mask[:, None, :]
    shapes = (rows, length, C), (rows, length, 3), (rows, length, length, 2)
    return GraphSmileOutput(*(rng.normal(size=shape).astype(np.float32) for shape in shapes), pairs)


@pytest.mark.parametrize("sentiments", [("positive", "negative", "neutral", "negative"), ("none", "negative") * 2])
def test_the_loss_has_three_cross_entropies(sentiments):
    output, labels = drawn(), [c.labels for c in conversations()]
    results = []
    for b, n in enumerate(map(len, conversations())):
        shifts = {(i, j): output.shift_logits[b, i, j] for i in range(n) for j in range(n)}
        results.append((output.logits[b], output.sentiment_logits[b], shifts))
    terms = GraphSmileLoss(0.9, 0.6, 0.3, emotion_sentiments=sentiments)(output, batch())
    assert {name: term[0] for name, term in terms.items()} == {"emotion": 0.9, "sentiment": 0.6, "shift": 0.3}
    assert any((of_one < 0).any() for of_one in labels)
    for name, expected in losses(results, sentiments, labels).items():
        np.testing.assert_allclose(terms[name][1:], expected, rtol=1e-5, err_msg=name)


def test_terms_that_weigh_nothing_are_left_out():
    sentiments = ("positive",) * C
    assert GraphSmileLoss()(drawn(), batch()).keys() == {"emotion"}
    loss = GraphSmileLoss(0.0, 1.0, 0.0, emotion_sentiments=sentiments)
    assert loss(drawn(), batch()).keys() == {"sentiment"}
    with pytest.raises(ValueError, match="there are 2 emotion_sentiments for 4 emotions"):
        GraphSmileLoss(emotion_sentiments=sentiments[:2])(drawn(), batch())


def test_a_name_tells_the_sentiment():
    assert sentiments_of(IEMOCAP6, "positive") == (
        "positive",
        "negative",
        "neutral",
        "negative",
        "positive",
        "negative",
    )
    assert sentiments_of(MELD, "none") == (
        "neutral",
        "none",
        "negative",
        "negative",
        "positive",
        "negative",
        "negative",
    )
    assert sentiments_of(MELD_SENTIMENTS, "none") == MELD_SENTIMENTS
    assert sentiments_of(EMORYNLP, "none").count("positive") == 3
    assert sentiments_of(("No_Emotion", " Surprised "), "negative") == ("neutral", "negative")
    with pytest.raises(ValueError, match="no sentiment is known of calm, bored"):
        sentiments_of(("happy", "calm", "bored"), "positive")


def fitted(changes=(), emotions=EMOTIONS):
    card = dataclasses.replace(corpus().card, emotions=emotions)
    return fit_to_corpus(change_fields(base_config("graphsmile"), dict(changes)), card, conversations())


def test_a_corpus_gives_its_emotions_sentiments():
    assert fitted().loss.emotion_sentiments == ("positive", "negative", "neutral", "negative")
    given = ("neutral", "none", "neutral", "positive")
    config = fitted({"loss.emotion_sentiments": given})
    assert config.loss.emotion_sentiments == given
    assert fit_to_corpus(config, corpus().card, conversations()) == config
    with pytest.raises(UserError, match=r"^corpus '.*': loss.emotion_sentiments has 1 sentiments for 4 emotions$"):
        fitted({"loss.emotion_sentiments": ("neutral",)})
    calm = (
        r"^corpus '.*': no sentiment is known of calm: give one of negative, .* for each of calm, sad, neutral, angry "
    )
    with pytest.raises(UserError, match=calm):
        fitted(emotions=("calm", *EMOTIONS[1:]))


def test_it_is_built_from_its_sections():
    sections = defaults("graphsmile")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, GraphSmile(C), GraphSmileLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"window_past": -2}, "window_past must be at least 0, or -1 for all, not -2"),
        ({"pair_layers": (3, 2)}, r"pair_layers must be 3 numbers from 1, one for each pair, not \(3, 2\)"),
        ({"pair_layers": (3, 2, 0)}, r"pair_layers must be 3 numbers from 1, one for each pair, not \(3, 2, 0\)"),
        ({"shift_window": 0}, "shift_window must be at least 1, not 0"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()


@pytest.mark.parametrize("options", [{"surprise_sentiment": "mixed"}, {"emotion_sentiments": ("mixed",)}])
def test_sentiments_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="'mixed'; choose one of negative, neutral, positive, none"):
        GraphSmileLoss(**options)
