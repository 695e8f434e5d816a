"""GraphSmile: graphs between pairs of modalities, and the shifts of sentiment between utterances (Li et al., 2025).

Flow of one batch: features (text through a batch norm) → a linear layer for each modality → for each pair of modalities
layers over a window of the conversation (`jmer.layers.CrossModalConvolutions`) → one linear layer for the results of
all pairs, their mean → emotion, sentiment, and whether two utterances differ in sentiment. The loss is the sum of three
cross-entropies.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jmer.batch import Batch
from jmer.layers.cross_modal_graph import CrossModalConvolutions, normalized_adjacency
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense, with_fan_in
from jmer.layers.normalization import AxisName, MaskedBatchNorm
from jmer.layers.relational import neighbour_window
from jmer.modalities import MODALITIES
from jmer.models.checks import check_at_least_one, check_choice, check_modalities, check_no_frames, check_rates
from jmer.models.classification import classification_term
from jmer.models.encoders import encoders_of, expose_encodings
from jmer.models.inputs import separate
from jmer.models.sentiments import CHOICES, SENTIMENTS, sentiments_of
from jmer.models.spec import ModelSpec, is_off
from jmer.models.variants import MODALITY_SUBSETS

PAIRS = (("text", "visual"), ("text", "audio"), ("visual", "audio"))
"""Pairs of modalities, in the order in which `GraphSmile.pair_layers` counts their layers."""


@struct.dataclass
class GraphSmileOutput:
    """The output of GraphSmile for a batch.

    Attributes:
      logits: `[B, T, C]`.
      sentiment_logits: `[B, T, 3]`, negative, neutral and positive.
      shift_logits: `[B, T, T, 2]`, whether utterances i and j have one sentiment or two.
      shift_pairs: bool `[B, T, T]`, the pairs that are compared: both in one block of a conversation.
    """

    logits: jax.Array
    sentiment_logits: jax.Array
    shift_logits: jax.Array
    shift_pairs: jax.Array


class GraphSmile(nn.Module):
    """The network of GraphSmile, on one text vector for each utterance.

    The authors' code has a learned weight for each running number of an edge in the batch. Here all edges weigh 1,
    their initial value. Their layers of a pair start alike; here each is drawn by itself.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; one by itself is paired with
        itself. An utterance that lacks one has zero features there.
      d_h: width of every representation: 512 on IEMOCAP, 384 on MELD.
      window_past: number of earlier utterances in an utterance's window; -1 = all.
      window_future: number of later utterances in an utterance's window; -1 = all.
      pair_layers: graph layers of the pairs text and visual, text and audio, visual and audio; one modality by itself
        has as many as the first pair.
      shift_window: number of utterances in a block whose sentiments are compared.
      dropout_rate: rate after the first layer of each modality, and of what each graph layer adds.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_h: int = 512
    window_past: int = 17
    window_future: int = 17
    pair_layers: tuple[int, ...] = (7, 7, 7)
    shift_window: int = 19
    dropout_rate: float = 0.2
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False, axis_name: AxisName = None) -> GraphSmileOutput:
        """Predicts every utterance's emotion, its sentiment, and the shifts of sentiment.

        Args:
          batch: see `jmer.batch.Batch`; features of other modalities than the model's and speakers are ignored.
          train: whether dropout is on and batch statistics are used; needs the random stream `dropout` then.
          axis_name: name or names of the mapped axes whose devices hold the rest of the batch; None = unmapped.

        Raises:
          ValueError: for an option that has no such value, or a batch with frames.
        """
        self.check()
        check_no_frames(batch, "GraphSmile")
        options = SCHEMES[self.initialization]
        features = separate(batch, self.modalities)
        encoded = {m: self._encode(m, x, batch, train, axis_name) for m, x in features.items()}
        expose_encodings(self, encoded)
        window = neighbour_window(batch.mask, self.window_past, self.window_future, segments=batch.segments)
        adjacency = normalized_adjacency(window)
        results = []
        for names, num_layers in self._pairs().items():
            graph = CrossModalConvolutions(num_layers, self.dropout_rate, name="_".join(names), **options)
            pair = jnp.stack([encoded[m] for m in names], axis=2)
            results.append(graph(pair, adjacency, train=train, row_ids=batch.row_ids))
        fusion = dense(self.d_h, self.d_h, name="fusion", **options)
        fused = nn.leaky_relu(fusion(jnp.concatenate(results, axis=2))).mean(axis=2)

        classifier = dense(self.num_classes, self.d_h, name="classifier", **options)
        sentiment = dense(len(SENTIMENTS), self.d_h, name="sentiment", **options)
        block = batch.segments.positions() // self.shift_window
        one_block = (block[:, :, None] == block[:, None, :]) & batch.segments.same_segment()
        pairs = one_block & batch.mask[:, :, None] & batch.mask[:, None, :]
        return GraphSmileOutput(classifier(fused), sentiment(fused), self._shifts(fused), pairs)

    def _shifts(self, fused: jax.Array) -> jax.Array:
        """Returns a linear map of each two utterances, side by side, `[B, T, T, 2]`: a sum of what each adds to it."""
        options, width = SCHEMES[self.initialization], 2 * self.d_h
        kernel = self.param("shift_kernel", options["kernel_init"], (width, 2))
        bias = self.param("shift_bias", with_fan_in(options["bias_init"], width), (2,))
        first, second = fused @ kernel[: self.d_h] + bias[None, None], fused @ kernel[self.d_h :]
        return first[:, :, None] + second[:, None, :]

    def _pairs(self) -> dict[tuple[str, ...], int]:
        """Returns the pairs of the model's modalities, and the number of layers of each."""
        if len(self.modalities) == 1:
            return {self.modalities: self.pair_layers[0]}
        pairs = zip(PAIRS, self.pair_layers, strict=True)
        return {pair: layers for pair, layers in pairs if set(pair) <= set(self.modalities)}

    def _encode(self, modality: str, x: jax.Array, batch: Batch, train: bool, axis_name: AxisName) -> jax.Array:
        """Returns a modality's utterances by themselves, `[B, T, d_h]`, of their features."""
        if modality == "text":
            there = batch.available[modality] & batch.mask
            x = MaskedBatchNorm(name="text_norm")(x, there, train=train, axis_name=axis_name)
        x = dense(self.d_h, x.shape[-1], name=f"input_{modality}", **SCHEMES[self.initialization])(x)
        return ConversationDropout(self.dropout_rate)(nn.leaky_relu(x), train=train, row_ids=batch.row_ids)

    def check(self) -> None:
        """Raises ValueError if an option has no such value or options do not fit together."""
        check_modalities(self.modalities)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_h", "shift_window")
        check_rates(self, "dropout_rate")
        for name in ("window_past", "window_future"):
            if getattr(self, name) < -1:
                raise ValueError(f"{name} must be at least 0, or -1 for all, not {getattr(self, name)}")
        if len(self.pair_layers) != len(PAIRS) or min(self.pair_layers) < 1:
            raise ValueError(
                f"pair_layers must be {len(PAIRS)} numbers from 1, one for each pair, not {self.pair_layers}"
            )


@dataclasses.dataclass(frozen=True)
class GraphSmileLoss:
    """The cross-entropies of emotions, of sentiments and of shifts between them.

    Attributes:
      lambda_emotion: weight of the emotions' cross-entropy.
      lambda_sentiment: weight of the sentiments' cross-entropy: 1 on IEMOCAP, 0.5 on MELD.
      lambda_shift: weight of the shifts' cross-entropy: 0.7 on IEMOCAP, 0.2 on MELD.
      emotion_sentiments: sentiment of each emotion, `negative`, `neutral`, `positive` or `none` (its utterances are in
        neither of these two terms); empty = as the emotions' names tell, which a corpus sets.
      surprise_sentiment: sentiment of surprise where the names tell: `positive`, `neutral`, `negative` or `none`.
      class_weights: weight of each emotion, `C` numbers; empty = all 1.
    """

    lambda_emotion: float = 1.0
    lambda_sentiment: float = 1.0
    lambda_shift: float = 0.7
    emotion_sentiments: tuple[str, ...] = ()
    surprise_sentiment: str = "positive"
    class_weights: tuple[float, ...] = ()

    def __post_init__(self):
        check_choice("surprise_sentiment", self.surprise_sentiment, CHOICES)
        for sentiment in self.emotion_sentiments:
            check_choice("sentiment in emotion_sentiments", sentiment, CHOICES)

    def __call__(self, output: GraphSmileOutput, batch: Batch, axis: str | None = None) -> dict[str, tuple]:
        """Returns each term as (weight, sum, count over this device); those of weight 0 are left out.

        Without `emotion_sentiments` there are no sentiments to learn, and no such term.

        Raises:
          ValueError: if there are class weights or sentiments, but not one for each emotion.
        """
        terms = {}
        if not is_off(self.lambda_emotion):
            emotion = classification_term(output.logits, batch.labels, batch.mask, self.class_weights)
            terms["emotion"] = (self.lambda_emotion, *emotion)
        if not self.emotion_sentiments:
            return terms
        if len(self.emotion_sentiments) != output.logits.shape[-1]:
            raise ValueError(
                f"there are {len(self.emotion_sentiments)} emotion_sentiments for {output.logits.shape[-1]} emotions"
            )
        of_emotions = jnp.array([CHOICES.index(name) for name in self.emotion_sentiments])
        labels = jnp.where(batch.labels >= 0, of_emotions[jnp.maximum(batch.labels, 0)], -1)
        labels = jnp.where(labels < len(SENTIMENTS), labels, -1)
        if not is_off(self.lambda_sentiment):
            sentiment = classification_term(output.sentiment_logits, labels, batch.mask)
            terms["sentiment"] = (self.lambda_sentiment, *sentiment)
        if not is_off(self.lambda_shift):
            known = (labels >= 0)[:, :, None] & (labels >= 0)[:, None, :]
            shifts = (labels[:, :, None] != labels[:, None, :]).astype(jnp.int32)
            shift = classification_term(output.shift_logits, shifts, output.shift_pairs & known)
            terms["shift"] = (self.lambda_shift, *shift)
        return terms


def _sentiments_from(fields: Mapping[str, Any], emotions: Sequence[str]) -> dict[str, Any]:
    """Returns the sentiments of a corpus' emotions, unless the configuration has them."""
    if given := fields["loss.emotion_sentiments"]:
        if len(given) != len(emotions):
            raise ValueError(f"loss.emotion_sentiments has {len(given)} sentiments for {len(emotions)} emotions")
        return {}
    try:
        return {"loss.emotion_sentiments": sentiments_of(emotions, fields["loss.surprise_sentiment"])}
    except ValueError as error:
        raise ValueError(
            f"{error}: give one of {', '.join(CHOICES)} for each of {', '.join(emotions)} "
            "(--config.loss.emotion_sentiments=...,...)"
        ) from error


SPEC = ModelSpec(
    name="graphsmile",
    module=GraphSmile,
    loss=GraphSmileLoss,
    defaults={"model.modalities": ()},
    from_emotions=_sentiments_from,
    loss_weights=("lambda_emotion", "lambda_sentiment", "lambda_shift"),
    packing=True,
    handles_missing=True,
    encoders=lambda module: encoders_of(module, "input_{}/", "{}_norm/"),
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_h": 16, "model.pair_layers": (2, 1, 1), "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_h": 128,
            "model.pair_layers": (3, 3, 3),
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 3e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        **MODALITY_SUBSETS,
        "without_sentiment": {"loss.lambda_sentiment": 0.0},
        "without_shift": {"loss.lambda_shift": 0.0},
        "emotion_alone": {"loss.lambda_sentiment": 0.0, "loss.lambda_shift": 0.0},
        "negative_surprise": {"loss.surprise_sentiment": "negative"},
        "surprise_without_sentiment": {"loss.surprise_sentiment": "none"},
    },
)
