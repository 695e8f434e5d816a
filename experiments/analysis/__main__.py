"""Analyses finished runs that differ by their seed: what the scores of a table do not tell.

    python -m experiments.analysis runs/lfvd                                # a folder with several seeds, or one run
    python -m experiments.analysis runs/a runs/b --only missing,calibration --out analyses/lfvd
    python -m experiments.analysis runs/lfvd --corpus corpora/mosi --split test

Writes OUT/analysis.md, and for each analysis a table (CSV) and a picture (PNG, SVG) beside it. Runs are only read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from experiments import program
from experiments.analysis.catalogue import ANALYSES
from experiments.analysis.report import REPORT_FILE, analyse
from experiments.analysis.runs import load_runs
from jmer.command import Parser, exit_status
from jmer.errors import UserError
from jmer.process import set_up_process

PROGRAM = "experiments.analysis"


def main(arguments: Sequence[str]) -> None:
    """Makes the analyses and prints their report.

    Raises:
      UserError: if a flag, a run or the corpus is at fault.
    """
    names = ", ".join(ANALYSES)
    parser = Parser(
        prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or one with runs in seed0, ..."
    )
    parser.add_argument("--corpus", help="another one than that of training, with the same emotions and features")
    parser.add_argument("--split", default="validation", help="default: validation")
    parser.add_argument("--only", default=",".join(ANALYSES), metavar="NAME,...", help=f"default: all, {names}")
    parser.add_argument("--out", type=Path, default=Path("runs/analysis"), help="folder (default: runs/analysis)")
    options = parser.parse_args(arguments)
    wanted = program.chosen("--only", options.only, ANALYSES)
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file, not a folder: name another --out")
    logging.set_verbosity(logging.FATAL)
    set_up_process()
    text = analyse(load_runs(options.runs, options.corpus), options.split, wanted, options.out, say=program.say)
    print(f"\n{text}\n\nwrote {options.out / REPORT_FILE}")


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
