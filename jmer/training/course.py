"""What every way of training has in common: the epochs of a run, and what is left behind at the end of each."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jmer.data.corpus import Conversation
from jmer.data.curriculum import curriculum
from jmer.data.packing import steps_per_epoch
from jmer.evaluation.metrics import scores_from_confusion
from jmer.evaluation.predict import Predictions
from jmer.selection import get_selection
from jmer.training.checkpoint import Checkpoints, Position
from jmer.training.log import Log
from jmer.training.setup import Setup
from jmer.training.state import State
from jmer.training.step import Metrics


@dataclasses.dataclass(frozen=True)
class Course:
    """The epochs of a run, one entry each.

    Attributes:
      chosen: positions of the conversations that it is made of.
      steps: how many it has.
      utterances: how many it has.
    """

    chosen: Sequence[np.ndarray]
    steps: Sequence[int]
    utterances: Sequence[int]

    def seconds_left(self, position: Position) -> float:
        """Returns how long the rest takes if its steps take as long as those of the finished epochs, at least one."""
        return position.seconds * sum(self.steps[position.epoch :]) / sum(self.steps[: position.epoch])


def plan_course(config: ConfigDict, training: Sequence[Conversation]) -> Course:
    """Lays out a run's epochs.

    Args:
      config: an experiment's configuration, checked.
      training: what a batch of the training split has in its rows.
    """
    plan = config.training
    chosen = curriculum(training, buckets=plan.curriculum, epochs=plan.epochs)
    return Course(
        chosen=chosen,
        steps=[steps_per_epoch(len(positions), plan.batch_size) for positions in chosen],
        utterances=[sum(len(training[i]) for i in positions) for positions in chosen],
    )


def held_out_splits(setup: Setup) -> list[str]:
    """Returns the splits to score after each epoch: the validation split, and another one if that chooses the epoch."""
    splits = dict.fromkeys(("validation", get_selection(setup.config.selection).split))
    return [split for split in splits if setup.is_labelled(split)]


def close_epoch(
    setup: Setup,
    course: Course,
    state: State,
    position: Position,
    predictions: Mapping[str, Predictions],
    *,
    log: Log | None,
    checkpoints: Checkpoints,
) -> tuple[dict[str, float], Position]:
    """Writes an epoch's line and saves what it ended with; returns the line's values and the position after it.

    Args:
      setup, course: of the run.
      state: after the epoch's last step.
      position: there, with all that was gathered.
      predictions: of each held-out split.
      log: None on a process that writes none.
      checkpoints: of the run.
    """
    values = {"epoch": position.epoch + 1, **_training_values(setup, position)}
    values |= _held_out_values(setup, predictions)
    values["utterances_per_second"] = course.utterances[position.epoch] / position.batch_seconds
    position = Position(epoch=position.epoch + 1, seconds=position.seconds + position.batch_seconds)
    # The log goes first: a line whose checkpoint was never written is dropped and made again.
    if log is not None:
        log.write(int(state.step), values)
    chosen_by = values.get(f"{get_selection(setup.config.selection).split}/weighted_f1")
    checkpoints.save(state, setup.statistics, position, chosen_by)
    return values, position


def not_finite(metrics: Metrics, step: int, workdir: Path) -> str:
    """Says that a step was refused, and what can be done.

    Args:
      metrics: of that step, on the host.
      step: its number, from 1.
      workdir: where the state before it is saved.
    """
    culprits = [name for name, (value, _) in metrics.terms.items() if not np.isfinite(value)]
    what = f"loss term {', '.join(culprits)}" if culprits else "the gradient or the step it makes"
    return (
        f"{what} is not finite in step {step}: stopped, the state before it is saved in {workdir}; lower "
        "optimizer.learning_rate, set optimizer.clip_norm, or look for extreme features with jmer.data.inspect"
    )


def _training_values(setup: Setup, position: Position) -> dict[str, float]:
    """Returns an epoch's mean losses and its scores in training, dropout on."""
    terms = {f"train/loss_{name}": total / count if count else 0.0 for name, (total, count) in position.terms.items()}
    result = scores_from_confusion(np.array(position.confusion), setup.class_names)
    return {
        "train/loss": position.loss / position.batch,
        **terms,
        "train/weighted_f1": result.weighted_f1,
        "train/accuracy": result.accuracy,
    }


def _held_out_values(setup: Setup, predictions: Mapping[str, Predictions]) -> dict[str, float]:
    values = {}
    for split, predicted in predictions.items():
        result = setup.score(predicted, split)
        values |= {f"{split}/weighted_f1": result.weighted_f1, f"{split}/accuracy": result.accuracy}
    return values
