"""Calibration: the probabilities of predicted emotions beside the accuracy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.analysis import Analysis
from experiments.analysis.runs import Run, labels
from experiments.tables import percent
from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.plots import plot_reliability


def measure(runs: Sequence[Run], split: str) -> pd.DataFrame:
    """Returns a row per seed and bin of the predicted emotion's probability (see `jmer.evaluation.calibration`).

    Columns `seed`, `bin`, `count`, and the fractions `confidence` and `accuracy`, NaN in an empty bin.
    """
    tables = []
    for run in runs:
        conversations = run.conversations(split)
        found = calibration(run.probabilities(conversations), labels(conversations))
        columns = {"count": found.count, "confidence": found.confidence, "accuracy": found.accuracy}
        tables.append(pd.DataFrame({"seed": run.seed, "bin": range(len(found.count)), **columns}))
    return pd.concat(tables, ignore_index=True)


def merged(rows: pd.DataFrame) -> Calibration:
    """Returns the calibration of some rows of `measure`, with the rows of each bin pooled."""
    weighted = rows[["confidence", "accuracy"]].mul(rows["count"], axis=0)
    count = rows.groupby("bin")["count"].sum()
    bins = weighted.groupby(rows["bin"]).sum().div(count.where(count > 0), axis=0)
    gap = (bins["accuracy"] - bins["confidence"]).abs()
    return Calibration(
        confidence=bins["confidence"].to_numpy(),
        accuracy=bins["accuracy"].to_numpy(),
        count=count.to_numpy(),
        expected_error=float((gap * count).sum() / count.sum()),
        maximum_error=float(gap.max()),
    )


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws the reliability diagram of all seeds, pooled."""
    plot_reliability(merged(frame), path, f"{title}\npredictions of {_seeds(frame)}, pooled")


def describe(frame: pd.DataFrame) -> list[str]:
    """Summarises the expected calibration error and its direction."""
    runs = [merged(rows) for _, rows in frame.groupby("seed")]
    confidence, accuracy = (_overall(runs, name) for name in ("confidence", "accuracy"))
    which = "overconfident" if np.mean(confidence) > np.mean(accuracy) else "underconfident"
    return [
        f"Expected calibration error {percent(run.expected_error for run in runs)} %, largest error of a bin "
        f"{percent(run.maximum_error for run in runs)} % ({_seeds(frame)}, {len(runs[0].count)} bins). Mean confidence "
        f"{percent(confidence)} %, accuracy {percent(accuracy)} %: overall {which}. Nothing is recalibrated.",
    ]


def _overall(runs: Sequence[Calibration], name: str) -> list[float]:
    return [float(np.nansum(getattr(run, name) * run.count) / run.count.sum()) for run in runs]


def _seeds(frame: pd.DataFrame) -> str:
    count = frame["seed"].nunique()
    return f"{count} seed{'s' if count > 1 else ''}"


ANALYSIS = Analysis("Calibration", measure, draw, describe)
