"""Size of a model, and its speed in training and prediction."""

import functools
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject
from experiments.benchmarks.clock import alternate
from experiments.grid.cells import result_of
from experiments.plots import bars, make_figure, tidy, with_spread
from experiments.tables import number
from jmer.evaluation.plots import STYLES, save

PASSES = 5


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed.

    Columns `seed`, `parameters`; `training`, the utterances per second that the run logged, median over epochs;
    `inference`, the utterances per second measured now, batching included: median of five passes over the split, each
    after one that is not timed, alternating with the other seeds; and `devices`, those of training.
    """
    inputs = {subject.seed: subject.examples(split) for subject in subjects}
    calls = {str(subject.seed): functools.partial(subject.probabilities, inputs[subject.seed]) for subject in subjects}
    seconds = alternate(calls, PASSES)
    rows = []
    for subject in subjects:
        result, utterances = result_of(subject.run), sum(map(len, inputs[subject.seed]))
        rows.append(
            {
                "seed": subject.seed,
                "parameters": result.parameters,
                "training": result.utterances_per_second,
                "inference": utterances / statistics.median(seconds[str(subject.seed)]),
                "devices": result.devices,
            }
        )
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws utterances per second in training and in inference, with a dot per seed."""
    figure = make_figure(5.6, 4.4, with_spread(title, frame))
    axes = figure.subplots()
    names = ("training", "inference")
    bars(axes, {name: frame[name].to_numpy() for name in names}, STYLES[4][0])
    for place, name in enumerate(names):
        axes.plot(np.full(len(frame), place + 0.2), frame[name], "o", color="black", markersize=4)
    tidy(axes, ylabel="utterances per second (dots: seeds)")
    save(figure, path)


def describe(frame: pd.DataFrame) -> list[str]:
    """Summarises the size and both speeds."""
    training, inference = (number(frame[name], decimals=0) for name in ("training", "inference"))
    return [
        f"{frame['parameters'].iloc[0]:,} trained parameters. Utterances per second: {training} in training (median "
        f"over epochs, on {' / '.join(sorted(set(frame['devices'])))}), {inference} in inference (median of {PASSES} "
        "passes, measured now, batching included); on a machine that may have run other programs, too.",
    ]


def applies(subject: Subject) -> str:
    """Requires validation scores, which are read together with the log."""
    scored = "validation" in subject.run.scores
    return "" if scored else "the run has no validation scores"


ANALYSIS = Analysis("Size and speed", measure, draw, describe, applies)
