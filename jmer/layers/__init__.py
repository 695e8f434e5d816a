"""Layers for emotion recognition in conversation: Flax Linen modules and pure functions, one idea of a paper each.

They take plain arrays and bool masks. Their arguments have Flax's names; `segments` (several conversations in a row)
and `row_ids` (random draws that do not depend on the number of devices) are optional everywhere.
"""

from jmer.layers.attention import masked_attention
from jmer.layers.bilinear_exchange import BilinearExchange
from jmer.layers.convolution import SegmentConvolution
from jmer.layers.cross_modal_graph import CrossModalConvolutions, normalized_adjacency
from jmer.layers.dag import DAGEncoder, DAGLayer, DAGLayers, predecessor_graph
from jmer.layers.dialogue_rnn import DialogueRNNs
from jmer.layers.dropout import ConversationDropout
from jmer.layers.enhancement import ResidualEnhancement
from jmer.layers.feed_forward import PositionwiseFeedForward
from jmer.layers.fusion import kl_fusion_weights, kl_weighted_fusion
from jmer.layers.gates import GatedReduction, MultimodalGate, UnimodalGate
from jmer.layers.gaussian import Gaussian, gaussian_kl, symmetric_kl
from jmer.layers.hypergraph import FrequencyAdaptiveConvolution, HypergraphConvolution
from jmer.layers.language_guided import ConversationAtmosphere, LanguageGuidedBlock
from jmer.layers.multimodal_graph import DeepGraphConvolution, MultimodalGraph, angle_graph
from jmer.layers.normalization import MaskedBatchNorm
from jmer.layers.parallel_attention import FourWayParallelAttention
from jmer.layers.party import party_order
from jmer.layers.pooling import AttentionPool, mean_pool
from jmer.layers.positions import sinusoidal_positions
from jmer.layers.reasoning import CognitiveReasoning
from jmer.layers.recurrent import BiGRU, ModalityBiGRUs, StackedRNN
from jmer.layers.relational import RelationalConvolution, neighbour_window, relation_means
from jmer.layers.transformer import (
    MultiHeadAttention,
    PostNormAttention,
    PostNormFeedForward,
    TransformerEncoderLayer,
)
from jmer.layers.variational import GaussianHead
from jmer.segments import Segments

__all__ = [
    "AttentionPool",
    "BiGRU",
    "BilinearExchange",
    "CognitiveReasoning",
    "ConversationAtmosphere",
    "ConversationDropout",
    "CrossModalConvolutions",
    "DAGEncoder",
    "DAGLayer",
    "DAGLayers",
    "DeepGraphConvolution",
    "DialogueRNNs",
    "FourWayParallelAttention",
    "FrequencyAdaptiveConvolution",
    "GatedReduction",
    "Gaussian",
    "GaussianHead",
    "HypergraphConvolution",
    "LanguageGuidedBlock",
    "MaskedBatchNorm",
    "ModalityBiGRUs",
    "MultiHeadAttention",
    "MultimodalGate",
    "MultimodalGraph",
    "PositionwiseFeedForward",
    "PostNormAttention",
    "PostNormFeedForward",
    "RelationalConvolution",
    "ResidualEnhancement",
    "SegmentConvolution",
    "Segments",
    "StackedRNN",
    "TransformerEncoderLayer",
    "UnimodalGate",
    "angle_graph",
    "gaussian_kl",
    "kl_fusion_weights",
    "kl_weighted_fusion",
    "masked_attention",
    "mean_pool",
    "neighbour_window",
    "normalized_adjacency",
    "party_order",
    "predecessor_graph",
    "relation_means",
    "sinusoidal_positions",
    "symmetric_kl",
]
