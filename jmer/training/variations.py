"""What may differ between runs of one program, read from their configurations as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import struct
from ml_collections import ConfigDict

from jmer.config import flatten
from jmer.errors import UserError
from jmer.models import get_spec

RATES = ("learning_rate", "weight_decay")
ONE_BY_ONE = "train them one after the other"


@struct.dataclass
class Variation:
    """What a run has of its own, besides its seed.

    Attributes:
      weights: field of the loss -> float32; None where all runs have the same.
      rates: `learning_rate` and `weight_decay`, float32; empty where all runs have the same.
    """

    weights: Mapping[str, np.ndarray] | None
    rates: Mapping[str, np.ndarray]


def common_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields, `section.field` -> value, that must be equal in runs that are trained in one program.

    The seed, the rates and the weights of loss terms may differ; whether a term is there may not.
    """
    own = {"seed", *(f"optimizer.{name}" for name in RATES)}
    weights = {f"loss.{name}" for name in get_spec(config.model.name).loss_weights}
    return {
        name: value != 0 if name in weights else value for name, value in flatten(config).items() if name not in own
    }


def check_alike(configs: Sequence[ConfigDict]) -> None:
    """Raises UserError, naming the first field, if configurations differ by more than runs of one program may."""
    first, shown = common_fields(configs[0]), flatten(configs[0])
    for config in configs[1:]:
        values = flatten(config)
        for name, value in common_fields(config).items():
            if value != first[name]:
                raise UserError(f"{name} is {shown[name]!r} in one run and {values[name]!r} in another: {ONE_BY_ONE}")


def variations(configs: Sequence[ConfigDict]) -> list[Variation]:
    """Returns what each run has of its own; the configurations are complete and alike (`check_alike`)."""
    names = [name for name in get_spec(configs[0].model.name).loss_weights if configs[0].loss[name]]
    weights = [{name: np.float32(config.loss[name]) for name in names} for config in configs]
    if all(own == weights[0] for own in weights):
        weights = [None] * len(configs)
    rates = [{name: np.float32(config.optimizer[name]) for name in RATES} for config in configs]
    if all(own == rates[0] for own in rates):
        rates = [{}] * len(configs)
    return list(map(Variation, weights, rates))
