"""The encoders of a network's modalities, for training that treats them apart: what a model declares of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

COLLECTION = "intermediates"
"""Where Flax keeps what a module exposes; nothing is kept unless it is asked for."""
_PREFIX = "encoding_"


@dataclasses.dataclass(frozen=True)
class Encoders:
    """Which parameters belong to the encoder of one modality alone, and where the network ends.

    The module gives what the encoders make of a batch to `expose_encodings`.

    Attributes:
      own: modality -> how the paths of its encoder's parameters begin: `input_text/`, `gru/text_`. A beginning may
        match nothing, as that of a layer which an option leaves out.
      kernel: path of the kernel of the last linear map, `[d, C]`: `classifier/kernel`.
      stacked: how the paths of parameters begin whose leading axis is that of the modalities, in the order of `own`.
    """

    own: Mapping[str, Sequence[str]]
    kernel: str
    stacked: Sequence[str] = ()

    def owner(self, path: str) -> str:
        """Returns the modality whose encoder a parameter belongs to, empty for none."""
        return next((m for m, starts in self.own.items() if path.startswith(tuple(starts))), "")

    def is_stacked(self, path: str) -> bool:
        """Returns whether a parameter has a part for each modality along its leading axis."""
        return path.startswith(tuple(self.stacked))


def encoders_of(
    module: Any, *patterns: str, kernel: str = "classifier/kernel", stacked: Sequence[str] = ()
) -> Encoders:
    """Returns the declaration of a network whose encoders have the name of their modality in their paths.

    Args:
      module: has the field `modalities`.
      patterns: how paths begin, with `{}` for the modality.
      kernel, stacked: see `Encoders`.
    """
    own = {m: tuple(pattern.format(m) for pattern in patterns) for m in module.modalities}
    return Encoders(own, kernel, stacked)


def expose_encodings(module: nn.Module, encodings: Mapping[str, jax.Array]) -> None:
    """Lets training see what the encoders of the modalities make of a batch, before the network mixes them.

    Args:
      module: the network, within its call.
      encodings: modality -> `[B, T, d_m]`.
    """
    for modality, encoding in encodings.items():
        module.sow(COLLECTION, f"{_PREFIX}{modality}", encoding)


def exposed_encodings(collection: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns what a network has exposed, of the collection that its call returned."""
    return {name.removeprefix(_PREFIX): value[0] for name, value in collection.items() if name.startswith(_PREFIX)}
