"""Gradient accumulation: which batches can be computed in pieces of rows, one after the other.

A batch can be if no row needs another one, so that its loss is a sum over rows divided by counts that the batch alone
determines. What a model needs of other rows it shows itself: its network keeps statistics of a batch, or a term of its
loss asks the other devices of the mapped axis for their rows.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jmer.batch import Batch
from jmer.errors import UserError
from jmer.models import Model
from jmer.models.contract import example_batch
from jmer.training.gradient import without_values

_OTHERS = "devices with the other rows"
"""An axis that is not mapped: who asks for it needs other rows."""


def check_accumulation(model: Model, steps: int, *, rows: int, widths: Mapping[str, int], frames: bool) -> None:
    """Checks that a model's batches can be computed in pieces, by shapes and counts alone.

    Args:
      model: the network and its loss, checked.
      steps: pieces of a batch on each device, `training.accumulation_steps`.
      rows: of a batch on each device.
      widths: modality -> feature width.
      frames: whether utterances are sequences of frames.

    Raises:
      UserError: naming what the model needs of a whole batch, or that a batch has not so many rows.
    """
    if steps == 1:
        return
    field, remedy = f"training.accumulation_steps={steps}", "set training.accumulation_steps to 1"
    if steps > rows:
        raise UserError(
            f"{field} computes a batch in pieces, but it has {rows} row{'' if rows == 1 else 's'} on each device: "
            f"give at most {rows}, or raise training.batch_size"
        )
    what = f"{field} computes a batch in pieces, but model {model.spec.name}"
    batch = example_batch(widths, frames=frames)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), batch))
    params = variables.pop("params")
    if variables:
        raise UserError(f"{what} normalises by statistics of the whole batch with these settings: {remedy}")
    if model.attributes is not None:
        raise UserError(
            f"{what} compares the attributes of all utterances of a batch: {remedy}, or attributes.names=()"
        )
    output, _ = jax.eval_shape(lambda p: model.apply_in_training(p, {}, batch, jax.random.key(0)), params)
    if _needs_other_rows(model, output, batch):
        fields = ", ".join(f"loss.{name}" for name in _of_whole_batches(model, output, batch))
        others = f"{fields} to 0, or " if fields else ""
        raise UserError(
            f"{what} has a loss that compares all utterances of a batch: set {others}training.accumulation_steps to 1"
        )
    counts = jax.jit(lambda: [term.divisor for term in model.loss_terms(without_values(output), batch).values()])()
    if not np.isfinite(counts).all():
        raise UserError(f"{what} has a loss with a count that depends on the network's output: {remedy}")


def _needs_other_rows(model: Model, output: Any, batch: Batch) -> bool:
    try:
        jax.eval_shape(lambda output: model.loss_terms(output, batch, _OTHERS), output)
    except NameError as error:
        if _OTHERS not in str(error):
            raise
        return True
    return False


def _of_whole_batches(model: Model, output: Any, batch: Batch) -> list[str]:
    """Returns the weights of the loss' terms that need other rows."""

    def alone(name: str) -> Model:
        off = {other: 0.0 for other in model.spec.loss_weights if other != name}
        return dataclasses.replace(model, loss=dataclasses.replace(model.loss, **off))

    return [name for name in model.spec.loss_weights if _needs_other_rows(alone(name), output, batch)]
