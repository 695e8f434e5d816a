"""Figures of tables: bars of scores, scores by conversation length, confusion matrices."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.grid.corpora import training_corpus
from experiments.papers.study import Study
from experiments.plots import grouped_bars, make_figure, picture_paths, save_all
from jmer.evaluation.metrics import scores_from_confusion
from jmer.evaluation.plots import plot_confusion

LEGEND = "bars: mean ± sd over seeds; dots: single seeds"
CUTS = {"iemocap6": (43, 59), "meld": (5, 13)}
"""Task -> the longest short and the longest medium conversation of LFVD's Fig. 3."""


def draw_scores(study: Study, folder: Path) -> list[str]:
    """Draws accuracy and weighted F1 of every entry, mean and deviation over seeds (LFVD's Fig. 2)."""
    figure = make_figure(9, 4, f"{study.heading}\n{LEGEND}")
    for axes, (name, label) in zip(
        figure.subplots(1, 2), (("weighted_f1", "W-F1"), ("accuracy", "accuracy")), strict=True
    ):
        groups = {title: {study.split: values} for title, values in study.scores(name).items()}
        grouped_bars(axes, groups, f"{label} (%), {study.split}")
        axes.get_legend().remove()
    return [save_all(figure, folder / f"scores_{study.corpus_name}")]


def draw_lengths(study: Study, folder: Path) -> list[str]:
    """Draws weighted F1 of short, medium and long conversations (LFVD's Fig. 3), and writes the values as CSV."""
    lengths = [len(c) for c in training_corpus(study.corpus).conversations(study.split)]
    cuts = CUTS.get(study.task) or tuple(np.quantile(lengths, (0.25, 0.75)).round().astype(int))
    source = "cuts of the paper" if study.task in CUTS else "quartiles of this split"
    frame = by_length(study, cuts)
    frame.to_csv(folder / f"lengths_{study.corpus_name}.csv", index=False)
    groups: dict[str, dict[str, list[float]]] = {}
    for (_, length, conversations, title), rows in frame.groupby(
        ["class", "length", "conversations", "row"], sort=False
    ):
        groups.setdefault(f"{length}\n({conversations} conversations)", {})[title] = rows["weighted_f1"].tolist()
    figure = make_figure(7, 4.2, f"{study.heading}\n{LEGEND}")
    axes = figure.subplots()
    grouped_bars(axes, groups, f"W-F1 (%), {study.split}")
    axes.set_xlabel(f"utterances in the conversation ({source})")
    return [save_all(figure, folder / f"lengths_{study.corpus_name}")]


def by_length(study: Study, cuts: Sequence[int]) -> pd.DataFrame:
    """Scores each entry's runs separately on short, medium and long conversations.

    Args:
      study: finished.
      cuts: the longest conversation of every class but the last.

    Returns:
      By class, those without labelled utterances left out: columns `class` (from 0), `length` (its name),
      `conversations`, `utterances` (labelled), `row` (the entry's title), `seed` and `weighted_f1` (a fraction).
    """
    edges = (0, *cuts, np.inf)
    names = [f"≤ {cuts[0]}", *(f"{low + 1}–{high}" for low, high in itertools.pairwise(cuts)), f"> {cuts[-1]}"]
    found = []
    for number, (name, (low, high)) in enumerate(zip(names, itertools.pairwise(edges), strict=True)):
        for title, predictions in study.predictions().items():
            for seed, table in predictions.items():
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
    for number, (title, predictions) in enumerate(study.predictions().items(), start=1):
        total = sum(map(study.confusion, predictions.values()))
        heading = f"{study.heading}\n{title}, {study.split}, sum over {len(predictions)} seeds"
        paths = picture_paths(folder / f"confusion_{study.corpus_name}_{number}")
        for path in paths:
            plot_confusion(total, study.emotions, path, heading)
        pictures.append(paths[0].name)
    return pictures


FIGURES: Mapping[str, Callable[[Study, Path], list[str]]] = {
    "scores": draw_scores,
    "lengths": draw_lengths,
    "confusion": draw_confusion,
}
"""Name in a declaration -> function that draws a study into a folder and returns the file names of its pictures."""
