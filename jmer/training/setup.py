"""A model and a corpus made ready for each other."""

import dataclasses
import functools
import itertools
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
from jmer.data.packing import Packing, make_packing, plan_packed, round_up
from jmer.data.rows import batch_rows
from jmer.evaluation.metrics import Scores, classification_report
from jmer.evaluation.predict import Predictions, predict_conversations, predict_together
from jmer.models import Model, build_model
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
      lengths: bucket lengths of batches with frames; empty = there are none, and batches are packed.
    """

    config: ConfigDict
    model: Model
    parallel: Parallel
    statistics: Mapping[str, Standardization]
    conversations: Mapping[str, Sequence[Conversation]]
    class_names: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width."""
        return {m: len(s.mean) for m, s in self.statistics.items()}

    @functools.cached_property
    def packing(self) -> Packing | None:
        """Shape of training batches, whatever an epoch is made of; None with frames."""
        plan, training = self.config.training, self.conversations["train"]
        return self._pack(training, curriculum(training, buckets=plan.curriculum, epochs=plan.epochs))

    @functools.cached_property
    def scoring(self) -> Packing | None:
        """Shape of the batches that are predicted, of any split; None with frames."""
        everything = list(itertools.chain.from_iterable(self.conversations.values()))
        ends = np.cumsum([len(found) for found in self.conversations.values()])
        return self._pack(everything, np.split(np.arange(len(everything)), ends[:-1]))

    def _pack(self, conversations: Sequence[Conversation], chosen: Sequence[np.ndarray]) -> Packing | None:
        if self.lengths:
            return None
        size, several = self.config.training.batch_size, self.model.spec.packing
        return make_packing(conversations, batch_size=size, chosen=chosen, several=several)

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
        return make_plan(planned, rows=round_up(self.packing.rows, self.parallel.multiple), steps=steps, start=start)

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
    plan, lengths = config.training, ()
    if corpus.card.frames:
        typical = conversations.get("train") or list(itertools.chain.from_iterable(conversations.values()))
        lengths = bucket_lengths(typical, batch_size=plan.batch_size, count=plan.buckets)
    return Setup(
        config=config,
        model=build_model(config),
        parallel=parallel,
        statistics=statistics,
        conversations=conversations,
        class_names=corpus.card.emotions,
        lengths=lengths,
    )
