"""A network in the manner of M2FNet (Chudasama et al., 2022, CVPR workshops), as far as it is known.

Flow of one batch: features of each modality → transformer encoders with a skip connection around each → one width →
fusion layers, in which the text asks every other modality which of the text to mix → multilayer perceptron → emotion.

Its abstract tells the parts; how attention fuses follows a public re-implementation by others, of text and audio alone.
Their sizes are not known. The paper's own audio and visual extractors, its main contribution, are no part of jmer: a
score of this network cannot be compared with the paper's.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.transformer import MultiHeadAttention, TransformerEncoderLayer
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least,
    check_at_least_one,
    check_choice,
    check_heads,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.inputs import separate
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS

FUSION_VALUES = ("leading", "other")


def most_heads(width: int, limit: int) -> int:
    """Returns the largest number of attention heads up to a limit that divides a width."""
    return next(heads for heads in range(min(width, limit), 0, -1) if width % heads == 0)


class M2FNetLike(nn.Module):
    r"""A network in the manner of M2FNet; see this file's docstring for what is known of it.

    With the leading modality t (text, or else the first that is there) and every other modality m, in each fusion
    layer:

    .. math::
        y^m = \mathrm{MHA}(Q = x^t, K = x^m, V = x^t), \quad
        x^t \leftarrow \mathrm{ReLU}\left(\mathrm{ReLU}([y^a \,\|\, y^v \,\|\, x^t])\, W + b\right)

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; features are zeros where an
        utterance lacks one. With one modality there are no fusion layers.
      d: width of every modality after its encoders.
      encoder_width: width of a linear layer before the encoders of each modality, and of the encoders; 0 = no such
        layer: encoders are as wide as the features.
      num_encoders: encoders of each modality, each with a skip connection around it.
      encoder_layers: transformer layers of an encoder.
      d_ff: width inside the encoders' feed-forward parts.
      num_heads: attention heads; encoders have the largest number up to it that divides their width.
      fusion_layers: number of fusion layers.
      fusion_values: what the attention of a fusion layer mixes: the `leading` modality, with the others as keys, or the
        `other` modality, whose keys they are (ordinary cross-attention).
      dropout_rate: rate inside the encoders, around the linear maps after them, after fusion layers and before the
        classifier.
      initialization: of the parameters outside attention and encoders, which start as PyTorch's, a name in
        `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d: int = 512
    encoder_width: int = 0
    num_encoders: int = 1
    encoder_layers: int = 5
    d_ff: int = 2048
    num_heads: int = 8
    fusion_layers: int = 5
    fusion_values: str = "leading"
    dropout_rate: float = 0.4
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ClassifierOutput:
        """Predicts every utterance's emotion from the whole conversation.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "M2FNet-like")
        encoded = {m: self._encode(m, x, batch, train) for m, x in separate(batch, self.modalities).items()}
        expose_encodings(self, encoded)
        leading, *others = encoded.values()
        if others:
            for layer in range(self.fusion_layers):
                leading = self._fuse(leading, others, batch, train, f"fusion_{layer}")
        x, options = jnp.concatenate([leading, *others], axis=-1), SCHEMES[self.initialization]
        hidden = nn.relu(dense(self.d, x.shape[-1], name="hidden", **options)(x))
        hidden = self._drop(hidden, batch, train)
        return ClassifierOutput(dense(self.num_classes, self.d, name="classifier", **options)(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("fusion_values", self.fusion_values, FUSION_VALUES)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d", "num_encoders", "encoder_layers", "d_ff", "num_heads", "fusion_layers")
        check_at_least(self, 0, "encoder_width")
        check_heads(self.num_heads, self.d, "d")
        check_rates(self, "dropout_rate")

    def _encode(self, modality: str, x: jax.Array, batch: Batch, train: bool) -> jax.Array:
        """Returns a modality's utterances, `[B, T, d]`, of their features."""
        options = SCHEMES[self.initialization]
        if self.encoder_width:
            x = dense(self.encoder_width, x.shape[-1], name=f"input_{modality}", **options)(x)
        width = x.shape[-1]
        for encoder in range(self.num_encoders):
            below = x
            for i in range(self.encoder_layers):
                layer = TransformerEncoderLayer(
                    most_heads(width, self.num_heads),
                    self.d_ff,
                    self.dropout_rate,
                    name=f"encoder_{modality}_{encoder}_{i}",
                )
                x = layer(x, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids)
            x = x + below
        x = self._drop(x, batch, train)
        return self._drop(dense(self.d, width, name=f"output_{modality}", **options)(x), batch, train)

    def _fuse(self, leading: jax.Array, others: list[jax.Array], batch: Batch, train: bool, name: str) -> jax.Array:
        """Returns the leading modality after a fusion layer, `[B, T, d]`."""
        segments = batch.segments
        pairs = None if segments.count == 1 else segments.same_segment()
        parts = []
        for i, other in enumerate(others):
            attention = MultiHeadAttention(self.num_heads, name=f"{name}_attention_{i}")
            value = leading if self.fusion_values == "leading" else other
            parts.append(attention(leading, other, value, batch.mask, pair_mask=pairs))
        x = nn.relu(jnp.concatenate([*parts, leading], axis=-1))
        x = nn.relu(dense(self.d, x.shape[-1], name=name, **SCHEMES[self.initialization])(x))
        return self._drop(x, batch, train)

    def _drop(self, x: jax.Array, batch: Batch, train: bool) -> jax.Array:
        return ConversationDropout(self.dropout_rate)(x, train=train, row_ids=batch.row_ids)


SPEC = ModelSpec(
    name="m2fnet_like",
    module=M2FNetLike,
    loss=CrossEntropyLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    encoders=lambda module: encoders_of(module, "input_{}/", "encoder_{}_", "output_{}/"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {
            "model.d": 8,
            "model.encoder_width": 8,
            "model.encoder_layers": 1,
            "model.d_ff": 16,
            "model.num_heads": 2,
            "model.fusion_layers": 1,
            "training.epochs": 2,
        },
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d": 128,
            "model.encoder_width": 128,
            "model.encoder_layers": 1,
            "model.d_ff": 256,
            "model.num_heads": 4,
            "model.fusion_layers": 2,
            "model.dropout_rate": 0.2,
            "optimizer.learning_rate": 1e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        # Encoders of one width, smaller than those of wide features.
        "narrow_encoders": {"model.encoder_width": 256},
        "cross_attention": {"model.fusion_values": "other"},
    },
)
