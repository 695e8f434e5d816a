"""Trains a model for emotion recognition in conversation, scores it, and predicts with it.

    python -m jmer.main --config configs/lfvd_meld.py                          train on the built-in corpus, and score
    python -m jmer.main --config configs/lfvd_meld.py --corpus data/meld       on one that jmer.data.convert made
    python -m jmer.main --config configs/lfvd_meld.py --config.training.epochs=20 --workdir runs/a
    python -m jmer.main --config configs/lfvd_meld.py --config.seeds=5         train five seeds at once, mean ± sd
    python -m jmer.main --workdir runs/a --mode evaluate                       score a trained run again
    python -m jmer.main --workdir runs/a --mode predict --corpus data/new      predict a corpus, labelled or not

The same command again goes on where a run stopped. A run is used as its folder says: --mode evaluate and predict take
its configuration from there, and only the corpus and the devices may be others than in training. Results for another
corpus go to a folder of their own inside the run's.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from jmer.command import Parser, exit_status
from jmer.errors import UserError
from jmer.process import set_up_process

PROGRAM = "python -m jmer.main"
FIELD = "--config."


def main(arguments: Sequence[str]) -> int:
    """Does what the command line says.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The exit status: 0, or 128 + signal after an interruption.

    Raises:
      UserError: if anything on the command line, or in what it names, is wrong.
    """
    parser = _parser()
    options, changes = _parse(parser, arguments)
    if options.help:
        print(parser.format_help() + (_fields(options.config) if options.config else ""), end="")
        return 0
    if options.config is None and (options.mode == "train" or options.workdir is None):
        needed = "--config" if options.mode == "train" else "--workdir"
        raise UserError(f"--mode {options.mode} needs {needed}: see {PROGRAM} --help")
    logging.set_verbosity(logging.FATAL)
    # What follows imports JAX, which --help and slips of the pen need not wait for.
    from jmer.experiment import get_config

    config = get_config(options.config, changes) if options.config else None
    if options.mode == "train":
        return _train(config, options, arguments)
    return _use(Path(options.workdir or _default_workdir(config, options)), options, changes)


def _default_workdir(config: ConfigDict, options: argparse.Namespace) -> Path:
    from jmer.api import default_workdir

    return default_workdir(config, options.config)


def _train(config: ConfigDict, options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from jmer.api import train
    from jmer.training import Interrupted

    def command(own: ConfigDict, folder: Path) -> str:
        """Returns the command line that trains a run by itself."""
        if config.seeds == 1:
            return command_line(arguments)
        alone = ["--workdir", str(folder), f"{FIELD}seed={own.seed}", f"{FIELD}seeds=1"]
        return command_line([*arguments, *alone])

    workdir = options.workdir or _default_workdir(config, options)
    log = _start_backend(options)
    try:
        train(config, None, workdir, log=log, command=command, experiment=options.config)
    except Interrupted as stop:
        log(f"{stop}; the same command resumes: {command_line(arguments)}")
        return 128 + stop.signal
    return 0


def _use(workdir: Path, options: argparse.Namespace, changes: dict[str, str]) -> int:
    from jmer.data import load_corpus
    from jmer.data.validation import validate_corpus
    from jmer.experiment import change_fields
    from jmer.runs import read_config, seed_folders, write_results
    from jmer.runs.directory import check_use
    from jmer.runs.group import group_runs
    from jmer.runs.run import load_single_run

    seeds = seed_folders(workdir)
    folders = seeds or [workdir]
    configs = [change_fields(read_config(folder), changes) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        check_use(folder, config)
    corpus = load_corpus(configs[0].data.path)
    validate_corpus(corpus, for_training=False)
    log = _start_backend(options)
    for folder, config in zip(folders, configs, strict=True):
        write_results(folder, corpus, config=config, log=log, labelled=options.mode == "evaluate")
    if seeds and options.mode == "evaluate":
        report = group_runs([load_single_run(folder) for folder in folders], workdir).write_report()
        log(f"mean over the seeds, on the corpus of training: {report}")
    return 0


def command_line(arguments: Sequence[str]) -> str:
    """Returns what a shell takes to run this program with these arguments."""
    return shlex.join(["python", "-m", "jmer.main", *arguments])


def _start_backend(options: argparse.Namespace) -> Callable[[str], None]:
    """Prepares JAX, and returns what prints a line on one of several processes."""
    import jax

    from jmer.training.parallel import is_main_process

    set_up_process()
    try:
        if options.coordinator == "auto":
            jax.distributed.initialize()
        elif options.coordinator:
            jax.distributed.initialize(options.coordinator, options.processes, options.process)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--coordinator {options.coordinator}: the processes do not come together ({reason})"
        ) from error
    return _say if is_main_process() else lambda line: None


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [--config FILE] [{FIELD}SECTION.FIELD=VALUE ...] [flags]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE[:VARIANT,...]",
        help=f"the experiment; {FIELD}SECTION.FIELD=VALUE changes a field of it; with --help, lists its fields",
    )
    parser.add_argument("--corpus", metavar="CORPUS", help=f"short for {FIELD}data.path=CORPUS")
    parser.add_argument(
        "--workdir", metavar="FOLDER", help="the run's folder (default: runs/ and a name made from the configuration)"
    )
    parser.add_argument(
        "--mode",
        choices=("train", "evaluate", "predict"),
        default="train",
        help="train, and score at the end (default); evaluate: score a trained run; predict: without scoring",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0 if several processes train together ('auto' on a known cluster)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes train together")
    parser.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    return parser


def _parse(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """Returns the flags, and the changes of fields as `section.field` -> text."""
    options, rest = parser.parse_known_args(arguments)
    changes = {}
    words = iter(rest)
    for word in words:
        if not word.startswith(FIELD):
            flags = ", ".join(f"--{name}" for name in vars(options))
            raise UserError(f"'{word}' is no flag: the flags are {flags} and {FIELD}SECTION.FIELD=VALUE")
        name, equals, text = word.removeprefix(FIELD).partition("=")
        changes[name] = text if equals else next(words, "--")
        if changes[name].startswith("--"):
            raise UserError(f"{FIELD}{name} has no value: write {FIELD}{name}=VALUE")
    if options.corpus is not None:
        changes["data.path"] = options.corpus
    cluster = (options.coordinator, options.processes, options.process)
    if None in cluster and cluster not in ((None, None, None), ("auto", None, None)):
        raise UserError("several processes need --coordinator, --processes (how many) and --process (which of them)")
    if options.process is not None and not 0 <= options.process < options.processes:
        raise UserError(f"--process is {options.process}, but the {options.processes} processes are numbered from 0")
    if options.coordinator not in (None, "auto") and not _is_address(options.coordinator):
        raise UserError(f"--coordinator is '{options.coordinator}': give HOST:PORT of process 0, or auto")
    return options, changes


def _is_address(text: str) -> bool:
    found = re.fullmatch(r".+:(\d+)", text)
    return found is not None and int(found[1]) < 2**16


def _fields(source: str) -> str:
    from jmer.config import flatten
    from jmer.experiment import get_config

    lines = (f"  {name}={value}" for name, value in flatten(get_config(source)).items())
    return f"\nfields of {source}, each changed by {FIELD}SECTION.FIELD=VALUE:\n" + "\n".join(lines) + "\n"


def _report_unraisable(unraisable) -> None:
    """Passes over what Orbax's other reads say to nobody when one read of a damaged checkpoint has failed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.unraisablehook = _report_unraisable
    sys.exit(exit_status(main, sys.argv[1:]))
