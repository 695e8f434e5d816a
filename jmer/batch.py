"""The padded batch: what the data side hands to models and losses."""

from collections.abc import Mapping

import jax
from flax import struct

from jmer.segments import Segments, one_per_row

MODALITIES = ("text", "audio", "visual")
UNLABELLED = -1


@struct.dataclass
class Batch:
    """Rows of one length with one conversation each, or several that follow one another.

    Axes: `B` rows, `T` utterances, `D` features of a modality, `K` conversations of a row at most.

    Where an utterance is a sequence of frames (word pieces, 20 ms of audio) there is an axis more, `F`: an utterance's
    frames, whose padded number may differ between modalities.

    Attributes:
      features: modality name -> float32 `[B, T, D_m]`, or with frames `[B, T, F_m, D_m]`; zero where padded or
        unavailable.
      mask: bool `[B, T]`, True where an utterance is real.
      labels: int32 `[B, T]`, emotion index; -1 = unlabelled (context only) or padded.
      speakers: int32 `[B, T]`, speaker numbered within its conversation by first appearance; -1 where padded.
      available: modality name -> bool `[B, T]`, False where padded or where that utterance lacks that modality.
      conversation_ids: int32 `[B, K]`, the positions in their split of each row's conversations, -1 where there is
        none. None = one per row, numbered in order.
      segment_ids: int32 `[B, T]`, which of its row's conversations an utterance belongs to (see `Segments`); None = all
        to the one.
      frames: modality name -> bool `[B, T, F_m]`, True where a frame is real; None = one vector per utterance.
    """

    features: Mapping[str, jax.Array]
    mask: jax.Array
    labels: jax.Array
    speakers: jax.Array
    available: Mapping[str, jax.Array]
    conversation_ids: jax.Array | None = None
    segment_ids: jax.Array | None = None
    frames: Mapping[str, jax.Array] | None = None

    @property
    def segments(self) -> Segments:
        """The conversations of each row.

        Raises:
          ValueError: if there are segment_ids without conversation_ids.
        """
        if self.segment_ids is None:
            return one_per_row(*self.mask.shape)
        if self.conversation_ids is None:
            raise ValueError("a batch with segment_ids needs conversation_ids [B, K], which give K, too")
        return Segments(self.segment_ids, self.conversation_ids.shape[1])

    @property
    def row_ids(self) -> jax.Array | None:
        """What a row's random draws are keyed by, so that they do not depend on the number of devices: int32 `[B]`."""
        return None if self.conversation_ids is None else self.conversation_ids[:, 0]
