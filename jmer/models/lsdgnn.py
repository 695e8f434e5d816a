"""LSDGNN: two graph networks, of a short and of a long window, that exchange their states (2025).

Flow of one batch: features of all modalities side by side → one linear map → the layers of DAG-ERC twice, side by side
(`jmer.layers.dag`), with two windows → bilinear attention from either branch to the other → concatenated states and
features → multilayer perceptron → emotion. The loss is the cross-entropy and a term that keeps the branches apart.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.bilinear_exchange import BilinearExchange
from jmer.layers.dag import KERNELS, DAGLayers, predecessor_graph
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.stacking import stacked, unstacked
from jmer.losses.difference import UNITS, branch_difference
from jmer.modalities import MODALITIES
from jmer.models.checks import check_at_least_one, check_choice, check_modalities, check_no_frames, check_rates
from jmer.models.classification import classification_term
from jmer.models.inputs import side_by_side
from jmer.models.spec import ModelSpec, is_off
from jmer.models.variants import MODALITY_SUBSETS


@struct.dataclass
class LSDGNNOutput:
    """The output of LSDGNN for a batch.

    Attributes:
      logits: `[B, T, C]`.
      branch_states: `[2, L, B, T, H]`, the states of the layers: of the branch with the short window, then of that with
        the long one.
    """

    logits: jax.Array
    branch_states: jax.Array


class LSDGNN(nn.Module):
    """The network of LSDGNN.

    The states of the input layer come in twice before the multilayer perceptron, as its authors' code has it.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      d_h: `H`, width of the layers, in the graphs and after them.
      dag_layers: `L`, layers of either graph network: 4 on IEMOCAP, 2 on MELD.
      dag_kernel: what a TPU runs for the graph network, `auto` or `pallas`, see `jmer.layers.dag.DAGLayer`.
      omega_short: ω of the short window, the number of the speaker's last utterances that it links back to.
      omega_long: ω of the long window.
      dropout_rate: rate on the exchanged states of all layers but the last, and before the last linear layer.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`; the exchange's kernels start as
        its authors start them (`jmer.layers.bilinear_exchange`).
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_h: int = 300
    dag_layers: int = 4
    dag_kernel: str = "auto"
    omega_short: int = 1
    omega_long: int = 5
    dropout_rate: float = 0.4
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> LSDGNNOutput:
        """Predicts every utterance's emotion from the whole conversation.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "LSDGNN")
        x, options = side_by_side(batch, self.modalities), SCHEMES[self.initialization]
        below = nn.relu(dense(self.d_h, x.shape[-1], name="input", **options)(x))
        states = self._branches(below, batch)
        exchanged = BilinearExchange(name="exchange")(states, batch.mask, segments=batch.segments)
        # Both branches of a layer side by side, layer after layer.
        exchanged = jnp.moveaxis(exchanged, (1, 0), (2, 3)).reshape(*x.shape[:2], -1)
        early, last = jnp.split(exchanged, [2 * self.d_h * (self.dag_layers - 1)], axis=-1)
        early = ConversationDropout(self.dropout_rate)(early, train=train, row_ids=batch.row_ids)
        hidden = jnp.concatenate([below, below, early, last, x], axis=-1)
        for layer in range(2):
            hidden = nn.relu(dense(self.d_h, hidden.shape[-1], name=f"hidden_{layer}", **options)(hidden))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return LSDGNNOutput(dense(self.num_classes, self.d_h, name="classifier", **options)(hidden), states)

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("dag_kernel", self.dag_kernel, KERNELS)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_h", "dag_layers", "omega_short", "omega_long")
        check_rates(self, "dropout_rate")

    def _branches(self, below: jax.Array, batch: Batch) -> jax.Array:
        """Returns the states of both branches' layers, `[2, L, B, T, H]`; both branches advance together."""
        graphs = [
            predecessor_graph(batch.speakers, batch.mask, window=window, segments=batch.segments)
            for window in (self.omega_short, self.omega_long)
        ]
        adjacency, same_speaker = jnp.stack([edges for edges, _ in graphs]), graphs[0][1]
        layers = DAGLayers(
            self.d_h, self.dag_layers, kernel=self.dag_kernel, name="branches", **SCHEMES[self.initialization]
        )
        return stacked(layers, in_axes=(None, 0, None), size=2)(below, adjacency, same_speaker)


@dataclasses.dataclass(frozen=True)
class LSDGNNLoss:
    """The loss of LSDGNN.

    Attributes:
      beta: weight of the term that keeps both branches' states apart, summed over layers; 0.1 on IEMOCAP, 0.2 on MELD.
      difference_unit: what the term compares between the branches: the states of a `conversation` as one vector (as its
        authors' code does) or those of an `utterance`.
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    beta: float = 0.1
    difference_unit: str = "conversation"
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        check_choice("difference_unit", self.difference_unit, UNITS)

    def __call__(self, output: LSDGNNOutput, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns the terms as (weight, sum over this device's utterances, their number).

        The difference is one number for the whole batch, which every device computes.

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        total, count = classification_term(output.logits, batch.labels, batch.mask, self.class_weights)
        terms = {"classification": (1.0, total, count)}
        if not is_off(self.beta):
            of_layers = jax.vmap(
                lambda short, long: branch_difference(
                    short, long, where=batch.mask, segments=batch.segments, unit=self.difference_unit, axis=axis
                )
            )(*unstacked(output.branch_states))
            terms["difference"] = (self.beta, of_layers.sum(), jnp.ones(()))
        return terms


SPEC = ModelSpec(
    name="lsdgnn",
    module=LSDGNN,
    loss=LSDGNNLoss,
    defaults={"model.modalities": ()},
    loss_weights=("beta",),
    packing=True,
    handles_missing=True,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_h": 16, "model.dag_layers": 2, "training.epochs": 2, "curriculum.measure": "none"},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_h": 128,
            "model.dag_layers": 2,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 1e-3,
            "optimizer.weight_decay": 0.1,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        # The difference of single utterances, which does not depend on their place.
        "utterance_difference": {"loss.difference_unit": "utterance"},
        "without_difference": {"loss.beta": 0.0},
    },
)
