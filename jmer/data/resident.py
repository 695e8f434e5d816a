"""A split as flat arrays that stay on the device, and batches gathered from them there."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jmer.batch import UNLABELLED, Batch
from jmer.data.attributes import Scales, scaled
from jmer.data.corpus import Conversation
from jmer.data.speakers import number_speakers


@struct.dataclass
class Resident:
    """`N` utterances of `K` conversations, one conversation after the other.

    Attributes:
      features: modality -> float32 `[N, D_m]`.
      labels: int32 `[N]`.
      speakers: int32 `[N]`, see `Batch`.
      available: modality -> bool `[N]`.
      first: int32 `[K]`, where each conversation begins.
      length: int32 `[K]`, its number of utterances.
      attributes: float32 `[N, A]`, see `jmer.batch.Batch`; None = none.
    """

    features: Mapping[str, jax.Array]
    labels: jax.Array
    speakers: jax.Array
    available: Mapping[str, jax.Array]
    first: jax.Array
    length: jax.Array
    attributes: jax.Array | None = None


def make_resident(
    conversations: Sequence[Conversation],
    widths: Mapping[str, int],
    attributes: Scales | None = None,
    speakers: Sequence[str] = (),
) -> Resident:
    """Returns conversations without frames, at least one, as NumPy arrays; no JAX backend is initialised.

    Args:
      conversations: those of one split.
      widths: modality -> width; names the modalities that are taken.
      attributes: names the attributes that are taken, with their scales; None = none.
      speakers: the corpus' speakers in the order of their numbers, see `jmer.data.speakers.number_speakers`.
    """
    lengths = np.array([len(c) for c in conversations], np.int32)
    fields: dict[str, Any] = dict(  # NumPy arrays in the place of JAX's, until they are put on a device
        features={m: np.concatenate([c.features[m] for c in conversations]) for m in widths},
        labels=np.concatenate([c.labels for c in conversations]),
        speakers=np.concatenate([np.array(number_speakers(c, speakers), np.int32) for c in conversations]),
        available={m: np.concatenate([c.available[m] for c in conversations]) for m in widths},
        first=np.cumsum(lengths, dtype=np.int32) - lengths,
        length=lengths,
        attributes=np.concatenate([scaled(c, attributes) for c in conversations]) if attributes else None,
    )
    return Resident(**fields)


def resident_bytes(
    conversations: Sequence[Conversation], widths: Mapping[str, int], attributes: Scales | None = None
) -> int:
    """Returns how many bytes `make_resident` would give."""
    utterance = sum(4 * width + 1 for width in widths.values()) + 8 + 4 * len(attributes or {})
    return sum(len(c) for c in conversations) * utterance + 8 * len(conversations)


def gather(resident: Resident, conversation_ids: jax.Array, length: int) -> Batch:
    """Returns the batch that `jmer.data.batching.batches` would build of the same conversations, bit for bit.

    Args:
      resident: their split.
      conversation_ids: int32 `[B, K]`, the positions in the split of each row's conversations in order; -1 = none.
      length: utterances of a row, `T`.
    """
    chosen, place = jnp.maximum(conversation_ids, 0), jnp.arange(length)
    lengths = jnp.where(conversation_ids >= 0, resident.length[chosen], 0)
    ends = jnp.cumsum(lengths, axis=1)
    mask = place[None, :] < ends[:, -1:]
    # Padding belongs to the row's last conversation.
    slots = jnp.where(conversation_ids >= 0, jnp.arange(conversation_ids.shape[1])[None, :], 0).max(axis=1)
    segment_ids = jnp.sum(place[None, :, None] >= ends[:, None, :], axis=-1, dtype=jnp.int32)
    segment_ids = jnp.minimum(segment_ids, slots[:, None])
    # From a place in the row to one in the split.
    shift = jnp.take_along_axis(resident.first[chosen] - ends + lengths, segment_ids, axis=1)
    positions = jnp.where(mask, shift + place[None, :], 0)

    def padded(values, padding):
        where = mask if values.ndim == 1 else mask[..., None]
        return jnp.where(where, values[positions], padding)

    return Batch(
        features={m: padded(x, jnp.float32(0)) for m, x in resident.features.items()},
        mask=mask,
        labels=padded(resident.labels, UNLABELLED),
        speakers=padded(resident.speakers, -1),
        available={m: padded(x, False) for m, x in resident.available.items()},
        conversation_ids=conversation_ids,
        segment_ids=segment_ids,
        attributes=None if resident.attributes is None else padded(resident.attributes, jnp.float32(jnp.nan)),
    )
