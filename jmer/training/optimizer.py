"""The optimizer that a configuration describes, as an Optax chain."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from jmer.config import PLATEAU
from jmer.errors import UserError
from jmer.training.amsgrad import scale_by_amsgrad
from jmer.training.plateau import check_plateau

OPTIMIZERS = ("adam_l2", "adamw", "sgd")
OF_ALL_STEPS = ("linear", "cosine")
"""Schedules that depend on how many steps a run has."""
SCHEDULES = ("constant", *OF_ALL_STEPS, PLATEAU)


def make_optimizer(config: Mapping, *, steps: Sequence[int]) -> optax.GradientTransformation:
    """Builds clipping, weight decay and update rule in PyTorch's order.

    Learning rate and weight decay are part of the optimizer's state (`optax.inject_hyperparams`), so that one program
    trains runs that differ by them.

    Args:
      config: the section `optimizer`:
        `name`: `adam_l2` (Adam on gradients to which `weight_decay` times the parameters was added, PyTorch's `Adam`,
        which the papers use; all parameters decay, biases too), `adamw` (decay apart from the gradient) or `sgd` (L2);
        `learning_rate`: the highest;
        `epsilon`: what Adam adds to the root of the second moment; `amsgrad`: whether Adam divides by the largest
        second moment so far;
        `clip_norm`: largest norm of the whole gradient, before the decay is added; 0 = no clipping;
        `schedule`: `constant`, or `linear` or `cosine` down to 0, which the step after the last would have, or
        `plateau`, which acts between epochs, on the state (`jmer.training.plateau`);
        `warmup_epochs`: epochs over which the rate rises linearly from 0.
      steps: number of steps of each epoch of the run.

    Raises:
      UserError: for an unknown name or schedule, or numbers out of range.
    """
    if config["name"] not in OPTIMIZERS:
        raise UserError(f"optimizer.name is '{config['name']}': choose one of {', '.join(OPTIMIZERS)}")
    for field in ("learning_rate", "weight_decay", "clip_norm", "warmup_epochs"):
        if not config[field] >= 0:
            raise UserError(f"optimizer.{field} is {config[field]}: give a number that is not negative")
    if not config["epsilon"] > 0:
        raise UserError(f"optimizer.epsilon is {config['epsilon']}: give a positive number")
    if config["amsgrad"] and config["name"] == "sgd":
        raise UserError("optimizer.amsgrad is of Adam, but optimizer.name is 'sgd': set it to False")
    check_plateau(config)
    if config["warmup_epochs"] > len(steps):
        raise UserError("optimizer.warmup_epochs is more than training.epochs: lower it")
    clip = [optax.clip_by_global_norm(config["clip_norm"])] if config["clip_norm"] else []
    schedule = _schedule(config["schedule"], sum(steps), sum(steps[: config["warmup_epochs"]]))
    scheduled = [] if schedule is None else [optax.scale_by_schedule(schedule)]

    @optax.inject_hyperparams
    def rule(learning_rate: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
        decay, rate = optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate)
        adam = scale_by_amsgrad if config["amsgrad"] else optax.scale_by_adam
        rules = {
            "adam_l2": (decay, adam(eps=config["epsilon"])),
            "adamw": (adam(eps=config["epsilon"]), decay),
            "sgd": (decay,),
        }
        return optax.chain(*clip, *rules[config["name"]], rate, *scheduled)

    return rule(learning_rate=config["learning_rate"], weight_decay=config["weight_decay"])


def with_rates(state: optax.OptState, rates: Mapping) -> optax.OptState:
    """Returns the state of `make_optimizer` with other rates, those of its next step.

    Args:
      state: e.g. of a checkpoint.
      rates: `learning_rate` and `weight_decay`, numbers or arrays of the shapes in the state; more is ignored.
    """
    found = {name: np.asarray(rates[name], value.dtype) for name, value in state.hyperparams.items()}
    return state._replace(hyperparams=found)


def _schedule(name: str, steps: int, warmup: int) -> optax.Schedule | None:
    """Returns the factor of the learning rate at each step; None = always 1."""
    if name not in SCHEDULES:
        raise UserError(f"optimizer.schedule is '{name}': choose one of {', '.join(SCHEDULES)}")
    if name not in OF_ALL_STEPS and not warmup:
        return None
    rest = max(steps - warmup, 1)
    decays = {"linear": optax.linear_schedule(1.0, 0.0, rest), "cosine": optax.cosine_decay_schedule(1.0, rest)}
    after = decays.get(name, optax.constant_schedule(1.0))
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup]) if warmup else after
