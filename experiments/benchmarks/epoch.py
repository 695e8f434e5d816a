"""A whole epoch over a corpus: jmer's batches, alike in length, against shuffled ones, each padded to its longest."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.cases import Case, padded_to_longest
from experiments.benchmarks.clock import timed
from experiments.benchmarks.side import JMER, Side
from jmer.batch import Batch
from jmer.data.batching import batches, bucket_lengths, useful_share
from jmer.data.corpus import Conversation


class Epoch(NamedTuple):
    """What an epoch took: seconds, batching included, real utterances, and the share of positions that held one."""

    seconds: float
    utterances: int
    useful_share: float


def run_epoch(case: Case, side: Side, conversations: Sequence[Conversation]) -> Epoch:
    """Trains an epoch with a side, in batches of the configured size, after steps to warm up."""
    if side.name == JMER:
        in_order = bucketed
        # A step for each padded length, which is a program each.
        first = list({batch.mask.shape: batch for batch in bucketed(case, conversations)}.values())
    else:
        in_order = shuffled
        first = itertools.islice(shuffled(case, conversations), 1)

    def train(some: Iterable[Batch]) -> None:
        for batch in some:
            side.train(side.place(batch))
        side.wait()

    train(first)
    seconds = timed(lambda: train(in_order(case, conversations)))
    return Epoch(seconds, sum(map(len, conversations)), useful_share(in_order(case, conversations)))


def bucketed(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Gives an epoch's batches as jmer's training makes them."""
    plan = case.config.training
    lengths = bucket_lengths(conversations, batch_size=plan.batch_size, count=plan.buckets)
    return batches(conversations, case.widths, batch_size=plan.batch_size, lengths=lengths, seed=0)


def shuffled(case: Case, conversations: Sequence[Conversation]) -> Iterator[Batch]:
    """Gives an epoch's batches as the usual PyTorch loader makes them."""
    order = np.random.default_rng(0).permutation(len(conversations))
    size = case.config.training.batch_size
    for start in range(0, len(order), size):
        yield padded_to_longest([conversations[i] for i in order[start : start + size]], case.widths)
