"""MM-DFN: graph-based dynamic fusion of modalities (Hu et al., 2022, arXiv:2203.02385).

Flow of one batch: features → linear map to one width → the text through a bidirectional GRU over the conversation, all
modalities through another over each party's utterances alone → graph of all utterances and modalities, weighted by
angles → graph convolutions, along which an LSTM decides what is propagated → encodings and graph states of all
modalities → emotion. The loss is a focal loss.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.multimodal_graph import RECURRENCES
from jmer.layers.party import party_order
from jmer.layers.stacking import unstacked
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least_one,
    check_choice,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, FocalMeanLoss
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.graph_fusion import GraphClassifier, check_graph, context_rnn
from jmer.models.inputs import present_modalities, separate
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS
from jmer.segments import Segments


class MMDFN(nn.Module):
    """The network of MM-DFN.

    Its authors' code runs both GRUs over padding, that of the parties over more of it; here padding does not matter.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual. An utterance that lacks one
        has no node for it.
      d_rnn: width of one direction of the GRUs; twice that is the width of the modalities' encodings.
      d_graph: width of the graph's layers.
      graph_layers: number of the graph's layers.
      alpha: share of the graph's input in each layer.
      lamda: how much the layers transform; they do less the deeper they are.
      cross_weight: weight of the edges between the modalities of an utterance.
      party_weights: weight of the parties' states in the encodings of text, audio and visual, whichever of them the
        model uses: 1, 3, 0 on IEMOCAP and 1.5, 0.5, 0.5 on MELD. Without one above or below 0 there is no such GRU.
      recurrence: what runs along the graph's layers: `lstm`, or `none` (nearly MMGCN).
      dropout_rate: rate between the GRUs' layers, on the graph's input and in its layers, and before the classifier.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_rnn: int = 100
    d_graph: int = 100
    graph_layers: int = 16
    alpha: float = 0.2
    lamda: float = 0.5
    cross_weight: float = 1.0
    party_weights: tuple[float, ...] = (1.0, 3.0, 0.0)
    recurrence: str = "lstm"
    dropout_rate: float = 0.4
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ClassifierOutput:
        """Predicts every utterance's emotion.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "MM-DFN")
        present, scheme = present_modalities(batch, self.modalities), SCHEMES[self.initialization]
        inputs = {
            m: dense(2 * self.d_rnn, x.shape[-1], name=f"input_{m}", **scheme)(x)
            for m, x in separate(batch, self.modalities).items()
        }
        encoded = dict(inputs)
        if "text" in inputs:
            rnn = context_rnn("gru", 2 * self.d_rnn, self.dropout_rate, self.initialization, name="context_text")
            encoded["text"] = rnn(
                inputs["text"], present["text"], segments=batch.segments, train=train, row_ids=batch.row_ids
            )
        for modality, states in self._party_states(inputs, present, batch, train).items():
            encoded[modality] += self._party_weight(modality) * states
        expose_encodings(self, encoded)
        classifier = GraphClassifier(
            self.num_classes,
            self.d_graph,
            self.graph_layers,
            self.alpha,
            self.lamda,
            self.cross_weight,
            self.recurrence,
            self.dropout_rate,
            self.initialization,
            name="fusion",
        )
        return ClassifierOutput(classifier(encoded, present, batch, train=train))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("recurrence", self.recurrence, RECURRENCES)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_rnn", "d_graph", "graph_layers")
        check_graph(self)
        check_rates(self, "dropout_rate")
        if len(self.party_weights) != len(MODALITIES):
            raise ValueError(f"party_weights must be three, of {', '.join(MODALITIES)}, not {self.party_weights}")

    def _party_weight(self, modality: str) -> float:
        return self.party_weights[MODALITIES.index(modality)]

    def _party_states(
        self, inputs: dict[str, jax.Array], present: dict[str, jax.Array], batch: Batch, train: bool
    ) -> dict[str, jax.Array]:
        """Returns the states of the GRU over each party's utterances, of the modalities in which they have a weight.

        It is one network for all modalities and parties, so that the modalities are further rows of its batch.
        """
        names = [m for m in inputs if self._party_weight(m) != 0]
        if not names:
            return {}
        order = party_order(batch.speakers, batch.mask, segments=batch.segments)
        rows, length = batch.mask.shape

        def as_rows(x: jax.Array) -> jax.Array:
            return jnp.moveaxis(order.sort(x), 2, 1).reshape(rows * len(names), length, *x.shape[3:])

        x, there = (as_rows(jnp.stack([of[m] for m in names], axis=2)) for of in (inputs, present))
        ids = jnp.repeat(order.segments.ids, len(names), axis=0)
        row_ids = batch.row_ids
        if row_ids is not None:
            row_ids = (row_ids[:, None] * len(names) + jnp.arange(len(names))[None]).reshape(-1)
        rnn = context_rnn("gru", 2 * self.d_rnn, self.dropout_rate, self.initialization, name="party")
        states = rnn(x, there, segments=Segments(ids, order.segments.count), train=train, row_ids=row_ids)
        states = order.unsort(jnp.moveaxis(states.reshape(rows, len(names), length, -1), 1, 2))
        return dict(zip(names, unstacked(states, axis=2), strict=True))


SPEC = ModelSpec(
    name="mmdfn",
    module=MMDFN,
    loss=FocalMeanLoss,
    defaults={"model.modalities": (), "loss.focal_gamma": 0.5},
    packing=True,
    handles_missing=True,
    encoders=lambda module: encoders_of(module, "input_{}/", "context_{}/", kernel="fusion/classifier/kernel"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_rnn": 8, "model.d_graph": 8, "model.graph_layers": 2, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_rnn": 64,
            "model.d_graph": 64,
            "model.graph_layers": 4,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 3e-4,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        "32_layers": {"model.graph_layers": 32},
        "without_dynamic_fusion": {"model.recurrence": "none"},
        "without_parties": {"model.party_weights": (0.0, 0.0, 0.0)},
        "without_cross_modal_edges": {"model.cross_weight": 0.0},
        "cross_entropy": {"loss.focal_gamma": 0.0},
        "focal_gradient": {"loss.focal_detach": False},
    },
)
