"""An epoch over a corpus: jmer's packed batches, and shuffled batches padded to their longest conversation."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.cases import Case, padded_to_longest
from experiments.benchmarks.clock import timed
from experiments.benchmarks.side import JMER, Side
from jmer.batch import Batch
from jmer.data.batching import batches, useful_share
from jmer.data.corpus import Conversation
from jmer.data.packing import make_packing


class Epoch(NamedTuple):
    """Measurements of an epoch: seconds with batching, real utterances, and the share of positions that hold one."""

    seconds: float
    utterances: int
    useful_share: float


def run_epoch(case: Case, side: Side, conversations: Sequence[Conversation]) -> Epoch:
    """Trains an epoch with a side in batches of the configured size, after a warm-up step."""
    epoch_batches = packed if side.name == JMER else shuffled

    def train(batches: Iterable[Batch]) -> None:
        for batch in batches:
            side.train(side.place(batch))
        side.wait()

    train(itertools.islice(epoch_batches(case, conversations), 1))
    seconds = timed(lambda: train(epoch_batches(case, conversations)))
    return Epoch(seconds, sum(map(len, conversations)), useful_share(epoch_batches(case, conversations)))


def packed(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Yields an epoch's batches as in jmer's training."""
    size = case.config.training.batch_size
    packing = make_packing(conversations, batch_size=size)
    return batches(conversations, case.widths, batch_size=size, packing=packing, seed=0)


def shuffled(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Yields an epoch's batches as a typical PyTorch loader makes them."""
    order = np.random.default_rng(0).permutation(len(conversations))
    size = case.config.training.batch_size
    for start in range(0, len(order), size):
        yield padded_to_longest([conversations[i] for i in order[start : start + size]], case.widths)
