"""The one recipe from a configuration and a corpus to what a model reads: examples, batches and epoch plans."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jmer.batch import Batch
from jmer.config import check_config, fit_to_corpus
from jmer.data import normalization
from jmer.data.attributes import values_of
from jmer.data.batching import batches, bucket_lengths
from jmer.data.corpus import Card, Conversation, Corpus, any_labelled
from jmer.data.curriculum import EpochSchedule, epoch_schedule, make_curriculum
from jmer.data.examples import make_examples
from jmer.data.normalization import Standardization
from jmer.data.packing import EpochPlan, Packing, make_epoch_plan, make_packing, plan_packed, round_up
from jmer.data.speakers import number_speakers
from jmer.models import get_spec


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A corpus made ready for a model.

    Attributes:
      config: complete, fitted to the training corpus.
      card: of the corpus that is read.
      normalization: of the features of the model's modalities, fitted on the training split.
      examples: split -> conversations, or single utterances where these are sequences of frames, with normalised
        features.
    """

    config: ConfigDict
    card: Card
    normalization: Mapping[str, Standardization]
    examples: Mapping[str, Sequence[Conversation]]

    @classmethod
    def for_training(cls, config: ConfigDict, corpus: Corpus) -> "Pipeline":
        """Fits a configuration and the normalisation to a corpus.

        Args:
          config: an experiment's configuration.
          corpus: has a training split.

        Raises:
          UserError: if the configuration is invalid, or does not fit the corpus.
        """
        check_config(config, corpus)
        training = _examples(config, corpus, "train")
        config = fit_to_corpus(config, corpus.card, training)
        widths = {m: corpus.card.widths[m] for m in config.model.modalities}
        statistics = normalization.fit(training, widths, kind=config.data.normalization, clip=config.data.clip)
        return cls.for_corpus(config, corpus, statistics)

    @classmethod
    def for_corpus(cls, config: ConfigDict, corpus: Corpus, normalizing: Mapping[str, Standardization]) -> "Pipeline":
        """Prepares a corpus as the training corpus was prepared.

        Args:
          config: complete, fitted to the training corpus.
          corpus: has the model's modalities and widths.
          normalizing: fitted on the training corpus.

        Raises:
          UserError: for a speaker whom the training corpus lacks, if speakers are known by name.
        """
        if names := config.data.speakers:
            for conversation in itertools.chain.from_iterable(map(corpus.conversations, corpus.splits)):
                number_speakers(conversation, names)
        examples = {
            split: normalization.apply(_examples(config, corpus, split), normalizing) for split in corpus.splits
        }
        return cls(config, corpus.card, normalizing, examples)

    @property
    def widths(self) -> dict[str, int]:
        """Modality -> feature width."""
        return {m: len(s.mean) for m, s in self.normalization.items()}

    @property
    def attribute_scales(self) -> dict[str, tuple[float, float]]:
        """Attribute that is learned -> the ends of its scale."""
        learned = self.config.attributes
        ends = iter(learned.scales)
        return dict(zip(learned.names, zip(ends, ends, strict=True), strict=True))

    @functools.cached_property
    def schedule(self) -> EpochSchedule:
        """What each epoch trains on."""
        plan = self.config.training
        curriculum = make_curriculum(self.config.curriculum, self.card.emotions)
        return epoch_schedule(self.examples["train"], curriculum, epochs=plan.epochs, batch_size=plan.batch_size)

    @functools.cached_property
    def packing(self) -> Packing:
        """The shape of every training batch, without frames."""
        return make_packing(
            self.examples["train"],
            batch_size=self.config.training.batch_size,
            subsets=self.schedule.conversation_ids,
            pack=self._pack,
        )

    @functools.cached_property
    def evaluation_layout(self) -> dict[str, Any]:
        """The arguments of `jmer.data.batching.batches` that hold any split."""
        if self.card.frames:
            return {"lengths": self._frame_lengths}
        everything = list(itertools.chain.from_iterable(self.examples.values()))
        ends = np.cumsum([len(found) for found in self.examples.values()])
        splits = np.split(np.arange(len(everything)), ends[:-1])
        size = self.config.training.batch_size
        return {"packing": make_packing(everything, batch_size=size, subsets=splits, pack=self._pack)}

    def train_batches(self, epoch: int, *, start: int = 0, row_multiple: int = 1) -> Iterator[Batch]:
        """Yields the batches of an epoch.

        Args:
          epoch: from 0.
          start: the first batch; those before it are not built.
          row_multiple: rows of a batch are a multiple of this (the number of devices).
        """
        layout = {"lengths": self._frame_lengths} if self.card.frames else {"packing": self.packing}
        return batches(
            self.examples["train"],
            self.widths,
            batch_size=self.config.training.batch_size,
            **layout,
            seed=self.config.seed,
            epoch=epoch,
            start=start,
            subset=self.schedule.conversation_ids[epoch],
            row_multiple=row_multiple,
            attributes=self.attribute_scales,
            speakers=self.config.data.speakers,
        )

    def epoch_plan(self, epoch: int, *, seed: int, start: int = 0, row_multiple: int = 1) -> EpochPlan:
        """Returns what the steps of an epoch train on; all epochs have one shape.

        Args:
          epoch, start, row_multiple: see `train_batches`.
          seed: of the order.
        """
        planned = plan_packed(
            self.examples["train"],
            self.packing,
            batch_size=self.config.training.batch_size,
            seed=seed,
            epoch=epoch,
            subset=self.schedule.conversation_ids[epoch],
        )
        rows = round_up(self.packing.rows, row_multiple)
        return make_epoch_plan(planned, rows=rows, steps=max(self.schedule.steps), start=start)

    def evaluation_batches(self, split: str, *, row_multiple: int = 1) -> Iterator[Batch]:
        """Yields the batches of a split, in order."""
        size = self.config.training.batch_size
        speakers = self.config.data.speakers
        options = {"batch_size": size, "row_multiple": row_multiple, "speakers": speakers, **self.evaluation_layout}
        return batches(self.examples[split], self.widths, **options)

    def is_labelled(self, split: str) -> bool:
        """Returns whether the corpus has the split and any label in it."""
        return any_labelled(self.examples.get(split, ()))

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of a split, int32 `[N]`, utterance after utterance; -1 = unlabelled."""
        return np.concatenate([example.labels for example in self.examples[split]])

    def attribute_values(self, split: str, name: str) -> np.ndarray:
        """Returns the values of an attribute in a split, float32 `[N]`, utterance after utterance; NaN = unlabelled."""
        return np.concatenate([values_of(example, name) for example in self.examples[split]])

    @property
    def _pack(self) -> bool:
        return get_spec(self.config.model.name).packing

    @functools.cached_property
    def _frame_lengths(self) -> tuple[int, ...]:
        plan = self.config.training
        typical = self.examples.get("train") or list(itertools.chain.from_iterable(self.examples.values()))
        return bucket_lengths(typical, batch_size=plan.batch_size, count=plan.buckets)


def _examples(config: ConfigDict, corpus: Corpus, split: str) -> list[Conversation]:
    return make_examples(corpus.conversations(split), frames=corpus.card.frames, context=config.data.context)
