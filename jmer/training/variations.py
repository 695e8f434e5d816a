"""What may differ between runs of one program, read from their configurations as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import struct
from ml_collections import ConfigDict

from jmer.batch import Batch
from jmer.config import flatten
from jmer.errors import UserError
from jmer.models import create
from jmer.models.model import Model
from jmer.training.state import State
from jmer.training.step import apply_in_training

RATES = ("learning_rate", "weight_decay")
ONE_BY_ONE = "train them one after the other"


@struct.dataclass
class Variation:
    """What a run has of its own, besides its seed.

    Attributes:
      weights: loss term -> weight, float32; None where all runs have the same.
      rates: `learning_rate` and `weight_decay`, float32; empty where all runs have the same.
    """

    weights: Mapping[str, np.ndarray] | None
    rates: Mapping[str, np.ndarray]


def common_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields, `section.field` -> value, that must be equal in runs that are trained together.

    A number of the section `loss` may differ if it is the weight of a term; whether the term is there may not.
    """
    own = {"seed", *(f"optimizer.{name}" for name in RATES)}
    return {
        name: value != 0 if name.startswith("loss.") and type(value) is float else value
        for name, value in flatten(config).items()
        if name not in own
    }


def check_alike(configs: Sequence[ConfigDict]) -> None:
    """Raises UserError, naming the first field, if configurations differ by more than runs of one program may."""
    first, shown = common_fields(configs[0]), flatten(configs[0])
    for config in configs[1:]:
        values = flatten(config)
        for name, value in common_fields(config).items():
            if value != first[name]:
                raise UserError(f"{name} is {shown[name]!r} in one run and {values[name]!r} in another: {ONE_BY_ONE}")


def variations(configs: Sequence[ConfigDict], model: Model, state: State, batch: Batch) -> list[Variation]:
    """Returns what each run has of its own.

    Args:
      configs: complete, alike (`check_alike`).
      model: that of the first.
      state: of any run.
      batch: any.

    Raises:
      UserError: if a number of the section `loss` changes more than the weight of a term, or the network.
    """
    weights = [None] * len(configs)
    if any(config.loss != configs[0].loss for config in configs):
        output, _ = jax.eval_shape(lambda s, b: apply_in_training(model, s.params, s, b), state, batch)
        weights = [_weights(config, configs[0], model, output, batch) for config in configs]
    rates = [{name: np.float32(config.optimizer[name]) for name in RATES} for config in configs]
    if all(own == rates[0] for own in rates):
        rates = [{}] * len(configs)
    return list(map(Variation, weights, rates))


def _weights(config: ConfigDict, first: ConfigDict, model: Model, output: Any, batch: Batch) -> dict[str, np.float32]:
    """Returns each loss term's weight, if all else is computed as in the model of the first configuration."""
    other = create(config)
    weights, computation = _terms(other, output, batch)
    if other.module != model.module or computation != _terms(model, output, batch)[1]:
        names = [f"loss.{name}" for name, value in config.loss.items() if value != first.loss[name]]
        raise UserError(f"{', '.join(names)} changes more than the weight of a loss term: {ONE_BY_ONE}")
    return weights


def _terms(model: Model, output: Any, batch: Batch) -> tuple[dict[str, np.float32], str]:
    """Returns each loss term's weight, and as text how sums and counts are computed, in which no weight occurs."""
    weights = {}

    def unweighted(output, batch):
        terms = model.loss(output, batch)
        weights.update({name: np.float32(weight) for name, (weight, _, _) in terms.items()})
        return {name: (value, count) for name, (_, value, count) in terms.items()}

    return weights, str(jax.make_jaxpr(unweighted)(output, batch))
