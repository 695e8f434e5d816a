"""COGMEN: a transformer over the conversation, then a graph of relations between speakers (Joshi et al., 2022).

Flow of one batch: features, side by side → transformer encoder over the whole conversation → one width → relational
convolution over each utterance's window → attention along the same edges → batch normalization → emotion. The loss is
the cross-entropy.

The equations are those of the public code, except that padding is not attended to, and that the two windows act as
they are named.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import dense, torch_uniform
from jmer.layers.normalization import MaskedBatchNorm
from jmer.layers.relational import RELATIONS, RelationalConvolution, neighbour_window, relation_means
from jmer.layers.transformer import MultiHeadAttention, TransformerEncoderLayer
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least,
    check_at_least_one,
    check_choice,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.inputs import side_by_side
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS


def usual_heads(width: int) -> int:
    """Returns the number of attention heads that the public code takes for a width."""
    return next((heads for heads in range(7, 15) if width % heads == 0), 1)


class COGMEN(nn.Module):
    r"""The network of COGMEN.

    .. math::
        G &= \mathrm{Encoder}(x^t \,\|\, x^a \,\|\, x^v) W_e + b_e \\
        h_t &= G_t W_{root} + b + \sum_r \frac{1}{|N_r(t)|} \sum_{s \in N_r(t)} G_s W_r \\
        o_t &= \sum_s \mathrm{softmax}_s\left(\frac{q_t \cdot k_s}{\sqrt{H}}\right) v_s + h_t W_{skip} + b_{skip} \\
        u &= \mathrm{LeakyReLU}(\mathrm{BN}(o)), \quad
        \mathrm{logits} = \mathrm{Drop}(\mathrm{ReLU}(u W_h + b_h)) W_c + b_c

    with s in the window of t, itself included; q, k and v are linear in h.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      encoder_width: width of a linear layer before the encoder, and of the encoder; 0 = no such layer, so that the
        encoder is as wide as all features together, and grows with the square of that.
      encoder_layers: layers of the encoder.
      num_heads: attention heads of the encoder; 0 = the smallest number from 7 to 14 that divides its width, else 1.
      d_ff: width inside the encoder's feed-forward parts.
      d_h: H, width of the graph.
      window_past: earlier utterances in an utterance's window; -1 = all.
      window_future: later utterances in an utterance's window; -1 = all.
      relations: what an edge tells: `speakers` (both speakers and the order) or `same_or_other` (whether the speakers
        are the same, and the order).
      speakers: number of speakers that relations tell apart: 2 on IEMOCAP, 9 on MELD. They are numbered within their
        conversation by first appearance; further ones count as the last.
      graph_heads: attention heads in the graph, each as wide as H.
      concat_context: whether the classifier also reads G.
      highway: whether a highway layer comes before the classifier.
      dropout_rate: rate in the encoder and before the last layer.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    encoder_width: int = 0
    encoder_layers: int = 2
    num_heads: int = 0
    d_ff: int = 2048
    d_h: int = 100
    window_past: int = 5
    window_future: int = 5
    relations: str = "speakers"
    speakers: int = 2
    graph_heads: int = 1
    concat_context: bool = False
    highway: bool = False
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False, axis_name: str | None = None) -> ClassifierOutput:
        """Predicts every utterance's emotion from the conversation.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on, which needs the random stream `dropout`, and batch statistics are this batch's,
            which needs `batch_stats` to be mutable.
          axis_name: mapped axis whose devices hold the rest of the batch; None = unmapped.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "COGMEN")
        context = self._encode(batch, train)
        attended = self._graph(context, batch)
        norm = MaskedBatchNorm(name="graph_norm")
        x = nn.leaky_relu(norm(attended, batch.mask, train=train, axis_name=axis_name))
        if self.concat_context:
            x = jnp.concatenate([context, x], axis=-1)
        if self.highway:
            x = self._highway(x)
        hidden = nn.relu(dense(self.d_h, x.shape[-1], name="hidden")(x))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(dense(self.num_classes, self.d_h, name="classifier")(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("relations", self.relations, RELATIONS)
        check_at_least_one(self, "encoder_layers", "d_ff", "d_h", "speakers", "graph_heads")
        check_at_least(self, 0, "encoder_width", "num_heads")
        check_at_least(self, -1, "window_past", "window_future")
        check_rates(self, "dropout_rate")

    def _encode(self, batch: Batch, train: bool) -> jax.Array:
        """Returns G, `[B, T, d_h]`."""
        x = side_by_side(batch, self.modalities)
        if self.encoder_width:
            x = dense(self.encoder_width, x.shape[-1], name="input")(x)
        heads = self.num_heads or usual_heads(x.shape[-1])
        for i in range(self.encoder_layers):
            layer = TransformerEncoderLayer(heads, self.d_ff, self.dropout_rate, name=f"encoder_{i}")
            x = layer(x, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids)
        return dense(self.d_h, x.shape[-1], name="encoder_out")(x)

    def _graph(self, context: jax.Array, batch: Batch) -> jax.Array:
        """Returns o, `[B, T, graph_heads * d_h]`."""
        window = neighbour_window(batch.mask, self.window_past, self.window_future, segments=batch.segments)
        convolution = RelationalConvolution(
            self.d_h,
            self.speakers,
            self.relations,
            kernel_init=nn.initializers.glorot_uniform(),
            bias_init=nn.initializers.zeros,
            name="relational",
        )
        weights = relation_means(window, batch.speakers, self.speakers, relations=self.relations)
        h = convolution(context, batch.mask, batch.speakers, weights)
        attention = MultiHeadAttention(
            self.graph_heads,
            self.graph_heads * self.d_h,
            output_projection=False,
            kernel_init=torch_uniform,
            bias_init=torch_uniform,
            name="graph_attention",
        )
        attended = attention(h, h, h, batch.mask, pair_mask=window)
        return attended + dense(self.graph_heads * self.d_h, self.d_h, name="graph_skip")(h)

    def _highway(self, x: jax.Array) -> jax.Array:
        """Returns a mixture of two linear maps of `x` `[B, T, D]`, one of them with a ReLU, gate by gate."""
        gate, changed, carried = (
            dense(x.shape[-1], x.shape[-1], name=f"highway_{part}")(x) for part in ("gate", "changed", "carried")
        )
        share = nn.sigmoid(gate)
        return share * nn.relu(changed) + (1 - share) * carried


SPEC = ModelSpec(
    name="cogmen",
    module=COGMEN,
    loss=CrossEntropyLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    may_be_zero=("window_past", "window_future"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {
            "model.encoder_width": 16,
            "model.encoder_layers": 1,
            "model.d_ff": 16,
            "model.d_h": 8,
            "training.epochs": 2,
        },
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.encoder_width": 128,
            "model.d_ff": 256,
            "model.d_h": 64,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 3e-4,
            "training.batch_size": 8,
            "training.epochs": 30,
        },
        **MODALITY_SUBSETS,
        # An encoder of another width than the features', for wide features.
        "narrow_encoder": {"model.encoder_width": 256},
        # Relations that work for any number of speakers.
        "same_or_other": {"model.relations": "same_or_other"},
        # One switch each, see `COGMEN`.
        "concat_context": {"model.concat_context": True},
        "highway": {"model.highway": True},
        "class_weights": {"loss.class_weights": "inverse_freq"},
        "unlimited_window": {"model.window_past": -1, "model.window_future": -1},
    },
)
