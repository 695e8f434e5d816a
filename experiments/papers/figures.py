"""Figures of tables: bars of scores, scores by length of the conversation, confusion matrices."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.papers.study import Study
from experiments.runner import sound_corpus
from jmer.evaluation import mean_and_deviation
from jmer.evaluation.metrics import scores_from_confusion
from jmer.evaluation.plots import STYLES, plot_confusion, save

MARKS = "bars: mean ± sd over seeds; dots: single seeds"
HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++")
SUFFIXES = (".png", ".svg")
CUTS = {"iemocap6": (43, 59), "meld": (5, 13)}
"""Task -> the longest short and the longest medium conversation, where LFVD's Fig. 3 cuts."""


def draw_scores(study: Study, folder: Path) -> list[str]:
    """Draws accuracy and weighted F1 of every entry, mean and deviation over seeds (LFVD's Fig. 2)."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    figure.suptitle(f"{study.heading}\n{MARKS}", fontsize=11)
    for axes, (name, label) in zip(
        figure.subplots(1, 2), (("weighted_f1", "W-F1"), ("accuracy", "accuracy")), strict=True
    ):
        groups = {title: {study.split: values} for title, values in study.scores(name).items()}
        _bars(axes, groups, f"{label} (%), {study.split}")
        axes.get_legend().remove()
    return _save(figure, folder / f"scores_{study.corpus_name}")


def draw_lengths(study: Study, folder: Path) -> list[str]:
    """Draws weighted F1 of short, medium and long conversations (LFVD's Fig. 3), and writes what it draws as CSV."""
    lengths = [len(c) for c in sound_corpus(study.corpus).conversations(study.split)]
    cuts = CUTS.get(study.task) or tuple(np.quantile(lengths, (0.25, 0.75)).round().astype(int))
    how = "the paper's cuts" if study.task in CUTS else "quartiles of this split"
    frame = by_length(study, cuts)
    frame.to_csv(folder / f"lengths_{study.corpus_name}.csv", index=False)
    groups: dict[str, dict[str, list[float]]] = {}
    for (_, length, conversations, title), rows in frame.groupby(
        ["class", "length", "conversations", "row"], sort=False
    ):
        groups.setdefault(f"{length}\n({conversations} conversations)", {})[title] = rows["weighted_f1"].tolist()
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    figure.suptitle(f"{study.heading}\n{MARKS}", fontsize=11)
    axes = figure.subplots()
    _bars(axes, groups, f"W-F1 (%), {study.split}")
    axes.set_xlabel(f"utterances in the conversation ({how})")
    return _save(figure, folder / f"lengths_{study.corpus_name}")


def by_length(study: Study, cuts: Sequence[int]) -> pd.DataFrame:
    """Scores each entry's runs on short, medium and long conversations apart.

    Args:
      study: finished.
      cuts: the longest conversation of every class but the last.

    Returns:
      By class, one without labelled utterances left out: columns `class` (from 0), `length` (its name),
      `conversations`, `utterances` (labelled), `row` (the entry's title), `seed` and `weighted_f1` (a fraction).
    """
    edges = (0, *cuts, np.inf)
    names = [f"≤ {cuts[0]}", *(f"{low + 1}–{high}" for low, high in itertools.pairwise(cuts)), f"> {cuts[-1]}"]
    found = []
    for number, (name, (low, high)) in enumerate(zip(names, itertools.pairwise(edges), strict=True)):
        for title, tables in study.predictions().items():
            for seed, table in tables.items():
                length = table.groupby("conversation")["utterance"].transform("size")
                part = table[(length > low) & (length <= high) & (table["gold"] != "")]
                if len(part):
                    f1 = scores_from_confusion(study.confusion(part), study.emotions).weighted_f1
                    found.append((number, name, part["conversation"].nunique(), len(part), title, seed, f1))
    columns = ("class", "length", "conversations", "utterances", "row", "seed", "weighted_f1")
    return pd.DataFrame(found, columns=columns)


def draw_confusion(study: Study, folder: Path) -> list[str]:
    """Draws each entry's confusion matrix, summed over its seeds (LFVD's Fig. 4)."""
    pictures = []
    for number, (title, tables) in enumerate(study.predictions().items(), start=1):
        total = sum(map(study.confusion, tables.values()))
        stem = folder / f"confusion_{study.corpus_name}_{number}"
        heading = f"{study.heading}\n{title}, {study.split}, {len(tables)} seeds together"
        for suffix in SUFFIXES:
            plot_confusion(total, study.emotions, stem.with_name(stem.name + suffix), heading)
        pictures.append(f"{stem.name}.png")
    return pictures


FIGURES: Mapping[str, Callable[[Study, Path], list[str]]] = {
    "scores": draw_scores,
    "lengths": draw_lengths,
    "confusion": draw_confusion,
}
"""Name in a declaration -> what draws a study into a folder and returns the names of its pictures."""


def _bars(axes, groups: Mapping[str, Mapping[str, Sequence[float]]], label: str) -> None:
    """Draws group -> series -> fractions over seeds as grouped bars, with deviations and every single value."""
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.8 / len(series)
    drawn = []
    for number, name in enumerate(series):
        colour, hatch = STYLES[number % len(STYLES)][0], HATCHES[number % len(HATCHES)]
        for place, values in enumerate(groups.values()):
            if name not in values:
                continue
            percent = [100 * value for value in values[name]]
            mean, deviation = mean_and_deviation(percent)
            x = place + (number - (len(series) - 1) / 2) * width
            axes.bar(
                x,
                mean,
                0.9 * width,
                yerr=np.nan_to_num(deviation),
                capsize=3,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                ecolor="0.2",
                label=name if name not in drawn else None,
            )
            axes.plot([x] * len(percent), percent, "o", color="0.2", markersize=2.5)
            plate = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
            text = {"ha": "center", "va": "bottom", "fontsize": 8, "color": "white", "fontweight": "bold"}
            axes.text(x, 1.5, f"{mean:.1f}", bbox=plate, **text)
            drawn.append(name)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=9)
    axes.set(ylabel=label)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=len(series), fontsize=9, frameon=False)


def _save(figure: Figure, stem: Path) -> list[str]:
    for suffix in SUFFIXES:
        save(figure, stem.with_name(stem.name + suffix))
    return [f"{stem.name}.png"]
