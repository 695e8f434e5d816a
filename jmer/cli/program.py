"""The command `jmer`."""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jmer
from jmer.cli.flags import (
    FIELD,
    add_config_flag,
    add_corpus_flag,
    add_input_flags,
    add_out_flag,
    add_process_flags,
    add_training_flags,
    make_parser,
    parse,
    show_help,
)
from jmer.command import Parser, launch
from jmer.errors import UserError
from jmer.modalities import MODALITIES
from jmer.process import LEAST_FOR_DATA, check_address_space

TRAIN = """Trains a model, evaluates it and writes its report. The same command resumes where a run was stopped.

  jmer train --config lfvd_meld                             on the built-in synthetic corpus
  jmer train --config lfvd_meld --corpus data/meld          on one that `jmer convert` made
  jmer train --config lfvd_meld --config.training.epochs=20 --workdir runs/a
  jmer train --config lfvd_meld --config.seeds=5            five seeds in one program, mean ± sd
"""

EVALUATE = """Evaluates a trained run, or the runs of several seeds, and writes predictions and a report.

  jmer evaluate runs/a
  jmer evaluate runs/a --corpus data/other                  results go to a folder of their own inside the run's
  jmer evaluate runs/a --out results/a                      results go there; the run's folder need not be writable
"""

PREDICT = """Predicts with a trained run, or with the runs of several seeds, and writes a table per split.

  jmer predict runs/a talk.csv --out predictions/talk       recordings and transcripts of a manifest
  jmer predict runs/a talk.mp4 --subtitles talk.srt         a recording and what is said in it
  jmer predict runs/a --corpus data/new                     features, labelled or not

Recordings, subtitles and dialogues can be predicted if `jmer extract` made the training corpus, whose extractors make
their features. What is predicted is shown; --out writes it as csv, jsonl, coloured subtitles and a page.
"""


def run() -> None:
    """Runs the command line of this process."""
    launch(main)


def main(arguments: Sequence[str]) -> int | None:
    """Runs a command.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The exit status, None = 0.

    Raises:
      UserError: if anything on the command line, or in what it names, is wrong.
    """
    commands = "\n".join(f"  {name:10}{command.purpose}" for name, command in COMMANDS.items())
    parser = Parser(
        prog="jmer",
        usage="jmer [-h] [--version] COMMAND ...",
        description=f"Multimodal emotion recognition in conversation.\n\ncommands:\n{commands}",
        epilog="`jmer COMMAND --help` describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jmer {jmer.__version__}")
    parser.add_argument("command", choices=COMMANDS, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    return COMMANDS[chosen.command].run(chosen.arguments)


def train(arguments: Sequence[str]) -> int:
    """Runs `jmer train`."""
    parser = make_parser("jmer train", "--config EXPERIMENT", TRAIN)
    add_training_flags(parser)
    add_process_flags(parser)
    options, changes = parse(parser, arguments)
    if options.help:
        return show_help(parser, options.config)
    if options.config is None:
        raise UserError("jmer train needs --config (see `jmer train --help`)")
    from jmer.cli import actions

    return actions.train("jmer train", arguments, options, changes)


def evaluate(arguments: Sequence[str]) -> int:
    """Runs `jmer evaluate`."""
    return _use("jmer evaluate", EVALUATE, arguments, labelled=True)


def predict(arguments: Sequence[str]) -> int:
    """Runs `jmer predict`."""
    return _use("jmer predict", PREDICT, arguments, labelled=False)


def _use(program: str, description: str, arguments: Sequence[str], *, labelled: bool) -> int:
    parser = make_parser(program, "RUN", description)
    parser.add_argument(
        "workdir", nargs="?", metavar="RUN", help="the folder of a run, or of the runs of several seeds"
    )
    if not labelled:
        add_input_flags(parser)
    add_corpus_flag(parser)
    add_out_flag(parser)
    add_config_flag(parser, "the experiment's file, if it registers the run's model")
    add_process_flags(parser)
    options, changes = parse(parser, arguments)
    if options.help:
        return show_help(parser, options.config)
    if options.workdir is None:
        raise UserError(f"{program} needs the folder of a run (see `{program} --help`)")
    if not labelled and options.input is not None:
        return _predict_input(options, changes)
    from jmer.cli import actions

    return actions.use(options, changes, labelled=labelled)


def _predict_input(options: argparse.Namespace, changes: dict[str, str]) -> int:
    """Predicts what is no corpus; one that is given in its place is predicted as with `--corpus`."""
    from jmer.cli import actions, prediction
    from jmer.runs.inputs import is_corpus

    if options.corpus is not None:
        raise UserError(f"both an input ({options.input}) and --corpus are given: give one of them")
    if is_corpus(options.input):
        return actions.use(options, changes | {"data.path": options.input}, labelled=False)
    if options.coordinator:
        raise UserError("an input that is no corpus is predicted by one process: leave --coordinator out")
    if options.config:
        jmer.get_config(options.config, changes)  # registers the run's model
    elif changes:
        raise UserError(f"{FIELD}{next(iter(changes))} has no effect on an input that is no corpus: leave it out")
    given = {modality: getattr(options, modality) for modality in MODALITIES if getattr(options, modality)}
    return prediction.predict_input(options, given)


def convert(arguments: Sequence[str]) -> None:
    """Runs `jmer convert`."""
    check_address_space(LEAST_FOR_DATA, "Arrow")
    from jmer.data.convert import convert

    convert(arguments, program="jmer convert")


def extract(arguments: Sequence[str]) -> int:
    """Runs `jmer extract`."""
    check_address_space(LEAST_FOR_DATA, "Arrow")
    from jmer.extract.command import extract

    return extract(arguments, program="jmer extract")


def inspect(arguments: Sequence[str]) -> None:
    """Runs `jmer inspect`."""
    check_address_space(LEAST_FOR_DATA, "Arrow")
    from jmer.data.inspect import inspect

    inspect(arguments, program="jmer inspect")


class Command(NamedTuple):
    """A command of `jmer`: what it does, and the function that does it with the rest of the command line."""

    purpose: str
    run: Callable[[Sequence[str]], int | None]


COMMANDS = {
    "train": Command("train a model, evaluate it and write its report", train),
    "evaluate": Command("evaluate a trained run, on its own corpus or another", evaluate),
    "predict": Command("predict recordings, dialogues or a corpus with a trained run", predict),
    "extract": Command("make a corpus of recordings and transcripts", extract),
    "convert": Command("convert feature files of other formats into a corpus", convert),
    "inspect": Command("print the contents of a corpus, its defects, leaks and shifts", inspect),
}
