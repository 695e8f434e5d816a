"""How far a run has come: what it counts within an epoch, and what it reports of it."""

import dataclasses
import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jmer.selection import configured_selection
from jmer.training.plateau import Plateau
from jmer.training.step import Metrics

CONSOLE_COLUMNS = 120
START = Plateau()


@dataclasses.dataclass(frozen=True)
class Progress:
    """Position of a run in its data, and the sums it has gathered there; a checkpoint holds it.

    Attributes:
      epoch: finished epochs.
      batch: finished batches of the next epoch.
      loss: sum of the losses of these batches.
      terms: loss term -> [sum, count] over these batches.
      confusion: `C` rows of `C` counts over these batches; empty at the start of an epoch.
      seconds: training time of the finished epochs.
      batch_seconds: training time of these batches.
      best: the best score of a finished epoch; None = no epoch has one.
      best_epoch: the first epoch that has it, counted from 1; 0 = no epoch has one.
      plateau: what the schedule `plateau` has seen.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    terms: Mapping[str, list[float]] = dataclasses.field(default_factory=dict)
    confusion: list[list[int]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    batch_seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    plateau: Plateau = START

    def next_epoch(self, score: float | None, plateau: Plateau = START) -> "Progress":
        """Returns the position at the start of the epoch after this one.

        Args:
          score: of the epoch that is finished, higher is better; None or a number that is not finite = never the best.
          plateau: what the schedule `plateau` has seen, that epoch included.
        """
        epoch, best, best_epoch = self.epoch + 1, self.best, self.best_epoch
        if score is not None and math.isfinite(score) and (best is None or score > best):
            best, best_epoch = score, epoch
        seconds = self.seconds + self.batch_seconds
        return Progress(epoch=epoch, seconds=seconds, best=best, best_epoch=best_epoch, plateau=plateau)


class StepResult(NamedTuple):
    """The outcome of one or more steps of a run.

    Attributes:
      metrics: of the last step, on the host. If it was not finite, state and progress are those before it.
      progress: after the last finite step.
    """

    metrics: Metrics
    progress: Progress


def count_steps(progress: Progress, metrics: Metrics, taken: np.ndarray, seconds: float) -> StepResult:
    """Returns the outcome of steps that were taken in one call.

    Args:
      progress: before the steps.
      metrics: of an epoch's steps, stacked, on the host.
      taken: numbers of the steps that were to be taken, at least one.
      seconds: training time of the epoch so far.
    """
    for step in taken:
        last = jax.tree.map(lambda x, step=step: x[step], metrics)
        if not last.finite:
            break
        progress = count_step(progress, last, seconds)
    return StepResult(last, progress)


def count_step(progress: Progress, metrics: Metrics, seconds: float) -> Progress:
    """Returns the progress after one more step; `seconds` is the training time of the epoch so far."""
    terms = {
        name: [float(value) + progress.terms.get(name, [0, 0])[0], float(count) + progress.terms.get(name, [0, 0])[1]]
        for name, (value, count) in metrics.terms.items()
    }
    confusion = metrics.confusion + np.array(progress.confusion or 0)
    return dataclasses.replace(
        progress,
        batch=progress.batch + 1,
        loss=progress.loss + float(metrics.loss),
        terms=terms,
        confusion=confusion.tolist(),
        batch_seconds=seconds,
    )


def mean_losses(progress: Progress) -> dict[str, float]:
    """Returns the mean losses of an epoch, given the progress after its last batch."""
    terms = {f"train/loss_{name}": total / count if count else 0.0 for name, (total, count) in progress.terms.items()}
    return {"train/loss": progress.loss / progress.batch, **terms}


def mean_values(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean metrics of several runs; their speeds add up."""
    means = {name: statistics.fmean(row[name] for row in values) for name in values[0]}
    return means | {"utterances_per_second": sum(row["utterances_per_second"] for row in values)}


def not_finite_message(metrics: Metrics, step: int, workdir: Path) -> str:
    """Returns why a step was refused, and the remedy.

    Args:
      metrics: of that step, on the host.
      step: its number, from 1.
      workdir: where the state before it is saved.
    """
    terms = [name for name, (value, _) in metrics.terms.items() if not np.isfinite(value)]
    what = f"loss term {', '.join(terms)}" if terms else "the gradient or the parameter update"
    return (
        f"{what} is not finite in step {step}: training stopped, the state before it is saved in {workdir}; lower "
        "optimizer.learning_rate, set optimizer.clip_norm, or look for extreme features with jmer.data.inspect"
    )


def progress_line(epoch: int, values: Mapping[str, float], config: ConfigDict, *, seconds_left: float) -> str:
    """Returns the console line of an epoch, within 120 columns if the names of the loss terms permit it.

    Args:
      epoch: the epoch that was trained, counted from 1.
      values: named as in `metrics.jsonl`, with `utterances_per_second`. `train/loss` and its terms, and the metric that
        selects on `train` and `validation`, are shown if they are there.
      config: of the run.
      seconds_left: until the last epoch has been trained.
    """
    selection, epochs = configured_selection(config), config.training.epochs
    scores = {split: values.get(f"{split}/{selection.metric}") for split in ("train", "validation")}
    shown = " ".join(f"{split} {100 * score:.2f}" for split, score in scores.items() if score is not None)
    title = selection.title.replace("weighted F1", "W-F1")
    rest = datetime.timedelta(seconds=round(seconds_left))
    lines = [
        "  ".join(
            part
            for part in (
                f"epoch {epoch:{len(str(epochs))}}/{epochs}",
                _loss(values, digits),
                f"{title} {shown}" if shown else "",
                f"{values['utterances_per_second']:.0f} utterances/s",
                f"ETA {'at most ' if config.training.patience else ''}{rest}",
            )
            if part
        )
        for digits in (5, 4, 3)
    ]
    return next((line for line in lines if len(line) <= CONSOLE_COLUMNS), lines[-1])


def _loss(values: Mapping[str, float], digits: int) -> str:
    total, prefix = values.get("train/loss"), "train/loss_"
    if total is None:
        return ""
    terms = ", ".join(
        f"{name.removeprefix(prefix)} {value:.{digits}g}" for name, value in values.items() if name.startswith(prefix)
    )
    return f"loss {total:.{digits}g}" + (f" ({terms})" if terms else "")
