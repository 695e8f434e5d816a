"""M3NET: a hypergraph and a graph with signed gates over utterances and modalities (Chen et al., 2023).

Flow of one batch: text → batch norm → bidirectional GRU, plus the speaker; audio and visual features → a linear map →
one node for each utterance and modality → hyperedges (`jmer.layers.HypergraphConvolution`) and, beside them, gates
(`jmer.layers.FrequencyAdaptiveConvolution`) → both, of all modalities, side by side → emotion. The loss is the
cross-entropy or a focal loss.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.hypergraph import FrequencyAdaptiveConvolution, HypergraphConvolution
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.normalization import AxisName, MaskedBatchNorm
from jmer.layers.recurrent import StackedRNN
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least_one,
    check_choice,
    check_even,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, FocalClassificationLoss
from jmer.models.encoders import Encoders, encoders_of, expose_encodings
from jmer.models.inputs import separate
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS

HYPEREDGE_WEIGHTS = ("fixed", "learned_by_kind")


class M3NET(nn.Module):
    """The network of M3NET, on one text vector for each utterance.

    The authors' code has learned weights of hyperedges and nodes that belong to places in a batch, so that a prediction
    depends on where its conversation stands there. Here they are 1, their initial value, or belong to modalities.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual. An utterance that lacks one
        has a node there all the same, of zero features.
      d_g: width of the encoded modalities, both directions of the text's GRU together: 512 on IEMOCAP, 1024 on MELD.
        Text is mapped to it before the GRU unless it has that width already.
      d_q: width of the nodes.
      rnn_layers: layers of the text's GRU.
      hyperedge_layers: layers over hyperedges.
      gate_layers: layers with gates: 4 on IEMOCAP, 3 on MELD.
      use_hyperedges: False = without the layers over hyperedges and what they add to the classifier's input.
      use_gates: False = without the layers with gates and what they add to the classifier's input.
      hyperedge_weights: `fixed` (1), or `learned_by_kind`, which is not the paper's: a positive weight of each
        modality's hyperedge, one of the utterances' hyperedges, and one of each modality's nodes within these.
      speaker_embedding: whether to add an embedding of the speaker to the text.
      speakers: rows of the speakers' table: 2 on IEMOCAP, 9 on MELD. Speakers are numbered within their conversation by
        first appearance; further ones share the last row.
      dropout_rate: rate between the layers of the GRU and before the classifier.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`; the speakers' table is drawn from
        N(0, 1), biases of hyperedges start at zero.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_g: int = 512
    d_q: int = 512
    rnn_layers: int = 2
    hyperedge_layers: int = 3
    gate_layers: int = 4
    use_hyperedges: bool = True
    use_gates: bool = True
    hyperedge_weights: str = "fixed"
    speaker_embedding: bool = True
    speakers: int = 2
    dropout_rate: float = 0.5
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False, axis_name: AxisName = None) -> ClassifierOutput:
        """Predicts every utterance's emotion.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on and batch statistics are used; needs the random stream `dropout` then.
          axis_name: name or names of the mapped axes whose devices hold the rest of the batch; None = unmapped.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "M3NET")
        options = SCHEMES[self.initialization]
        features = separate(batch, self.modalities)
        encoded = {m: self._encode(m, x, batch, train, axis_name) for m, x in features.items()}
        expose_encodings(self, encoded)
        nodes = dense(self.d_q, self.d_g, name="node", **options)(jnp.stack(list(encoded.values()), axis=2))
        branches = []
        if self.use_hyperedges:
            weights, hidden = self._learned_weights(), nodes
            for i in range(self.hyperedge_layers):
                layer = HypergraphConvolution(name=f"hyperedge_layer_{i}")
                hidden = layer(hidden, batch.mask, segments=batch.segments, **weights)
            branches.append(hidden)
        if self.use_gates:
            hidden = nodes
            for i in range(self.gate_layers):
                hidden = FrequencyAdaptiveConvolution(name=f"gate_layer_{i}", **options)(
                    hidden, batch.mask, segments=batch.segments
                )
            branches.append(hidden)
        # Modality by modality, both branches of one side by side.
        together = jnp.concatenate(branches, axis=-1).reshape(*batch.mask.shape, -1)
        dropped = ConversationDropout(self.dropout_rate)(together, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(
            dense(self.num_classes, together.shape[-1], name="classifier", **options)(nn.relu(dropped))
        )

    @property
    def _modalities(self) -> list[str]:
        return [m for m in MODALITIES if m in self.modalities]

    def _encode(self, modality: str, x: jax.Array, batch: Batch, train: bool, axis_name: AxisName) -> jax.Array:
        """Returns a modality's utterances in their context, or by themselves, `[B, T, d_g]`, of their features."""
        options, there = SCHEMES[self.initialization], batch.available[modality] & batch.mask
        if modality != "text":
            return dense(self.d_g, x.shape[-1], name=f"input_{modality}", **options)(x)
        x = MaskedBatchNorm(name="text_norm")(x, there, train=train, axis_name=axis_name)
        if x.shape[-1] != self.d_g:
            x = dense(self.d_g, x.shape[-1], name="input_text", **options)(x)
        gru = StackedRNN(
            self.d_g,
            cell="gru",
            num_layers=self.rnn_layers,
            dropout_rate=self.dropout_rate,
            kernel_init=options["kernel_init"],
            recurrent_kernel_init=options["kernel_init"],
            bias_init=options["bias_init"],
            name="gru",
        )
        x = gru(x, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids)
        if self.speaker_embedding:
            table = nn.Embed(self.speakers, self.d_g, embedding_init=nn.initializers.normal(1.0), name="speakers")
            x = x + table(jnp.clip(batch.speakers, 0, self.speakers - 1))
        return x

    def _learned_weights(self) -> dict[str, jax.Array]:
        """Returns the weights of hyperedges and nodes that are not fixed."""
        if self.hyperedge_weights == "fixed":
            return {}
        count = len(self._modalities)
        # The exponential of what is learned is positive, so that no sum of weights is zero.
        return {
            "hyperedge_weights": jnp.exp(self.param("log_hyperedge_weights", nn.initializers.zeros, (count + 1,))),
            "node_weights": jnp.exp(self.param("log_node_weights", nn.initializers.zeros, (count,))),
        }

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("hyperedge_weights", self.hyperedge_weights, HYPEREDGE_WEIGHTS)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_g", "d_q", "rnn_layers", "hyperedge_layers", "gate_layers", "speakers")
        check_even(self, "d_g")
        check_rates(self, "dropout_rate")
        if not (self.use_hyperedges or self.use_gates):
            raise ValueError("use_hyperedges and use_gates are False, so that nothing is left: set one to True")


def _encoders(module: M3NET) -> Encoders:
    found = encoders_of(module, "input_{}/", "{}_norm/")
    context = {m: (*starts, "gru/") if m == "text" else starts for m, starts in found.own.items()}
    return dataclasses.replace(found, own=context)


SPEC = ModelSpec(
    name="m3net",
    module=M3NET,
    loss=FocalClassificationLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    encoders=_encoders,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_g": 16, "model.d_q": 16, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_g": 128,
            "model.d_q": 128,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 1e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        "without_hyperedges": {"model.use_hyperedges": False},
        "without_gates": {"model.use_gates": False},
        "without_speakers": {"model.speaker_embedding": False},
        "learned_by_kind": {"model.hyperedge_weights": "learned_by_kind"},
        "focal": {"loss.criterion": "focal"},
        # What the authors' code minimises on MELD, see `jmer.losses.published_focal_loss`.
        "published_focal": {"loss.criterion": "published_focal"},
    },
)
