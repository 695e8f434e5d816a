"""Two ways through an epoch: step by step with batches from the host, or all steps in one call on the device."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax

from jmer.data.resident import make_resident, resident_bytes
from jmer.training.checkpoint import Position
from jmer.training.epoch import train_epoch
from jmer.training.setup import Setup
from jmer.training.state import State
from jmer.training.step import Metrics, train_step

Advance = Callable[[State, Position, np.ndarray], Iterator[tuple[State, Metrics, Position]]]
"""`(state, position, chosen)` -> the state, the last step's metrics and the position, whenever a run could stop.

`chosen` are the positions of the conversations that the epoch is made of; it begins where `position` stands. When the
last step was not finite, state and position are those before it, and nothing follows.
"""


def step_by_step(setup: Setup, optimizer: optax.GradientTransformation) -> Advance:
    """Returns the way that needs one batch on the device at a time, and can stop after each."""
    run = setup.parallel.step(functools.partial(train_step, model=setup.model, optimizer=optimizer))

    def advance(state, position, chosen):
        before, started = position.batch_seconds, time.perf_counter()
        order = {"seed": setup.config.seed, "epoch": position.epoch, "start": position.batch, "chosen": chosen}
        for batch in setup.training_batches(**order):
            state, metrics = run(state, batch)
            metrics = jax.device_get(metrics)
            if metrics.finite:
                position = count_step(position, metrics, before + time.perf_counter() - started)
            yield state, metrics, position

    return advance


def epoch_at_once(setup: Setup, optimizer: optax.GradientTransformation, steps: int) -> Advance:
    """Returns the way that holds the training split on the device, and can stop after an epoch.

    Args:
      setup: its corpus has no frames.
      optimizer: the Optax transformation.
      steps: of the longest epoch.
    """
    epoch = functools.partial(train_epoch, model=setup.model, optimizer=optimizer, length=setup.packing.length)
    run = setup.parallel.epoch(epoch)
    resident = setup.parallel.replicate(make_resident(setup.conversations["train"], setup.widths))

    def advance(state, position, chosen):
        started = time.perf_counter()
        plan = setup.plan(position.epoch, chosen, seed=setup.config.seed, steps=steps, start=position.batch)
        state, metrics = run(state, resident, plan)
        metrics = jax.device_get(metrics)
        seconds = position.batch_seconds + time.perf_counter() - started
        yield state, *count_steps(position, metrics, np.flatnonzero(plan.active), seconds)

    return advance


def fits_on_device(setup: Setup) -> bool:
    """Whether the training split may stay on the device: without frames, and within `training.resident_megabytes`."""
    conversations = setup.conversations["train"]
    if any(conversation.has_frames for conversation in conversations):
        return False
    return resident_bytes(conversations, setup.widths) <= setup.config.training.resident_megabytes * 10**6


def count_steps(position: Position, metrics: Metrics, taken: np.ndarray, seconds: float) -> tuple[Metrics, Position]:
    """Returns the metrics of the last step that was taken, and the position after the last one that was finite.

    Args:
      position: before the steps.
      metrics: of an epoch's steps, stacked, on the host.
      taken: numbers of the steps that were to be taken, at least one.
      seconds: training time of the epoch so far.
    """
    for step in taken:
        last = jax.tree.map(lambda x, step=step: x[step], metrics)
        if not last.finite:
            break
        position = count_step(position, last, seconds)
    return last, position


def count_step(position: Position, metrics: Metrics, seconds: float) -> Position:
    """Returns the position after one more step."""
    terms = {
        name: [float(value) + position.terms.get(name, [0, 0])[0], float(count) + position.terms.get(name, [0, 0])[1]]
        for name, (value, count) in metrics.terms.items()
    }
    confusion = metrics.confusion + np.array(position.confusion or 0)
    loss = position.loss + float(metrics.loss)
    return dataclasses.replace(
        position,
        batch=position.batch + 1,
        loss=loss,
        terms=terms,
        confusion=confusion.tolist(),
        batch_seconds=seconds,
    )
