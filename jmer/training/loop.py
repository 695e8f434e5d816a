"""The training loop: epoch by epoch, for one run or for several side by side, each resumed where it stopped."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jmer.errors import UserError
from jmer.models import Model
from jmer.pipeline import Pipeline
from jmer.precision import matmul_precision
from jmer.training.active_run import ActiveRun, held_out_splits
from jmer.training.execution import make_execution
from jmer.training.optimizer import make_optimizer
from jmer.training.preemption import catch_preemption
from jmer.training.progress import mean_values, progress_line
from jmer.training.saving import SavingTime


def train(
    pipeline: Pipeline,
    model: Model,
    configs: Sequence[ConfigDict],
    workdirs: Sequence[Path],
    *,
    initial: Mapping[str, Any] | None = None,
    log: Callable[[str], None],
) -> bool:
    """Trains runs to the end of their last epoch, or until early stopping ends them.

    Several runs advance epoch by epoch together; those that are ahead or have stopped wait for the others.

    Args:
      pipeline: of the first run.
      model: of the first run.
      configs: of the runs, complete; they differ by what `jmer.training.sweep` permits.
      workdirs: their directories, which this process has locked.
      initial: name -> array that runs without a checkpoint start with, in place of what their seeds give;
        None = nothing else.
      log: prints a line.

    Returns:
      False if all runs were finished already.

    Raises:
      UserError: if a loss is not finite; all runs are saved then, at the end of the epoch.
      Interrupted: after a signal that asks the process to end, when all runs are saved.
    """
    config, schedule, saving = configs[0], pipeline.schedule, SavingTime(configs[0].training.save_share)

    # Loss and optimizer by the steps of the epochs, and how an epoch is computed: one run over all devices, or several
    # runs side by side.
    model = model.scheduled(schedule.steps)
    optimizer = make_optimizer(config.optimizer, steps=schedule.steps)
    execution = make_execution(pipeline, model, optimizer, configs)

    with contextlib.ExitStack() as stack:
        stack.enter_context(matmul_precision(config.training.matmul_precision))
        preemption = stack.enter_context(catch_preemption())
        names = "" if len(configs) == 1 else f": {', '.join(map(str, workdirs))}"
        log(execution.description + names)

        # Each run starts from its seed, or resumes from its newest checkpoint.
        runs = [stack.enter_context(ActiveRun(*run, pipeline, initial)) for run in zip(configs, workdirs, strict=True)]
        states = [run.start_or_resume(model, execution.state_sharding, log) for run in runs]
        if all(run.is_finished for run in runs):
            return False
        for run, state in zip(runs, states, strict=True):
            run.open_writer(int(state.step))
        execution.load(states)
        del states
        first_epoch = min(run.progress.epoch for run in runs)
        if initial:
            # What they start from may be gone when they resume.
            for run, state in zip(runs, execution.states(), strict=True):
                run.save(state)

        while unfinished := {i: run.progress for i, run in enumerate(runs) if not run.is_finished}:
            began, saving_before = time.perf_counter(), saving.seconds
            # Train the earliest epoch that is not finished. Between its steps, save and stop if the process is to end.
            epoch = min(progress.epoch for progress in unfinished.values())
            training = {i: progress for i, progress in unfinished.items() if progress.epoch == epoch}
            failures: dict[int, str] = {}
            for results in execution.train_epoch(training):
                for i, result in results.items():
                    runs[i].progress = result.progress
                    if not result.metrics.finite:
                        failures[i] = runs[i].failure(result.metrics, execution.states()[i])
                # After the last step of an epoch only its scores are lacking: it is finished first.
                between_steps = runs[min(training)].progress.batch < schedule.steps[epoch]
                if between_steps and preemption.agreed:
                    break

            # Save what was stopped; evaluate the held-out splits, and write the metrics of what is complete.
            states = execution.states()
            complete = [i for i in training if runs[i].progress.batch == schedule.steps[epoch] and i not in failures]
            for i in set(training).difference(complete):
                runs[i].save(states[i])
            if not complete and not failures:
                preemption.stop(f"saved after step {int(states[min(training)].step)}")
            predictions = {split: execution.predict(split) for split in held_out_splits(pipeline)} if complete else {}
            values = [
                runs[i].finish_epoch(states[i], {split: found[i] for split, found in predictions.items()})
                for i in complete
            ]
            # Save its checkpoints now, or after a later epoch.
            stopping = preemption.agreed
            all_saved = bool(failures) or bool(stopping) or saving.is_over()
            saved = [i for i in complete if all_saved or runs[i].is_finished]
            with saving.measured() if all_saved else contextlib.nullcontext():
                for i in saved:
                    runs[i].save(states[i])
            for i in set(complete).difference(saved):
                runs[i].hold(states[i])
            # The schedule `plateau` acts on the rates in the states.
            lowered = [i for i in complete if runs[i].progress.plateau.reductions > training[i].plateau.reductions]
            if lowered:
                execution.load([run.at_its_rates(state) for run, state in zip(runs, states, strict=True)])
            for i, message in failures.items():
                raise UserError(message if len(runs) == 1 else f"seed {runs[i].config.seed}: {message}")

            # Report the epoch, and stop if the process is to end.
            after = {i: runs[i].progress for i in complete}
            trained = max(p.seconds - training[i].seconds - training[i].batch_seconds for i, p in after.items())
            # Scoring and saving take as long after every epoch, however few steps it has.
            scored = time.perf_counter() - began - trained - (saving.seconds - saving_before)
            between = max(0.0, scored) + saving.seconds / (epoch + 1 - first_epoch)
            left = max(
                schedule.seconds_left(p.epoch, p.seconds) + between * (config.training.epochs - p.epoch)
                for p in after.values()
            )
            log(progress_line(epoch + 1, mean_values(values), config, seconds_left=left))
            for i in lowered:
                log(runs[i].lowered_rate)
            for reason in filter(None, (runs[i].stopped for i in complete)):
                log(reason)
            if stopping:
                preemption.stop(f"saved after epoch {epoch + 1}")
    return True
