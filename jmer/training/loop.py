"""Training a model on a corpus, epoch by epoch, and going on where a run stopped."""

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jmer.config import fit_to_corpus
from jmer.data import normalization
from jmer.data.corpus import Corpus, any_labelled
from jmer.data.rows import batch_rows
from jmer.errors import UserError
from jmer.evaluation.predict import forward
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.report import collect_versions
from jmer.selection import get_selection
from jmer.training.advance import epoch_at_once, fits_on_device, step_by_step
from jmer.training.checkpoint import Checkpoints, Position
from jmer.training.course import close_epoch, held_out_splits, not_finite, plan_course
from jmer.training.folder import CHECKPOINT_FOLDER, RunFacts, claim
from jmer.training.interrupts import Interrupts, interrupts
from jmer.training.log import Log, progress_line
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import highest, is_lead, make_parallel
from jmer.training.precision import PRECISIONS, matmul_precision
from jmer.training.setup import Setup, set_up
from jmer.training.state import create_state


class Interrupted(Exception):
    """A signal stopped the run and everything is saved; `number` says which signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.number = number


def train(config: ConfigDict, corpus: Corpus, workdir: Path, *, command: str, say: Callable[[str], None]) -> bool:
    """Trains to the end, from wherever the run in `workdir` stands.

    An epoch is one call where the training split fits on the device (`training.resident_megabytes`); a signal then
    waits for the epoch's end, otherwise for the step's.

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
    course, epochs = plan_course(config, training), config.training.epochs
    optimizer = make_optimizer(config.optimizer, steps=course.steps)
    initialise = functools.partial(create_state, setup.model, optimizer, widths, config.seed, frames=corpus.card.frames)
    # Counted without computing, so that a folder that is taken is refused at once.
    parameters = int(parameter_overview.count_parameters(jax.eval_shape(initialise).params))
    facts = RunFacts(corpus.card, collect_versions(), command, parameters)
    claimed = claim(workdir, config, facts) if is_lead() else contextlib.nullcontext()

    with (
        claimed,
        Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints,
        matmul_precision(config.training.matmul_precision),
        interrupts() as heard,
    ):
        for line in introduction(setup, corpus, parameters):
            say(line)
        devices = setup.parallel.devices
        say(f"{setup.parallel.backend} on {len(devices)} x {devices[0].device_kind}; seed {config.seed}")
        state, position = initialise(), Position()
        if checkpoints.newest is not None:
            restored = checkpoints.restore(checkpoints.newest, state, statistics, setup.parallel.state_sharding)
            state, position = restored.state, restored.position
            batches = f"{position.batch} of {course.steps[min(position.epoch, epochs - 1)]} batches"
            say(f"{workdir}: {position.epoch} of {epochs} epochs are done, and {batches} more")
        if position.epoch >= epochs:
            return False
        state = setup.parallel.replicate(state)
        resident = fits_on_device(setup)
        advance = epoch_at_once(setup, optimizer, max(course.steps)) if resident else step_by_step(setup, optimizer)
        run = setup.parallel.forward(forward(setup.model))
        with Log(workdir, int(state.step)) if is_lead() else contextlib.nullcontext() as log:
            while position.epoch < epochs:
                for reached in advance(state, position, course.chosen[position.epoch]):
                    state, metrics, position = reached
                    if not metrics.finite:
                        checkpoints.save(state, statistics, position, None)
                        raise UserError(not_finite(metrics, int(state.step) + 1, workdir))
                    # After an epoch's last batch only its score is lacking; it is not left behind without one.
                    if position.batch < course.steps[position.epoch] and (stop := _agreed_signal(heard)):
                        checkpoints.save(state, statistics, position, None)
                        raise Interrupted(stop, f"{stop.name}: saved after step {int(state.step)}")
                predictions = {split: setup.predict(run, state.variables, split) for split in held_out_splits(setup)}
                values, position = close_epoch(
                    setup, course, state, position, predictions, log=log, checkpoints=checkpoints
                )
                say(progress_line(position.epoch, epochs, values, seconds_left=course.seconds_left(position)))
                if stop := _agreed_signal(heard):
                    raise Interrupted(stop, f"{stop.name}: saved after epoch {position.epoch}")
    return True


def check(config: ConfigDict, corpus: Corpus) -> None:
    """Raises UserError where the run's plan is at fault, or asks for splits that the corpus has not."""
    if config.seeds < 1:
        raise UserError(f"seeds is {config.seeds}: give at least 1")
    for field in ("epochs", "batch_size", "buckets"):
        if config.training[field] < 1:
            raise UserError(f"training.{field} is {config.training[field]}: give at least 1")
    if config.training.resident_megabytes < 0:
        megabytes = config.training.resident_megabytes
        raise UserError(f"training.resident_megabytes is {megabytes}: give a size, or 0 to train step by step")
    if config.training.curriculum < 0:
        raise UserError(f"training.curriculum is {config.training.curriculum}: give a number of buckets, or 0 for none")
    if config.training.curriculum and corpus.card.frames:
        raise UserError(
            f"training.curriculum sorts conversations, but corpus '{corpus.card.name}' has frames and is trained one "
            "utterance at a time: set it to 0"
        )
    if config.training.matmul_precision not in PRECISIONS:
        raise UserError(
            f"training.matmul_precision is '{config.training.matmul_precision}': choose one of {', '.join(PRECISIONS)}"
        )
    split = get_selection(config.selection).split
    if split is not None and not (split in corpus.splits and any_labelled(corpus.conversations(split))):
        raise UserError(
            f"selection={config.selection} needs labels in split '{split}', which corpus '{corpus.card.name}' has not: "
            "convert it with --holdout, or choose selection=last"
        )


def introduction(setup: Setup, corpus: Corpus, parameters: int) -> Iterator[str]:
    """Says in a few lines what is trained on what."""
    config = setup.config
    sizes = ", ".join(f"{split} {len(rows)}" for split, rows in setup.conversations.items())
    units = "utterances with frames" if corpus.card.frames else "conversations"
    yield f"corpus {corpus_title(corpus.card)}: {units} {sizes}; {len(corpus.card.emotions)} emotions"
    if corpus.card.synthetic:
        yield "this corpus is SYNTHETIC: no score says anything about real conversations"
    modalities = ", ".join(f"{m} {width}" for m, width in setup.widths.items())
    yield f"model {config.model.name}: {parameters:,} parameters; features {modalities}"
    if config.training.matmul_precision != "default" and jax.default_backend() == "cpu":
        yield f"training.matmul_precision={config.training.matmul_precision} changes nothing: a CPU has float32 alone"


def _agreed_signal(heard: Interrupts) -> signal.Signals | None:
    """Returns the signal that any process heard: saving takes all of them, at the same step."""
    number = highest(heard.received or 0)
    return signal.Signals(number) if number else None
