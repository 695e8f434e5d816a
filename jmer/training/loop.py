"""The training loop: epoch by epoch, for one run or for several side by side, from wherever each of them stands."""

import contextlib
import dataclasses
import signal
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jmer.errors import UserError
from jmer.evaluation.metrics import classification_report
from jmer.evaluation.predictor import Predictions
from jmer.models import Model
from jmer.pipeline import Pipeline
from jmer.precision import matmul_precision
from jmer.selection import get_selection
from jmer.training.checkpointing import Checkpoints
from jmer.training.execution import make_execution
from jmer.training.metric_writers import MetricWriter
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import is_main_process, max_over_processes
from jmer.training.preemption import Interrupted, Preemption, catch_preemption
from jmer.training.progress import Progress, not_finite_message, progress_line, training_values
from jmer.training.sweep import loss_weights
from jmer.training.train_state import TrainState, create_train_state

CHECKPOINT_FOLDER = "checkpoints"


@dataclasses.dataclass
class RunInTraining:
    """A run while it is trained.

    Attributes:
      config: complete, fitted to the corpus.
      workdir: its directory.
      checkpoints: its checkpoints.
      writer: of its metrics; None on a process that writes none.
      progress: how far it has come.
    """

    config: ConfigDict
    workdir: Path
    checkpoints: Checkpoints
    writer: MetricWriter | None = None
    progress: Progress = dataclasses.field(default_factory=Progress)


def train(
    pipeline: Pipeline,
    model: Model,
    configs: Sequence[ConfigDict],
    workdirs: Sequence[Path],
    *,
    log: Callable[[str], None],
) -> bool:
    """Trains runs to the end of their last epoch.

    Several runs advance epoch by epoch together; those that are ahead wait for the others.

    Args:
      pipeline: of the first run.
      model: of the first run.
      configs: of the runs, complete; they differ by what `jmer.training.sweep` permits.
      workdirs: their directories, which this process has locked.
      log: prints a line.

    Returns:
      False if all runs were finished already.

    Raises:
      UserError: if a loss is not finite; all runs are saved then, at the end of the epoch.
      Interrupted: after SIGINT or SIGTERM, when all runs are saved.
    """
    config, schedule, epochs = configs[0], pipeline.schedule, pipeline.config.training.epochs

    # The optimizer, and how an epoch is computed: one run over all devices, or several runs side by side.
    optimizer = make_optimizer(config.optimizer, steps=schedule.steps)
    execution = make_execution(pipeline, model, optimizer, configs, loss_weights(configs))

    with contextlib.ExitStack() as stack:
        stack.enter_context(matmul_precision(config.training.matmul_precision))
        preemption = stack.enter_context(catch_preemption())
        names = "" if len(configs) == 1 else f": {', '.join(map(str, workdirs))}"
        log(execution.description + names)

        # Each run starts from its seed, or resumes from its newest checkpoint.
        runs, states = [], []
        for own, workdir in zip(configs, workdirs, strict=True):
            run = RunInTraining(own, workdir, stack.enter_context(Checkpoints(workdir / CHECKPOINT_FOLDER)))
            # Rates are part of the state, and differ between the runs of a sweep.
            own_optimizer = make_optimizer(own.optimizer, steps=schedule.steps)
            state = create_train_state(model, own_optimizer, pipeline.widths, own.seed, frames=pipeline.card.frames)
            if run.checkpoints.newest is not None:
                restored = run.checkpoints.restore(
                    run.checkpoints.newest, state, pipeline.normalization, execution.state_sharding
                )
                state, run.progress = restored.state, restored.progress
                steps = schedule.steps[min(run.progress.epoch, epochs - 1)]
                done, batch = run.progress.epoch, run.progress.batch
                log(f"{workdir}: resumes after {done} of {epochs} epochs and {batch} of {steps} steps")
            runs.append(run)
            states.append(state)
        if all(run.progress.epoch >= epochs for run in runs):
            return False
        execution.load(states)
        if is_main_process():
            for run, state in zip(runs, states, strict=True):
                run.writer = stack.enter_context(MetricWriter(run.workdir, int(state.step)))
        del states

        while (epoch := min(run.progress.epoch for run in runs)) < epochs:
            # Train the epoch; between its steps, save and stop if a step was not finite or the process is to end.
            in_epoch = [run.progress.epoch == epoch for run in runs]
            failed: dict[int, str] = {}
            for results in execution.train_epoch([run.progress for run in runs]):
                for i, result in enumerate(results):
                    if result is not None:
                        runs[i].progress = result.progress
                        if not result.metrics.finite:
                            step = int(execution.states()[i].step) + 1
                            failed[i] = not_finite_message(result.metrics, step, runs[i].workdir)
                if failed:
                    break
                # After the last step of an epoch only its scores are lacking.
                unfinished = runs[in_epoch.index(True)].progress.batch < schedule.steps[epoch]
                if unfinished and (stop := _agreed_signal(preemption)):
                    _save(runs, execution.states(), pipeline, in_epoch)
                    raise Interrupted(stop, f"{stop.name}: saved after step {int(execution.states()[0].step)}")

            # Evaluate the held-out splits, then write the metrics and a checkpoint of each run.
            states = execution.states()
            _save(runs, states, pipeline, [i in failed for i in range(len(runs))])
            complete = [i for i in range(len(runs)) if in_epoch[i] and i not in failed]
            predictions = {split: execution.predict(split) for split in _held_out_splits(pipeline)} if complete else {}
            logged = [
                _finish_epoch(runs[i], states[i], pipeline, {split: found[i] for split, found in predictions.items()})
                for i in complete
            ]
            if failed:
                i, message = next(iter(failed.items()))
                raise UserError(message if len(runs) == 1 else f"seed {runs[i].config.seed}: {message}")

            # Report the epoch, and stop if the process is to end.
            left = max(schedule.seconds_left(runs[i].progress.epoch, runs[i].progress.seconds) for i in complete)
            log(progress_line(epoch + 1, epochs, _mean(logged), seconds_left=left))
            if stop := _agreed_signal(preemption):
                raise Interrupted(stop, f"{stop.name}: saved after epoch {epoch + 1}")
    return True


def _finish_epoch(
    run: RunInTraining, state: TrainState, pipeline: Pipeline, predictions: Mapping[str, Predictions]
) -> dict[str, float]:
    """Writes the metrics and the checkpoint of an epoch; returns the metrics."""
    values = {"epoch": run.progress.epoch + 1, **training_values(run.progress, pipeline.card.emotions)}
    for split, predicted in predictions.items():
        classes = [probabilities.argmax(-1) for probabilities in predicted.probabilities]
        result = classification_report(pipeline.labels(split), np.concatenate(classes), pipeline.card.emotions)
        values |= {f"{split}/weighted_f1": result.weighted_f1, f"{split}/accuracy": result.accuracy}
    values["utterances_per_second"] = pipeline.schedule.utterances[run.progress.epoch] / run.progress.batch_seconds
    run.progress = run.progress.next_epoch()
    # The metrics come first: a line whose checkpoint was never written is dropped and made again.
    if run.writer is not None:
        run.writer.write(int(state.step), values)
    score = values.get(f"{get_selection(run.config.selection).split}/weighted_f1")
    run.checkpoints.save(state, pipeline.normalization, run.progress, score)
    return values


def _save(
    runs: Sequence[RunInTraining], states: Sequence[TrainState], pipeline: Pipeline, chosen: Sequence[bool]
) -> None:
    """Saves the chosen runs in the middle of an epoch."""
    for run, state, save in zip(runs, states, chosen, strict=True):
        if save:
            run.checkpoints.save(state, pipeline.normalization, run.progress, None)


def _held_out_splits(pipeline: Pipeline) -> list[str]:
    """Returns the splits to score after each epoch: validation, and another one if that chooses the epoch."""
    splits = dict.fromkeys(("validation", get_selection(pipeline.config.selection).split))
    return [split for split in splits if split is not None and pipeline.is_labelled(split)]


def _agreed_signal(preemption: Preemption) -> signal.Signals | None:
    """Returns the signal that any process received: saving takes all of them, at the same step."""
    number = max_over_processes(preemption.received or 0)
    return signal.Signals(number) if number else None


def _mean(logged: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Averages the metrics of several runs; their speeds add up."""
    values = {name: statistics.fmean(row[name] for row in logged) for name in logged[0]}
    return values | {"utterances_per_second": sum(row["utterances_per_second"] for row in logged)}
