"""What the commands do with runs: train, evaluate, predict."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

import jmer
from jmer.cli.cluster import find_cluster
from jmer.cli.flags import FIELD, command_line
from jmer.cli.processes import together
from jmer.command import show
from jmer.errors import UserError
from jmer.files import check_new_folder
from jmer.process import check_address_space, check_devices, check_threads, set_up_process


def train(program: str, arguments: Sequence[str], options: argparse.Namespace, changes: Mapping[str, str]) -> int:
    """Trains an experiment, evaluates it and writes its report.

    Args:
      program: the command, e.g. `jmer train`.
      arguments: the rest of the command line, for the run's record.
      options: the flags.
      changes: of fields.

    Returns:
      The exit status: 0, or 128 + signal after a signal that asked the process to end.

    Raises:
      UserError: if the configuration, the corpus or the folder is refused.
    """
    check_address_space()
    check_threads()
    with together(find_cluster(options, os.environ)):
        config = jmer.get_config(options.config, changes)

        def command(own: ConfigDict, folder: Path) -> str:
            """Returns the command line that trains one run by itself."""
            fold = [f"{FIELD}data.fold={own.data.fold}"] if config.data.folds else []
            seed = [f"{FIELD}seed={own.seed}", f"{FIELD}seeds=1"] if config.seeds > 1 else []
            folder_flag = ["--workdir", str(folder)] if fold or seed else []
            return command_line([*arguments, *folder_flag, *fold, *seed], program)

        log = set_up()
        try:
            jmer.train(
                config,
                None,
                options.workdir,
                log=log,
                command=command,
                experiment=options.config,
                change_on_resume=[name for name in (options.change_on_resume or "").split(",") if name],
            )
        except jmer.Interrupted as stop:
            from jmer.training.preemption import end_undisturbed

            end_undisturbed()
            log(f"{stop}; the same command resumes: {command_line(arguments, program)}")
            return 128 + stop.signal
    return 0


def use(options: argparse.Namespace, changes: Mapping[str, str], *, labelled: bool) -> int:
    """Evaluates a trained run, or the runs of several seeds or folds, or predicts with them; returns the exit status.

    Args:
      options: the flags; `workdir` is the run's folder, None = the default one of the experiment; `out` is the folder
        for results, None = the run's own.
      changes: of the run's corpus and devices.
      labelled: True = evaluate and report; False = write predictions alone.

    Raises:
      UserError: if there is no such run, or the corpus does not fit it.
    """
    check_address_space()
    check_threads()
    with together(find_cluster(options, os.environ)):
        _use(options, changes, labelled)
    return 0


def _use(options: argparse.Namespace, changes: Mapping[str, str], labelled: bool) -> None:
    from jmer.api import default_workdir
    from jmer.data import load_configured
    from jmer.data.validation import validate_corpus
    from jmer.experiment import change_fields
    from jmer.runs import read_config, write_results
    from jmer.runs.cross_validation import run_folders
    from jmer.runs.resume import check_use
    from jmer.runs.run import given_corpus, recorded_corpus

    # The experiment's file may register the run's model.
    experiment = jmer.get_config(options.config, changes) if options.config else ConfigDict()
    workdir = Path(options.workdir or default_workdir(experiment, options.config, load_configured(experiment.data)))
    folders = run_folders(workdir)
    configs = [change_fields(read_config(folder), changes) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        check_use(folder, config)
        if experiment and experiment.model.name != config.model.name:
            raise UserError(
                f"{folder} was trained with model '{config.model.name}', and --config {options.config} has model "
                f"'{experiment.model.name}': leave --config out, or name the run's own experiment"
            )
    given = jmer.load_corpus(changes["data.path"]) if "data.path" in changes else None
    out = None if options.out is None else Path(options.out)
    if out:
        check_new_folder(out, "for the results (--out)")
    log: Callable[[str], None] | None = None
    for folder, config in zip(folders, configs, strict=True):
        corpus = recorded_corpus(folder, config) if given is None else given_corpus(folder, config, given)
        validate_corpus(corpus, for_training=False)
        log = log or set_up()
        own = out and out / folder.relative_to(workdir)
        write_results(folder, corpus, config=config, log=log, labelled=labelled, out=own)
    runs = jmer.load_run(workdir)
    if log and labelled and not isinstance(runs, jmer.Run):
        log(f"mean over the runs, on the training corpus: {runs.write_report(out)}")


def set_up() -> Callable[[str], None]:
    """Sets up JAX in this process, and returns what prints a line, in the main process alone.

    Raises:
      UserError: if JAX finds no device.
    """
    from jmer.training.parallel import is_main_process

    logging.set_verbosity(logging.FATAL)
    set_up_process()
    check_devices()
    return show if is_main_process() else lambda line: None
