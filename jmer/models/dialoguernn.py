"""DialogueRNN: a recurrent network that follows each party of a conversation (Majumder et al., 2019, arXiv:1811.00405).

Flow of one batch: features, one modality or several side by side → a global state, the parties' states and an emotion,
in both directions (`jmer.layers.dialogue_rnn`) → attention over the whole conversation's emotions → a hidden layer →
emotion. The loss is the cross-entropy.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dialogue_rnn import CONTEXT_ATTENTIONS, DialogueRNNs
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.precision import softmax
from jmer.modalities import MODALITIES
from jmer.models.checks import check_at_least_one, check_choice, check_modalities, check_no_frames, check_rates
from jmer.models.classification import ClassifierOutput, CrossEntropyLoss
from jmer.models.inputs import side_by_side
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS


class DialogueRNN(nn.Module):
    r"""The network of DialogueRNN, bidirectional.

    On the emotions E of both directions (:class:`jmer.layers.DialogueRNNs`):

    .. math::
        \tilde{E}_t = \sum_j \mathrm{softmax}_j((E_t W_\beta + b_\beta) \cdot E_j)\, E_j, \quad
        \mathrm{logits}_t = \mathrm{ReLU}(\tilde{E}_t W_1 + b_1) W_2 + b_2

    over all utterances j of the conversation.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      d_g: width of the global state: 500 on IEMOCAP, 150 on MELD, and 150 with three modalities.
      d_p: width of a party's state, as d_g.
      d_e: width of the emotion in one direction: 300 on IEMOCAP, 100 on MELD.
      d_h: half the width of the hidden layer: 300 on IEMOCAP, 100 on MELD.
      context_attention: how the history is scored: `general`, `general2`, `simple`, `dot` (if the features are as wide
        as d_g) or `concat`, see :class:`jmer.layers.DialogueRNNs`.
      listener: whether the states of the parties that listen are updated, too.
      speakers: parties that `listener` tells apart, further ones share the last state: 2 on IEMOCAP, 9 on MELD.
      emotion_attention: False = without attention over the conversation's emotions (BiDialogueRNN in the paper).
      recurrent_dropout_rate: rate on the three states at every step.
      emotion_dropout_rate: rate on the emotions of both directions.
      dropout_rate: rate on the hidden layer.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = MODALITIES
    d_g: int = 150
    d_p: int = 150
    d_e: int = 100
    d_h: int = 100
    context_attention: str = "general"
    listener: bool = False
    speakers: int = 2
    emotion_attention: bool = True
    recurrent_dropout_rate: float = 0.1
    emotion_dropout_rate: float = 0.25
    dropout_rate: float = 0.1
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
        check_no_frames(batch, "DialogueRNN")
        options = SCHEMES[self.initialization]
        recurrence = DialogueRNNs(
            self.d_g,
            self.d_p,
            self.d_e,
            context_attention=self.context_attention,
            listener=self.listener,
            speakers=self.speakers,
            dropout_rate=self.recurrent_dropout_rate,
            kernel_init=options["kernel_init"],
            recurrent_kernel_init=options["kernel_init"],
            bias_init=options["bias_init"],
            name="recurrence",
        )
        read = recurrence(
            {"": side_by_side(batch, self.modalities)},
            batch.speakers,
            batch.mask,
            segments=batch.segments,
            train=train,
            row_ids=batch.row_ids,
        )
        emotions = ConversationDropout(self.emotion_dropout_rate)(read[""], train=train, row_ids=batch.row_ids)
        if self.emotion_attention:
            emotions = self._attend(emotions, batch)
        hidden = nn.relu(dense(2 * self.d_h, 2 * self.d_e, name="hidden", **options)(emotions))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(dense(self.num_classes, 2 * self.d_h, name="classifier", **options)(hidden))

    def _attend(self, emotions: jax.Array, batch: Batch) -> jax.Array:
        width = emotions.shape[-1]
        query = dense(width, width, name="emotion_attention", **SCHEMES[self.initialization])(emotions)
        visible = batch.segments.same_segment() & batch.mask[:, None]
        scores = jnp.einsum("btd,bjd->btj", query, emotions)
        return jnp.einsum("btj,bjd->btd", softmax(scores, where=visible), emotions)

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("context_attention", self.context_attention, CONTEXT_ATTENTIONS)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_g", "d_p", "d_e", "d_h", "speakers")
        check_rates(self, "recurrent_dropout_rate", "emotion_dropout_rate", "dropout_rate")


SPEC = ModelSpec(
    name="dialoguernn",
    module=DialogueRNN,
    loss=CrossEntropyLoss,
    defaults={"model.modalities": ()},
    packing=True,
    handles_missing=True,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_g": 8, "model.d_p": 8, "model.d_e": 6, "model.d_h": 6, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_g": 100,
            "model.d_p": 100,
            "model.d_e": 64,
            "model.d_h": 64,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 3e-3,
            "training.batch_size": 8,
            "training.epochs": 25,
        },
        **MODALITY_SUBSETS,
        # The widths that later papers give it with all modalities of a corpus.
        "all_modalities": {
            "model.modalities": (),
            "model.d_g": 150,
            "model.d_p": 150,
            "model.d_e": 100,
            "model.d_h": 100,
        },
        "general2_attention": {"model.context_attention": "general2"},
        "simple_attention": {"model.context_attention": "simple"},
        "concat_attention": {"model.context_attention": "concat"},
        "listener": {"model.listener": True},
        "without_emotion_attention": {"model.emotion_attention": False},
    },
)
