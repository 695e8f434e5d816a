"""Runs that one program can train: how far their configurations may differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jmer.config import flatten
from jmer.errors import UserError
from jmer.models import get_spec, is_off

RATES = ("optimizer.learning_rate", "optimizer.weight_decay")


def common_fields(config: ConfigDict) -> dict[str, Any]:
    """Returns the fields, `section.field` -> value, that must be equal in runs that one program trains.

    The seed, the rates of the optimizer and the weights of loss terms may differ (`ModelSpec.loss_weights`); whether a
    term is computed at all may not.
    """
    weights = {f"loss.{name}" for name in get_spec(config.model.name).loss_weights}
    return {
        name: not is_off(value) if name in weights else value
        for name, value in flatten(config).items()
        if name != "seed" and name not in RATES
    }


def check_alike(configs: Sequence[ConfigDict]) -> None:
    """Raises UserError, naming the first field, if one program cannot train runs of these configurations."""
    first, shown = common_fields(configs[0]), flatten(configs[0])
    for config in configs[1:]:
        values = flatten(config)
        for name, value in common_fields(config).items():
            if value != first.get(name):
                raise UserError(
                    f"{name} is {shown.get(name)!r} in one run and {values[name]!r} in another: train them one after "
                    "the other"
                )


def loss_weights(configs: Sequence[ConfigDict]) -> list[dict[str, np.float32]]:
    """Returns for each run the loss weights in which the runs differ: field -> float32 `[]`."""
    names = [
        name
        for name in get_spec(configs[0].model.name).loss_weights
        if any(config.loss[name] != configs[0].loss[name] for config in configs)
    ]
    return [{name: np.float32(config.loss[name]) for name in names} for config in configs]
