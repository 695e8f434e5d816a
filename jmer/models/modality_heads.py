"""Classifiers of single modalities that watch a network's encoders without teaching them."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from jmer.layers.initializers import SCHEMES, dense

HEADS = ("mlp", "linear")


class ModalityHeads(nn.Module):
    """A classifier on the encoding of each modality, utterance by utterance; no gradient reaches the encodings.

    Attributes:
      num_classes: `C`.
      kind: `mlp` (a linear map of the same width, ReLU and a linear map) or `linear`.
    """

    num_classes: int
    kind: str = "mlp"

    @nn.compact
    def __call__(self, encodings: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Returns the logits of each modality, `[B, T, C]`.

        Args:
          encodings: modality -> `[B, T, d_m]`.
        """
        logits = {}
        for modality, encoding in encodings.items():
            x, width, options = jax.lax.stop_gradient(encoding), encoding.shape[-1], SCHEMES["torch_uniform"]
            if self.kind == "mlp":
                x = nn.relu(dense(width, width, name=f"{modality}_hidden", **options)(x))
            logits[modality] = dense(self.num_classes, width, name=f"{modality}_output", **options)(x)
        return logits
