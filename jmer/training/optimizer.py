"""The optimizer that a configuration describes, as an Optax chain."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax

from jmer.errors import UserError

OPTIMIZERS = ("adam_l2", "adamw", "sgd")
SCHEDULES = ("constant", "linear", "cosine")


def make_optimizer(config: Mapping, *, steps: Sequence[int]) -> optax.GradientTransformation:
    """Builds clipping, weight decay and update rule in PyTorch's order.

    Learning rate and weight decay are part of the optimizer's state (`optax.inject_hyperparams`), so that one program
    trains runs that differ by them.

    Args:
      config: the section `optimizer`:
        `name`: `adam_l2` (Adam on gradients to which `weight_decay` times the parameters was added, PyTorch's `Adam`,
        which the papers use; all parameters decay, biases too), `adamw` (decay apart from the gradient) or `sgd` (L2);
        `learning_rate`: the highest;
        `clip_norm`: largest norm of the whole gradient, before the decay is added; 0 = no clipping;
        `schedule`: `constant`, or `linear` or `cosine` down to 0, which the step after the last would have;
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
    if config["warmup_epochs"] > len(steps):
        raise UserError("optimizer.warmup_epochs is more than training.epochs: lower it")
    clip = [optax.clip_by_global_norm(config["clip_norm"])] if config["clip_norm"] else []
    schedule = _schedule(config["schedule"], sum(steps), sum(steps[: config["warmup_epochs"]]))
    scheduled = [] if schedule is None else [optax.scale_by_schedule(schedule)]

    @optax.inject_hyperparams
    def rule(learning_rate: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(weight_decay)
        updates = {
            "adam_l2": (decay, optax.adam(learning_rate)),
            "adamw": (optax.adamw(learning_rate, weight_decay=weight_decay),),
            "sgd": (decay, optax.sgd(learning_rate)),
        }[config["name"]]
        return optax.chain(*clip, *updates, *scheduled)

    return rule(learning_rate=config["learning_rate"], weight_decay=config["weight_decay"])


def with_rates(state: optax.OptState, config: Mapping) -> optax.OptState:
    """Returns the state of `make_optimizer` with the rates of a configuration, those of its next step.

    Args:
      state: e.g. of a checkpoint.
      config: the section `optimizer`.
    """
    rates = {name: np.asarray(config[name], value.dtype) for name, value in state.hyperparams.items()}
    return state._replace(hyperparams=rates)


def _schedule(name: str, steps: int, warmup: int) -> optax.Schedule | None:
    """Returns the factor of the learning rate at each step; None = always 1."""
    if name not in SCHEDULES:
        raise UserError(f"optimizer.schedule is '{name}': choose one of {', '.join(SCHEDULES)}")
    if name == "constant" and not warmup:
        return None
    rest = max(steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(1.0, rest),
    }[name]
    return optax.join_schedules([optax.linear_schedule(0.0, 1.0, warmup), after], [warmup]) if warmup else after
