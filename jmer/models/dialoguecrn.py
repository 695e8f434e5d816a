"""DialogueCRN: contextual reasoning over a situation and over a speaker (Hu et al., 2021, ACL).

Flow of one batch: features, one modality or several side by side → an LSTM over the conversation and one over the
utterances of each speaker alone → each utterance asks both banks of states several times → emotion. The loss is the
cross-entropy with weights of emotions, or its focal form.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import SCHEMES, dense
from jmer.layers.party import party_order
from jmer.layers.reasoning import CognitiveReasoning
from jmer.layers.recurrent import CELLS, StackedRNN
from jmer.models.checks import (
    check_at_least,
    check_at_least_one,
    check_choice,
    check_modalities,
    check_no_frames,
    check_rates,
)
from jmer.models.classification import ClassifierOutput, FocalMeanLoss
from jmer.models.inputs import side_by_side
from jmer.models.spec import ModelSpec
from jmer.models.variants import MODALITY_SUBSETS
from jmer.segments import Segments


class DialogueCRN(nn.Module):
    """The network of DialogueCRN.

    Attributes:
      num_classes: `C`.
      modalities: those that the model uses, any non-empty subset of text, audio, visual; concatenated in that order,
        with zeros where an utterance lacks one.
      d_h: width of a direction of the recurrent networks.
      num_layers: of either recurrent network: 2 on IEMOCAP, 1 on MELD.
      cell: of the recurrent networks, `lstm` or `gru`; the reasoning has an LSTM.
      situation_steps: how often an utterance asks the conversation's bank; 0 = without reasoning.
      speaker_steps: how often it asks the bank of states that the speakers' own utterances lead to.
      dropout_rate: between recurrent layers, and before the classifier.
      initialization: of the parameters, a name in `jmer.layers.initializers.SCHEMES`.
    """

    num_classes: int
    modalities: tuple[str, ...] = ("text",)
    d_h: int = 128
    num_layers: int = 2
    cell: str = "lstm"
    situation_steps: int = 3
    speaker_steps: int = 0
    dropout_rate: float = 0.2
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
        check_no_frames(batch, "DialogueCRN")
        options = SCHEMES[self.initialization]
        situation, speaker = self._banks(batch, train)
        # Both banks' first questions come from one map.
        to_query = dense(4 * self.d_h, 2 * self.d_h, name="query", **options)

        def reason(bank: jax.Array, steps: int, name: str) -> jax.Array:
            layer = CognitiveReasoning(steps, recurrent_kernel_init=options["kernel_init"], name=name, **options)
            return layer(to_query(bank), bank, batch.mask, segments=batch.segments)

        answers = [reason(speaker, self.speaker_steps, "speaker_reasoning")]
        answers.append(reason(situation, self.situation_steps, "situation_reasoning"))
        hidden = nn.relu(jnp.concatenate(answers, axis=-1))
        hidden = ConversationDropout(self.dropout_rate)(hidden, train=train, row_ids=batch.row_ids)
        return ClassifierOutput(dense(self.num_classes, 8 * self.d_h, name="classifier", **options)(hidden))

    def check(self) -> None:
        """Raises ValueError if an option has no such value."""
        check_modalities(self.modalities)
        check_choice("cell", self.cell, CELLS)
        check_choice("initialization", self.initialization, SCHEMES)
        check_at_least_one(self, "d_h", "num_layers")
        check_rates(self, "dropout_rate")
        check_at_least(self, 0, "situation_steps", "speaker_steps")

    def _banks(self, batch: Batch, train: bool) -> tuple[jax.Array, ...]:
        """Returns the states of the conversation's network and of the speakers', `[B, T, 2 d_h]` each.

        The utterances of each speaker are brought next to each other: their network stops where one speaker ends and
        the next begins.
        """
        x = side_by_side(batch, self.modalities)
        parties = party_order(batch.speakers, batch.mask, segments=batch.segments)
        situation = self._encode("situation", x, batch.mask, batch.segments, batch, train)
        speaker = self._encode("speaker", parties.sort(x), parties.sort(batch.mask), parties.segments, batch, train)
        return situation, parties.unsort(speaker)

    def _encode(
        self, name: str, x: jax.Array, mask: jax.Array, segments: Segments, batch: Batch, train: bool
    ) -> jax.Array:
        options = SCHEMES[self.initialization]
        network = StackedRNN(
            2 * self.d_h,
            cell=self.cell,
            num_layers=self.num_layers,
            dropout_rate=self.dropout_rate,
            recurrent_kernel_init=options["kernel_init"],
            name=name,
            **options,
        )
        return network(x, mask, segments=segments, train=train, row_ids=batch.row_ids)


SPEC = ModelSpec(
    name="dialoguecrn",
    module=DialogueCRN,
    loss=FocalMeanLoss,
    may_be_zero=("situation_steps",),
    packing=True,
    handles_missing=True,
    variants={
        # Trains in seconds; its scores mean nothing.
        "tiny": {"model.d_h": 8, "model.num_layers": 2, "training.epochs": 2},
        # For sentence embeddings and acoustic statistics that were not fine-tuned for emotion.
        "plain_features": {
            "model.d_h": 64,
            "model.num_layers": 1,
            "model.dropout_rate": 0.5,
            "optimizer.learning_rate": 1e-3,
            "training.batch_size": 8,
            "training.epochs": 20,
        },
        # Text alone is the default.
        **{name: named for name, named in MODALITY_SUBSETS.items() if name != "text"},
        # All modalities of the corpus, concatenated.
        "all_modalities": {"model.modalities": ()},
        "gru": {"model.cell": "gru"},
        "without_reasoning": {"model.situation_steps": 0, "model.speaker_steps": 0},
    },
)
