"""The same conversations in fewer rows: what a model predicts of them must not change."""

import jax
import numpy as np

from jmer.batch import Batch


def packed(batch: Batch, order, length: int) -> Batch:
    """Lays a batch's conversations end to end.

    Args:
      batch: one conversation per row, without frames; padding may hold anything.
      order: for each new row, the old rows of its conversations.
      length: of the new rows.
    """
    lengths = np.asarray(batch.mask).sum(1)
    assert lengths.min() < batch.mask.shape[1], "no padding to take along"
    slots = max(map(len, order))
    conversation_ids, segment_ids = np.full((len(order), slots), -1, np.int32), np.zeros((len(order), length), np.int32)
    for row, chosen in enumerate(order):
        conversation_ids[row, : len(chosen)] = chosen
        for slot, start in enumerate(np.cumsum([0, *lengths[list(chosen)]])[:-1]):
            segment_ids[row, start:] = slot

    def together(x):
        x, rows = np.asarray(x), []
        for chosen in order:
            row = np.concatenate([x[b, : lengths[b]] for b in chosen])
            # What padding held goes on holding it.
            rest = np.broadcast_to(x[lengths.argmin(), -1], (length - len(row), *x.shape[2:]))
            rows.append(np.concatenate([row, rest]))
        return np.stack(rows)

    names = ("features", "mask", "labels", "speakers", "available")
    laid = {name: jax.tree.map(together, getattr(batch, name)) for name in names}
    return batch.replace(**laid, conversation_ids=conversation_ids, segment_ids=segment_ids)


def apart(x, together: Batch, batch: Batch):
    """Returns what was computed of a packed batch, `[B', T', ...]`, as it is laid out in `batch`, zero where padded."""
    x, lengths = np.asarray(x), np.asarray(batch.mask).sum(1)
    result = np.zeros((*batch.mask.shape, *x.shape[2:]), x.dtype)
    for row, chosen in enumerate(together.conversation_ids):
        start = 0
        for b in chosen[chosen >= 0]:
            result[b, : lengths[b]] = x[row, start : start + lengths[b]]
            start += lengths[b]
    return result
