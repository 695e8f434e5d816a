"""The train state: all that a run carries from step to step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jmer.errors import UserError
from jmer.models import Model
from jmer.models.contract import example_batch
from jmer.training.initial_weights import replace_arrays
from jmer.training.modulation import Modulation


@struct.dataclass
class TrainState:
    """A train state: arrays only, the same on every device, without a device axis.

    Attributes:
      step: int32, steps taken.
      params: the network's parameters.
      model_state: its other variables (running statistics of a batch), empty if it has none.
      opt_state: of the optimizer; learning rate and weight decay are among it.
      rng: random key of the run; each step folds its number in.
      modulation: see `jmer.training.modulation.ModulationState`; empty without modulation.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: optax.OptState
    rng: jax.Array
    modulation: Any = struct.field(default_factory=dict)

    @property
    def variables(self) -> dict:
        """What `module.apply` takes."""
        return {"params": self.params, **self.model_state}


def create_train_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    widths: Mapping[str, int],
    seed: int,
    *,
    frames: bool = False,
    initial: Mapping[str, Any] | None = None,
    modulation: Modulation | None = None,
) -> TrainState:
    """Initialises a run.

    Args:
      model: the network and its loss.
      optimizer: see `jmer.training.optimizer.make_optimizer`.
      widths: modality -> feature width.
      seed: of the initial parameters and of all random draws in training.
      frames: whether utterances are sequences of frames.
      modulation: of the network's gradients, None = none.
      initial: name -> array that replaces one of the network's, see `jmer.training.initial_weights.named_arrays`.

    Raises:
      UserError: if the network refuses its configuration.
    """
    start, rng = jax.random.split(jax.random.key(seed))
    try:
        variables = jax.jit(model.init)(start, example_batch(widths, frames=frames))
    except ValueError as error:
        raise UserError(f"invalid configuration: {error}") from error
    variables = replace_arrays(variables, initial or {})
    params = variables.pop("params")
    guiding = jax.jit(modulation.init)(jax.random.fold_in(start, 1), params) if modulation else {}
    return TrainState(jnp.zeros((), jnp.int32), params, variables, optimizer.init(params), rng, guiding)
