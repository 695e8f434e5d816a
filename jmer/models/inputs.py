"""The features that models of several modalities read as one vector per utterance."""

from collections.abc import Collection

import jax
import jax.numpy as jnp

from jmer.batch import Batch
from jmer.losses.reduction import zero_unless
from jmer.modalities import MODALITIES


def present_modalities(batch: Batch, modalities: Collection[str]) -> dict[str, jax.Array]:
    """Returns where utterances have each of some modalities, text first, bool `[B, T]` each."""
    return {m: batch.available[m] & batch.mask for m in MODALITIES if m in modalities}


def separate(batch: Batch, modalities: Collection[str]) -> dict[str, jax.Array]:
    """Returns the features of each of some modalities, text first, `[B, T, D_m]`; zero where an utterance lacks it."""
    return {m: zero_unless(there, batch.features[m]) for m, there in present_modalities(batch, modalities).items()}


def side_by_side(batch: Batch, modalities: Collection[str]) -> jax.Array:
    """Returns the features of some modalities, text first, `[B, T, D]`; zero where an utterance lacks one."""
    return jnp.concatenate(list(separate(batch, modalities).values()), axis=-1)
