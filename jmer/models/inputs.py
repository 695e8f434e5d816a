"""The features that models of several modalities read as one vector per utterance."""

from collections.abc import Collection

import jax
import jax.numpy as jnp

from jmer.batch import Batch
from jmer.losses.reduction import zero_unless
from jmer.modalities import MODALITIES


def side_by_side(batch: Batch, modalities: Collection[str]) -> jax.Array:
    """Returns the features of some modalities, text first, `[B, T, D]`; zero where an utterance lacks one."""
    names = [m for m in MODALITIES if m in modalities]
    return jnp.concatenate([zero_unless(batch.available[m] & batch.mask, batch.features[m]) for m in names], axis=-1)
