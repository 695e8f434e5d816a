"""The network in the manner of M2FNet against a float64 transcription of what is known of it."""

import functools

import jax
import numpy as np
import pytest
from packed import apart, packed
from reference import draw_parameters, float64, linear, post_norm_encoder_layer, read_heads, rows_where
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from jmer.data.batching import batches
from jmer.modalities import MODALITIES
from jmer.models.m2fnet_like import M2FNetLike, most_heads

C = len(EMOTIONS)


@functools.cache
def conversations():
    """Three conversations with unlabelled utterances, and some that lack a modality or all of them."""
    return tiny_corpus().conversations("train")[:3]


def batch_of(garbage=0.0, **options):
    (batch,) = batches(conversations(), WIDTHS, batch_size=3, **options)
    features = {m: np.where(batch.available[m][..., None], x, np.float32(garbage)) for m, x in batch.features.items()}
    return batch.replace(features=features)


def small(**options):
    fields = {"num_classes": C, "d": 4, "encoder_layers": 1, "d_ff": 3, "num_heads": 2, "fusion_layers": 1}
    return M2FNetLike(**fields | {"dropout_rate": 0.0} | options)


def multi_head(p, query, key, value, heads):
    return linear(p["output"], read_heads(p, query, key, value, np.ones((len(query), len(key)), bool), heads))


def network(p, model, conversation):
    """The logits of one conversation, `[n, C]`."""
    streams = []
    for m in [m for m in MODALITIES if m in model.modalities]:
        x = rows_where(conversation.available[m], np.float64(conversation.features[m]))
        if model.encoder_width:
            x = linear(p[f"input_{m}"], x)
        # Widths of 4, 5 and 6 and two heads: one head where they do not divide the width.
        heads = 2 if x.shape[1] % 2 == 0 else 1
        for encoder in range(model.num_encoders):
            encoded = x
            for layer in range(model.encoder_layers):
                encoded = post_norm_encoder_layer(p[f"encoder_{m}_{encoder}_{layer}"], encoded, heads)
            x = x + encoded
        streams.append(linear(p[f"output_{m}"], x))
    leading, *others = streams
    for layer in range(model.fusion_layers if others else 0):
        mixed = [
            multi_head(
                p[f"fusion_{layer}_attention_{i}"],
                leading,
                other,
                leading if model.fusion_values == "leading" else other,
                model.num_heads,
            )
            for i, other in enumerate(others)
        ]
        leading = np.maximum(linear(p[f"fusion_{layer}"], np.maximum(np.concatenate([*mixed, leading], 1), 0)), 0)
    hidden = np.maximum(linear(p["hidden"], np.concatenate([leading, *others], axis=1)), 0)
    return linear(p["classifier"], hidden)


OPTIONS = {
    "all": {},
    "text_audio": {"modalities": ("audio", "text"), "fusion_layers": 2, "encoder_layers": 2, "encoder_width": 4},
    "cross": {"modalities": ("visual", "audio"), "fusion_values": "other", "num_encoders": 2},
    "one": {"modalities": ("text",)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_network_matches_the_equations(options):
    """Padded and packed, with garbage where nothing is."""
    model, batch = small(**options), batch_of(garbage=7.0)
    p = draw_parameters(model, batch)
    together = packed(batch_of(), ((1, 2), (0,)), length=16)
    for one, laid in ((batch, lambda x: x), (together, lambda x: apart(x, together, batch))):
        logits = laid(jax.jit(model.apply)({"params": p}, one).logits)
        for b, conversation in enumerate(conversations()):
            expected = network(float64(p), model, conversation)
            np.testing.assert_allclose(logits[b, : len(expected)], expected, rtol=1e-4, atol=5e-5)


def test_utterances_may_stand_in_any_order():
    """No position is encoded: with its utterances, a conversation's logits change places."""
    model, batch = small(modalities=("text", "audio")), batch_of()
    length = batch.mask.sum(1).min()
    order = np.arange(batch.mask.shape[1])
    order[:length] = np.random.default_rng(0).permutation(length)
    row = jax.tree.map(lambda x: x[[batch.mask.sum(1).argmin()]], batch)
    moved = jax.tree.map(lambda x: x[:, order] if x.ndim > 1 and x.shape[1] == len(order) else x, row)
    p = draw_parameters(model, batch)
    one, other = (jax.jit(model.apply)({"params": p}, each).logits for each in (row, moved))
    np.testing.assert_allclose(one[0, order][:length], other[0, :length], rtol=1e-4, atol=1e-5)


def test_encoders_have_as_many_heads_as_their_width_allows():
    assert [most_heads(width, 8) for width in (1024, 300, 342, 7, 13, 3)] == [8, 6, 6, 7, 1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("text", "smell")}, "smell"),
        ({"d": 0}, "d must be at least 1, not 0"),
        ({"num_heads": 3}, "num_heads must divide d, but 3 does not divide 4"),
        ({"encoder_width": -1}, "encoder_width must be at least 0, not -1"),
        ({"num_encoders": 0}, "num_encoders must be at least 1, not 0"),
        ({"fusion_layers": 0}, "fusion_layers must be at least 1, not 0"),
        ({"fusion_values": "text"}, "unknown fusion_values 'text'; choose one of leading, other"),
        ({"dropout_rate": 1.0}, "dropout_rate must be at least 0 and below 1, not 1.0"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options).check()
