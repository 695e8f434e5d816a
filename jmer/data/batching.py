"""Padded batches of NumPy arrays, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jmer.batch import UNLABELLED, Batch
from jmer.data.corpus import Conversation
from jmer.errors import UserError

# Conversations are sorted by length inside windows of this many batches: wide enough that a batch holds like lengths,
# narrow enough that the same conversations do not meet in every epoch.
SORT_WINDOW = 4
# Without a bucket that holds it, a batch is padded to the longest conversation, rounded up to a multiple of this.
LENGTH_STEP = 8
# Epochs of which the bucket lengths are made.
SAMPLE = 8


def batches(
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    *,
    batch_size: int,
    lengths: Sequence[int] = (),
    seed: int | None = None,
    epoch: int = 0,
    multiple: int = 1,
    start: int = 0,
    chosen: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Pads one epoch's conversations into batches; every conversation comes exactly once.

    A batch holds up to `batch_size` conversations whatever `multiple` is, so that a step means the same on any number
    of devices; rows up to the next multiple, and those that the last batch lacks, are padding conversations (mask
    False, index -1).

    With frames a conversation is a single utterance (`jmer.data.frames.single_utterances`): `T` is 1, the padded length
    is that of the frame axis, the same for all modalities, and what is said of a conversation's length below holds for
    the number of frames in the utterance's longest modality.

    Args:
      conversations: those of one split.
      widths: modality -> width; names the modalities that the batches carry.
      batch_size: conversations per batch.
      lengths: bucket lengths. A batch is padded to the smallest that holds its longest conversation; where none does,
        to the longest of all `conversations`, rounded up to a multiple of 8.
      seed: None = in the order given (evaluation); a seed shuffles, and conversations of like length share a batch.
      epoch: with the seed, determines the order.
      multiple: rows of a batch are a multiple of this (the number of devices).
      start: the batch to begin with; those before it are not built.
      chosen: positions of the conversations that the epoch is made of (see `jmer.data.curriculum`); None = all.

    Returns:
      An iterator over batches whose leaves are NumPy arrays; no JAX backend is initialised.

    Raises:
      UserError: if `batch_size` is less than 1, or several utterances with frames are in one conversation.
    """
    sizes = _sizes(conversations)
    rows = -(-batch_size // multiple) * multiple
    ceiling = -(-int(sizes.max(initial=0)) // LENGTH_STEP) * LENGTH_STEP
    chosen = np.arange(len(sizes)) if chosen is None else chosen
    plan = [chosen[members] for members in _plan(sizes[chosen], batch_size, seed, epoch)[start:]]
    return (
        _pad(conversations, members, widths, rows, _padded_length(int(sizes[members].max()), lengths, ceiling))
        for members in plan
    )


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Returns how many batches `count` conversations make.

    Raises:
      UserError: if `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: give at least 1")
    return -(-count // batch_size)


def bucket_lengths(conversations: Sequence[Conversation], *, batch_size: int, count: int = 6) -> tuple[int, ...]:
    """Proposes the bucket lengths that leave the least padding when shuffled batches are padded to them.

    Exact for the batches of a sample of epochs: each batch counts with its longest conversation, and dynamic
    programming cuts the sorted lengths into `count` groups, each padded to its longest.

    Args:
      conversations: those of the training split, at least one.
      batch_size: conversations per batch.
      count: the most lengths to propose; each costs one compilation.

    Returns:
      Lengths in ascending order; the last is that of the longest conversation.
    """
    sizes = _sizes(conversations)
    longest = [sizes[chosen].max() for epoch in range(SAMPLE) for chosen in _plan(sizes, batch_size, 0, epoch)]
    values, weights = np.unique(longest, return_counts=True)
    below = np.concatenate([[0], np.cumsum(weights)])
    # cost[j]: the fewest positions that hold the j smallest values in the buckets so far. The last bucket covers the
    # values from i to j; cuts keeps the best i for every j, to trace the buckets back.
    cost = np.concatenate([[0.0], np.full(len(values), np.inf)])
    cuts = []
    for _ in range(min(count, len(values))):
        padded = cost[:-1, None] + values[None, :] * (below[None, 1:] - below[:-1, None])
        padded[np.tril_indices(len(values), -1)] = np.inf
        cuts.append(padded.argmin(0))
        cost = np.concatenate([[np.inf], padded.min(0)])
    end, chosen = len(values), []
    for cut in reversed(cuts):
        chosen.append(int(values[end - 1]))
        end = int(cut[end - 1])
    return tuple(reversed(chosen))


def useful_share(padded: Iterable[Batch]) -> float:
    """Returns the share of positions `[B, T]`, or with frames `[B, T, F_m]`, that hold something real."""
    real, positions = 0, 0
    for batch in padded:
        for mask in [batch.mask] if batch.frames is None else batch.frames.values():
            real += int(np.count_nonzero(mask))
            positions += mask.size
    return real / positions


def _sizes(conversations: Sequence[Conversation]) -> np.ndarray:
    """Returns what a batch pads: numbers of utterances, or of frames and at least 1."""
    return np.array([_frames(c) if c.has_frames else len(c) for c in conversations], np.int64)


def _frames(utterance: Conversation) -> int:
    if len(utterance) != 1:
        raise UserError(
            f"conversation '{utterance.id}' has frames and {len(utterance)} utterances: batch the single utterances, "
            "jmer.data.frames.single_utterances(conversations)"
        )
    return max(1, *(len(frames) for (frames,) in utterance.features.values()))


def _plan(sizes: np.ndarray, batch_size: int, seed: int | None, epoch: int) -> list[np.ndarray]:
    """Returns which conversations each batch holds."""
    cuts = batch_size * np.arange(1, steps_per_epoch(len(sizes), batch_size))
    if not len(sizes):
        return []
    if seed is None:
        return np.split(np.arange(len(sizes)), cuts)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(sizes))
    for first in range(0, len(order), SORT_WINDOW * batch_size):
        window = order[first : first + SORT_WINDOW * batch_size]
        window[:] = window[np.argsort(sizes[window], kind="stable")]
    plan = np.split(order, cuts)
    return [plan[i] for i in rng.permutation(len(plan))]


def _padded_length(longest: int, lengths: Sequence[int], ceiling: int) -> int:
    return min((length for length in lengths if length >= longest), default=ceiling)


def _pad(
    conversations: Sequence[Conversation], chosen: np.ndarray, widths: Mapping[str, int], rows: int, length: int
) -> Batch:
    has_frames = conversations[chosen[0]].has_frames
    positions = (rows, 1) if has_frames else (rows, length)
    frames = {m: np.zeros((rows, 1, length), bool) for m in widths} if has_frames else None
    shape = (rows, 1, length) if has_frames else positions
    features = {m: np.zeros((*shape, width), np.float32) for m, width in widths.items()}
    available = {m: np.zeros(positions, bool) for m in widths}
    mask = np.zeros(positions, bool)
    labels = np.full(positions, UNLABELLED, np.int32)
    speakers = np.full(positions, -1, np.int32)
    index = np.full(rows, -1, np.int32)
    index[: len(chosen)] = chosen
    for row, position in enumerate(chosen):
        conversation = conversations[position]
        real = slice(len(conversation))
        mask[row, real] = True
        labels[row, real] = conversation.labels
        speakers[row, real] = _by_first_appearance(conversation.speakers)
        for m in widths:
            available[m][row, real] = conversation.available[m]
            if has_frames:
                (values,) = conversation.features[m]
                features[m][row, 0, : len(values)] = values
                frames[m][row, 0, : len(values)] = True
            else:
                features[m][row, real] = conversation.features[m]
    return Batch(features, mask, labels, speakers, available, index, frames)


def _by_first_appearance(names: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]
