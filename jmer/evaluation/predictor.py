"""Prediction with a trained network: the one place where a network is run over conversations."""

import abc
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from scipy.special import softmax

from jmer.batch import Batch
from jmer.data import normalization
from jmer.data.attributes import Scales, values_of
from jmer.data.batching import batch_layout, batches
from jmer.data.corpus import Card, Conversation, Corpus, any_labelled, feature_width
from jmer.data.examples import make_examples
from jmer.data.extractors import Identities, doubts, mismatch
from jmer.data.normalization import Standardization
from jmer.data.outliers import Outliers, count_outliers
from jmer.data.packing import round_up_coarsely
from jmer.data.validation import defects, validate_corpus
from jmer.errors import UserError
from jmer.evaluation.attribute_scores import attribute_scores
from jmer.evaluation.forward import (
    ONE_DEVICE,
    DeviceMapping,
    Predictions,
    compiled_forward_pass,
    compiled_output,
    rejoined,
    unpack,
    unpack_predictions,
)
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predictions import check_finite, mean_probabilities, prediction_table
from jmer.evaluation.spread import member_spread
from jmer.models import Model
from jmer.precision import matmul_precision
from jmer.warning import warn

Data = Corpus | Conversation | Sequence[Conversation]
"""What can be predicted: a corpus, a conversation, or several."""

IN_MEMORY = "in-memory"


class Task(NamedTuple):
    """What conversations must be like to be predicted.

    Attributes:
      emotions: names of the `C` emotions.
      context: what unlabelled utterances are to the model, see `jmer.data.examples.make_examples`.
      frames: whether an utterance is a sequence of frames.
      widths: modality -> feature width, of the modalities that the model reads.
      majority_emotion: what the micro F1 of the scores leaves out; empty = there is none.
      extractors: modality -> what identifies the extractor of the features that the model was trained on.
      attributes: attribute that the model learned -> the ends of its scale.
      margin: the smallest difference of an attribute's labels that its scores take for an order.
    """

    emotions: tuple[str, ...]
    context: str
    frames: bool
    widths: Mapping[str, int]
    majority_emotion: str
    extractors: Identities
    attributes: Scales
    margin: float


class Predicted(NamedTuple):
    """Conversations, and what is predicted for each of their utterances.

    Attributes:
      conversations: whole, with the modalities that the model reads.
      card: the card of their corpus, with the emotions of the model.
      predictions: on `conversations`.
    """

    conversations: Sequence[Conversation]
    card: Card
    predictions: Predictions


class BasePredictor(abc.ABC):
    """Predicts conversations, and scores the predictions."""

    @property
    @abc.abstractmethod
    def task(self) -> Task:
        """What the conversations must be like."""

    @abc.abstractmethod
    def predict_examples(self, examples: Sequence[Conversation]) -> Predictions:
        """Predicts examples with the features of the corpus, not normalised."""

    @abc.abstractmethod
    def complete(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Adds the modalities that conversations lack, as unavailable.

        Raises:
          UserError: if the model does not handle missing modalities.
        """

    def predict(self, data: Data, split: str | None = None, *, context: str | None = None) -> pd.DataFrame:
        """Returns a table with a row per utterance, labelled or not.

        Args:
          data: a corpus, a conversation, or several; those of a corpus keep its order.
          split: the split of a corpus to predict; None = all.
          context: what unlabelled utterances are, see `jmer.data.examples.make_examples`; None = as in training.
            `mask_unlabelled` gives each utterance a row.

        Returns:
          The columns of `jmer.evaluation.predictions.prediction_table`, for a corpus after a first column `split`.

        Raises:
          UserError: naming what does not fit the model: emotions, a modality, a width, frames, the split.
        """
        if not isinstance(data, Corpus):
            return self._table(*self._conversations(data, split), context)
        card, tables = self._fitting_card(data), []
        for name in data.splits if split is None else [split]:
            table = self._table(data.conversations(name), card, context)
            table.insert(0, "split", name)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def predict_conversations(self, data: Data, split: str | None = None) -> Predicted:
        """Returns as arrays what `predict` puts in a table, for every utterance of whole conversations.

        Args:
          data, split: see `predict`.

        Raises:
          UserError: naming what does not fit the model.
        """
        if isinstance(data, Corpus):
            card = self._fitting_card(data)
            names = data.splits if split is None else [split]
            conversations = self.complete([c for name in names for c in data.conversations(name)])
        else:
            conversations, card = self._conversations(data, split)
        found = self.predict_examples(make_examples(conversations, frames=self.task.frames))
        whole = rejoined(found, map(len, conversations))
        check_finite(conversations, whole.probabilities)
        return Predicted(conversations, card, whole)

    def evaluate(self, corpus: Corpus) -> dict[str, Scores]:
        """Returns split -> scores, for the splits of a corpus that have labels.

        Raises:
          UserError: naming what does not fit the model, or if the corpus has no labels.
        """
        self._fitting_card(corpus)
        scores = {}
        for split in corpus.splits:
            examples = make_examples(corpus.conversations(split), frames=self.task.frames, context=self.task.context)
            if any_labelled(examples):
                scores[split] = self.score(examples, self.predict_examples(self.complete(examples)))
        if not scores:
            raise UserError(f"corpus '{corpus.card.name}' has no labels to score: predict it instead")
        return scores

    def score(self, examples: Sequence[Conversation], predictions: Predictions) -> Scores:
        """Returns the scores of predictions for labelled examples."""
        labels = np.concatenate([example.labels for example in examples])
        predicted = np.concatenate(predictions.probabilities).argmax(-1)
        scores = classification_report(labels, predicted, self.task.emotions, self.task.majority_emotion)
        of_attributes = {
            name: attribute_scores(
                np.concatenate([values_of(example, name) for example in examples]),
                np.concatenate(values),
                self.task.margin,
            )
            for name, values in predictions.attributes.items()
        }
        found = {name: of_attribute for name, of_attribute in of_attributes.items() if of_attribute}
        return dataclasses.replace(scores, attributes=found)

    def check_card(self, card: Card) -> None:
        """Warns of what cannot be compared. Raises UserError, naming what differs, if a corpus does not fit."""
        if card.emotions and card.emotions != self.task.emotions:
            raise UserError(
                f"corpus '{card.name}' has the emotions {', '.join(card.emotions)}, the model was trained for "
                f"{', '.join(self.task.emotions)}: convert the corpus with these, in this order"
            )
        for name, scale in self.task.attributes.items():
            if card.attributes.get(name, scale) != scale:
                ends = [" to ".join(f"{end:g}" for end in found) for found in (card.attributes[name], scale)]
                raise UserError(
                    f"corpus '{card.name}' has {name} from {ends[0]}, the model was trained on {ends[1]}: convert the "
                    "corpus with the scale of the model"
                )
        self._check_features(f"corpus '{card.name}'", card.frames, card.widths)
        for modality in (m for m in self.task.widths if m in card.widths):
            if found := mismatch(self.task.extractors, card.extractors, modality):
                raise UserError(
                    f"the {modality} features of corpus '{card.name}' are not those that the model was trained on "
                    f"({found}): extract them as for training, or give the recordings to `jmer predict`"
                )
            for line in doubts(self.task.extractors, card.extractors, modality):
                warn(line)

    def _fitting_card(self, corpus: Corpus) -> Card:
        """Returns the card of a corpus with the model's emotions. Raises UserError if the corpus does not fit."""
        validate_corpus(corpus, for_training=False)
        self.check_card(corpus.card)
        return dataclasses.replace(corpus.card, emotions=self.task.emotions)

    def _conversations(
        self, data: Conversation | Sequence[Conversation], split: str | None
    ) -> tuple[list[Conversation], Card]:
        """Returns conversations that were made in memory, checked, and a card for them."""
        if split is not None:
            raise UserError(f"split='{split}' needs a corpus, but conversations were given: leave split out")
        listed = [c if c.id else dataclasses.replace(c, id=str(i)) for i, c in enumerate(_listed(data))]
        for c in listed:
            widths = {m: feature_width(values) for m, values in c.features.items()}
            self._check_features(f"conversation '{c.id}'", c.has_frames, widths)
        card = Card(
            name=IN_MEMORY,
            widths={m: width for m, width in self.task.widths.items() if any(m in c.features for c in listed)},
            emotions=self.task.emotions,
            provenance="Made in memory.",
            synthetic=False,
            frames=self.task.frames,
            attributes=self.task.attributes,
        )
        listed = self.complete([_restricted(c, self.task.widths, self.task.attributes) for c in listed])
        if found := defects({"test": listed}, dataclasses.replace(card, widths=self.task.widths), for_training=False):
            raise UserError(found[0].removeprefix("test, "))
        return listed, card

    def _check_features(self, what: str, frames: bool, widths: Mapping[str, int]) -> None:
        if frames != self.task.frames:
            kinds = {False: "one vector per utterance", True: "frames in each utterance"}
            raise UserError(
                f"{what} has {kinds[frames]}, the model was trained on {kinds[self.task.frames]}: use features of the "
                "same kind"
            )
        for modality, width in self.task.widths.items():
            if widths.get(modality, width) != width:
                raise UserError(
                    f"{what} has {modality} features of width {widths[modality]}, the model was trained on width "
                    f"{width}: use features of the same extractor"
                )
        if not any(modality in widths for modality in self.task.widths):
            raise UserError(
                f"{what} has only {', '.join(widths) or 'no features'}, the model reads {', '.join(self.task.widths)}: "
                "use features of at least one of these"
            )

    def _table(self, conversations: Sequence[Conversation], card: Card, context: str | None) -> pd.DataFrame:
        examples = self.complete(
            make_examples(conversations, frames=self.task.frames, context=context or self.task.context)
        )
        found = self.predict_examples(examples)
        return prediction_table(
            examples, card, found.probabilities, found.weights, found.attention, found.spread, found.attributes
        )


@dataclasses.dataclass(frozen=True)
class Predictor(BasePredictor):
    """A trained network, bound to all that its predictions depend on.

    Attributes:
      model: the network and its loss.
      variables: what `model.module.apply` takes.
      normalization: that the network was trained with, for the modalities that it reads.
      emotions, context, frames, majority_emotion, extractors: see `Task`.
      batch_size: conversations that are predicted at once.
      precision: of matrix products, see `jmer.precision.matmul_precision`.
      mapping: over devices.
      speakers: names of the speakers by their numbers, see `jmer.data.speakers.number_speakers`.
    """

    model: Model
    variables: Any
    normalization: Mapping[str, Standardization]
    emotions: tuple[str, ...]
    context: str = "mask_unlabelled"
    frames: bool = False
    batch_size: int = 32
    precision: str = "default"
    mapping: DeviceMapping = ONE_DEVICE
    majority_emotion: str = ""
    extractors: Identities = dataclasses.field(default_factory=dict)
    speakers: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the conversations must be like."""
        heads = self.model.attributes
        return Task(
            self.emotions,
            self.context,
            self.frames,
            self.widths,
            self.majority_emotion,
            self.extractors,
            dict(zip(heads.names, heads.scales, strict=True)) if heads else {},
            heads.margin if heads else 0.0,
        )

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width."""
        return {m: len(s.mean) for m, s in self.normalization.items()}

    def apply(self, batch: Batch) -> Any:
        """Returns all that the network computes for a batch with normalised features."""
        with matmul_precision(self.precision):
            return compiled_output(self.model)(self.variables, batch)

    def normalize(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Returns examples as the network reads them: with normalised features."""
        return normalization.apply(conversations, self.normalization)

    def outliers(self, conversations: Sequence[Conversation]) -> dict[str, Outliers]:
        """Returns modality -> how many features, not normalised, training has not prepared the network for."""
        return count_outliers(conversations, self.normalization)

    def predict_examples(self, examples: Sequence[Conversation]) -> Predictions:
        """Predicts examples with the features of the corpus, not normalised; see `BasePredictor`."""
        return self.predict_normalized(self.normalize(examples))

    def predict_normalized(self, examples: Sequence[Conversation], **layout: Any) -> Predictions:
        """Predicts examples with normalised features.

        Args:
          examples: conversations, or single utterances with frames.
          layout: `packing` or `lengths` of `jmer.data.batching.batches`; without it, one of few shapes.
        """
        forward = compiled_forward_pass(self.model, self.mapping)
        with matmul_precision(self.precision):
            outputs = [
                (batch.conversation_ids, forward(self.variables, batch)) for batch in self._batches(examples, **layout)
            ]
        return unpack_predictions(outputs, examples)

    def outputs(self, examples: Sequence[Conversation], pick: Callable[[Any], Any]) -> list[Any]:
        """Returns what the network computes for each example, without padding.

        Args:
          examples: `k` examples of `n_i` utterances, with normalised features.
          pick: takes from the network's output what is wanted, arrays `[B, T, ...]` in any pytree.

        Returns:
          `k` pytrees of NumPy arrays `[n_i, ...]`.
        """
        made = self._batches(examples)
        return unpack([(b.conversation_ids, jax.device_get(pick(self.apply(b)))) for b in made], examples)

    def output_shapes(self, examples: Sequence[Conversation], pick: Callable[[Any], Any]) -> Any:
        """Returns the shapes of what `outputs` would pick of the first batch; nothing is computed."""
        batch = next(iter(self._batches(examples)))
        return jax.eval_shape(lambda batch: pick(self.model.network(self.variables, batch, train=False)), batch)

    def probabilities(self, examples: Sequence[Conversation]) -> np.ndarray:
        """Returns the probabilities of the emotions for examples with normalised features, float64 `[N, C]`.

        Raises:
          UserError: if one is not finite.
        """
        logits = np.concatenate(self.outputs(examples, lambda output: output.logits)).astype(np.float64)
        if not np.isfinite(logits).all():
            raise UserError("the model predicts numbers that are not finite: train it with a lower learning rate")
        return softmax(logits, axis=-1)

    def complete(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Adds the modalities that conversations lack, see `BasePredictor`."""
        return [self._completed(c) for c in conversations]

    def _completed(self, conversation: Conversation) -> Conversation:
        lacking = [m for m in self.widths if m not in conversation.features]
        if not lacking:
            return conversation
        if not self.model.spec.handles_missing:
            raise UserError(
                f"conversation '{conversation.id}' has no {', '.join(lacking)}, and model '{self.model.spec.name}' "
                "does not declare that it handles missing modalities (ModelSpec.handles_missing): add these features"
            )
        count = len(conversation)
        absent = np.zeros(count, bool)
        blank = {
            m: [np.zeros((0, width), np.float32)] * count if self.frames else np.zeros((count, width), np.float32)
            for m, width in self.widths.items()
            if m in lacking
        }
        return dataclasses.replace(
            conversation,
            features={**conversation.features, **blank},
            available={**conversation.available, **dict.fromkeys(lacking, absent)},
        )

    def _batches(self, examples: Sequence[Conversation], **layout: Any) -> Iterator[Batch]:
        size = self.batch_size
        if not layout and examples:
            size = min(size, round_up_coarsely(len(examples)))
            layout = batch_layout(examples, batch_size=size, pack=self.model.spec.packing, coarse=True)
        options = {"row_multiple": self.mapping.row_multiple, "speakers": self.speakers, **layout}
        return batches(examples, self.widths, batch_size=size, **options) if examples else iter(())


@dataclasses.dataclass(frozen=True)
class EnsemblePredictor(BasePredictor):
    """Several predictors of one task, whose probabilities, fusion weights and attention are averaged.

    Attributes:
      members: at least one, which read the same modalities.
    """

    members: tuple[Predictor, ...]

    @property
    def task(self) -> Task:
        """What the conversations must be like."""
        return self.members[0].task

    def complete(self, conversations: Sequence[Conversation]) -> list[Conversation]:
        """Adds the modalities that conversations lack, see `BasePredictor`."""
        return self.members[0].complete(conversations)

    def predict_examples(self, examples: Sequence[Conversation]) -> Predictions:
        """Returns the means of what the members predict, and how their probabilities differ."""
        found = [member.predict_examples(examples) for member in self.members]
        members = [one.probabilities for one in found]
        means = mean_probabilities(members)
        return Predictions(
            means,
            {m: _means([one.weights[m] for one in found]) for m in found[0].weights},
            {name: _means([one.attention[name] for one in found]) for name in found[0].attention},
            member_spread(members, means),
            {name: _means([one.attributes[name] for one in found]) for name in found[0].attributes},
        )


def _means(columns: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.mean(arrays, axis=0) for arrays in zip(*columns, strict=True)]


def _listed(data: Any) -> list[Conversation]:
    """Returns one conversation or several as a list. Raises UserError for anything else, or for none."""
    several = isinstance(data, Iterable) and not isinstance(data, Conversation)
    listed = list(data) if several else [data]
    wrong = [type(item).__name__ for item in listed if not isinstance(item, Conversation)]
    if listed and not wrong:
        return listed
    given = "an empty list" if not listed else f"a list with {wrong[0]}" if several else wrong[0]
    raise UserError(f"predict takes a corpus or conversations (jmer.data.make_conversation), not {given}")


def _restricted(conversation: Conversation, modalities: Collection[str], attributes: Collection[str]) -> Conversation:
    """Returns the conversation without modalities and attributes other than these, and with all of the latter."""
    return dataclasses.replace(
        conversation,
        features={m: values for m, values in conversation.features.items() if m in modalities},
        available={m: mask for m, mask in conversation.available.items() if m in modalities},
        attributes={name: values_of(conversation, name) for name in attributes},
    )
