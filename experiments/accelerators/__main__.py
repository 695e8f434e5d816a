"""Compiles jmer's models for TPUs and NVIDIA GPUs on a machine that has neither, and counts what the programs do.

    python -m experiments.accelerators                                        # all models, shapes and targets: hours
    python -m experiments.accelerators --models lfvd,dagerc --shapes meld --targets h100
    python -m experiments.accelerators --programs epoch --targets v5e-x4

A row is a model on a shape, its training step or its whole epoch, for a target. Each is compiled in a process of its
own; one that fails or takes too long does not stop the others. Rows that OUT has already are not compiled again. Prints
tables, which are also written to OUT/table.md after each row, with all numbers in OUT/results.json.

Needs the compilers: `pip install -e '.[accelerators]'`, or one of the extras `tpu` and `gpu`.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.accelerators.check import Request, check
from experiments.accelerators.programs import PROGRAMS
from experiments.accelerators.report import report, summary, write
from experiments.accelerators.rows import load, load_all, row_file, save
from experiments.accelerators.targets import DEFAULT_TARGETS, TARGETS, check_installed
from experiments.benchmarks.cases import EXPERIMENTS
from experiments.grid.cli import choices, launch
from jmer.command import Parser, show
from jmer.errors import UserError

PROGRAM = "experiments.accelerators"
MODELS = tuple(dict.fromkeys(model for model, _ in EXPERIMENTS))
SHAPES = tuple(dict.fromkeys(shape for _, shape in EXPERIMENTS))


def main(arguments: Sequence[str]) -> int:
    """Compiles and prints the tables; returns the exit status, 1 if a program did not compile.

    Raises:
      UserError: if a flag is invalid, or a compiler is missing.
    """
    flags = _parse(arguments)
    if flags.out.exists() and not flags.out.is_dir():
        raise UserError(f"{flags.out} is a file, not a folder: choose another --out")
    cases = [case for case in itertools.product(flags.models, flags.shapes) if case in EXPERIMENTS]
    if not cases:
        raise UserError(f"--models {','.join(flags.models)} has no configuration for --shapes {','.join(flags.shapes)}")
    requests = [
        Request(*case, program, target, flags.smoke, flags.timeout)
        for case in cases
        for program in flags.programs
        for target in flags.targets
    ]
    todo = [request for request in requests if _is_to_do(row_file(flags.out, request), flags.again)]
    check_installed(dict.fromkeys(request.target for request in todo))
    show(f"{len(requests)} programs in {flags.out}: {len(requests) - len(todo)} compiled before, {len(todo)} to do")
    for number, request in enumerate(todo, start=1):
        row = check(request, row_file(flags.out, request).with_suffix(".log"))
        save(flags.out, row)
        rows = list(load_all(flags.out))
        write(flags.out, report(rows), rows)
        show(f"[{number}/{len(todo)}] {summary(row)}")
    rows = [load(row_file(flags.out, request)) for request in requests]
    show(f"\n{report(rows)}\n\nwrote {flags.out / 'table.md'} and {flags.out / 'results.json'}")
    return int(any(row.error is not None for row in rows))


def _is_to_do(file: Path, again: str | None) -> bool:
    return again == "all" or not file.exists() or (again == "failed" and load(file).error is not None)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog=f"python -m {PROGRAM}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def choice(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
        text = f"of {', '.join(known)} (default: {'all' if names == known else ', '.join(names)})"
        parser.add_argument(flag, default=",".join(names), metavar="NAME,...", help=text)

    choice("--models", MODELS, MODELS)
    choice("--shapes", SHAPES, SHAPES)
    choice("--programs", PROGRAMS, PROGRAMS)
    choice("--targets", DEFAULT_TARGETS, tuple(TARGETS))
    parser.add_argument(
        "--timeout", type=int, default=1800, metavar="SECONDS", help="of each compilation (default: 1800)"
    )
    parser.add_argument("--again", choices=("failed", "all"), help="compile rows again that OUT has already")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to test the program")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/accelerators"), help="folder (default: runs/accelerators)"
    )
    flags = parser.parse_args(arguments)
    known = {"models": MODELS, "shapes": SHAPES, "programs": PROGRAMS, "targets": TARGETS}
    for name, names in known.items():
        setattr(flags, name, choices(f"--{name}", getattr(flags, name), names))
    if flags.timeout < 1:
        raise UserError(f"--timeout is {flags.timeout}: give at least 1")
    return flags


if __name__ == "__main__":
    sys.exit(launch(PROGRAM, main, sys.argv[1:]))
