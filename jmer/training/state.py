"""All that a training run carries from step to step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jmer.batch import Batch
from jmer.errors import UserError
from jmer.models.spec import Model


@struct.dataclass
class State:
    """A training state: arrays only, the same on every device, without a device axis.

    Attributes:
      step: int32, steps taken.
      params: the network's parameters.
      statistics: its other variables (running means of norms, say), empty where it has none.
      optimizer: the optimiser's state.
      key: random key of the run; each step folds its number in.
    """

    step: jax.Array
    params: Any
    statistics: Any
    optimizer: optax.OptState
    key: jax.Array

    @property
    def variables(self) -> dict:
        """What `module.apply` takes."""
        return {"params": self.params, **self.statistics}


def create_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    widths: Mapping[str, int],
    seed: int,
    *,
    frames: bool = False,
) -> State:
    """Initialises a run.

    Args:
      model: the network and its loss.
      optimizer: the Optax transformation.
      widths: modality -> feature width.
      seed: of the initial parameters and of all random draws in training.
      frames: True for a corpus whose utterances are sequences of frames.

    Raises:
      UserError: if the network refuses its configuration.
    """
    start, key = jax.random.split(jax.random.key(seed))
    positions = (1, 1, 1) if frames else (1, 1)
    batch = Batch(
        features={m: jnp.zeros((*positions, width)) for m, width in widths.items()},
        mask=jnp.ones((1, 1), bool),
        labels=jnp.zeros((1, 1), jnp.int32),
        speakers=jnp.zeros((1, 1), jnp.int32),
        available=dict.fromkeys(widths, jnp.ones((1, 1), bool)),
        frames=dict.fromkeys(widths, jnp.ones(positions, bool)) if frames else None,
    )
    try:
        variables = dict(jax.jit(model.module.init)({"params": start}, batch))
    except ValueError as error:
        raise UserError(f"the configuration is at fault: {error}") from error
    params = variables.pop("params")
    return State(jnp.zeros((), jnp.int32), params, variables, optimizer.init(params), key)
