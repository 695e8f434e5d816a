"""MMGCN: a deep graph convolution over utterances and modalities (Hu et al., 2021, arXiv:2107.06779).

Flow of one batch: features → linear map to one width, the text's through a bidirectional LSTM, speakers added to it →
graph of all utterances and modalities, weighted by angles → graph convolutions → encodings and graph states of all
modalities → emotion. The loss is the cross-entropy, or one of two focal losses.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.initializers import SCHEMES, dense
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least_one,
    check_choice,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, FocalClassificationLoss
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.graph_fusion import GraphClassifier, check_graph, context_rnn
from jmer.models.inputs import present_modalities, separate
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS

SPEAKER_SCALES = {"normal": 1.0, "small": 0.02}
"""How the speakers' table starts -> standard deviation of its entries."""


class MMGCN(nn.Module):
    """The network of MMGCN.

    Its authors' code runs the LSTM over padding, always builds 64 layers and does not read `alpha`; here padding does
    not matter and the fields count.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual. An utterance that lacks one
        has no node for it.
      d_rnn: width of one direction of the LSTM; twice that is the width of the modalities' encodings.
      d_graph: width of the graph's layers.
      graph_layers: number of the graph's layers: 4 as in the published commands, 64 as those were carried out.
      alpha: share of the graph's input in each layer.
      lamda: how much the layers transform; they do less the deeper they are.
      cross_weight: weight of the edges between the modalities of an utterance.
      speaker_on: whose encodings an embedding of the speaker is added to: `text` (as in the authors' code; all where
        the model reads no text), `all` or `none`.
      speaker_init: how that embedding starts: `normal`, from N(0, 1), or `small`, a fiftieth of it. The first is so
        large that the text's graph at first is one of the same and of other speakers.
      speakers: rows of the speakers' table: 2 on IEMOCAP, 9 on MELD. Speakers are numbered within their conversation by
        first appearance (in MMGCN's data by gender on IEMOCAP); further ones share the last row.
      audio_visual_rnn: whether audio and visual too have an LSTM each.
      modality_embedding: whether to add an embedding of the modality to all of its encodings.
      dropout_rate: rate between the LSTM's layers, on the graph's input and between its layers, and before the
        classifier.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`; embeddings are drawn from normal
        distributions.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_rnn: int = 100
    d_graph: int = 100
    graph_layers: int = 4
    alpha: float = 0.1
    lamda: float = 0.5
    cross_weight: float = 1.0
    speaker_on: str = "text"
    speaker_init: str = "normal"
    speakers: int = 2
    audio_visual_rnn: bool = False
    modality_embedding: bool = False
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
        check_no_frames(batch, "MMGCN")
        present = present_modalities(batch, self.modalities)
        features = separate(batch, self.modalities)
        encoded = {m: self._encode(m, x, present[m], batch, train) for m, x in features.items()}
        expose_encodings(self, encoded)
        encoded = self._with_embeddings(encoded, batch)
        classifier = GraphClassifier(
            self.num_classes,
            self.d_graph,
            self.graph_layers,
            self.alpha,
            self.lamda,
            self.cross_weight,
            "none",
            self.dropout_rate,
            self.initialization,
            name="fusion",
        )
        return ClassifierOutput(classifier(encoded, present, batch, train=train))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("speaker_on", self.speaker_on, ("text", "all", "none"))
        check_choice("speaker_init", self.speaker_init, SPEAKER_SCALES)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_rnn", "d_graph", "graph_layers", "speakers")
        check_graph(self)
        check_rates(self, "dropout_rate")

    def _encode(self, modality: str, x: jax.Array, present: jax.Array, batch: Batch, train: bool) -> jax.Array:
        """Returns a modality's encodings, `[B, T, 2 d_rnn]`, of its features."""
        width = 2 * self.d_rnn
        x = dense(width, x.shape[-1], name=f"input_{modality}", **SCHEMES[self.initialization])(x)
        if modality != "text" and not self.audio_visual_rnn:
            return x
        rnn = context_rnn("lstm", width, self.dropout_rate, self.initialization, name=f"context_{modality}")
        return rnn(x, present, segments=batch.segments, train=train, row_ids=batch.row_ids)

    def _with_embeddings(self, encoded: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        """Returns the encodings with those of speakers and modalities that the options ask for."""
        width = 2 * self.d_rnn
        if self.speaker_on != "none":
            init = nn.initializers.normal(SPEAKER_SCALES[self.speaker_init])
            table = nn.Embed(self.speakers, width, embedding_init=init, name="speaker_embedding")
            speaker = table(jnp.clip(batch.speakers, 0, self.speakers - 1))
            has_speaker = ("text",) if self.speaker_on == "text" and "text" in encoded else tuple(encoded)
            encoded = encoded | {m: encoded[m] + speaker for m in has_speaker}
        if self.modality_embedding:
            init = nn.initializers.normal(1.0)
            rows = self.param("modality_embedding", init, (len(encoded), width))
            encoded = {m: x + row[None, None] for (m, x), row in zip(encoded.items(), rows, strict=True)}
        return encoded


SPEC = ModelSpec(
    name="mmgcn",
    module=MMGCN,
    loss=FocalClassificationLoss,
    defaults={"model.modalities": ()},
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
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 3e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        # As many layers as the published commands build, whatever they say.
        "64_layers": {"model.graph_layers": 64},
        "without_cross_modal_edges": {"model.cross_weight": 0.0},
        "speaker_on_all": {"model.speaker_on": "all"},
        "without_speakers": {"model.speaker_on": "none"},
        "small_speaker_embedding": {"model.speaker_init": "small"},
        "audio_visual_rnn": {"model.audio_visual_rnn": True},
        "modality_embedding": {"model.modality_embedding": True},
        "focal": {"loss.criterion": "focal"},
        "published_focal": {"loss.criterion": "published_focal"},
    },
)
