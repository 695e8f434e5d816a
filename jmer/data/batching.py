"""Padded or packed batches of NumPy arrays, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jmer.batch import UNLABELLED, Batch
from jmer.data.attributes import Scales, scaled
from jmer.data.corpus import Conversation
from jmer.data.packing import (
    Packing,
    PlannedBatch,
    make_coarse_packing,
    make_packing,
    plan_packed,
    round_up,
    round_up_coarsely,
    steps_per_epoch,
)
from jmer.data.speakers import number_speakers
from jmer.errors import UserError

# A batch that fits into no bucket is padded to the longest conversation, rounded up to a multiple of this.
LENGTH_STEP = 8


def batches(
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    *,
    batch_size: int,
    lengths: Sequence[int] = (),
    packing: Packing | None = None,
    seed: int | None = None,
    epoch: int = 0,
    row_multiple: int = 1,
    start: int = 0,
    subset: np.ndarray | None = None,
    attributes: Scales | None = None,
    speakers: Sequence[str] = (),
) -> Iterator[Batch]:
    """Yields the batches of an epoch, which hold every conversation exactly once.

    A batch holds up to `batch_size` conversations whatever `row_multiple` is, so that a step means the same on any
    number of devices; rows up to the next multiple, and rows without conversations, are padding (conversation_ids -1).

    With frames a conversation is a single utterance (`jmer.data.frames.single_utterances`): `T` is 1, and the length of
    a conversation is the number of frames in the utterance's longest modality.

    Args:
      conversations: those of one split.
      widths: modality -> width; names the modalities that the batches carry.
      batch_size: conversations per batch.
      lengths: see `plan_padded`.
      packing: a shape from `jmer.data.packing.make_packing`, whose rows hold several conversations; None = one per row,
        padded as in `plan_padded`.
      seed, epoch, subset: see `plan_padded` or `jmer.data.packing.plan_packed`.
      row_multiple: rows of a batch are a multiple of this (the number of devices).
      start: the batch to begin with; those before it are not built.
      attributes: names the attributes that the batches carry, with their scales; None = none.
      speakers: the corpus' speakers in the order of their numbers, see `jmer.data.speakers.number_speakers`.

    Returns:
      An iterator over batches whose leaves are NumPy arrays; no JAX backend is initialised.

    Raises:
      UserError: if `batch_size` is less than 1, or several utterances with frames are in one conversation.
    """
    order: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "subset": subset}
    if packing is None:
        rows, plan = batch_size, plan_padded(conversations, lengths=lengths, **order)
    else:
        rows, plan = packing.rows, plan_packed(conversations, packing, **order)
    rows = round_up(rows, row_multiple)
    carried = attributes or {}
    return (_fill(conversations, ids, widths, rows, length, carried, speakers) for ids, length in plan[start:])


def plan_padded(
    conversations: Sequence[Conversation],
    *,
    batch_size: int,
    lengths: Sequence[int] = (),
    seed: int | None = None,
    epoch: int = 0,
    subset: np.ndarray | None = None,
) -> list[PlannedBatch]:
    """Returns the batches of an epoch with one conversation per row, in their order.

    Conversations are sorted by length and cut into batches; the shortest ones are in the batch that is not full, whose
    empty rows then cost least. Each batch is padded to the smallest of `lengths` that holds it. Conversations are
    shuffled among batches of the same padded length. The sequence of padded lengths depends on the epoch but not on the
    seed, so that one program can train runs with different seeds.

    Args:
      conversations: those of one split.
      batch_size: conversations per batch.
      lengths: bucket lengths; a batch that fits into none is padded to the longest conversation, rounded up to a
        multiple of 8.
      seed: None = sorted by length (evaluation); a seed shuffles.
      epoch: with the seed, determines the order.
      subset: positions of the conversations that the epoch has (see `jmer.data.curriculum`); None = all.

    Raises:
      UserError: if `batch_size` is less than 1, or several utterances with frames are in one conversation.
    """
    sizes = _sizes(conversations)
    subset = np.arange(len(sizes)) if subset is None else subset
    order = subset[np.argsort(sizes[subset], kind="stable")]
    ends = _batch_ends(len(order), batch_size)
    ceiling = round_up(int(sizes.max(initial=0)), LENGTH_STEP)
    padded = [_padded_length(longest, lengths, ceiling) for longest in sizes[order[ends - 1]].tolist()]
    if seed is None:
        # Within a batch they keep their order.
        return _one_per_row(map(np.sort, np.split(order, ends[:-1])), padded)
    rng = np.random.default_rng([seed, epoch])
    for length in sorted(set(padded)):
        alike = np.repeat(padded, np.diff(ends, prepend=0)) == length
        order[alike] = rng.permutation(order[alike])
    plan = _one_per_row(np.split(order, ends[:-1]), padded)
    return [plan[i] for i in np.random.default_rng(epoch).permutation(len(plan))]


def bucket_lengths(conversations: Sequence[Conversation], *, batch_size: int, count: int = 6) -> tuple[int, ...]:
    """Returns the bucket lengths that leave the least padding in the batches of `plan_padded`.

    Dynamic programming cuts the lengths of the batches' longest conversations, sorted, into `count` groups, each padded
    to its longest.

    Args:
      conversations: those of the training split, at least one.
      batch_size: conversations per batch.
      count: number of lengths at most; each costs one compilation.

    Returns:
      Lengths in ascending order; the last is that of the longest conversation.
    """
    longest = np.sort(_sizes(conversations))[_batch_ends(len(conversations), batch_size) - 1]
    values, weights = np.unique(longest, return_counts=True)
    below = np.concatenate([[0], np.cumsum(weights)])
    # cost[j]: the fewest positions that hold the j smallest values in the buckets so far. The last bucket covers the
    # values from i to j; cuts has the best i for every j, from which the buckets are traced back.
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


def batch_layout(
    conversations: Sequence[Conversation], *, batch_size: int, pack: bool, coarse: bool = False, buckets: int = 1
) -> dict[str, Any]:
    """Returns the arguments `packing` or `lengths` of `batches` that suit some conversations.

    Args:
      conversations: at least one.
      batch_size: conversations per batch.
      pack: whether a row may hold several conversations, which the model must keep apart (`ModelSpec.packing`).
      coarse: True = one of few shapes, for conversations of which others will follow; False = the least padding.
      buckets: with frames, the most padded lengths, see `bucket_lengths`.

    Raises:
      UserError: if `batch_size` is less than 1.
    """
    if conversations[0].has_frames:
        lengths = bucket_lengths(conversations, batch_size=batch_size, count=buckets)
        return {"lengths": tuple(dict.fromkeys(map(round_up_coarsely, lengths))) if coarse else lengths}
    make = make_coarse_packing if coarse else make_packing
    return {"packing": make(conversations, batch_size=batch_size, pack=pack)}


def locate(
    conversation_ids: np.ndarray, conversations: Sequence[Conversation]
) -> Iterator[tuple[int, int, int, slice]]:
    """Yields where each conversation of a batch is: its position in the split, its row, its slot, its utterances there.

    Args:
      conversation_ids: int `[B, K]`, see `jmer.batch.Batch`.
      conversations: those of the split.
    """
    for row, in_row in enumerate(conversation_ids):
        start = 0
        for slot, position in enumerate(in_row):
            if position >= 0:
                end = start + len(conversations[position])
                yield int(position), row, slot, slice(start, end)
                start = end


def real_fraction(padded: Iterable[Batch]) -> float:
    """Returns the fraction of positions, `[B, T]` or with frames `[B, T, F_m]`, that are not padding."""
    real, positions = 0, 0
    for batch in padded:
        for mask in [batch.mask] if batch.frames is None else batch.frames.values():
            real += int(np.count_nonzero(mask))
            positions += mask.size
    return real / positions


def _sizes(conversations: Sequence[Conversation]) -> np.ndarray:
    """Returns the lengths that batches are padded to: numbers of utterances, or of frames, at least 1."""
    return np.array([_frames(c) if c.has_frames else len(c) for c in conversations], np.int64)


def _frames(utterance: Conversation) -> int:
    if len(utterance) != 1:
        raise UserError(
            f"conversation '{utterance.id}' has frames and {len(utterance)} utterances: batch the single utterances, "
            "jmer.data.frames.single_utterances(conversations)"
        )
    return max(1, *(len(frames) for (frames,) in utterance.features.values()))


def _batch_ends(count: int, batch_size: int) -> np.ndarray:
    """Returns where each batch ends among `count` sorted conversations; the first one may be short of some."""
    return count - batch_size * np.arange(steps_per_epoch(count, batch_size))[::-1]


def _padded_length(longest: int, lengths: Sequence[int], ceiling: int) -> int:
    return min((length for length in lengths if length >= longest), default=ceiling)


def _one_per_row(batches: Iterable[np.ndarray], lengths: Iterable[int]) -> list[PlannedBatch]:
    # Without conversations there is one empty batch, and no length for it.
    return [
        PlannedBatch(conversation_ids[:, None], length)
        for conversation_ids, length in zip(batches, lengths, strict=False)
    ]


def _fill(
    conversations: Sequence[Conversation],
    conversation_ids: np.ndarray,
    widths: Mapping[str, int],
    rows: int,
    length: int,
    attributes: Scales,
    names: Sequence[str],
) -> Batch:
    has_frames = conversations[conversation_ids.max()].has_frames
    positions = (rows, 1) if has_frames else (rows, length)
    frames = {m: np.zeros((rows, 1, length), bool) for m in widths} if has_frames else {}
    shape = (rows, 1, length) if has_frames else positions
    features = {m: np.zeros((*shape, width), np.float32) for m, width in widths.items()}
    available = {m: np.zeros(positions, bool) for m in widths}
    mask = np.zeros(positions, bool)
    labels = np.full(positions, UNLABELLED, np.int32)
    speakers = np.full(positions, -1, np.int32)
    segment_ids = np.zeros(positions, np.int32)
    targets = np.full((*positions, len(attributes)), np.nan, np.float32) if attributes else None
    for position, row, slot, real in locate(conversation_ids, conversations):
        conversation = conversations[position]
        mask[row, real] = True
        labels[row, real] = conversation.labels
        speakers[row, real] = number_speakers(conversation, names)
        # Padding belongs to the row's last conversation.
        segment_ids[row, real.start :] = slot
        if targets is not None:
            targets[row, real] = scaled(conversation, attributes)
        for m in widths:
            available[m][row, real] = conversation.available[m]
            if has_frames:
                (values,) = conversation.features[m]
                features[m][row, 0, : len(values)] = values
                frames[m][row, 0, : len(values)] = True
            else:
                features[m][row, real] = conversation.features[m]
    conversation_ids = np.pad(conversation_ids, ((0, rows - len(conversation_ids)), (0, 0)), constant_values=-1).astype(
        np.int32
    )
    fields: dict[str, Any] = {  # NumPy arrays in the place of JAX's, until they are put on a device
        "features": features,
        "mask": mask,
        "labels": labels,
        "speakers": speakers,
        "available": available,
        "conversation_ids": conversation_ids,
        "segment_ids": segment_ids,
        "frames": frames if has_frames else None,
        "attributes": targets,
    }
    return Batch(**fields)
