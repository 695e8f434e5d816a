"""A call of every public layer and loss, for tests of what holds for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
from reference import draw_parameters, normal

from jmer import layers, losses
from jmer.layers.parallel_attention import FOUR_PATHS

B, T, D, C = 2, 4, 6, 3
MASK = np.array([[True] * 4, [True, True, False, False]])
SPEAKERS = np.array([[0, 1, 0, 1], [0, 0, -1, -1]], np.int32)
LABELS = np.array([[0, 1, 0, 2], [1, 1, -1, -1]], np.int32)
MASKS = {"text": MASK, "audio": MASK}
SEGMENTS = layers.Segments(np.array([[0, 0, 1, 1], [0, 0, 0, 0]], np.int32), 2)


def both(x):
    return {"text": x, "audio": 0.5 * x[..., ::-1]}


def pair(x):
    return jax.numpy.stack([x, 0.5 * x[..., ::-1]])


def rows(x):
    return x.reshape(-1, D)


def gaussian(x):
    return layers.Gaussian(x, jax.nn.softplus(x) + 0.1)


def gaussians(x):
    return {m: gaussian(value) for m, value in both(x).items()}


def window():
    return layers.neighbour_window(MASK, 1, 1)


def graph():
    return layers.predecessor_graph(SPEAKERS, MASK)


def edge_weights():
    return layers.relation_means(window(), SPEAKERS, 2)


def by_modality(x):
    return jnp.stack(list(both(x).values()), axis=1)


def angles(x):
    return layers.angle_graph(by_modality(x), np.stack([MASK, MASK], axis=1))


def paths(x):
    return {path: x + i for i, path in enumerate(FOUR_PATHS)}


def nodes(x):
    return jnp.stack([x, 2 * x], axis=2)


def heads(x):
    return x.reshape(*x.shape[:-1], 2, D // 2)


# Public name -> a call of it with features [B, T, D]: the arguments of a layer, or a function's value.
LAYERS = {
    "AttentionPool": (layers.AttentionPool(), lambda x: (x, MASK)),
    "BiGRU": (layers.BiGRU(4), lambda x: (x, MASK)),
    "BilinearExchange": (layers.BilinearExchange(), lambda x: (pair(x)[:, None], MASK)),
    "CognitiveReasoning": (layers.CognitiveReasoning(2), lambda x: (jax.numpy.concatenate([x, x], -1), x, MASK)),
    "ConversationAtmosphere": (layers.ConversationAtmosphere(2), lambda x: (x, MASK)),
    "ConversationDropout": (layers.ConversationDropout(0.5), lambda x: (x,)),
    "CrossModalConvolutions": (
        layers.CrossModalConvolutions(2),
        lambda x: (nodes(x), layers.normalized_adjacency(window())),
    ),
    "DAGEncoder": (layers.DAGEncoder(5, 4, 1), lambda x: (x, *graph())),
    "DAGLayer": (layers.DAGLayer(D), lambda x: (x, *graph())),
    "DAGLayers": (layers.DAGLayers(D, 2), lambda x: (x, *graph())),
    "DeepGraphConvolution": (layers.DeepGraphConvolution(2, recurrence="lstm"), lambda x: (by_modality(x), angles(x))),
    "DialogueRNNs": (layers.DialogueRNNs(4, 3, 5), lambda x: (both(x), SPEAKERS, MASK)),
    "FourWayParallelAttention": (layers.FourWayParallelAttention(2), lambda x: (both(x), MASKS)),
    "FrequencyAdaptiveConvolution": (layers.FrequencyAdaptiveConvolution(), lambda x: (nodes(x), MASK)),
    "GatedReduction": (layers.GatedReduction(), lambda x: (paths(x),)),
    "GaussianHead": (layers.GaussianHead(3), lambda x: (x,)),
    "HypergraphConvolution": (layers.HypergraphConvolution(), lambda x: (nodes(x), MASK)),
    "LanguageGuidedBlock": (layers.LanguageGuidedBlock(2), lambda x: (x, 2 * x, x, MASK)),
    "MaskedBatchNorm": (layers.MaskedBatchNorm(), lambda x: (x, MASK)),
    "ModalityBiGRUs": (layers.ModalityBiGRUs(4), lambda x: (both(x), MASK)),
    "MultiHeadAttention": (layers.MultiHeadAttention(2), lambda x: (x, 2 * x, x, MASK)),
    "MultimodalGate": (layers.MultimodalGate(), lambda x: (both(x), MASKS)),
    "PositionwiseFeedForward": (layers.PositionwiseFeedForward(5), lambda x: (x,)),
    "PostNormAttention": (layers.PostNormAttention(2), lambda x: (x, 2 * x, MASK)),
    "PostNormFeedForward": (layers.PostNormFeedForward(5), lambda x: (x,)),
    "RelationalConvolution": (layers.RelationalConvolution(5, 2), lambda x: (x, MASK, SPEAKERS, edge_weights())),
    "ResidualEnhancement": (layers.ResidualEnhancement(5), lambda x: (x, 2 * x, MASK, MASK)),
    "SegmentConvolution": (layers.SegmentConvolution(5, 3), lambda x: (x,)),
    "StackedRNN": (layers.StackedRNN(4, cell="lstm"), lambda x: (x, MASK)),
    "TransformerEncoderLayer": (layers.TransformerEncoderLayer(2, 5), lambda x: (x, MASK)),
    "UnimodalGate": (layers.UnimodalGate(), lambda x: (x,)),
}
FUNCTIONS = {
    "Gaussian": lambda x: gaussian(x),
    "MultimodalGraph": lambda x: angles(x).propagate(by_modality(x))[:, 0],
    "Segments": lambda x: SEGMENTS.broadcast(SEGMENTS.mean(x, MASK)),
    "concordance": lambda x: losses.concordance(losses.concordance_moments(x[..., 0], x[..., 1])),
    "concordance_loss": lambda x: losses.concordance_loss(x[..., 0], x[..., 1], where=MASK),
    "concordance_moments": lambda x: losses.concordance_moments(x[..., 0], x[..., 1], where=MASK),
    "angle_graph": lambda x: angles(x),
    "cross_entropy": lambda x: losses.cross_entropy(x, LABELS),
    "cross_modal_contrastive": lambda x: losses.cross_modal_contrastive(both(rows(x)), where=MASK.reshape(-1)),
    "focal_loss": lambda x: losses.focal_loss(x, LABELS, gamma=0.5),
    "focal_contrastive": lambda x: losses.focal_contrastive(rows(x), LABELS.reshape(-1)),
    "gaussian_kl": lambda x: layers.gaussian_kl(gaussian(x), gaussian(x[..., ::-1])),
    "kl_fusion_weights": lambda x: layers.kl_fusion_weights(gaussians(x)),
    "kl_weighted_fusion": lambda x: layers.kl_weighted_fusion(both(x), {"audio": x[..., 0]}),
    "listwise_preference": lambda x: losses.listwise_preference(rows(x)[:, 0], jnp.float32(LABELS.reshape(-1))),
    "masked_attention": lambda x: layers.masked_attention(heads(x), heads(2 * x), heads(x), MASK),
    "masked_mean": lambda x: losses.masked_mean(x[..., 0], MASK),
    "mean_pool": lambda x: layers.mean_pool(x, MASK),
    "neighbour_window": lambda x: window() * x[:, :, :1],
    "party_order": lambda x: layers.party_order(SPEAKERS, MASK).sort(x),
    "normalized_adjacency": lambda x: layers.normalized_adjacency(window()) * x[:, :, :1],
    "predecessor_graph": lambda x: jax.tree.map(lambda edges: edges * x[:, :, :1], graph()),
    "published_focal_loss": lambda x: losses.published_focal_loss(x, LABELS, gamma=2.5),
    "relation_means": lambda x: edge_weights() @ x,
    "sinusoidal_positions": lambda x: x + layers.sinusoidal_positions(T, D, segments=SEGMENTS),
    "soft_hgr": lambda x: losses.soft_hgr(both(rows(x)), where=MASK.reshape(-1)),
    "soft_label_distillation": lambda x: losses.soft_label_distillation(x, x[..., ::-1]),
    "supervised_contrastive": lambda x: losses.supervised_contrastive(
        both(rows(x)), LABELS.reshape(-1), denominator="all_but_self"
    ),
    "symmetric_kl": lambda x: layers.symmetric_kl(gaussian(x), gaussian(x[..., ::-1])),
    "variational_distillation": lambda x: losses.variational_distillation(gaussians(x), where=MASKS),
}


def call(name, **options):
    """Returns the call of a layer or loss as a function of parameters and features, and parameters.

    Options replace those of a layer.
    """
    if name in FUNCTIONS:
        return lambda p, x: FUNCTIONS[name](p["scale"] * x), {"scale": np.float32(1.5)}
    layer, arguments = LAYERS[name]
    layer = layer.clone(**options)
    variables = jax.jit(lambda x: layer.init(jax.random.key(0), *arguments(x)))(normal(0, B, T, D))
    p = {"params": draw_parameters(layer, *arguments(normal(0, B, T, D)))} if "params" in variables else {}
    state = {name: value for name, value in variables.items() if name != "params"}
    trains = {"train": True, "mutable": list(state)} if name in ("ConversationDropout", "MaskedBatchNorm") else {}

    def apply(p, x):
        return layer.apply({**p, **state}, *arguments(x), rngs={"dropout": jax.random.key(1)}, **trains)

    return apply, p
