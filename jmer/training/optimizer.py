"""The optimiser that a configuration describes, as an Optax chain."""

from collections.abc import Mapping, Sequence

import jax
import optax

from jmer.errors import UserError

OPTIMIZERS = ("adam_l2", "adamw", "sgd")
SCHEDULES = ("constant", "linear", "cosine")


def make_optimizer(
    config: Mapping, *, steps: Sequence[int], rates: Mapping[str, jax.Array] | None = None
) -> optax.GradientTransformation:
    """Builds clipping, weight decay and update rule in PyTorch's order.

    Args:
      config: the section `optimizer`:
        `name`: `adam_l2` (Adam on gradients to which `weight_decay` times the parameters was added, PyTorch's `Adam`,
        which the papers use; all parameters decay, biases too), `adamw` (decay apart from the gradient) or `sgd` (L2);
        `learning_rate`: the highest;
        `clip_norm`: largest norm of the whole gradient, before the decay is added; 0 = no clipping;
        `schedule`: `constant`, or `linear` or `cosine` down to 0, which the step after the last would have;
        `warmup_epochs`: epochs over which the rate rises linearly from 0.
      steps: how many steps each epoch has that will be trained.
      rates: `learning_rate` and `weight_decay` in place of the configuration's, as scalars that may be traced; empty or
        None = the configuration's.

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
    config = {**config, **(rates or {})}
    rate = _schedule(config, sum(steps), sum(steps[: config["warmup_epochs"]]))
    clip = [optax.clip_by_global_norm(config["clip_norm"])] if config["clip_norm"] else []
    decay = optax.add_decayed_weights(config["weight_decay"])
    rule = {
        "adam_l2": optax.chain(decay, optax.adam(rate)),
        "adamw": optax.adamw(rate, weight_decay=config["weight_decay"]),
        "sgd": optax.chain(decay, optax.sgd(rate)),
    }[config["name"]]
    return optax.chain(*clip, rule)


def _schedule(config: Mapping, steps: int, warmup: int) -> optax.Schedule:
    if config["schedule"] not in SCHEDULES:
        raise UserError(f"optimizer.schedule is '{config['schedule']}': choose one of {', '.join(SCHEDULES)}")
    rate, rest = config["learning_rate"], max(steps - warmup, 1)
    after = {
        "constant": optax.constant_schedule(rate),
        "linear": optax.linear_schedule(rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(rate, rest),
    }[config["schedule"]]
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup]) if warmup else after
