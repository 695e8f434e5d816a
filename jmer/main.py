"""Trains a model for emotion recognition in conversation, evaluates it, and predicts with it.

    python -m jmer.main --config lfvd_meld                                   train on the built-in corpus, and evaluate
    python -m jmer.main --config lfvd_meld --corpus data/meld                on one that jmer.data.convert made
    python -m jmer.main --config lfvd_meld --config.training.epochs=20 --workdir runs/a
    python -m jmer.main --config lfvd_meld --config.seeds=5                  five seeds in one program, mean ± sd
    python -m jmer.main --workdir runs/a --mode evaluate                     evaluate a trained run again
    python -m jmer.main --workdir runs/a --mode predict --corpus data/new    predict a corpus, labelled or not

The same command resumes where a run was stopped. --mode evaluate and predict take the configuration from the run; its
corpus and devices alone can be changed. Results for another corpus go to a folder of their own inside the run's, or all
results to another folder (--out); a corpus is known by what it contains, wherever it lies. The command `jmer` does the
same: `jmer train`, `jmer evaluate RUN`, `jmer predict RUN`.
"""

from collections.abc import Sequence

from jmer.cli.flags import MAIN, add_out_flag, add_process_flags, add_training_flags, make_parser, parse, show_help
from jmer.command import launch
from jmer.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The exit status: 0, or 128 + signal after an interruption.

    Raises:
      UserError: if anything on the command line, or in what it names, is wrong.
    """
    parser = make_parser(MAIN, "[--config EXPERIMENT]", __doc__)
    add_training_flags(parser)
    parser.add_argument(
        "--mode",
        choices=("train", "evaluate", "predict"),
        default="train",
        help="train and evaluate (default); evaluate a trained run; or predict with it",
    )
    add_out_flag(parser)
    add_process_flags(parser)
    options, changes = parse(parser, arguments)
    if options.help:
        return show_help(parser, options.config)
    if options.config is None and (options.mode == "train" or options.workdir is None):
        needed = "--config" if options.mode == "train" else "--workdir"
        raise UserError(f"--mode {options.mode} needs {needed} (see `{MAIN} --help`)")
    if options.change_on_resume and options.mode != "train":
        raise UserError(f"--mode {options.mode} trains nothing: leave out --change-on-resume")
    if options.out and options.mode == "train":
        raise UserError("--mode train writes into --workdir: leave out --out")
    # Imports JAX, which --help and misspelt flags need not wait for.
    from jmer.cli import actions

    if options.mode == "train":
        return actions.train(MAIN, arguments, options, changes)
    return actions.use(options, changes, labelled=options.mode == "evaluate")


if __name__ == "__main__":
    launch(main)
