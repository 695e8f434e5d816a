"""DialogueRNN against a float64 transcription of its equations, and what holds of it alone."""

import functools

import hard_conversations
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogue_reference import emotions
from hard_conversations import conversations
from reference import draw_parameters, float64, linear, rows_where, softmax
from tiny import EMOTIONS, WIDTHS, defaults

from jmer.layers import DialogueRNNs, Segments, dialogue_recurrence
from jmer.modalities import MODALITIES
from jmer.models import CrossEntropyLoss, DialogueRNN, Model
from jmer.models.dialoguernn import SPEC

EVERY_PLATFORM = True
C = len(EMOTIONS)
SIZES = {"d_g": 6, "d_p": 5, "d_e": 4}


@functools.cache
def batch():
    """The conversations, with garbage where a feature is unavailable, of three speakers in random order."""
    found = hard_conversations.batch()
    speakers = np.random.default_rng(0).integers(0, 3, found.mask.shape)
    return found.replace(speakers=np.where(found.mask, speakers, -1).astype(np.int32))


def small(**options):
    rates = {"recurrent_dropout_rate": 0.0, "emotion_dropout_rate": 0.0, "dropout_rate": 0.0}
    return DialogueRNN(**{"num_classes": C, "d_h": 3, "speakers": 3, **SIZES, **rates} | options)


def dialoguernn(p, model, conversation, speakers):
    """The logits of one conversation, `[n, C]`."""
    speakers = [min(s, model.speakers - 1) for s in speakers] if model.listener else list(speakers)
    there, features = conversation.available, conversation.features
    names = [m for m in ("text", "audio", "visual") if m in model.modalities]
    x = np.concatenate([rows_where(there[m], np.float64(features[m])) for m in names], axis=1)
    read = functools.partial(emotions, p["recurrence"], kind=model.context_attention, listener=model.listener)
    ahead, back = read("forward", x, speakers), read("backward", x[::-1], speakers[::-1])[::-1]
    both = np.concatenate([ahead, back], axis=1)
    if model.emotion_attention:
        both = np.stack([softmax(both @ query) @ both for query in linear(p["emotion_attention"], both)])
    return linear(p["classifier"], np.maximum(linear(p["hidden"], both), 0))


OPTIONS = [
    {},
    {"context_attention": "general2", "modalities": ("audio",), "emotion_attention": False},
    {"context_attention": "simple", "initialization": "lecun_normal"},
    {"context_attention": "dot", "modalities": ("text",)},
    {"context_attention": "concat", "listener": True, "modalities": ("visual", "text")},
    {"listener": True, "speakers": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(map(str, options.values())) or "default")
def test_forward_pass_matches_the_equations(options):
    model = small(**options)
    p = draw_parameters(model, batch())
    logits = jax.jit(model.apply)({"params": p}, batch()).logits
    for b, conversation in enumerate(conversations()):
        expected = dialoguernn(float64(p), model, conversation, batch().speakers[b, : len(conversation)])
        np.testing.assert_allclose(logits[b, : len(expected)], expected, rtol=1e-5, atol=2e-5)


# The layer alone.

ROWS, LENGTH = 2, 20


@functools.cache
def packed_rows():
    """Features of two inputs, speakers, mask and segments: conversations of several lengths, over more than a block."""
    rng = np.random.default_rng(3)
    mask = np.arange(LENGTH)[None] < np.array([[LENGTH - 1], [4]])
    mask[0, 6] = False
    ids = np.zeros((ROWS, LENGTH), np.int32)
    ids[0, 3:], ids[0, 18:] = 1, 2
    features = {name: rng.normal(size=(ROWS, LENGTH, width)) for name, width in (("audio", 6), ("text", 6))}
    return features, rng.integers(0, 3, mask.shape).astype(np.int32), mask, Segments(ids, 3)


def layer(**options):
    return DialogueRNNs(**SIZES, param_dtype=jnp.float64, **options)


@functools.cache
def step(model):
    """Outputs and gradients in training."""

    def objective(p, features, key):
        _, speakers, mask, segments = packed_rows()
        out = model.apply({"params": p}, features, speakers, mask, segments=segments, train=True, rngs={"dropout": key})
        weights = jnp.cos(jnp.arange(out["text"].size)).reshape(out["text"].shape)
        return (weights * (out["text"] + 2 * out["audio"] ** 2)).sum(), out

    return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))


@pytest.mark.parametrize("attention", ["general2", "simple"])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_the_derivative_by_hand_is_that_of_the_scan(attention, rate):
    features, speakers, mask, segments = packed_rows()
    with jax.enable_x64(True):
        by_hand, scan = (
            layer(context_attention=attention, dropout_rate=rate, custom_derivative=custom) for custom in (True, False)
        )
        p = float64(draw_parameters(by_hand, features, speakers, mask, segments=segments, spread=0.6))
        found, expected = (step(model)(p, features, jax.random.key(1)) for model in (by_hand, scan))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(found[1]))


def test_the_program_of_accelerators_is_that_of_the_scan(accelerator_programs):
    features, speakers, mask, segments = packed_rows()
    with jax.enable_x64(True):
        model, scan = layer(dropout_rate=0.3), layer(dropout_rate=0.3, custom_derivative=False)
        p = float64(draw_parameters(model, features, speakers, mask, segments=segments, spread=0.6))
        expected = step(scan)(p, features, jax.random.key(1))
        accelerator_programs()
        found = step.__wrapped__(model)(p, features, jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_program_is_for_the_platform_that_it_is_compiled_for(platform):
    """From a process that has nothing but CPUs: blocks of ten steps, or the whole row at once."""
    features, speakers, mask, segments = packed_rows()
    with jax.enable_x64(True):
        model = layer()
        p = float64(draw_parameters(model, features, speakers, mask, segments=segments))
        lowered = step(model).trace(p, features, jax.random.key(1)).lower(lowering_platforms=(platform,))
    # What a step sees of its own block: four recurrences, two rows.
    of_block = f"tensor<4x2x10x{SIZES['d_g']}xf64>"
    assert (of_block in lowered.as_text()) == (platform == "cpu")


@pytest.mark.parametrize("cache", [0, 5_000])
def test_recurrences_may_advance_one_after_the_other(cache, monkeypatch):
    """Four of them, with 8 kilobytes of weights: one by one, and two by two."""
    features, speakers, mask, segments = packed_rows()
    arguments = {m: np.float32(x) for m, x in features.items()}, speakers, mask
    model = DialogueRNNs(**SIZES, dropout_rate=0.3)
    p = draw_parameters(model, *arguments, segments=segments)

    def run(p):
        out = model.apply({"params": p}, *arguments, segments=segments, train=True, rngs={"dropout": jax.random.key(3)})
        return out["text"] + out["audio"]

    together = jax.jit(run)(p)
    monkeypatch.setattr(dialogue_recurrence, "CPU_CACHE", cache)
    np.testing.assert_allclose(jax.jit(lambda p: run(p))(p), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("listener", [False, True])
def test_what_is_dropped_is_what_is_carried_on(listener):
    features, speakers, mask, segments = packed_rows()
    model = layer(dropout_rate=0.4, listener=listener, speakers=3)
    first, row = np.arange(LENGTH) < 4, 1
    with jax.enable_x64(True):
        p = float64(draw_parameters(model, features, speakers, mask, segments=segments))
        apply = functools.partial(model.apply, train=True, segments=segments, capture_intermediates=True, mutable=True)
        out, seen = jax.jit(apply)({"params": p}, features, speakers, mask, rngs={"dropout": jax.random.key(2)})
    drawn = [seen["intermediates"][f"ConversationDropout_{i}"]["__call__"][0][row] for i in range(3 + listener)]
    # The layer draws the listeners' first.
    scales = dict(zip(("listeners", "state", "party", "emotion")[not listener :], map(np.asarray, drawn), strict=True))
    assert set(np.unique(scales["party"].round(3))) == {0.0, 1.667}
    x, who = features["audio"][row, first], speakers[row, first]
    found = emotions(p, "audio_forward", x, who, listener=listener, scale=lambda kind, t: scales[kind][0, t])
    np.testing.assert_allclose(out["audio"][row, first, : SIZES["d_e"]], found, rtol=1e-9, atol=1e-11)


def test_a_direction_sees_one_side_of_the_conversation():
    features, speakers, mask, segments = jax.tree.map(lambda x: x if x.dtype != float else np.float32(x), packed_rows())
    model = DialogueRNNs(**SIZES)
    p = draw_parameters(model, features, speakers, mask, segments=segments)
    changed = {m: x + (np.arange(LENGTH) == 10)[None, :, None] for m, x in features.items()}
    apply = jax.jit(functools.partial(model.apply, segments=segments))
    one, other = (apply({"params": p}, x, speakers, mask)["text"] for x in (features, changed))
    moved = np.abs(one - other).max(-1)
    ahead, back = (np.abs((one - other)[..., half]).max(-1)[0] > 1e-6 for half in (slice(4), slice(4, 8)))
    place = np.arange(LENGTH)
    np.testing.assert_array_equal(ahead, (place >= 10) & (place < 18))
    np.testing.assert_array_equal(back, (place <= 10) & (place >= 3) & mask[0])
    assert not moved[1].any()
    forward = DialogueRNNs(**SIZES, bidirectional=False)
    ahead_alone = {name: x for name, x in p.items() if "forward" in name}
    alone = forward.apply({"params": ahead_alone}, features, speakers, mask, segments=segments)["text"]
    np.testing.assert_allclose(alone, one[..., :4], rtol=1e-6, atol=1e-7)


# The network.


def gradient(model, p, some):
    def objective(p):
        _, total, count = CrossEntropyLoss()(model.apply({"params": p}, some), some)["classification"]
        return total / count

    return jax.jit(jax.grad(objective))(p)


def test_the_first_utterance_has_no_history():
    model, first = small(), batch().mask & (np.arange(batch().mask.shape[1])[None] < 1)
    alone = batch().replace(mask=first, labels=first.astype(np.int32) - 1)
    found = gradient(model, draw_parameters(model, batch()), alone)["recurrence"]
    assert all((found[f"{d}_attention_kernel"] == 0).all() for d in ("forward", "backward"))
    assert all(np.abs(found[f"{d}_party_input_kernel"]).max() > 0 for d in ("forward", "backward"))


def test_listeners_do_not_matter_to_somebody_who_speaks_alone():
    listening = small(listener=True)
    p = draw_parameters(listening, batch())
    alone = batch().replace(speakers=np.where(batch().mask, 0, -1))
    several, without = (jax.jit(model.apply) for model in (listening, small()))
    one, other = (apply({"params": p}, alone).logits for apply in (several, without))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    one, other = (apply({"params": p}, batch()).logits for apply in (several, without))
    assert np.abs(one - other).max() > 1e-3


def test_a_modality_that_is_missing_everywhere_is_a_model_without_it():
    model, without = small(), small(modalities=("text", "visual"))
    p = draw_parameters(model, batch())
    audio = np.arange(WIDTHS["text"], WIDTHS["text"] + WIDTHS["audio"])
    reads = ("global_input_kernel", "party_input_kernel", "attention_kernel")
    fewer = p | {
        "recurrence": {
            name: np.delete(x, audio, axis=0) if name.endswith(reads) else x for name, x in p["recurrence"].items()
        }
    }
    silent = batch().replace(available=batch().available | {"audio": np.zeros_like(batch().mask)})
    found, expected = jax.jit(model.apply)({"params": p}, silent), jax.jit(without.apply)({"params": fewer}, silent)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_parameters_are_as_many_as_in_the_published_code():
    published = {
        8_880_406: ({"text": 100}, 6, {"d_g": 500, "d_p": 500, "d_e": 300, "d_h": 300}),
        12_186_406: ({"text": 100}, 6, {"d_g": 500, "d_p": 500, "d_e": 300, "d_h": 300, "listener": True}),
        2_666_607: ({"text": 600, "audio": 300}, 7, {}),
        3_748_407: ({"text": 600, "audio": 300}, 7, {"listener": True}),
    }
    for count, (widths, classes, options) in published.items():
        features = {m: np.zeros((1, 2, width), np.float32) for m, width in widths.items()}
        mask = np.ones((1, 2), bool)
        some = batch().replace(
            features=features,
            mask=mask,
            speakers=np.zeros((1, 2), np.int32),
            available=dict.fromkeys(features, mask),
            conversation_ids=None,
            segment_ids=None,
        )
        model = DialogueRNN(classes, tuple(widths), **options)
        shapes = jax.eval_shape(model.init, jax.random.key(0), some)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


# What cannot be.


def test_created_from_its_default_sections():
    sections = defaults("dialoguernn")
    sections["model"] |= {"num_classes": C, "modalities": MODALITIES}
    assert SPEC.build(**sections) == Model(SPEC, DialogueRNN(C), CrossEntropyLoss())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ()}, r"modalities must be some of .*, not \(\)"),
        (
            {"context_attention": "own"},
            "unknown context_attention 'own'; choose one of general, general2, simple, dot, ",
        ),
        ({"context_attention": "dot"}, r"dot needs features as wide as d_g, 6, but they are 15 wide"),
        ({"initialization": "zeros"}, "unknown initialization 'zeros'"),
        ({"d_g": 0}, "d_g must be at least 1, not 0"),
        ({"d_h": 0}, "d_h must be at least 1, not 0"),
        ({"speakers": 0}, "speakers must be at least 1, not 0"),
        ({"recurrent_dropout_rate": 1.0}, "recurrent_dropout_rate must be at least 0 and below 1, not 1.0"),
        ({"emotion_dropout_rate": -0.1}, "emotion_dropout_rate must be at least 0 and below 1, not -0.1"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**options).init, jax.random.key(0), batch())


def test_frames_are_refused():
    framed = batch().replace(frames={m: np.ones((*batch().mask.shape, 3), bool) for m in WIDTHS})
    with pytest.raises(ValueError, match="DialogueRNN reads one vector per utterance, not frames"):
        small().init(jax.random.key(0), framed)
