"""Measures the speed of jmer's models, beside plain PyTorch versions of them with the same weights and batches.

    python -m experiments.benchmarks                                    # all models and shapes, on the CPU
    python -m experiments.benchmarks --models lfvd --shapes meld --repeats 9
    python -m experiments.benchmarks --device gpu --torch-compile --seeds 5 --epoch
    python -m experiments.benchmarks --device gpu --precision tensorfloat32
    python -m experiments.benchmarks --only-jmer                        # without PyTorch

Prints tables, which are also written to OUT/table.md after each row, with all raw times in OUT/results.json. Run it on
an otherwise idle machine.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments.benchmarks import machine
from experiments.benchmarks.cases import EXPERIMENTS, make_case
from experiments.benchmarks.clock import matmul_peak
from experiments.benchmarks.jax_side import product
from experiments.benchmarks.report import report, summary, write
from experiments.benchmarks.row import Options, measure_row
from experiments.benchmarks.side import BFLOAT16, FLOAT32, PRECISIONS, TENSORFLOAT32
from experiments.grid.cli import choices
from jmer.command import Parser, exit_status, show
from jmer.errors import UserError

PROGRAM = "python -m experiments.benchmarks"
MODELS = tuple(dict.fromkeys(model for model, _ in EXPERIMENTS))
SHAPES = tuple(dict.fromkeys(shape for _, shape in EXPERIMENTS))
PRODUCT, SMOKE_PRODUCT = 2048, 128


def main(arguments: Sequence[str]) -> int:
    """Measures and prints the tables; returns the exit status.

    Raises:
      UserError: if a flag is invalid, a requirement is missing, or the sides compute different losses.
    """
    flags = _parse(arguments)
    with_torch = not flags.only_jmer
    selected = [case for case in EXPERIMENTS if case[0] in flags.models and case[1] in flags.shapes]
    if not selected:
        raise UserError(f"--models {','.join(flags.models)} has no configuration for --shapes {','.join(flags.shapes)}")
    if flags.out.exists() and not flags.out.is_dir():
        raise UserError(f"{flags.out} is a file, not a folder: choose another --out")
    machine.prepare(flags.device, flags.threads, with_torch=with_torch, precision=flags.precision)
    options = Options(
        repeats=1 if flags.smoke else flags.repeats,
        device=flags.device,
        threads=flags.threads,
        with_torch=with_torch,
        torch_compile=flags.torch_compile,
        epoch=flags.epoch,
        seeds=flags.seeds,
        precision=flags.precision,
    )
    facts = {"machine": machine.describe(with_torch=with_torch), "options": options._asdict()}
    size = SMOKE_PRODUCT if flags.smoke else PRODUCT
    peaks, rows = [_peak(size, options)], []
    for number, (model, shape) in enumerate(selected, start=1):
        row = measure_row(make_case(model, shape, smoke=flags.smoke, precision=flags.precision), options)
        rows.append(row)
        # The next row compiles other programs.
        jax.clear_caches()
        if number in ((len(selected) + 1) // 2, len(selected)):
            peaks.append(_peak(size, options))
        text = report(rows, options, facts["machine"], peaks, size)
        write(flags.out, text, rows, **facts, peaks=peaks, product=size)
        _progress(f"[{number}/{len(selected)}] {summary(row)}")
    show(f"{text}\n\nwrote {flags.out / 'table.md'} and {flags.out / 'results.json'}")
    return 0


def _peak(size: int, options: Options) -> float:
    products = [product(size)]
    if options.with_torch:
        from experiments.benchmarks import torch_side

        products.append(torch_side.product(size, options.device))
    return matmul_peak(products, size)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def choice(names: Sequence[str], flag: str) -> dict:
        return {"default": ",".join(names), "metavar": f"{flag},...", "help": f"default: {','.join(names)}"}

    parser.add_argument("--models", **choice(MODELS, "MODEL"))
    parser.add_argument("--shapes", **choice(SHAPES, "SHAPE"))
    parser.add_argument(
        "--repeats", type=int, default=5, metavar="N", help="repetitions of each measurement (default: 5)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="of both sides (default: all cores)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="of both sides (default: cpu)")
    parser.add_argument("--only-jmer", action="store_true", help="without PyTorch")
    parser.add_argument(
        "--torch-compile", action="store_true", help="also measure torch.compile, which compiles for a long time"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FLOAT32,
        help="of products on a GPU (default: float32); bfloat16: jmer's networks compute in it, needs --only-jmer",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="also train N seeds of jmer in one program (default: 1)"
    )
    parser.add_argument("--epoch", action="store_true", help="also train an epoch of each corpus' size; slow")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and one repetition, to test the program")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    flags = parser.parse_args(arguments)
    flags.models = choices("--models", flags.models, MODELS)
    flags.shapes = choices("--shapes", flags.shapes, SHAPES)
    for flag in ("repeats", "threads", "seeds"):
        if getattr(flags, flag) is not None and getattr(flags, flag) < 1:
            raise UserError(f"--{flag} is {getattr(flags, flag)}: give at least 1")
    if flags.precision == BFLOAT16 and not flags.only_jmer:
        raise UserError("--precision bfloat16 is jmer's own: add --only-jmer")
    if flags.precision == TENSORFLOAT32 and flags.device == "cpu":
        raise UserError("--precision tensorfloat32 is a GPU's: add --device gpu")
    if flags.only_jmer and flags.torch_compile:
        raise UserError("--torch-compile measures PyTorch: omit --only-jmer")
    return flags


def _progress(line: str) -> None:
    show(line, sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_status(main, sys.argv[1:]))
