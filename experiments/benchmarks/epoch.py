"""An epoch over a corpus: jmer's packed batches, and shuffled batches padded to their longest conversation."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.cases import padded_to_longest
from experiments.benchmarks.clock import timed
from experiments.benchmarks.side import JMER, Side
from jmer.batch import Batch
from jmer.data.batching import real_fraction
from jmer.pipeline import Pipeline


class Epoch(NamedTuple):
    """Measurements of an epoch: seconds with batching, real utterances, and the share of positions that hold one."""

    seconds: float
    utterances: int
    real_fraction: float


def run_epoch(side: Side, pipeline: Pipeline) -> Epoch:
    """Trains an epoch with a side in batches of the configured size, after a warm-up step."""
    epoch_batches = packed if side.name == JMER else shuffled

    def train(batches: Iterable[Batch]) -> None:
        for batch in batches:
            side.train(side.place(batch))
        side.wait()

    train(itertools.islice(epoch_batches(pipeline), 1))
    seconds = timed(lambda: train(epoch_batches(pipeline)))
    return Epoch(seconds, sum(map(len, pipeline.examples["train"])), real_fraction(epoch_batches(pipeline)))


def packed(pipeline: Pipeline) -> Iterator[Batch]:
    """Yields an epoch's batches as in jmer's training."""
    return pipeline.train_batches(0)


def shuffled(pipeline: Pipeline) -> Iterator[Batch]:
    """Yields an epoch's batches as a typical PyTorch loader makes them."""
    conversations, size = pipeline.examples["train"], pipeline.config.training.batch_size
    order = np.random.default_rng(0).permutation(len(conversations))
    for start in range(0, len(order), size):
        yield padded_to_longest([conversations[i] for i in order[start : start + size]], pipeline.widths)
