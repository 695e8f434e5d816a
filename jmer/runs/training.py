"""Training runs from configurations: prepare, lock their directories, train, evaluate and report."""

import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jmer.config import check_config, check_values, fit_to_corpus
from jmer.data.corpus import Corpus
from jmer.data.curriculum import curriculum_lines
from jmer.data.outliers import constant_lines
from jmer.evaluation.predictions import corpus_title
from jmer.evaluation.report import collect_versions
from jmer.models import build_model, check_model
from jmer.models.contract import example_batch
from jmer.pipeline import Pipeline
from jmer.runs.directory import SEED_FOLDER, RunFacts, check_parent
from jmer.runs.evaluation import is_reported, write_results
from jmer.runs.initial_weights import find_start, is_begun, write_record
from jmer.runs.processes import check_same_request, check_shared
from jmer.runs.resume import Request, check_resume, claim
from jmer.training import loop
from jmer.training.agreement import agreeing
from jmer.training.execution import check_execution
from jmer.training.modulation import make_modulation
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import is_main_process, main_process_has
from jmer.training.sweep import check_alike


def train_runs(
    configs: Sequence[ConfigDict],
    corpus: Corpus,
    workdirs: Sequence[Path],
    *,
    commands: Sequence[str] | None = None,
    experiment: str = "",
    change_on_resume: Collection[str] = (),
    log: Callable[[str], None],
) -> bool:
    """Trains runs to the end in one program, evaluates and reports them; finished ones are left as they are.

    Args:
      configs: of one run, or of several that differ by seed, declared weights of loss terms
        (`jmer.models.ModelSpec.loss_weights`), learning rate and weight decay alone.
      corpus: has a training split.
      workdirs: the runs' directories; made if they are not there.
      commands: the command line or call that trains each run, for the record.
      experiment: path of the experiment's file, for the record.
      change_on_resume: fields that runs which are resumed may have had with another value, among
        `jmer.runs.resume.CHANGEABLE`.
      log: prints a line.

    Returns:
      False if all runs were finished already.

    Raises:
      UserError: if a configuration is invalid, does not fit the corpus, or a directory is another run's; before
        anything is written. Also if a loss is not finite, when the runs are saved.
      jmer.Interrupted: after a signal that asks the process to end, when the runs are saved.
    """
    with agreeing():
        check_alike(configs)
        pipeline = Pipeline.for_training(configs[0], corpus)
        fitted = [pipeline.config]
        for config in configs[1:]:
            check_config(config, corpus)
            fitted.append(fit_to_corpus(config, corpus.card, pipeline.examples["train"]))
        model = build_model(pipeline.config)
        check_model(model, tuple(pipeline.widths.items()), corpus.card.frames)
        # What else can be refused, is before a directory is made.
        for config in fitted:
            make_optimizer(config.optimizer, steps=pipeline.schedule.steps)
        modulation = make_modulation(pipeline.config.modulation, model, pipeline.widths)
        check_execution(pipeline, model, len(configs))
        batch = example_batch(pipeline.widths, frames=corpus.card.frames)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        parameters = int(parameter_overview.count_parameters(shapes["params"]))
        commands = [_this_command()] * len(configs) if commands is None else commands
        identity = corpus.identity
    check_same_request(fitted[0], identity)
    start = find_start(fitted, workdirs, pipeline, model)
    versions = collect_versions()
    requests = [
        Request(
            workdir,
            config,
            RunFacts(corpus.card, identity, versions, command, parameters, experiment),
            change_on_resume,
        )
        for config, workdir, command in zip(fitted, workdirs, commands, strict=True)
    ]
    with agreeing():
        done = is_main_process() and _are_done_for_good(requests)
    if main_process_has(done):
        return False
    with contextlib.ExitStack() as stack:
        changes: Sequence[str] = ()
        with agreeing():
            if is_main_process():
                changes = stack.enter_context(claim(requests))
                if start:
                    for workdir in itertools.filterfalse(is_begun, workdirs):
                        write_record(workdir, start)
        for workdir in workdirs:
            check_shared(workdir)
        for line in _introduction(pipeline, parameters):
            log(line)
        if modulation and modulation.note:
            log(modulation.note)
        for name, value in start.record.facts().items() if start else ():
            log(f"{name}: {value}")
        for line in changes:
            log(line)
        trained = loop.train(pipeline, model, fitted, workdirs, initial=start.arrays if start else None, log=log)
        for config, workdir in zip(fitted, workdirs, strict=True):
            if not main_process_has(is_reported(workdir, config)):
                write_results(workdir, corpus, log=log)
        return trained


def _are_done_for_good(requests: Sequence[Request]) -> bool:
    """Whether all runs are finished and reported, in directories that cannot be written and need not be."""
    return all(
        not os.access(request.workdir, os.W_OK)
        and check_resume(request)
        and is_reported(request.workdir, request.config)
        for request in requests
    )


def seed_runs(config: ConfigDict, workdir: Path) -> tuple[list[ConfigDict], list[Path]]:
    """Returns the configurations and directories of the runs of a configuration with several seeds.

    Args:
      config: its seeds are `seed`, `seed` + 1 and so on, `seeds` of them.
      workdir: parent of the directories.

    Raises:
      UserError: if a field cannot have its value, or `workdir` is the directory of a single run, has runs of other
        seeds, or holds anything else.
    """
    check_values(config)
    seeds = range(config.seed, config.seed + config.seeds)
    check_parent(workdir, seeds)
    configs = []
    for seed in seeds:
        single = config.copy_and_resolve_references()
        single.update(seed=seed, seeds=1)
        configs.append(single)
    return configs, [workdir / f"{SEED_FOLDER}{single.seed}" for single in configs]


def _introduction(pipeline: Pipeline, parameters: int) -> Iterator[str]:
    """Yields a few lines on the corpus and the model."""
    config, card = pipeline.config, pipeline.card
    sizes = ", ".join(f"{split} {len(examples)}" for split, examples in pipeline.examples.items())
    units = "utterances with frames" if card.frames else "conversations"
    yield f"corpus {corpus_title(card)}: {units} {sizes}; {len(card.emotions)} emotions"
    if card.synthetic:
        yield "this corpus is SYNTHETIC: its scores say nothing about real conversations"
    modalities = ", ".join(f"{m} {width}" for m, width in pipeline.widths.items())
    yield f"model {config.model.name}: {parameters:,} parameters; features {modalities}"
    yield from constant_lines(pipeline.normalization)
    yield from curriculum_lines(config.curriculum, card.emotions)
    if config.training.matmul_precision != "default" and jax.default_backend() == "cpu":
        yield f"training.matmul_precision={config.training.matmul_precision} changes nothing: a CPU has float32 alone"


def _this_command() -> str:
    return shlex.join(["python", *sys.argv])
