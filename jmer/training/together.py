"""Training several runs at once: one program advances all of them, and each leaves its own complete folder."""

import contextlib
import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from jmer.config import fit_to_corpus
from jmer.data import normalization
from jmer.data.corpus import Corpus
from jmer.data.resident import make_resident
from jmer.data.rows import batch_rows
from jmer.errors import UserError
from jmer.evaluation.predict import forward
from jmer.evaluation.report import collect_versions
from jmer.training.advance import count_steps, fits_on_device
from jmer.training.checkpoint import Checkpoints, Position
from jmer.training.course import Course, close_epoch, held_out_splits, not_finite, plan_course
from jmer.training.epoch import Plan, train_epoch
from jmer.training.folder import CHECKPOINT_FOLDER, RunFacts, claim
from jmer.training.interrupts import interrupts
from jmer.training.log import Log, progress_line
from jmer.training.loop import Interrupted, check, introduction
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.precision import matmul_precision
from jmer.training.runs import Runs, spread
from jmer.training.setup import Setup, set_up
from jmer.training.state import State, create_state
from jmer.training.variations import Variation, check_alike, variations


@dataclasses.dataclass
class Run:
    """One of the runs, and where it stands.

    Attributes:
      config: complete, fitted to the corpus.
      workdir: its folder.
      command: the command line that would make it alone.
      position, checkpoints, log: its own; open while it is trained.
    """

    config: ConfigDict
    workdir: Path
    command: str
    position: Position = dataclasses.field(default_factory=Position)
    checkpoints: Checkpoints | None = None
    log: Log | None = None


def train_together(
    configs: Sequence[ConfigDict],
    corpus: Corpus,
    workdirs: Sequence[Path],
    *,
    commands: Sequence[str],
    say: Callable[[str], None],
) -> bool:
    """Trains runs to the end that differ by little; each gets what it would alone, but for rounding.

    They advance epoch by epoch together. Where some stand behind the others, having been stopped, the others wait for
    them. A signal waits for the epoch's end. Devices share the runs out, and no run is spread over several.

    Args:
      configs: experiments' configurations, equal but for `seed`, weights of loss terms, `optimizer.learning_rate` and
        `optimizer.weight_decay`.
      corpus: with a training split that stays on the device (`training.resident_megabytes`).
      workdirs: each run's folder; made if it is not there.
      commands: the command line that would make each run alone, for the record.
      say: prints a line.

    Returns:
      False if all runs were finished already.

    Raises:
      UserError: if a configuration, the corpus or a folder is at fault, or a loss is not finite: then the other runs
        are saved at the epoch's end.
      Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    for config in configs:
        check(config, corpus)
    check_alike(configs)
    training = batch_rows(corpus, "train", context=configs[0].data.context)
    fitted = [fit_to_corpus(config, corpus.card, training) for config in configs]
    config = fitted[0]
    widths = {m: corpus.card.widths[m] for m in config.model.modalities}
    normalizing = normalization.fit(training, widths, kind=config.data.normalization)
    devices = make_parallel(config.training.parallel, config.training.devices).devices
    # What is not mapped over runs is computed on one device.
    setup = set_up(config, corpus, normalizing, Parallel("jit", devices[:1]))
    _check_possible(setup)
    course, epochs = plan_course(config, training), config.training.epochs
    optimizer = make_optimizer(config.optimizer, steps=course.steps)
    initialise = functools.partial(create_state, setup.model, optimizer, widths)
    runs = [Run(*each) for each in zip(fitted, workdirs, commands, strict=True)]
    shapes = jax.eval_shape(lambda: initialise(config.seed))
    varied = variations(fitted)
    parameters = int(parameter_overview.count_parameters(shapes.params))
    spreading = spread(len(runs), devices)
    parent = os.path.commonpath([workdir.parent for workdir in workdirs])
    names = ", ".join(os.path.relpath(workdir, parent) for workdir in workdirs)

    with contextlib.ExitStack() as stack, interrupts() as heard:
        stack.enter_context(matmul_precision(config.training.matmul_precision))
        for run in runs:
            facts = RunFacts(corpus.card, collect_versions(), run.command, parameters)
            stack.enter_context(claim(run.workdir, run.config, facts))
        for line in introduction(setup, corpus, parameters):
            say(line)
        say(f"{len(runs)} runs together on {len(spreading.devices)} x {devices[0].device_kind}: {names}")
        states = []
        for run in runs:
            run.checkpoints = stack.enter_context(Checkpoints(run.workdir / CHECKPOINT_FOLDER))
            state = initialise(run.config.seed)
            if (newest := run.checkpoints.newest) is not None:
                restored = run.checkpoints.restore(newest, state, normalizing, setup.parallel.state_sharding)
                state, run.position = restored.state, restored.position
                say(f"{run.workdir}: {run.position.epoch} of {epochs} epochs are done")
            states.append(state)
        if all(run.position.epoch >= epochs for run in runs):
            return False
        for run, state in zip(runs, states, strict=True):
            run.log = stack.enter_context(Log(run.workdir, int(state.step)))
        for epoch, values in _epochs(runs, states, varied, setup, course, spreading):
            seconds_left = max(course.seconds_left(run.position) for run in runs if run.position.epoch == epoch)
            say(progress_line(epoch, epochs, values, seconds_left=seconds_left))
            if stop := heard.received:
                raise Interrupted(stop, f"{stop.name}: saved after epoch {epoch}")
    return True


def _epochs(
    runs: Sequence[Run],
    states: Sequence[State],
    varied: Sequence[Variation],
    setup: Setup,
    course: Course,
    spreading: Runs,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Trains the runs' epochs; gives each one's number, from 1, and the mean of the values that its runs logged."""

    def epoch(state, resident, plan, own):
        optimizer = make_optimizer(setup.config.optimizer, steps=course.steps, rates=own.rates)
        options = {"length": setup.packing.length, "weights": own.weights}
        return train_epoch(state, resident, plan, model=setup.model, optimizer=optimizer, **options)

    own = spreading.stack(varied)
    advance = spreading.map(epoch, (0, None, Plan(conversation_ids=0, computed=None, active=0), 0), donate_argnums=(0,))
    predict = spreading.map(forward(setup.model), (0, None))
    resident = spreading.share(make_resident(setup.conversations["train"], setup.widths))
    state = spreading.stack(states)
    while (number := min(run.position.epoch for run in runs)) < len(course.steps):
        started = time.perf_counter()
        plan = _shared_plan(runs, setup, course, number, spreading.rows)
        state, metrics = advance(state, resident, plan, own)
        metrics, seconds = jax.device_get(metrics), time.perf_counter() - started
        variables, splits = state.variables, held_out_splits(setup)
        predictions = {split: setup.predict_together(predict, variables, split, len(runs)) for split in splits}
        logged, failures = [], []
        for i, (run, alone) in enumerate(zip(runs, spreading.unstack(state), strict=True)):
            if run.position.epoch > number:
                continue
            taken = np.flatnonzero(plan.active[i])
            own_metrics = jax.tree.map(lambda x, i=i: x[i], metrics)
            last, run.position = count_steps(run.position, own_metrics, taken, run.position.batch_seconds + seconds)
            if not last.finite:
                run.checkpoints.save(alone, setup.statistics, run.position, None)
                failures.append(f"seed {run.config.seed}: {not_finite(last, int(alone.step) + 1, run.workdir)}")
                continue
            values, run.position = close_epoch(
                setup,
                course,
                alone,
                run.position,
                {split: predicted[i] for split, predicted in predictions.items()},
                log=run.log,
                checkpoints=run.checkpoints,
            )
            logged.append(values)
        if failures:
            raise UserError(failures[0])
        yield number + 1, _mean(logged)


def _shared_plan(runs: Sequence[Run], setup: Setup, course: Course, epoch: int, rows: int) -> Plan:
    """Returns the plan of the runs that stand in an epoch, in which those ahead take no step.

    Members and active steps have a leading axis. What is computed has none: a step is left out where all leave it out.
    """
    plans = []
    for run in runs:
        # An epoch that is done is one whose steps were all taken.
        start = course.steps[epoch] if run.position.epoch > epoch else run.position.batch
        chosen, steps = course.chosen[epoch], max(course.steps)
        plans.append(setup.plan(epoch, chosen, seed=run.config.seed, steps=steps, start=start))
    plans += [plans[-1]] * (rows - len(plans))
    return Plan(
        conversation_ids=np.stack([plan.conversation_ids for plan in plans]),
        computed=np.any([plan.computed for plan in plans], axis=0),
        active=np.stack([plan.active for plan in plans]),
    )


def _mean(logged: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Averages what runs logged; their speeds add up."""
    values = {name: statistics.fmean(row[name] for row in logged) for name in logged[0]}
    return values | {"utterances_per_second": sum(row["utterances_per_second"] for row in logged)}


def _check_possible(setup: Setup) -> None:
    if jax.process_count() > 1:
        raise UserError("several seeds are trained together by one process: leave --coordinator out, or set seeds=1")
    if not fits_on_device(setup):
        raise UserError(
            "seeds are trained together where the training split has no frames and stays on the device: raise "
            "training.resident_megabytes, or set seeds=1 and train one seed after the other"
        )
