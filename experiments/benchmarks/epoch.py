"""A whole epoch over a corpus: jmer's packed batches, against shuffled ones, each padded to its longest."""

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
    """What an epoch took: seconds, batching included, real utterances, and the share of positions that held one."""

    seconds: float
    utterances: int
    useful_share: float


def run_epoch(case: Case, side: Side, conversations: Sequence[Conversation]) -> Epoch:
    """Trains an epoch with a side, in batches of the configured size, after a step to warm up."""
    in_order = packed if side.name == JMER else shuffled

    def train(some: Iterable[Batch]) -> None:
        for batch in some:
            side.train(side.place(batch))
        side.wait()

    train(itertools.islice(in_order(case, conversations), 1))
    seconds = timed(lambda: train(in_order(case, conversations)))
    return Epoch(seconds, sum(map(len, conversations)), useful_share(in_order(case, conversations)))


def packed(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Gives an epoch's batches as jmer's training makes them."""
    size = case.config.training.batch_size
    packing = make_packing(conversations, batch_size=size)
    return batches(conversations, case.widths, batch_size=size, packing=packing, seed=0)


def shuffled(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Gives an epoch's batches as the usual PyTorch loader makes them."""
    order = np.random.default_rng(0).permutation(len(conversations))
    size = case.config.training.batch_size
    for start in range(0, len(order), size):
        yield padded_to_longest([conversations[i] for i in order[start : start + size]], case.widths)
