"""DialogueGCN: a graph over each utterance's neighbours, with speakers as relations (Ghosal et al., 2019).

Flow of one batch: features, side by side → recurrent layers over the conversation → attention to the utterances in a
window → relational convolution and a plain one along these edges → attention over the conversation → emotion. The
loss is the cross-entropy.

The equations are those of the public code, where two implementations differ in both attentions (`edge_attention`,
`nodal_attention`); the paper's are one half of either, and the defaults here.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import dense, torch_uniform, with_fan_in
from jmer.layers.precision import softmax
from jmer.layers.recurrent import CELLS, StackedRNN
from jmer.layers.relational import RelationalConvolution, neighbour_window
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

EDGE_ATTENTIONS = ("bilinear", "positional")
NODAL_ATTENTIONS = ("key", "tanh_query", "none")
EDGE_SCALES = ("glorot", "published")


class DialogueGCN(nn.Module):
    r"""The network of DialogueGCN.

    .. math::
        G &= \mathrm{BiLSTM}_2(x^t \,\|\, x^a \,\|\, x^v) \\
        a_{jt} &= \mathrm{softmax}_{t \in N(j)}\, g_j^\top W_e g_t \\
        x^1_t &= \sum_{j: t \in N(j)} a_{jt}\, g_j W_{r(j,t)} + g_t R_1 + b_1, \quad W_r = \sum_k C_{rk} V_k \\
        x^2_t &= \sum_{j: t \in N(j)} x^1_j U + x^1_t R_2 + b_2, \quad F = G \,\|\, x^2 \\
        \beta_{tj} &= \mathrm{softmax}_j\, F_t \cdot (F_j W_\beta + b_\beta) \\
        \mathrm{logits} &= \mathrm{Drop}(\mathrm{ReLU}((\beta F) W_3 + b_3)) W_4 + b_4

    with N(j) the utterances in j's window, itself included.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      d_rnn: width of one direction of the recurrent layers.
      rnn: their kind: `lstm`, as in the public code, or `gru`, as in the paper.
      input_width: width of a linear layer between the features and the recurrent layers; 0 = no such layer.
      edge_attention: how an utterance scores its neighbours: `bilinear`, or `positional`, as the authors' code does, by
        weights that belong to its position in the conversation.
      edge_scale: range in which the bilinear scores' matrix starts: `glorot`, or `published`, Glorot's variance where
        its standard deviation is meant.
      max_positions: rows of the table of positional scores; utterances beyond share the last.
      edge_weights: whose neighbours share the weight of 1: those of the `source`, as in the public code, or of the
        `target`, as in the paper. With `source`, the windows count from the source.
      window_past: earlier utterances in a window; -1 = all.
      window_future: later utterances in a window; -1 = all.
      speakers: number of speakers that relations tell apart: 2 on IEMOCAP, 9 on MELD. They are numbered within their
        conversation by first appearance; further ones count as the last.
      num_bases: bases of the relations' matrices; 0 = each has a matrix of its own.
      d_h1: width of the relational convolution.
      d_h2: width of the second convolution.
      graph_activation: after either convolution: `none`, as in the public code, or `relu`.
      nodal_attention: attention over the conversation before the classifier: `key`, as the equations above, or
        `tanh_query`, as the authors' code has it, or `none`.
      d_hidden: width of the layer before the classifier.
      dropout_rate: rate between the recurrent layers and before the classifier.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_rnn: int = 100
    rnn: str = "lstm"
    input_width: int = 0
    edge_attention: str = "bilinear"
    edge_scale: str = "glorot"
    max_positions: int = 110
    edge_weights: str = "source"
    window_past: int = 10
    window_future: int = 10
    speakers: int = 2
    num_bases: int = 30
    d_h1: int = 100
    d_h2: int = 100
    graph_activation: str = "none"
    nodal_attention: str = "key"
    d_hidden: int = 100
    dropout_rate: float = 0.4

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ClassifierOutput:
        """Predicts every utterance's emotion from the conversation.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "DialogueGCN")
        x = side_by_side(batch, self.modalities)
        if self.input_width:
            x = dense(self.input_width, x.shape[-1], name="input")(x)
        rnn = StackedRNN(2 * self.d_rnn, cell=self.rnn, dropout_rate=self.dropout_rate, name="encoder")
        context = rnn(x, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids)
        states = jnp.concatenate([context, self._graph(context, batch)], axis=-1)
        if self.nodal_attention != "none":
            states = self._attend(states, batch)
        hidden = nn.relu(dense(self.d_hidden, states.shape[-1], name="hidden")(states))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(dense(self.num_classes, self.d_hidden, name="classifier")(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("rnn", self.rnn, CELLS)
        check_choice("edge_attention", self.edge_attention, EDGE_ATTENTIONS)
        check_choice("edge_scale", self.edge_scale, EDGE_SCALES)
        check_choice("edge_weights", self.edge_weights, ("source", "target"))
        check_choice("graph_activation", self.graph_activation, ("none", "relu"))
        check_choice("nodal_attention", self.nodal_attention, NODAL_ATTENTIONS)
        check_at_least_one(self, "d_rnn", "max_positions", "speakers", "d_h1", "d_h2", "d_hidden")
        check_at_least(self, 0, "input_width", "num_bases")
        check_at_least(self, -1, "window_past", "window_future")
        check_rates(self, "dropout_rate")

    def _graph(self, context: jax.Array, batch: Batch) -> jax.Array:
        """Returns both convolutions' result x², `[B, T, d_h2]`, of G `[B, T, d]`."""
        window = neighbour_window(batch.mask, self.window_past, self.window_future, segments=batch.segments)
        weights = softmax(self._scores(context, batch), where=window)
        if self.edge_weights == "source":
            window, weights = jnp.swapaxes(window, 1, 2), jnp.swapaxes(weights, 1, 2)
        activation = nn.relu if self.graph_activation == "relu" else lambda x: x
        relational = RelationalConvolution(self.d_h1, self.speakers, num_bases=self.num_bases, name="relational")
        x = activation(relational(context, batch.mask, batch.speakers, weights))
        messages = dense(self.d_h2, self.d_h1, use_bias=False, name="graph_neighbour")(x)
        return activation(window.astype(x.dtype) @ messages + dense(self.d_h2, self.d_h1, name="graph_root")(x))

    def _scores(self, context: jax.Array, batch: Batch) -> jax.Array:
        """Returns how each utterance scores the others, `[B, T, T]`."""
        width = context.shape[-1]
        if self.edge_attention == "positional":
            table = self.param("edge_attention", with_fan_in(torch_uniform, width), (self.max_positions, width))
            query = table[jnp.minimum(batch.segments.positions(), self.max_positions - 1)]
        else:
            deviation = width**-0.5 if self.edge_scale == "glorot" else 1 / width
            kernel = self.param("edge_attention", nn.initializers.normal(deviation), (width, width))
            query = context @ kernel
        return jnp.einsum("bid,bjd->bij", query, context)

    def _attend(self, states: jax.Array, batch: Batch) -> jax.Array:
        """Returns the mean of each conversation's states F, weighted by β, `[B, T, d + d_h2]`."""
        mapped = dense(states.shape[-1], states.shape[-1], name="nodal_attention")(states)
        if self.nodal_attention == "key":
            scores = jnp.einsum("btd,bjd->btj", states, mapped)
        else:
            scores = jnp.tanh(jnp.einsum("btd,bjd->btj", mapped, states))
        pairs = neighbour_window(batch.mask, -1, -1, segments=batch.segments)
        return softmax(scores, where=pairs) @ states


SPEC = ModelSpec(
    name="dialoguegcn",
    module=DialogueGCN,
    loss=CrossEntropyLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    may_be_zero=("num_bases", "window_past", "window_future"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {
            "model.d_rnn": 8,
            "model.num_bases": 4,
            "model.d_h1": 8,
            "model.d_h2": 8,
            "model.d_hidden": 8,
            "training.epochs": 2,
        },
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_rnn": 64,
            "model.d_h1": 64,
            "model.d_h2": 64,
            "model.d_hidden": 64,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 3e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        # All modalities of the corpus, as later papers run it.
        "all_modalities": {"model.modalities": ()},
        # Its authors' code, and the other public implementation.
        "original": {"model.edge_attention": "positional", "model.nodal_attention": "tanh_query"},
        "reimplementation": {"model.nodal_attention": "none", "model.edge_scale": "published"},
        # One switch each, see `DialogueGCN`.
        "positional": {"model.edge_attention": "positional"},
        "tanh_query": {"model.nodal_attention": "tanh_query"},
        "without_nodal_attention": {"model.nodal_attention": "none"},
        "normalized_at_target": {"model.edge_weights": "target"},
        "graph_relu": {"model.graph_activation": "relu"},
        "gru": {"model.rnn": "gru"},
        "unlimited_window": {"model.window_past": -1, "model.window_future": -1},
        "without_bases": {"model.num_bases": 0},
        "input_layer": {"model.input_width": 250},
    },
)
