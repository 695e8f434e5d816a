"""A model and a corpus made ready for each other."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jmer.batch import Batch
from jmer.data import normalization
from jmer.data.batching import batches, bucket_lengths
from jmer.data.corpus import Conversation, Corpus, any_labelled
from jmer.data.curriculum import curriculum
from jmer.data.normalization import Standardization
from jmer.data.packing import Packing, make_packing, plan_packed
from jmer.data.rows import batch_rows
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predict import Predictions, predict_conversations, predict_together
from jmer.models import Model, create
from jmer.training.epoch import Plan, make_plan
from jmer.training.parallel import Parallel


@dataclasses.dataclass(frozen=True)
class Setup:
    """What training and evaluation share.

    Attributes:
      config: complete, fitted to the training corpus.
      model, parallel: as the configuration says.
      statistics: normalisation of the features of the model's modalities.
      conversations: split -> conversations, or the single utterances of a corpus with frames, features normalised.
      class_names: names of the emotions.
      packing: shape of training batches; None with frames.
      scoring: shape of batches that are predicted, of any split; None with frames.
      lengths: bucket lengths of batches with frames, empty without.
    """

    config: ConfigDict
    model: Model
    parallel: Parallel
    statistics: Mapping[str, Standardization]
    conversations: Mapping[str, Sequence[Conversation]]
    class_names: tuple[str, ...]
    packing: Packing | None
    scoring: Packing | None
    lengths: tuple[int, ...]

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width."""
        return {m: len(s.mean) for m, s in self.statistics.items()}

    def training_batches(self, **order) -> Iterator[Batch]:
        """Gives the training split's batches; `order` is passed on to `jmer.data.batching.batches`."""
        return batches(self.conversations["train"], self.widths, packing=self.packing, **self._options, **order)

    def plan(self, epoch: int, chosen: np.ndarray, *, seed: int, steps: int, start: int = 0) -> Plan:
        """Returns what an epoch's steps train on, see `jmer.training.epoch.make_plan`; `chosen` as in `plan_packed`."""
        planned = plan_packed(
            self.conversations["train"],
            self.packing,
            batch_size=self.config.training.batch_size,
            seed=seed,
            epoch=epoch,
            chosen=chosen,
        )
        multiple = self.parallel.multiple
        rows = -(-self.packing.rows // multiple) * multiple
        return make_plan(planned, rows=rows, steps=steps, start=start)

    def predict(self, run: Callable[[Any, Batch], tuple], variables: Any, split: str) -> Predictions:
        """Predicts a split with `run`, the model's mapped `forward`."""
        rows, widths = self.conversations[split], self.widths
        return predict_conversations(run, variables, rows, widths, packing=self.scoring, **self._options)

    def predict_together(
        self, run: Callable[[Any, Batch], tuple], variables: Any, split: str, count: int
    ) -> list[Predictions]:
        """Predicts a split with `count` models, see `jmer.evaluation.predict.predict_together`."""
        rows, widths = self.conversations[split], self.widths
        return predict_together(run, variables, rows, widths, count=count, packing=self.scoring, **self._options)

    def is_labelled(self, split: str | None) -> bool:
        """Whether the corpus has the split and any label in it."""
        return any_labelled(self.conversations.get(split, ()))

    def score(self, predictions: Predictions, split: str) -> Scores:
        """Scores the predictions of a labelled split."""
        labels = np.concatenate([conversation.labels for conversation in self.conversations[split]])
        return classification_report(labels, np.concatenate(predictions.probabilities).argmax(-1), self.class_names)

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.config.training.batch_size,
            "lengths": self.lengths,
            "multiple": self.parallel.multiple,
        }


def set_up(config: ConfigDict, corpus: Corpus, statistics: Mapping[str, Standardization], parallel: Parallel) -> Setup:
    """Builds the model and normalises the corpus for it.

    Args:
      config: complete (`jmer.config.fit_to_corpus`).
      corpus: has the model's modalities in the right widths.
      statistics: normalisation of these modalities.
      parallel: the devices.

    Raises:
      UserError: if the configuration is at fault.
    """
    rows = {split: batch_rows(corpus, split, context=config.data.context) for split in corpus.splits}
    conversations = {split: normalization.apply(found, statistics) for split, found in rows.items()}
    model, plan = create(config), config.training
    everything = [conversation for found in conversations.values() for conversation in found]
    training = conversations.get("train") or everything
    packing, scoring, lengths = None, None, ()
    if corpus.card.frames:
        lengths = bucket_lengths(training, batch_size=plan.batch_size, count=plan.buckets)
    else:
        options = {"batch_size": plan.batch_size, "several": model.packs}
        epochs = curriculum(training, buckets=plan.curriculum, epochs=plan.epochs)
        packing = make_packing(training, chosen=epochs, **options)
        ends = np.cumsum([len(found) for found in conversations.values()])
        scoring = make_packing(everything, chosen=np.split(np.arange(len(everything)), ends[:-1]), **options)
    return Setup(
        config=config,
        model=model,
        parallel=parallel,
        statistics=statistics,
        conversations=conversations,
        class_names=corpus.card.emotions,
        packing=packing,
        scoring=scoring,
        lengths=lengths,
    )
