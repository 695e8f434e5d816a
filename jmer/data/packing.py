"""Sequence packing: batches of one shape, whose rows hold several conversations end to end.

The conversations of an epoch are sorted by length and cut into strata, each with as many conversations as the epoch has
steps; a batch takes one conversation of each stratum. A shape that holds the longest conversations of all strata then
holds any batch, and is compiled once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import struct

from jmer.data.corpus import Conversation
from jmer.errors import UserError

# Rows may be longer than the longest conversation by this factor, if fewer rows are needed then. Longer ones would take
# more steps of a recurrence.
LONGEST_ROW = 1.25
# Length of the shortest row of a coarse packing.
SHORTEST_ROW = 4


class Packing(NamedTuple):
    """The shape of packed batches: `rows`, conversations in a row at most (`slots`), and utterances (`length`)."""

    rows: int
    slots: int
    length: int


class PlannedBatch(NamedTuple):
    """Which conversations a batch holds.

    Attributes:
      conversation_ids: int32 `[B, K]`, positions in their split; in each row those with -1, which is none, come last.
      length: utterances of a row, or with frames the frames of an utterance.
    """

    conversation_ids: np.ndarray
    length: int


@struct.dataclass
class EpochPlan:
    """What the `S` steps of an epoch train on.

    Attributes:
      conversation_ids: int32 `[S, B, K]`, positions of each row's conversations in their split, -1 = none.
      computed: bool `[S]`, False where nothing is to be computed.
      active: bool `[S]`, False for a step that leaves the train state as it is.
    """

    conversation_ids: Any
    computed: Any
    active: Any


def make_epoch_plan(planned: Sequence[PlannedBatch], *, rows: int, steps: int, start: int = 0) -> EpochPlan:
    """Returns the plan of an epoch.

    Args:
      planned: its batches, at least one, all of one shape.
      rows: of every batch.
      steps: `S`; steps beyond the batches are inactive, so that all epochs have one shape.
      start: the first active step; those before it were taken already.
    """
    slots = planned[0].conversation_ids.shape[1]
    conversation_ids = np.full((steps, rows, slots), -1, np.int32)
    active = np.zeros(steps, bool)
    for step, batch in enumerate(planned[start:], start):
        conversation_ids[step, : len(batch.conversation_ids)] = batch.conversation_ids
        active[step] = True
    return EpochPlan(conversation_ids, active, active)


def make_packing(
    conversations: Sequence[Conversation],
    *,
    batch_size: int,
    subsets: Sequence[np.ndarray] | None = None,
    pack: bool = True,
) -> Packing:
    """Returns the shape that leaves the least padding.

    Args:
      conversations: at least one.
      batch_size: conversations per batch.
      subsets: positions of the conversations of each epoch that the shape must hold; None = one epoch with all.
      pack: whether a row may hold several conversations, which the model must keep apart (`ModelSpec.packing`).

    Raises:
      UserError: if `batch_size` is less than 1.
    """
    sizes = np.array([len(c) for c in conversations])
    longest = max(1, int(sizes.max()))
    epochs = [sizes[positions] for positions in ([np.arange(len(sizes))] if subsets is None else subsets)]
    tallest = [[int(sizes[stratum].max()) for stratum in _strata(sizes, batch_size)] for sizes in epochs]
    if not pack:
        return Packing(max(map(len, tallest)), 1, longest)

    lengths = range(longest, int(longest * LONGEST_ROW) + 1)
    packings = (_packing_of_length(tallest, length) for length in lengths)
    return min(packings, key=lambda packing: (packing.rows * packing.length, packing.length))


def make_coarse_packing(conversations: Sequence[Conversation], *, batch_size: int, pack: bool = True) -> Packing:
    """Returns one of few shapes that hold any conversations, so that a program for them is seldom compiled anew.

    Args:
      conversations: at least one.
      batch_size: conversations per batch.
      pack: see `make_packing`.

    Raises:
      UserError: if `batch_size` is less than 1.
    """
    sizes = np.array([len(c) for c in conversations])
    tallest = [int(sizes[stratum].max()) for stratum in _strata(sizes, batch_size)]
    length = max(SHORTEST_ROW, round_up_coarsely(int(sizes.max())))
    packing = _packing_of_length([tallest], length) if pack else Packing(len(tallest), 1, length)
    return Packing(round_up_coarsely(packing.rows), round_up_coarsely(packing.slots), length)


def round_up_coarsely(number: int) -> int:
    """Returns the least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `number`, at most half as much again."""
    power = 1 << max(0, number - 1).bit_length()
    return power * 3 // 4 if power >= 4 and number <= power * 3 // 4 else power


def _packing_of_length(tallest: Sequence[Sequence[int]], length: int) -> Packing:
    """Returns the shape with rows of `length` for each epoch's strata, given by their longest conversations."""
    layouts = [_first_fit(sizes, length) for sizes in tallest]
    slots = max((len(row) for rows in layouts for row in rows), default=1)
    return Packing(max(map(len, layouts)), slots, length)


def plan_packed(
    conversations: Sequence[Conversation],
    packing: Packing,
    *,
    batch_size: int,
    seed: int | None = None,
    epoch: int = 0,
    subset: np.ndarray | None = None,
) -> list[PlannedBatch]:
    """Returns the packed batches of an epoch, in their order.

    Args:
      conversations: those of one split.
      packing: from `make_packing`, for these conversations and this subset.
      batch_size: conversations per batch at most; the batches of an epoch differ by one at most.
      seed: None = in the order of the strata (evaluation); a seed shuffles each stratum.
      epoch: with the seed, determines the order.
      subset: positions of the conversations that the epoch has (see `jmer.data.curriculum`); None = all.

    Raises:
      UserError: if `batch_size` is less than 1.
      ValueError: if the packing does not hold them.
    """
    sizes = np.array([len(c) for c in conversations], np.int64)
    subset = np.arange(len(sizes)) if subset is None else subset
    steps = steps_per_epoch(len(subset), batch_size)
    strata = [subset[stratum] for stratum in _strata(sizes[subset], batch_size)]
    tallest = [int(sizes[stratum].max()) for stratum in strata]
    rows = _first_fit(tallest, packing.length) if packing.slots > 1 else [[place] for place in range(len(strata))]
    needed = Packing(len(rows), max(map(len, rows), default=0), max(tallest, default=0))
    if any(size > given for size, given in zip(needed, packing, strict=True)):
        raise ValueError(f"{packing} does not hold these conversations: make it of them, with the same batch_size")
    # The last stratum may have fewer.
    full = [np.concatenate([stratum, np.full(steps - len(stratum), -1, subset.dtype)]) for stratum in strata]
    if seed is not None:
        rng = np.random.default_rng([seed, epoch])
        full = [rng.permutation(stratum) for stratum in full]
    conversation_ids = np.full((steps, packing.rows, packing.slots), -1, np.int32)
    for row, places in enumerate(rows):
        for slot, place in enumerate(places):
            conversation_ids[:, row, slot] = full[place]
    return [PlannedBatch(batch, packing.length) for batch in conversation_ids]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns the number of batches for `count` conversations.

    Raises:
      UserError: if `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: give at least 1")
    return -(-count // batch_size)


def round_up(number: int, multiple: int) -> int:
    """Returns the least multiple that is not below `number`."""
    return -(-number // multiple) * multiple


def _strata(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns positions by size, the largest first, in as many strata as a batch has conversations at most."""
    order = np.argsort(-sizes, kind="stable")
    steps = steps_per_epoch(len(order), batch_size)
    return [order[start : start + steps] for start in range(0, len(order), max(steps, 1))]


def _first_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """Puts sizes, the largest first, each into the first row of `length` with room; returns the rows."""
    rows: list[list[int]] = []
    room: list[int] = []
    for place, size in enumerate(sizes):
        row = next((row for row, left in enumerate(room) if left >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(place)
        room[row] -= size
    return rows
