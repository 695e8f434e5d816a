"""Training a model on a corpus, epoch by epoch, and going on where a run stopped."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from jmer.config import fit_to_corpus
from jmer.data import normalization
from jmer.data.batching import steps_per_epoch
from jmer.data.corpus import Corpus, any_labelled
from jmer.data.curriculum import curriculum
from jmer.data.rows import batch_rows
from jmer.errors import UserError
from jmer.evaluation.metrics import scores
from jmer.evaluation.predict import forward
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.report import SELECTIONS, collect_versions
from jmer.training.checkpoint import Checkpoints, Position
from jmer.training.folder import CHECKPOINT_FOLDER, RunFacts, claim
from jmer.training.interrupts import Interrupts, interrupts
from jmer.training.log import Log, progress_line
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import highest, is_lead, make_parallel
from jmer.training.setup import Setup, set_up
from jmer.training.state import State, create_state
from jmer.training.step import Metrics, train_step

CHOOSING_SPLIT = {"validation": "validation", "last": None, "test_oracle": "test"}
"""Selection rule -> the split whose weighted F1 chooses the epoch."""


class Interrupted(Exception):
    """A signal stopped the run and everything is saved; `number` says which signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number


def train(config: ConfigDict, corpus: Corpus, workdir: Path, *, command: str, say: Callable[[str], None]) -> bool:
    """Trains to the end, from wherever the run in `workdir` stands.

    Args:
      config: an experiment's configuration.
      corpus: with a training split.
      workdir: the run's folder; made if it is not there.
      command: the command line, for the record.
      say: prints a line.

    Returns:
      False if the run was finished already.

    Raises:
      UserError: if the configuration, the corpus or the folder is at fault, or a loss is not finite.
      Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    check(config, corpus)
    training = batch_rows(corpus, "train", context=config.data.context)
    config = fit_to_corpus(config, corpus.card, training)
    widths = {m: corpus.card.widths[m] for m in config.model.modalities}
    statistics = normalization.fit(training, widths, kind=config.data.normalization)
    setup = set_up(config, corpus, statistics, make_parallel(config.training.parallel, config.training.devices))
    epochs = config.training.epochs
    chosen = curriculum(training, buckets=config.training.curriculum, epochs=epochs)
    steps = [steps_per_epoch(len(positions), config.training.batch_size) for positions in chosen]
    optimizer = make_optimizer(config.optimizer, steps=steps)
    initialise = functools.partial(create_state, setup.model, optimizer, widths, config.seed, frames=corpus.card.frames)
    # Counted without computing, so that a folder that is taken is refused at once.
    parameters = int(parameter_overview.count_parameters(jax.eval_shape(initialise).params))
    if is_lead():
        claim(workdir, config, RunFacts(corpus.card, collect_versions(), command, parameters))
    for line in _introduction(setup, corpus, parameters):
        say(line)

    state = initialise()
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints, interrupts() as heard:
        position = Position()
        if checkpoints.newest is not None:
            restored = checkpoints.restore(checkpoints.newest, state, statistics, setup.parallel.state_sharding)
            state, position = restored.state, restored.position
            batches = f"{position.batch} of {steps[min(position.epoch, epochs - 1)]} batches"
            say(f"{workdir}: {position.epoch} of {epochs} epochs are done, and {batches} more")
        if position.epoch >= epochs:
            return False
        state = setup.parallel.replicate(state)
        step = setup.parallel.step(functools.partial(train_step, model=setup.model, optimizer=optimizer))
        run = setup.parallel.forward(forward(setup.model))
        with Log(workdir, int(state.step)) if is_lead() else contextlib.nullcontext() as log:
            while position.epoch < epochs:
                positions = chosen[position.epoch]
                for reached in _epoch(setup, step, state, position, positions):
                    state, metrics, position = reached
                    if not metrics.finite:
                        checkpoints.save(state, statistics, position, None)
                        raise UserError(_not_finite(metrics, int(state.step) + 1, workdir))
                    # After an epoch's last batch only its score is lacking; it is not left behind without one.
                    if position.batch < steps[position.epoch] and (stop := _agreed_signal(heard)):
                        checkpoints.save(state, statistics, position, None)
                        raise Interrupted(stop, f"{stop.name}: saved after step {int(state.step)}")
                values = {"epoch": position.epoch + 1, **_training_values(setup, position)}
                values |= _held_out_values(setup, run, state, config.selection)
                speed = sum(len(training[i]) for i in positions) / position.batch_seconds
                position = Position(epoch=position.epoch + 1, seconds=position.seconds + position.batch_seconds)
                # The log goes first: a line whose checkpoint was never written is dropped and made again.
                if log is not None:
                    log.write(int(state.step), values | {"utterances_per_second": speed})
                chosen_by = values.get(f"{CHOOSING_SPLIT[config.selection]}/weighted_f1")
                checkpoints.save(state, statistics, position, chosen_by)
                left = position.seconds * sum(steps[position.epoch :]) / sum(steps[: position.epoch])
                say(progress_line(position.epoch, epochs, values, utterances_per_second=speed, seconds_left=left))
                if stop := _agreed_signal(heard):
                    raise Interrupted(stop, f"{stop.name}: saved after epoch {position.epoch}")
    return True


def check(config: ConfigDict, corpus: Corpus) -> None:
    """Raises UserError where the run's plan is at fault, or asks for splits that the corpus has not."""
    for field in ("epochs", "batch_size", "buckets"):
        if config.training[field] < 1:
            raise UserError(f"training.{field} is {config.training[field]}: give at least 1")
    if config.training.curriculum < 0:
        raise UserError(f"training.curriculum is {config.training.curriculum}: give a number of buckets, or 0 for none")
    if config.training.curriculum and corpus.card.frames:
        raise UserError(
            f"training.curriculum sorts conversations, but corpus '{corpus.card.name}' has frames and is trained one "
            "utterance at a time: set it to 0"
        )
    if config.selection not in SELECTIONS:
        raise UserError(f"selection is '{config.selection}': choose one of {', '.join(SELECTIONS)}")
    split = CHOOSING_SPLIT[config.selection]
    if split is not None and not (split in corpus.splits and any_labelled(corpus.conversations(split))):
        raise UserError(
            f"selection={config.selection} needs labels in split '{split}', which corpus '{corpus.card.name}' has not: "
            "convert it with --holdout, or choose selection=last"
        )


def _introduction(setup: Setup, corpus: Corpus, parameters: int) -> Iterator[str]:
    config = setup.config
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in setup.conversations.items())
    units = "utterances with frames" if corpus.card.frames else "conversations"
    yield f"corpus {corpus_title(corpus.card)}: {units} {sizes}; {len(corpus.card.emotions)} emotions"
    if corpus.card.synthetic:
        yield "this corpus is SYNTHETIC: no score says anything about real conversations"
    modalities = ", ".join(f"{m} {width}" for m, width in setup.widths.items())
    yield f"model {config.model.name}: {parameters:,} parameters; features {modalities}"
    devices = setup.parallel.devices
    yield f"{setup.parallel.backend} on {len(devices)} x {devices[0].device_kind}; seed {config.seed}"


def _agreed_signal(heard: Interrupts) -> signal.Signals | None:
    """Returns the signal that any process heard: saving takes all of them, at the same step."""
    number = highest(heard.received or 0)
    return signal.Signals(number) if number else None


def _epoch(
    setup: Setup, step: Callable, state: State, position: Position, chosen: np.ndarray
) -> Iterator[tuple[State, Metrics, Position]]:
    """Takes the rest of an epoch's steps; gives the state, the step's metrics and the position after each."""
    config, before, started = setup.config, position.batch_seconds, time.perf_counter()
    order = {"seed": config.seed, "epoch": position.epoch, "start": position.batch, "chosen": chosen}
    for batch in setup.batches("train", **order):
        state, metrics = step(state, batch)
        metrics = jax.device_get(metrics)
        if metrics.finite:
            position = _advance(position, metrics, before + time.perf_counter() - started)
        yield state, metrics, position


def _advance(position: Position, metrics: Metrics, seconds: float) -> Position:
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


def _training_values(setup: Setup, position: Position) -> dict[str, float]:
    """Returns an epoch's mean losses and its scores in training, dropout on."""
    terms = {f"train/loss_{name}": total / count if count else 0.0 for name, (total, count) in position.terms.items()}
    result = scores(np.array(position.confusion), setup.class_names)
    return {
        "train/loss": position.loss / position.batch,
        **terms,
        "train/weighted_f1": result.weighted_f1,
        "train/accuracy": result.accuracy,
    }


def _held_out_values(setup: Setup, run: Callable, state: State, selection: str) -> dict[str, float]:
    """Scores the validation split, and the split that chooses the epoch if it is another."""
    values = {}
    for split in dict.fromkeys(("validation", CHOOSING_SPLIT[selection])):
        if setup.is_labelled(split):
            result = setup.score(setup.predict(run, state.variables, split), split)
            values |= {f"{split}/weighted_f1": result.weighted_f1, f"{split}/accuracy": result.accuracy}
    return values


def _not_finite(metrics: Metrics, step: int, workdir: Path) -> str:
    culprits = [name for name, (value, _) in metrics.terms.items() if not np.isfinite(value)]
    what = f"loss term {', '.join(culprits)}" if culprits else "the gradient or the step it makes"
    return (
        f"{what} is not finite in step {step}: stopped, the state before it is saved in {workdir}; lower "
        "optimizer.learning_rate, set optimizer.clip_norm, or look for extreme features with jmer.data.inspect"
    )
