"""A run while it is trained: its progress, and what it writes into its directory."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jmer.config import PLATEAU
from jmer.evaluation.attribute_scores import concordance_correlation
from jmer.evaluation.forward import Predictions
from jmer.evaluation.metrics import classification_report, mean_cross_entropy, scores_from_confusion
from jmer.models import Model
from jmer.pipeline import Pipeline
from jmer.selection import CONCORDANCE, configured_selection, is_of_attribute, metric_value
from jmer.training.agreement import agreeing
from jmer.training.checkpointing import Checkpoints
from jmer.training.early_stopping import is_finished, is_stopped, stopping_reason
from jmer.training.metric_writers import MetricWriter
from jmer.training.modulation import make_modulation
from jmer.training.optimizer import make_optimizer, with_rates
from jmer.training.ownership import check_owned
from jmer.training.parallel import is_main_process
from jmer.training.plateau import rates
from jmer.training.progress import Progress, mean_losses, not_finite_message
from jmer.training.step import Metrics
from jmer.training.train_state import TrainState, create_train_state

CHECKPOINT_FOLDER = "checkpoints"


class _Snapshot(NamedTuple):
    """A state with the progress of the run at it, and its score; None = it never is the best."""

    state: TrainState
    progress: Progress
    score: float | None

    @property
    def is_best(self) -> bool:
        """Whether no epoch so far has a better score; the last one of several with the best counts as the best."""
        return self.score is not None and self.score == self.progress.best


@dataclasses.dataclass
class ActiveRun:
    """A run while it is trained; use it in a `with` block.

    Attributes:
      config: complete, fitted to the corpus.
      workdir: its directory, which this process has locked.
      pipeline: of the run, but for the seed.
      initial: name -> array that the run starts with, in place of what its seed gives; None = nothing else.
      progress: how far it has come.
    """

    config: ConfigDict
    workdir: Path
    pipeline: Pipeline
    initial: Mapping[str, Any] | None = None
    progress: Progress = dataclasses.field(default_factory=Progress)

    def __post_init__(self) -> None:
        self._checkpoints = Checkpoints(self.workdir / CHECKPOINT_FOLDER)
        self._writer: MetricWriter | None = None
        self._score: float | None = None
        self._held: _Snapshot | None = None

    def __enter__(self) -> "ActiveRun":
        return self

    def __exit__(self, *_: Any) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            self._checkpoints.close()

    def start_or_resume(self, model: Model, sharding: jax.sharding.Sharding, log: Callable[[str], None]) -> TrainState:
        """Returns the state of the newest checkpoint or, if there is none, the first state of the run's seed.

        Args:
          model: the network and its loss.
          sharding: where a restored state goes.
          log: prints a line.

        Raises:
          UserError: if the checkpoint is damaged, or of another network.
        """
        pipeline, schedule = self.pipeline, self.pipeline.schedule
        # Learning rate and weight decay are part of the state, and differ between the runs of a sweep.
        optimizer = make_optimizer(self.config.optimizer, steps=schedule.steps)
        frames = pipeline.card.frames
        seed, initial = self.config.seed, self.initial
        modulation = make_modulation(self.config.modulation, model, pipeline.widths)
        state = create_train_state(
            model, optimizer, pipeline.widths, seed, frames=frames, initial=initial, modulation=modulation
        )
        newest = self._checkpoints.newest
        if newest is not None:
            restored = self._checkpoints.restore(newest, state, pipeline.normalization, sharding)
            self.progress = restored.progress
            # A run that resumes may have been given other rates.
            state = self.at_its_rates(restored.state)
            epochs = self.config.training.epochs
            done, batch = self.progress.epoch, self.progress.batch
            steps = schedule.steps[min(done, epochs - 1)]
            log(f"{self.workdir}: resumes after {done} of {epochs} epochs and {batch} of {steps} steps")
        return state

    def at_its_rates(self, state: TrainState) -> TrainState:
        """Returns a state with the rates that the configuration and the run's progress give its next step."""
        found = rates(self.config.optimizer, self.progress.plateau)
        return dataclasses.replace(state, opt_state=with_rates(state.opt_state, found))

    @property
    def lowered_rate(self) -> str:
        """The learning rate that the schedule `plateau` has lowered after the last epoch, in one line."""
        section = self.config.optimizer
        rate = rates(section, self.progress.plateau)["learning_rate"]
        return (
            f"{self.workdir}: learning rate {rate:.3g} from epoch {self.progress.epoch + 1} on: the validation "
            f"loss had not fallen for {section.plateau_patience} epoch{'' if section.plateau_patience == 1 else 's'}"
        )

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return is_finished(self.progress, self.config)

    @property
    def stopped(self) -> str:
        """Why early stopping has ended the run, in one line; empty if it has not."""
        if not is_stopped(self.progress, self.config):
            return ""
        return f"{self.workdir} {stopping_reason(self.config, self.progress.epoch)}"

    def open_writer(self, step: int) -> None:
        """Opens the writer of the metrics, for the steps after `step`; only the main process writes any."""
        if is_main_process():
            self._writer = MetricWriter(self.workdir, step)

    def failure(self, metrics: Metrics, state: TrainState) -> str:
        """Returns why training stops at a step that was not finite, in one line."""
        return not_finite_message(metrics, int(state.step) + 1, self.workdir)

    def save(self, state: TrainState) -> None:
        """Saves a checkpoint, and before it the one that is held, if that is still the best.

        Raises:
          UserError: if the directory cannot be written, or belongs to another process by now.
        """
        self._check_directory()
        # Between epochs a state has the score of the last one; within an epoch it has none, and never is the best.
        newest = _Snapshot(state, self.progress, None if self.progress.batch else self._score)
        held = [self._held] if self._held is not None and not newest.is_best else []
        for one in [*held, newest]:
            self._checkpoints.save(one.state, self.pipeline.normalization, one.progress, one.score)
        self._held = None

    def hold(self, state: TrainState) -> None:
        """Keeps a copy of the state after an epoch that is the best so far, for the next save."""
        newest = _Snapshot(state, self.progress, self._score)
        if newest.is_best:
            # The next step takes the memory of the state.
            self._held = newest._replace(state=jax.tree.map(jnp.copy, state))

    def _check_directory(self) -> None:
        """Raises UserError, on all processes, if what was saved is gone, or belongs to another process by now."""
        with agreeing():
            check_owned(self.workdir)
            if is_main_process():
                self._checkpoints.check_newest()

    def finish_epoch(self, state: TrainState, predictions: Mapping[str, Predictions]) -> dict[str, float]:
        """Writes the metrics of an epoch; its state is still to be saved, or held.

        Args:
          state: after its last step.
          predictions: of the held-out splits.

        Returns:
          The metrics, named as in `metrics.jsonl`.
        """
        pipeline, epoch, selection = self.pipeline, self.progress.epoch, configured_selection(self.config)
        emotions, majority = pipeline.card.emotions, self.config.majority_emotion
        results = {"train": scores_from_confusion(np.array(self.progress.confusion), emotions, majority)}
        for split, predicted in predictions.items():
            classes = np.concatenate(predicted.probabilities).argmax(-1)
            results[split] = classification_report(pipeline.labels(split), classes, emotions, majority)
        values = {"epoch": epoch + 1, **mean_losses(self.progress)}
        names = [name for name in ("weighted_f1", "accuracy", selection.metric) if not is_of_attribute(name)]
        for split, scores in results.items():
            for name in dict.fromkeys(names):
                values[f"{split}/{name}"] = metric_value(scores, name)
        for split, predicted in predictions.items():
            for attribute, found in predicted.attributes.items():
                targets = pipeline.attribute_values(split, attribute)
                values[f"{split}/{CONCORDANCE}{attribute}"] = concordance_correlation(targets, np.concatenate(found))
        values["utterances_seen"] = sum(pipeline.schedule.utterances[: epoch + 1])
        values["utterances_per_second"] = pipeline.schedule.utterances[epoch] / self.progress.batch_seconds
        self._score, plateau = values.get(f"{selection.split}/{selection.metric}"), self.progress.plateau
        if self.config.optimizer.schedule == PLATEAU:
            probabilities = np.concatenate(predictions["validation"].probabilities)
            loss = values["validation/cross_entropy"] = mean_cross_entropy(pipeline.labels("validation"), probabilities)
            plateau = plateau.after(loss, self.config.optimizer)
        self.progress = self.progress.next_epoch(self._score, plateau)
        self._check_directory()
        # The metrics come first: a line whose checkpoint was never written is dropped and made again.
        if self._writer is not None:
            self._writer.write(int(state.step), values)
        return values


def held_out_splits(pipeline: Pipeline) -> list[str]:
    """Returns the splits to score after each epoch: validation, and another one if that chooses the epoch."""
    splits = dict.fromkeys(("validation", configured_selection(pipeline.config).split))
    return [split for split in splits if split is not None and pipeline.is_labelled(split)]
