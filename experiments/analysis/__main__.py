"""Analyses finished runs that differ only in their seed: robustness, calibration, fusion weights, and others.

    python -m experiments.analysis runs/lfvd                                # a folder of several seeds, or a single run
    python -m experiments.analysis runs/a runs/b --only missing,calibration --out analyses/lfvd
    python -m experiments.analysis runs/lfvd --corpus corpora/mosi --split test

Writes OUT/analysis.md, and for each analysis a table (CSV) and a figure (PNG, SVG). Runs are only read.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging

import jmer
from experiments.analysis.catalogue import ANALYSES
from experiments.analysis.report import REPORT_FILE, analyse
from experiments.analysis.subjects import load_runs
from experiments.grid import cli
from jmer.cli.flags import add_config_flag
from jmer.command import Parser, exit_status, show
from jmer.errors import UserError
from jmer.process import check_devices, set_up_process

PROGRAM = "experiments.analysis"


def main(arguments: Sequence[str]) -> None:
    """Runs the analyses and prints their report.

    Raises:
      UserError: if a flag, a run or the corpus is invalid.
    """
    names = ", ".join(ANALYSES)
    parser = Parser(
        prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder with runs in seed0, ..."
    )
    parser.add_argument(
        "--corpus", help="another corpus with the same emotions and features (default: that of training)"
    )
    add_config_flag(parser, "the experiment that registers the runs' model, for a model of your own")
    parser.add_argument("--split", default="validation", help="default: validation")
    parser.add_argument("--only", default=",".join(ANALYSES), metavar="NAME,...", help=f"default: all, {names}")
    parser.add_argument("--out", type=Path, default=Path("runs/analysis"), help="folder (default: runs/analysis)")
    options = parser.parse_args(arguments)
    wanted = cli.choices("--only", options.only, ANALYSES)
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is a file, not a folder: choose another --out")
    logging.set_verbosity(logging.FATAL)
    set_up_process()
    check_devices()
    if options.config:
        jmer.get_config(options.config)
    text = analyse(load_runs(options.runs, options.corpus), options.split, wanted, options.out, log=cli.log)
    show(f"\n{text}\n\nwrote {options.out / REPORT_FILE}")


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
