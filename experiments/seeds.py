"""Prints mean and standard deviation over runs that differ only in their seed.

python -m experiments.seeds runs/a runs/b runs/c
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import jmer
from jmer.command import Parser, exit_status, show
from jmer.runs import group_runs


def main(arguments: Sequence[str]) -> None:
    """Prints the table for the folders on the command line."""
    parser = Parser(prog="python -m experiments.seeds", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder (--workdir)")
    show(group_runs([jmer.load_run(folder) for folder in parser.parse_args(arguments).folders]).report())


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
