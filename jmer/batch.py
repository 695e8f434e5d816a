"""The padded batch, the input of models and losses."""

from collections.abc import Mapping

import jax
from flax import struct

from jmer.segments import Segments, one_per_row

UNLABELLED = -1


@struct.dataclass
class Batch:
    """Rows of one length, each with one conversation or, packed, several in sequence.

    Axes: `B` rows, `T` utterances, `D` features of a modality, `K` conversations in a row at most, `A` attributes. If
    utterances are sequences of frames (word pieces, 20 ms of audio), features have another axis, `F` frames of an
    utterance, whose padded number may differ between modalities.

    Attributes:
      features: modality name -> float32 `[B, T, D_m]`, or with frames `[B, T, F_m, D_m]`; zero where padded or
        missing.
      mask: bool `[B, T]`, True where an utterance is real.
      labels: int32 `[B, T]`, emotion index; -1 = unlabelled (context only) or padded.
      speakers: int32 `[B, T]`, numbered within a conversation by first appearance, or by their names in the corpus
        (`data.speaker_index`); -1 where padded.
      available: modality name -> bool `[B, T]`, False where padded or where the utterance lacks the modality.
      conversation_ids: int32 `[B, K]`, the index within their split of the conversations of each row, -1 = none.
        None = one per row, numbered in order.
      segment_ids: int32 `[B, T]`, the conversation within its row to which an utterance belongs (see `Segments`);
        None = one per row.
      frames: modality name -> bool `[B, T, F_m]`, True where a frame is real; None = one vector per utterance.
      attributes: float32 `[B, T, A]`, dimensional targets such as valence, with the ends of their scales at -1 and 1;
        NaN = unlabelled or padded. None = none are learned.
    """

    features: Mapping[str, jax.Array]
    mask: jax.Array
    labels: jax.Array
    speakers: jax.Array
    available: Mapping[str, jax.Array]
    conversation_ids: jax.Array | None = None
    segment_ids: jax.Array | None = None
    frames: Mapping[str, jax.Array] | None = None
    attributes: jax.Array | None = None

    @property
    def segments(self) -> Segments:
        """The conversations of each row.

        Raises:
          ValueError: if there are segment_ids without conversation_ids.
        """
        if self.segment_ids is None:
            return one_per_row(*self.mask.shape)
        if self.conversation_ids is None:
            raise ValueError("conversation_ids: expected int [B, K] with segment_ids, got None")
        return Segments(self.segment_ids, self.conversation_ids.shape[1])

    @property
    def row_ids(self) -> jax.Array | None:
        """The ids that key the random draws of rows, independent of the number of devices, int32 `[B]`; None = none."""
        return None if self.conversation_ids is None else self.conversation_ids[:, 0]
