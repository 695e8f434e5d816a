"""The padded batch: what the data side hands to models and losses."""

from collections.abc import Mapping

import jax
from flax import struct

MODALITIES = ("text", "audio", "visual")
UNLABELLED = -1


@struct.dataclass
class Batch:
    """Conversations padded to one length. Axes: `B` conversations, `T` utterances, `D` features of a modality.

    Where an utterance is a sequence of frames (word pieces, 20 ms of audio) there is an axis more, `F`: an utterance's
    frames, whose padded number may differ between modalities.

    Attributes:
      features: modality name -> float32 `[B, T, D_m]`, or with frames `[B, T, F_m, D_m]`; zero where padded or
        unavailable.
      mask: bool `[B, T]`, True where an utterance is real.
      labels: int32 `[B, T]`, emotion index; -1 = unlabelled (context only) or padded.
      speakers: int32 `[B, T]`, speaker numbered within its conversation by first appearance; -1 where padded.
      available: modality name -> bool `[B, T]`, False where padded or where that utterance lacks that modality.
      index: int32 `[B]`, the conversation's position in its split, -1 for a padding conversation. Random draws are
        keyed by it, so that they do not depend on the number of devices. None = numbered as they stand.
      frames: modality name -> bool `[B, T, F_m]`, True where a frame is real; None = one vector per utterance.
    """

    features: Mapping[str, jax.Array]
    mask: jax.Array
    labels: jax.Array
    speakers: jax.Array
    available: Mapping[str, jax.Array]
    index: jax.Array | None = None
    frames: Mapping[str, jax.Array] | None = None
