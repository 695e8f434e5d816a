"""How the epochs of runs are computed: one run over all devices, or several runs side by side in one program."""

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from jmer.batch import Batch
from jmer.data.packing import EpochPlan
from jmer.data.resident import Resident, make_resident, resident_bytes
from jmer.errors import UserError
from jmer.evaluation.forward import Predictions, compiled_forward_pass, forward_pass, unpack_predictions
from jmer.models import Model
from jmer.pipeline import Pipeline
from jmer.training.accumulation import check_accumulation
from jmer.training.epoch import train_epoch
from jmer.training.modulation import Modulation, make_modulation
from jmer.training.multi_run import map_runs
from jmer.training.parallel import Placed, make_parallel
from jmer.training.pieces import Pieces
from jmer.training.prefetch import prefetched
from jmer.training.progress import Progress, StepResult, count_step, count_steps
from jmer.training.step import train_step
from jmer.training.sweep import loss_weights
from jmer.training.train_state import TrainState


class Execution(Protocol):
    """Computes the epochs of one or more runs, whose states it holds on the devices."""

    description: str

    @property
    def state_sharding(self) -> jax.sharding.Sharding:
        """Where a restored state of one run goes."""

    def load(self, states: Sequence[TrainState]) -> None:
        """Takes the state of each run, in place of those that it had."""

    def train_epoch(self, progress: Mapping[int, Progress]) -> Iterator[dict[int, StepResult]]:
        """Trains the rest of an epoch.

        Args:
          progress: of the runs that are in this epoch, by their position; the others take no step.

        Yields:
          The results of these runs, by their position, whenever training could stop. After a step that is not finite
          a run takes no other.
        """

    def states(self) -> list[TrainState]:
        """Returns the state of each run."""

    def predict(self, split: str) -> list[Predictions]:
        """Returns each run's predictions for a split."""


class SingleRun:
    """One run, mapped over the devices that its configuration asks for.

    An epoch is one call, or pieces that take no longer than `training.grace_seconds`, if the training split fits on the
    device (`training.resident_megabytes`); otherwise each step gets its batch from the host, and training can stop
    after each.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        model: Model,
        optimizer: optax.GradientTransformation,
        modulation: Modulation | None = None,
    ):
        """Compiles nothing yet.

        Args:
          pipeline: of the run.
          model: its model.
          optimizer: its optimizer.
          modulation: of its gradients.
        """
        config = pipeline.config
        memory = _memory_options(config)
        options = {"model": model, "optimizer": optimizer, "modulation": modulation, **memory}
        self._pipeline, self._model = pipeline, model
        self._mapping = make_parallel(config.training.parallel, config.training.devices)
        self._row_multiple = self._mapping.row_multiple * memory["accumulation_steps"]
        self._resident: Any = None
        if fits_on_device(pipeline):
            self._resident = _resident(pipeline)
            epoch = functools.partial(train_epoch, **options, length=pipeline.packing.length)
            self._epoch = self._mapping.epoch(epoch)
            self._pieces = Pieces(config.training.grace_seconds)
        else:
            self._step = self._mapping.step(functools.partial(train_step, **options))
        self._forward = compiled_forward_pass(model, self._mapping)
        devices = self._mapping.devices
        self.description = f"{self._mapping.backend} on {len(devices)} x {devices[0].device_kind}; seed {config.seed}"

    @property
    def state_sharding(self) -> jax.sharding.Sharding:
        """Where a restored state goes."""
        return self._mapping.state_sharding

    def load(self, states: Sequence[TrainState]) -> None:
        """Takes the state of the run, and puts the training split on the devices."""
        (state,) = states
        self._state = self._mapping.replicate(state)
        if self._resident is not None:
            self._resident = self._mapping.replicate(self._resident)

    def train_epoch(self, progress: Mapping[int, Progress]) -> Iterator[dict[int, StepResult]]:
        """Yields after each step, or after each piece of the epoch; see `Execution`."""
        (one,) = progress.values()
        return self._steps(one) if self._resident is None else self._epoch_on_device(one)

    def _steps(self, progress: Progress) -> Iterator[dict[int, StepResult]]:
        before, started = progress.batch_seconds, time.perf_counter()
        order = {"start": progress.batch, "row_multiple": self._row_multiple}
        made = self._pipeline.train_batches(progress.epoch, **order)
        with prefetched(made, self._mapping.place) as batches:
            for batch in batches:
                self._state, metrics = self._step(self._state, batch)
                metrics = jax.device_get(metrics)
                if metrics.finite:
                    progress = count_step(progress, metrics, before + time.perf_counter() - started)
                yield {0: StepResult(metrics, progress)}
                if not metrics.finite:
                    return

    def _epoch_on_device(self, progress: Progress) -> Iterator[dict[int, StepResult]]:
        before, started = progress.batch_seconds, time.perf_counter()
        order = {"seed": self._pipeline.config.seed, "start": progress.batch}
        plan = self._pipeline.epoch_plan(progress.epoch, **order, row_multiple=self._row_multiple)

        def take(piece):
            nonlocal progress
            self._state, metrics = self._epoch(self._state, self._resident, piece)
            metrics, taken = jax.device_get(metrics), np.flatnonzero(piece.active)
            result = count_steps(progress, metrics, taken, before + time.perf_counter() - started)
            progress = result.progress
            return {0: result}

        for results in self._pieces.train(plan, take):
            yield results
            if not results[0].metrics.finite:
                return

    def states(self) -> list[TrainState]:
        """Returns the state."""
        return [self._state]

    def predict(self, split: str) -> list[Predictions]:
        """Returns the predictions for a split."""
        made = self._pipeline.evaluation_batches(split, row_multiple=self._mapping.row_multiple)

        def place(batch: Batch) -> tuple[Any, Placed]:
            return batch.conversation_ids, self._mapping.place(batch)

        with prefetched(made, place) as batches:
            outputs = [(ids, self._forward(self._state.variables, batch)) for ids, batch in batches]
        return [unpack_predictions(outputs, self._pipeline.examples[split])]


class VmappedRuns:
    """Several runs that differ by little, side by side in one program; the devices divide the runs among themselves."""

    def __init__(
        self,
        pipeline: Pipeline,
        model: Model,
        optimizer: optax.GradientTransformation,
        seeds: Sequence[int],
        loss_weights: Sequence[Mapping[str, np.float32]],
        modulation: Modulation | None = None,
    ):
        """Compiles nothing yet.

        Args:
          pipeline: of the first run; the others have the same but for the seed.
          model: of the first run; the others differ by the weights of the loss alone.
          optimizer: of the first run; the rates of the others are in their states.
          seeds: of the runs.
          loss_weights: of the runs, field -> float32 `[]`.
          modulation: of the gradients of each.
        """
        devices = make_parallel(pipeline.config.training.parallel, pipeline.config.training.devices).devices
        self._pipeline, self._seeds = pipeline, seeds
        memory = _memory_options(pipeline.config)
        self._row_multiple = memory["accumulation_steps"]
        self._mapping = map_runs(len(seeds), devices)
        self._loss_weights = self._mapping.stack(loss_weights)
        self._resident: Any = None
        self._pieces = Pieces(pipeline.config.training.grace_seconds)

        def epoch(state, resident, plan, loss_weights):
            options = {"loss_weights": loss_weights, "modulation": modulation, **memory}
            length = pipeline.packing.length
            return train_epoch(state, resident, plan, model=model, optimizer=optimizer, length=length, **options)

        plan = EpochPlan(conversation_ids=0, computed=None, active=0)
        self._epoch = self._mapping.map(epoch, (0, None, plan, 0), donate_argnums=(0,))
        self._forward = self._mapping.map(forward_pass(model), (0, None))
        self.description = f"{len(seeds)} runs together on {len(self._mapping.devices)} x {devices[0].device_kind}"

    @property
    def state_sharding(self) -> jax.sharding.Sharding:
        """Where a restored state of one run goes."""
        return jax.sharding.SingleDeviceSharding(self._mapping.devices[0])

    def load(self, states: Sequence[TrainState]) -> None:
        """Takes the state of each run, and puts the training split on the devices."""
        self._state = self._mapping.stack(states)
        if self._resident is None:
            self._resident = self._mapping.replicate(_resident(self._pipeline))

    def train_epoch(self, progress: Mapping[int, Progress]) -> Iterator[dict[int, StepResult]]:
        """Yields after each piece of the epoch; see `Execution`."""
        started, plan, reached = time.perf_counter(), self._plan(progress), dict(progress)

        def take(piece):
            self._state, metrics = self._epoch(self._state, self._resident, piece, self._loss_weights)
            metrics, seconds = jax.device_get(metrics), time.perf_counter() - started
            results = {}
            for i in filter(lambda i: piece.active[i].any(), progress):
                own = jax.tree.map(lambda x, i=i: x[i], metrics)
                taken = np.flatnonzero(piece.active[i])
                results[i] = count_steps(reached[i], own, taken, progress[i].batch_seconds + seconds)
                reached[i] = results[i].progress
                # It waits for the others, which take the rest of the epoch.
                plan.active[i] &= results[i].metrics.finite
            return results

        return self._pieces.train(plan, take)

    def _plan(self, progress: Mapping[int, Progress]) -> EpochPlan:
        """Returns the plans of all runs, stacked; those without progress take no step.

        `computed` has no leading axis: a step is left out if all runs leave it out.
        """
        plans = []
        epoch = next(iter(progress.values())).epoch
        for i, seed in enumerate(self._seeds):
            # As if all steps had been taken.
            start = progress[i].batch if i in progress else self._pipeline.schedule.steps[epoch]
            plans.append(self._pipeline.epoch_plan(epoch, seed=seed, start=start, row_multiple=self._row_multiple))
        plans += [plans[-1]] * (self._mapping.rows - len(plans))
        return EpochPlan(
            conversation_ids=np.stack([plan.conversation_ids for plan in plans]),
            computed=np.any([plan.computed for plan in plans], axis=0),
            active=np.stack([plan.active for plan in plans]),
        )

    def states(self) -> list[TrainState]:
        """Returns the state of each run, on the first device."""
        return self._mapping.unstack(self._state)

    def predict(self, split: str) -> list[Predictions]:
        """Returns each run's predictions for a split."""
        made = self._pipeline.evaluation_batches(split)
        variables, examples = self._state.variables, self._pipeline.examples[split]

        def place(batch: Batch) -> tuple[Any, Batch]:
            return batch.conversation_ids, self._mapping.replicate(batch)

        with prefetched(made, place) as batches:
            outputs = [(ids, jax.device_get(self._forward(variables, batch))) for ids, batch in batches]
        return [
            unpack_predictions([(ids, jax.tree.map(lambda x, i=i: x[i], output)) for ids, output in outputs], examples)
            for i in range(len(self._seeds))
        ]


def fits_on_device(pipeline: Pipeline) -> bool:
    """Returns whether the training split stays on the device: without frames, within `training.resident_megabytes`."""
    if pipeline.card.frames:
        return False
    limit = pipeline.config.training.resident_megabytes * 10**6
    return resident_bytes(pipeline.examples["train"], pipeline.widths, pipeline.attribute_scales) <= limit


def _memory_options(config: ConfigDict) -> dict[str, Any]:
    """Returns what a configuration asks of a step to save memory, see `jmer.training.gradient.Gradient`."""
    names = "accumulation_steps", "rematerialize"
    return {name: config.training[name] for name in names}


def _resident(pipeline: Pipeline) -> Resident:
    speakers = pipeline.config.data.speakers
    return make_resident(pipeline.examples["train"], pipeline.widths, pipeline.attribute_scales, speakers)


def check_execution(pipeline: Pipeline, model: Model, count: int) -> None:
    """Checks that `count` runs can be computed as the configuration asks.

    Raises:
      UserError: if devices are not there, or batches cannot be computed in pieces; for several runs also if the
        training split does not stay on the device, or there are several processes.
    """
    training, frames = pipeline.config.training, pipeline.card.frames
    devices = len(make_parallel(training.parallel, training.devices).devices)
    rows = training.batch_size if frames else pipeline.packing.rows
    rows = rows if count > 1 else -(-rows // devices)
    check_accumulation(model, training.accumulation_steps, rows=rows, widths=pipeline.widths, frames=frames)
    if count == 1:
        return
    if jax.process_count() > 1:
        raise UserError("several seeds are trained together by one process: leave --coordinator out, or set seeds=1")
    if not fits_on_device(pipeline):
        raise UserError(
            "seeds are trained together if the training split has no frames and stays on the device: raise "
            "training.resident_megabytes, or set seeds=1 and train one seed after the other"
        )


def make_execution(
    pipeline: Pipeline,
    model: Model,
    optimizer: optax.GradientTransformation,
    configs: Sequence[ConfigDict],
) -> Execution:
    """Returns how runs are computed: one by itself, several side by side; see `SingleRun` and `VmappedRuns`.

    Raises:
      UserError: see `check_execution`.
    """
    check_execution(pipeline, model, len(configs))
    modulation = make_modulation(pipeline.config.modulation, model, pipeline.widths)
    if len(configs) == 1:
        return SingleRun(pipeline, model, optimizer, modulation)
    seeds = [config.seed for config in configs]
    return VmappedRuns(pipeline, model, optimizer, seeds, loss_weights(configs), modulation)
