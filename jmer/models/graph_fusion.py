"""What MMGCN and MM-DFN share: encoders of one width, and the multimodal graph between them and the emotions."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.multimodal_graph import DeepGraphConvolution, angle_graph
from jmer.layers.recurrent import StackedRNN
from jmer.losses.reduction import zero_unless


def context_rnn(cell: str, width: int, dropout_rate: float, initialization: str, name: str) -> StackedRNN:
    """Returns a bidirectional network of two layers, dropout between them, over conversations."""
    scheme = SCHEMES[initialization]
    return StackedRNN(
        width,
        cell=cell,
        num_layers=2,
        dropout_rate=dropout_rate,
        recurrent_kernel_init=scheme["kernel_init"],
        name=name,
        **scheme,
    )


def check_graph(module: Any) -> None:
    """Raises ValueError if a model's `alpha`, `lamda` or `cross_weight` is out of range."""
    if not 0 <= module.alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {module.alpha}")
    if not module.lamda > 0:
        raise ValueError(f"lamda must be above 0, not {module.lamda}")
    if not module.cross_weight >= 0:
        raise ValueError(f"cross_weight must be at least 0, not {module.cross_weight}")


class GraphClassifier(nn.Module):
    r"""Emotions from encoded modalities by way of a multimodal graph.

    .. math::
        h^0 &= \mathrm{ReLU}(\mathrm{Drop}(Z) W_0 + b_0), \quad
        h^L = \mathrm{GraphConvolution}(h^0; \mathrm{AngleGraph}(Z)) \\
        \mathrm{logits} &= \mathrm{ReLU}\left(\mathrm{Drop}\left(\big\|_m\, [Z^m \,\|\, h^{L,m}]\right)\right) W_c + b_c

    with the same dropped Z in both places. An utterance that lacks a modality has no node there, and zeros in their
    place.

    Attributes:
      num_classes: `C`.
      d_graph: width of the graph's layers.
      graph_layers, alpha, lamda, recurrence: see `jmer.layers.DeepGraphConvolution`.
      cross_weight: see `jmer.layers.angle_graph`.
      dropout_rate: one rate for all places.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    d_graph: int
    graph_layers: int
    alpha: float
    lamda: float
    cross_weight: float
    recurrence: str
    dropout_rate: float
    initialization: str

    @nn.compact
    def __call__(
        self, encoded: Mapping[str, jax.Array], present: Mapping[str, jax.Array], batch: Batch, *, train: bool
    ) -> jax.Array:
        """Returns logits, `[B, T, C]`.

        Args:
          encoded: modality -> `[B, T, D]`; values where the modality is absent do not matter.
          present: modality -> bool `[B, T]`.
          batch: that was encoded.
          train: whether dropout is on.
        """
        scheme = SCHEMES[self.initialization]
        there = jnp.stack([present[m] for m in encoded], axis=1)
        z = zero_unless(there, jnp.stack(list(encoded.values()), axis=1))
        graph = angle_graph(z, there, cross_weight=self.cross_weight, segments=batch.segments)
        drop = ConversationDropout(self.dropout_rate)
        z = drop(z, train=train, row_ids=batch.row_ids)
        layers = DeepGraphConvolution(
            self.graph_layers, self.alpha, self.lamda, self.recurrence, self.dropout_rate, name="graph", **scheme
        )
        h = nn.relu(dense(self.d_graph, z.shape[-1], name="graph_input", **scheme)(z))
        h = zero_unless(there, layers(h, graph, train=train, row_ids=batch.row_ids))
        # [B, M, T, D] -> [B, T, M D]
        joined = jnp.moveaxis(jnp.concatenate([z, h], axis=-1), 1, 2)
        joined = joined.reshape(*joined.shape[:2], -1)
        joined = nn.relu(drop(joined, train=train, row_ids=batch.row_ids))
        return dense(self.num_classes, joined.shape[-1], name="classifier", **scheme)(joined)
