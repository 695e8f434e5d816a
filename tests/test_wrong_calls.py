"""Wrong calls of public layers and losses, each with its exact message: the argument, what was expected and given."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer import layers, losses

B, T, D, C = 2, 5, 8, 4
X = jnp.ones((B, T, D))
MASK = jnp.ones((B, T), bool)
LABELS = jnp.zeros((B, T), jnp.int32)
FEATURES = {"text": X, "audio": X}
MASKS = {"text": MASK, "audio": MASK}
ROWS = {m: x.reshape(-1, D) for m, x in FEATURES.items()}
SPEAKERS = jnp.zeros((B, T), jnp.int32)
GRAPH = jnp.ones((B, T, T), bool), jnp.ones((B, T, T), bool)
HEADS = jnp.ones((B, T, 2, 4))
POSTERIORS = {m: layers.Gaussian(x, x) for m, x in FEATURES.items()}
WEIGHTS = {"audio": jnp.ones((B, T))}
CONTEXTS = dict.fromkeys((("text", "text"), ("audio", "audio"), ("audio", "text"), ("text", "audio")), X)


def init(layer, *arguments, **options):
    """Calls a layer for the first time."""
    return layer.init(jax.random.key(0), *arguments, **options)


def segments(*ids, count=2):
    return layers.Segments(np.array(ids, np.int32), count)


WRONG_CALLS = {
    "an integer mask of another length": (
        lambda: init(layers.BiGRU(16), X, jnp.ones((B, T - 1), jnp.int32)),
        ValueError,
        "mask: expected bool [2, 5], got int32 [2, 4]",
    ),
    "an integer mask": (
        lambda: layers.masked_attention(HEADS, HEADS, HEADS, jnp.ones((B, T), jnp.int32)),
        ValueError,
        "key_mask: expected bool [2, 5], got int32 [2, 5]",
    ),
    "no batch axis": (
        lambda: init(layers.BiGRU(16), X[0], MASK[0]),
        ValueError,
        "x: expected float [B, T, D], got float32 [5, 8]",
    ),
    "one row against two": (
        lambda: layers.masked_attention(HEADS[:1], HEADS, HEADS, MASK),
        ValueError,
        "key: expected float [1, Tk, 2, 4], got float32 [2, 5, 2, 4]",
    ),
    "a list for an array": (
        lambda: init(layers.MaskedBatchNorm(), X, [[True] * T] * B),
        TypeError,
        "mask: expected bool [2, 5], got a list",
    ),
    "no mask": (
        lambda: layers.mean_pool(X, None),
        TypeError,
        "mask: expected bool [2, 5], got None",
    ),
    "integer features": (
        lambda: init(layers.UnimodalGate(), jnp.ones((B, T, D), jnp.int32)),
        ValueError,
        "x: expected float [..., D], got int32 [2, 5, 8]",
    ),
    "a mask where a mapping is expected": (
        lambda: init(layers.FourWayParallelAttention(), FEATURES, MASK),
        TypeError,
        "masks: expected a mapping from modality to bool [..., T], got bool [2, 5]",
    ),
    "a mapping where a mask is expected": (
        lambda: init(layers.ConversationAtmosphere(2), X, MASKS),
        TypeError,
        "mask: expected bool [2, 5], got a mapping of text, audio",
    ),
    "an array where a mapping is expected": (
        lambda: init(layers.MultimodalGate(), X),
        TypeError,
        "features: expected a mapping from modality to float [..., D], got float32 [2, 5, 8]",
    ),
    "a modality without its mask": (
        lambda: init(layers.MultimodalGate(), FEATURES, {"text": MASK}),
        ValueError,
        "available: expected the modalities text, audio, got text",
    ),
    "modalities of two widths": (
        lambda: init(layers.FourWayParallelAttention(), {"text": X, "audio": X[..., :4]}, MASKS),
        ValueError,
        "features['text']: expected float [2, T, 4], got float32 [2, 5, 8]",
    ),
    "a path without its modality": (
        lambda: init(layers.FourWayParallelAttention(), {"text": X, "visual": X}, MASKS),
        ValueError,
        "features: expected the modalities audio, text, got text, visual",
    ),
    "an unknown dominant modality": (
        lambda: layers.kl_weighted_fusion(FEATURES, WEIGHTS, dominant="txt"),
        ValueError,
        "dominant: expected one of text, audio, got 'txt'",
    ),
    "a weight of an unknown modality": (
        lambda: layers.kl_weighted_fusion(FEATURES, WEIGHTS | {"visal": jnp.ones((B, T))}),
        ValueError,
        "weights: expected one of text, audio, got 'visal'",
    ),
    "a weight for each feature": (
        lambda: layers.kl_weighted_fusion(FEATURES, {"audio": X}),
        ValueError,
        "weights['audio']: expected float [2, 5], got float32 [2, 5, 8]",
    ),
    "features where Gaussians are expected": (
        lambda: layers.kl_fusion_weights(FEATURES),
        TypeError,
        "posteriors['text']: expected a jmer.layers.Gaussian, got float32 [2, 5, 8]",
    ),
    "an unknown weighting": (
        lambda: layers.kl_fusion_weights(POSTERIORS, weighting="softmax"),
        ValueError,
        "weighting: expected one of sigmoid, two_sigmoid_minus_one, one_minus, ones, got 'softmax'",
    ),
    "Gaussians of two shapes": (
        lambda: layers.gaussian_kl(layers.Gaussian(X, X), layers.Gaussian(X[:1], X[:1])),
        ValueError,
        "q.mean: expected float [2, 5, 8], got float32 [1, 5, 8]",
    ),
    "an unknown parametrization": (
        lambda: init(layers.GaussianHead(4, "std"), X),
        ValueError,
        "parametrization: expected one of softplus_std, log_std, log_var, got 'std'",
    ),
    "heads that do not divide the width": (
        lambda: init(layers.LanguageGuidedBlock(3), X, X, X, MASK),
        ValueError,
        "num_heads: expected a divisor of the width 8, got 3",
    ),
    "a dropout rate of 1": (
        lambda: init(layers.ConversationAtmosphere(2, dropout_rate=1.0), X, MASK),
        ValueError,
        "dropout_rate: expected a number in [0, 1), got 1.0",
    ),
    "an odd width of two directions": (
        lambda: init(layers.BiGRU(7), X, MASK),
        ValueError,
        "features: expected a multiple of 2, got 7",
    ),
    "an even kernel": (
        lambda: init(layers.SegmentConvolution(16, kernel_size=4), X),
        ValueError,
        "kernel_size: expected an odd number, got 4",
    ),
    "segments that come back": (
        lambda: init(layers.BiGRU(16), X, MASK, segments=segments([0, 0, 1, 0, 1], [0, 0, 0, 0, 0])),
        ValueError,
        "segments.ids: expected ids in [0, 2) that never decrease in a row, got [0, 0, 1, 0, 1]",
    ),
    "more segments than their count": (
        lambda: layers.predecessor_graph(SPEAKERS, MASK, segments=segments([0, 0, 1, 1, 2], [0, 0, 0, 0, 0])),
        ValueError,
        "segments.ids: expected ids in [0, 2) that never decrease in a row, got [0, 0, 1, 1, 2]",
    ),
    "segments of other rows": (
        lambda: init(layers.SegmentConvolution(16, kernel_size=3), X, segments=segments([0, 0, 1, 1, 1])),
        ValueError,
        "segments.ids: expected int [2, 5], got int32 [1, 5]",
    ),
    "ids instead of segments": (
        lambda: layers.predecessor_graph(SPEAKERS, MASK, segments=LABELS),
        TypeError,
        "segments: expected a jmer.layers.Segments, got int32 [2, 5]",
    ),
    "speakers as features": (
        lambda: layers.predecessor_graph(X[..., 0], MASK),
        ValueError,
        "speakers: expected int [B, T], got float32 [2, 5]",
    ),
    "a window of 0": (
        lambda: layers.predecessor_graph(SPEAKERS, MASK, window=0),
        ValueError,
        "window: expected at least 1, got 0",
    ),
    "a graph of other rows": (
        lambda: init(layers.DAGEncoder(16, 8, 1), X, GRAPH[0][:1], GRAPH[1]),
        ValueError,
        "adjacency: expected bool [2, 5, 5], got bool [1, 5, 5]",
    ),
    "an unknown output": (
        lambda: init(layers.DAGEncoder(16, 8, 1, output="first"), X, *GRAPH),
        ValueError,
        "output: expected one of concat_proj, last, got 'first'",
    ),
    "a context of another path": (
        lambda: init(layers.GatedReduction((("text", "text"),)), {("audio", "audio"): X}),
        ValueError,
        "contexts: expected the modalities ('text', 'text'), got ('audio', 'audio')",
    ),
    "row ids of other rows": (
        lambda: init(layers.PositionwiseFeedForward(16), X, row_ids=jnp.arange(3)),
        ValueError,
        "row_ids: expected int [2], got int32 [3]",
    ),
    "a source mask that is a mapping": (
        lambda: init(layers.ResidualEnhancement(16), X, X, MASK, MASKS),
        TypeError,
        "source_mask: expected bool [2, Ts], got a mapping of text, audio",
    ),
    "a pair mask of other positions": (
        lambda: layers.masked_attention(HEADS, HEADS, HEADS, MASK, pair_mask=jnp.ones((4, 4), bool)),
        ValueError,
        "pair_mask: expected bool [2, 5, 5] or its last axes, got bool [4, 4]",
    ),
    "a temperature of 0": (
        lambda: losses.cross_modal_contrastive(ROWS, temperature=0),
        ValueError,
        "temperature: expected a number above 0, got 0",
    ),
    "a negative temperature": (
        lambda: losses.soft_label_distillation(X, X, temperature=-1.0),
        ValueError,
        "temperature: expected a number above 0, got -1.0",
    ),
    "rows that are not flattened": (
        lambda: losses.supervised_contrastive(FEATURES, LABELS),
        ValueError,
        "features['text']: expected float [N, D], got float32 [2, 5, 8]",
    ),
    "an unknown denominator": (
        lambda: losses.cross_modal_contrastive(ROWS, denominator="positives"),
        ValueError,
        "denominator: expected one of negatives, all, got 'positives'",
    ),
    "one-hot labels": (
        lambda: losses.cross_entropy(X, X),
        ValueError,
        "labels: expected int [2, 5], got float32 [2, 5, 8]",
    ),
    "one row of labels": (
        lambda: losses.cross_entropy(X, LABELS[:1]),
        ValueError,
        "labels: expected int [2, 5], got int32 [1, 5]",
    ),
    "masks by modality for one loss": (
        lambda: losses.cross_entropy(X, LABELS, where=MASKS),
        TypeError,
        "where: expected bool [2, 5], got a mapping of text, audio",
    ),
    "class weights of other classes": (
        lambda: losses.cross_entropy(X, LABELS, class_weights=jnp.ones(6)),
        ValueError,
        "class_weights: expected float [8], got float32 [6]",
    ),
    "an unknown teacher": (
        lambda: losses.variational_distillation(POSTERIORS, teacher="txt"),
        ValueError,
        "teacher: expected one of text, audio, got 'txt'",
    ),
    "a mask of another length by modality": (
        lambda: losses.variational_distillation(POSTERIORS, where={"text": MASK, "audio": MASK[:, :3]}),
        ValueError,
        "where['audio']: expected bool [2, 5], got bool [2, 3]",
    ),
    "an integer mask of a mean": (
        lambda: losses.masked_mean(X[..., 0], LABELS),
        ValueError,
        "where: expected bool [2, 5], got int32 [2, 5]",
    ),
}


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_call_says_what_was_expected_and_what_came(call):
    wrong, error, message = WRONG_CALLS[call]
    with pytest.raises(error, match=f"^{re.escape(message)}(\n|$)"):
        wrong()


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_call_is_refused_while_tracing(call):
    wrong, error, message = WRONG_CALLS[call]
    with pytest.raises(error, match=re.escape(message)):
        jax.eval_shape(wrong)


def test_what_is_traced_is_not_known():
    """Values under `jit` cannot be checked; their shapes are."""
    x, mask = np.ones((B, T, D), np.float32), np.ones((B, T), bool)
    gru = layers.BiGRU(16)
    variables = gru.init(jax.random.key(0), x, mask)
    unsorted = segments([0, 0, 1, 0, 1], [0, 0, 0, 0, 0])
    assert jax.jit(gru.apply)(variables, x, mask, segments=unsorted).shape == (B, T, 16)
    assert jnp.isfinite(jax.jit(lambda t: losses.cross_modal_contrastive(ROWS, temperature=t).sum())(0.5))
