"""The tables of the benchmark, and the file of raw times."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from experiments.benchmarks.row import SEVERAL, Options, Row
from experiments.benchmarks.side import JMER
from experiments.grid.processes import Died
from experiments.tables import NOTHING, markdown
from jmer.files import atomically

MEGA, GIGA = 1e6, 1e9


def report(rows: Sequence[Row], options: Options, machine: Mapping[str, str], peaks: Sequence[float], size: int) -> str:
    """Returns the tables and the conditions of the measurement.

    Args:
      rows: at least one.
      options: with which they were measured.
      machine: facts about it, name -> text.
      peaks: operations per second of the fastest matrix product, measured several times during the run.
      size: of the matrices of that product.
    """
    parts = [
        "# Speed of jmer beside plain PyTorch" if len(rows[0].training) > 1 else "# Speed of jmer",
        "\n".join(f"- {name}: {what}" for name, what in machine.items()),
        f"{options.precision}. Medians over {len(rows[0].training[JMER])} repetitions of each step, the sides in turn. "
        "Ratios: the time of the other side over that of jmer.",
        "## A training step, Adam included",
        markdown([_training(row, median(peaks)) for row in rows]),
        f"Share of peak: operations in matrix products per second, over those of one product of {size} x {size} "
        f"matrices, {', '.join(f'{peak / GIGA:.1f}' for peak in peaks)} GFLOP/s during the run, median "
        f"{median(peaks) / GIGA:.1f}. MiB: peak memory of a fresh process for one step.",
        "## Prediction: the same batch, and the latency of one conversation",
        markdown([_prediction(row) for row in rows]),
    ]
    if rows[0].seeds:
        title = f"## A training step of {options.seeds} seeds in one program"
        parts += [title, markdown([_seeds(row, options.seeds) for row in rows])]
    if rows[0].epochs:
        parts += ["## A whole epoch, batching included", markdown([_epoch(row) for row in rows])]
    return "\n\n".join(parts)


def summary(row: Row) -> str:
    """Returns a line about a row: times of the training step, and why memory is unknown where it is."""
    steps = ", ".join(f"{name} {what}" for name, what in _timed("", row.training).items())
    unknown = [f"; memory of {side} unknown: {f.reason}" for side, f in row.footprints.items() if isinstance(f, Died)]
    return f"{row.model} on {row.shape}, training step: {steps}{''.join(unknown)}"


def write(out: Path, text: str, rows: Sequence[Row], **facts) -> None:
    """Writes `table.md`, and `results.json` with the facts and the raw times of every row."""
    with atomically(out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    with atomically(out / "results.json") as temporary:
        temporary.write_text(json.dumps({**facts, "rows": list(map(_plain, rows))}, indent=1) + "\n", encoding="utf-8")


def _plain(row: Row) -> dict:
    """Returns the row for JSON, named tuples as mappings."""

    def named(values: Mapping) -> dict:
        return {side: value._asdict() for side, value in values.items()}

    return vars(row) | {"footprints": named(row.footprints), "epochs": named(row.epochs)}


def _training(row: Row, peak: float) -> dict[str, str]:
    rates = _rates(row.training, row.utterances)
    return (
        _named(row)
        | _timed("", row.training)
        | {f"{side} utt/s": _figure(rate) for side, rate in rates.items()}
        | {f"{side} useful share": f"{share:.2f}" for side, share in row.useful_shares.items()}
        | {"MFLOP/utt": _figure(row.flops_per_utterance / MEGA)}
        | {f"{side} share of peak": f"{row.flops_per_utterance * rate / peak:.1%}" for side, rate in rates.items()}
        | {f"{side} busy": f"{share:.0%}" for side, share in row.busy.items()}
        | {"compile s": _of_footprint(row.footprints[JMER], "compile_seconds")}
        | {f"{side} MiB": _of_footprint(found, "peak_megabytes") for side, found in row.footprints.items()}
    )


def _prediction(row: Row) -> dict[str, str]:
    rates = _rates(row.inference, row.utterances)
    return (
        _named(row)
        | _timed("", row.inference)
        | {f"{side} utt/s": _figure(rate) for side, rate in rates.items()}
        | {"one conversation": f"{row.single} utt"}
        | _timed("latency ", row.latency)
    )


def _seeds(row: Row, seeds: int) -> dict[str, str]:
    one, several = (median(row.seeds[side]) for side in (JMER, SEVERAL))
    return _named(row) | {
        "one seed ms": _figure(1000 * one),
        f"{seeds} seeds ms": _figure(1000 * several),
        "one after the other : together": f"{seeds * one / several:.1f}x",
    }


def _epoch(row: Row) -> dict[str, str]:
    cells = _named(row)
    for side, epoch in row.epochs.items():
        cells |= {
            f"{side} s": _figure(epoch.seconds),
            f"{side} utt/s": _figure(epoch.utterances / epoch.seconds),
            f"{side} useful share": f"{epoch.real_fraction:.2f}",
        }
    return cells | _ratios("", {side: epoch.seconds for side, epoch in row.epochs.items()})


def _named(row: Row) -> dict[str, str]:
    return {"model": row.model, "shape": row.shape}


def _timed(what: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Returns the columns of each side's milliseconds, and their ratios."""
    medians = {side: median(times) for side, times in seconds.items()}
    return {f"{what}{side} ms": _figure(1000 * time) for side, time in medians.items()} | _ratios(what, medians)


def _ratios(what: str, seconds: Mapping[str, float]) -> dict[str, str]:
    ours = seconds[JMER]
    return {f"{what}{side} : {JMER}": f"{time / ours:.1f}x" for side, time in seconds.items() if side != JMER}


def _rates(seconds: Mapping[str, Sequence[float]], utterances: int) -> dict[str, float]:
    return {side: utterances / median(times) for side, times in seconds.items()}


def _of_footprint(found: object, name: str) -> str:
    value = None if isinstance(found, Died) else getattr(found, name)
    return NOTHING if value is None else _figure(value)


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
