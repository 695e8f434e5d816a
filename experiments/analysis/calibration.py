"""Calibration: the probabilities of predicted emotions beside the accuracy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject, labels
from experiments.tables import percent
from jmer.evaluation.calibration import Calibration, calibration
from jmer.evaluation.plots import plot_reliability


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed and bin of the predicted emotion's probability (see `jmer.evaluation.calibration`).

    Columns `seed`, `bin`, `count`, and the fractions `confidence` and `accuracy`, NaN in an empty bin.
    """
    tables = []
    for subject in subjects:
        examples = subject.examples(split)
        found = calibration(subject.probabilities(examples), labels(examples))
        columns = {"count": found.count, "confidence": found.confidence, "accuracy": found.accuracy}
        tables.append(pd.DataFrame({"seed": subject.seed, "bin": range(len(found.count)), **columns}))
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
    seeds = [merged(rows) for _, rows in frame.groupby("seed")]
    confidence, accuracy = (_overall(seeds, name) for name in ("confidence", "accuracy"))
    which = "overconfident" if np.mean(confidence) > np.mean(accuracy) else "underconfident"
    return [
        f"Expected calibration error {percent(found.expected_error for found in seeds)} %, largest error of a bin "
        f"{percent(found.maximum_error for found in seeds)} % ({_seeds(frame)}, {len(seeds[0].count)} bins). Mean "
        f"confidence {percent(confidence)} %, accuracy {percent(accuracy)} %: {which}. Nothing is recalibrated.",
    ]


def _overall(seeds: Sequence[Calibration], name: str) -> list[float]:
    return [float(np.nansum(getattr(found, name) * found.count) / found.count.sum()) for found in seeds]


def _seeds(frame: pd.DataFrame) -> str:
    count = frame["seed"].nunique()
    return f"{count} seed{'s' if count > 1 else ''}"


ANALYSIS = Analysis("Calibration", measure, draw, describe)
