"""MultiEMO: a DialogueRNN for each modality, cross-attention between them, two further losses (Shi and Huang, 2023).

Flow of one batch: features → linear map to one width → a DialogueRNN for each modality → layers in which a modality
attends to the two others → concatenation and linear map → two linear layers → emotion. The loss has a correlation
between modalities, a contrast of the fused features and the cross-entropy.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.dialogue_rnn import DialogueRNNs
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.stacking import stacked, unstacked
from jmer.layers.transformer import PostNormAttention, PostNormFeedForward
from jmer.losses.contrastive import focal_contrastive
from jmer.losses.correlation import soft_hgr
from jmer.modalities import MODALITIES
from jmer.models.checks import (
    check_at_least_one,
    check_choice,
    check_gamma,
    check_heads,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import classification_term
from jmer.models.inputs import separate
from jmer.models.spec import ModelSpec, is_off
from jmer.models.variants import MODALITY_SUBSETS

SOFT_HGR = {"published": "utterances", "features": "features"}
"""How the correlation is computed -> what its covariances are of, see `jmer.losses.soft_hgr`."""


@struct.dataclass
class MultiEMOOutput:
    """The output of MultiEMO for a batch.

    Attributes:
      logits: `[B, T, C]`.
      features: modality -> `[B, T, d]` after cross-attention.
      fused: `[B, T, d]`, all modalities together.
    """

    logits: jax.Array
    features: Mapping[str, jax.Array]
    fused: jax.Array


class CrossModalLayer(nn.Module):
    r"""One modality attends to the others one after the other, and a feed-forward part follows; norms come last.

    .. math::
        z \leftarrow \mathrm{LN}(z + \mathrm{Drop}(\mathrm{MHA}(z, y, y))) \text{ for each other } y, \quad
        z \leftarrow \mathrm{LN}(z + \mathrm{Drop}(\mathrm{FF}(z)))

    Attributes:
      num_heads: attention heads.
      d_ff: width inside the feed-forward part.
      dropout_rate: on attention weights and on the output of each part.
      initialization: a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_heads: int
    d_ff: int
    dropout_rate: float
    initialization: str

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        others: tuple[jax.Array, ...],
        mask: jax.Array,
        pair_mask: jax.Array,
        *,
        train: bool,
        row_ids: jax.Array | None,
    ) -> jax.Array:
        """Maps `z` and each of the `others`, `[B, T, d]`, to `[B, T, d]`."""
        init = SCHEMES[self.initialization]
        for i, other in enumerate(others):
            attention = PostNormAttention(
                self.num_heads,
                self.dropout_rate,
                output_kernel_init=init["kernel_init"],
                name=f"attention_{i}",
                **init,
            )
            z = attention(z, other, mask, pair_mask=pair_mask, train=train, row_ids=row_ids)
        refine = PostNormFeedForward(self.d_ff, self.dropout_rate, name="feed_forward", **init)
        return refine(z, train=train, row_ids=row_ids)


class MultiEMO(nn.Module):
    """The network of MultiEMO.

    An utterance that lacks a modality has zero features there, and takes part all the same. The dropout that the
    authors' code has on the logits, with rate 0, is left out.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual. With one there is nothing to
        attend to, and no correlation.
      d: width of every representation.
      bidirectional: whether the recurrences read both ways and end in a linear layer, as on IEMOCAP; on MELD they read
        forward.
      text_context: False = without a recurrence over the text, as on MELD.
      num_layers: layers of cross-attention: 6 on IEMOCAP, 2 on MELD.
      num_heads: attention heads.
      d_ff: width inside the feed-forward parts.
      d_h: width of the layer before the last: 256 on IEMOCAP, 512 on MELD.
      dropout_rate: rate on the recurrences' output and in the layers of cross-attention.
      recurrent_dropout_rate: rate on the recurrences' states at every step.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d: int = 256
    bidirectional: bool = True
    text_context: bool = True
    num_layers: int = 6
    num_heads: int = 4
    d_ff: int = 1024
    d_h: int = 256
    dropout_rate: float = 0.0
    recurrent_dropout_rate: float = 0.0
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> MultiEMOOutput:
        """Predicts every utterance's emotion from the whole conversation.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's are ignored.
          train: whether dropout is on; needs the random stream `dropout` then.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "MultiEMO")
        init, features = SCHEMES[self.initialization], separate(batch, self.modalities)
        inputs = {m: dense(self.d, x.shape[-1], name=f"input_{m}", **init)(x) for m, x in features.items()}
        context = jnp.stack(list(self._read(inputs, batch, train).values()))
        others = _others(unstacked(context))
        z, pairs = context, batch.segments.same_segment()
        for i in range(self.num_layers):
            layer = CrossModalLayer(
                self.num_heads, self.d_ff, self.dropout_rate, self.initialization, name=f"cross_{i}"
            )
            attend = stacked(layer, in_axes=(0, 0, None, None))
            z = attend(z, others, batch.mask, pairs, train=train, row_ids=batch.row_ids)
        refined = dict(zip(inputs, unstacked(z), strict=True))
        together = jnp.concatenate(list(refined.values()), axis=-1)
        fused = dense(self.d, together.shape[-1], name="fusion", **init)(together)
        hidden = nn.relu(dense(self.d_h, self.d, name="hidden", **init)(fused))
        return MultiEMOOutput(dense(self.num_classes, self.d_h, name="classifier", **init)(hidden), refined, fused)

    def _read(self, inputs: Mapping[str, jax.Array], batch: Batch, train: bool) -> dict[str, jax.Array]:
        """Returns each modality's utterances in their context, `[B, T, d]`."""
        init = SCHEMES[self.initialization]
        read = {m: x for m, x in inputs.items() if m != "text" or self.text_context}
        if not read:
            return dict(inputs)
        recurrences = DialogueRNNs(
            self.d,
            self.d,
            self.d,
            context_attention="simple",
            bidirectional=self.bidirectional,
            dropout_rate=self.recurrent_dropout_rate,
            kernel_init=init["kernel_init"],
            recurrent_kernel_init=init["kernel_init"],
            bias_init=init["bias_init"],
            name="recurrences",
        )
        states = recurrences(
            read, batch.speakers, batch.mask, segments=batch.segments, train=train, row_ids=batch.row_ids
        )
        context = dict(inputs)
        for m, x in states.items():
            if self.bidirectional:
                x = dense(self.d, 2 * self.d, name=f"context_{m}", **init)(x)
            context[m] = nn.relu(ConversationDropout(self.dropout_rate)(x, train=train, row_ids=batch.row_ids))
        return context

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d", "num_layers", "num_heads", "d_ff", "d_h")
        check_heads(self.num_heads, self.d, "d")
        check_rates(self, "dropout_rate", "recurrent_dropout_rate")


def _others(contexts: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Returns, of all modalities in one array, the first other modality of each, then the second other, and so on."""
    rest = [[*contexts[:i], *contexts[i + 1 :]] for i in range(len(contexts))]
    return tuple(jnp.stack(ones) for ones in zip(*rest, strict=True))


@dataclasses.dataclass(frozen=True)
class MultiEMOLoss:
    """The loss of MultiEMO.

    Attributes:
      lambda_correlation: weight of the negative Soft-HGR correlation between modalities.
      lambda_contrast: weight of the sample-weighted focal contrast of the fused features.
      lambda_classification: weight of the cross-entropy.
      soft_hgr: covariances of the correlation: `published` (between utterances, as the authors' code has it, which
        divides by the number of utterances twice) or `features` (as in the literature), see `jmer.losses.soft_hgr`.
      alpha: power of the class weights in the contrast, where they are scaled to a sum of 1.
      focal_gamma: focus of the contrast on pairs that are not yet alike.
      tau: temperature of the contrast.
      class_weights: weight of each emotion in the contrast, before `alpha`; empty = all alike. The cross-entropy has
        none.
    """

    lambda_correlation: float | jax.Array = 0.4
    lambda_contrast: float | jax.Array = 0.4
    lambda_classification: float | jax.Array = 0.2
    soft_hgr: str = "published"
    alpha: float = 1.1
    focal_gamma: float = 2.4
    tau: float = 0.8
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice("soft_hgr", self.soft_hgr, SOFT_HGR)
        check_gamma(self.focal_gamma)
        if not self.tau > 0:
            raise ValueError(f"tau must be above 0, not {self.tau}")

    def __call__(self, output: MultiEMOOutput, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns the terms as (weight, sum over this device's utterances, their number).

        Args:
          output: of the network.
          batch: what it was computed of.
          axis: mapped axis whose devices hold the rest of the batch; None = unmapped.

        Raises:
          ValueError: if there are class weights, but not one for each emotion.
        """
        mask, labelled = batch.mask.reshape(-1), (batch.mask & (batch.labels >= 0)).reshape(-1)
        classes = output.logits.shape[-1]
        if self.class_weights and len(self.class_weights) != classes:
            raise ValueError(f"there are {len(self.class_weights)} class_weights for {classes} emotions")
        terms = {}
        if not is_off(self.lambda_correlation) and len(output.features) > 1:
            rows = {m: x.reshape(-1, x.shape[-1]) for m, x in output.features.items()}
            values = soft_hgr(rows, where=mask, covariance=SOFT_HGR[self.soft_hgr], axis=axis)
            terms["correlation"] = (self.lambda_correlation, jnp.sum(values), jnp.sum(mask))
        if not is_off(self.lambda_contrast):
            weights = jnp.asarray(self.class_weights or (1.0,) * classes) ** self.alpha
            values = focal_contrastive(
                output.fused.reshape(len(mask), -1),
                batch.labels.reshape(-1),
                where=mask,
                class_weights=weights / weights.sum(),
                gamma=self.focal_gamma,
                temperature=self.tau,
                axis=axis,
            )
            terms["contrast"] = (self.lambda_contrast, jnp.sum(values), jnp.sum(labelled))
        if not is_off(self.lambda_classification):
            terms["classification"] = (
                self.lambda_classification,
                *classification_term(output.logits, batch.labels, batch.mask),
            )
        return terms


SPEC = ModelSpec(
    name="multiemo",
    module=MultiEMO,
    loss=MultiEMOLoss,
    defaults={"model.modalities": (), "loss.class_weights": "inverse_freq"},
    loss_weights=("lambda_correlation", "lambda_contrast", "lambda_classification"),
    packing=True,
    handles_missing=True,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {
            "model.d": 8,
            "model.d_ff": 12,
            "model.d_h": 8,
            "model.num_layers": 1,
            "model.num_heads": 2,
            "training.epochs": 2,
        },
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d": 128,
            "model.d_ff": 256,
            "model.d_h": 128,
            "model.num_layers": 2,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 3e-4,
            "training.batch_size": 8,
            "training.epochs": 25,
        },
        **MODALITY_SUBSETS,
        "forward_context": {"model.bidirectional": False},
        "without_text_context": {"model.text_context": False},
        "hgr_of_features": {"loss.soft_hgr": "features"},
        "without_correlation": {"loss.lambda_correlation": 0.0},
        "without_contrast": {"loss.lambda_contrast": 0.0},
        "without_extra_losses": {"loss.lambda_correlation": 0.0, "loss.lambda_contrast": 0.0},
    },
)
