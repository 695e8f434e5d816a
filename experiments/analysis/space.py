"""The space before the classifier: separation of emotions, neighbours, and a t-SNE map."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors

from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject, labelled, labels
from experiments.plots import MARKERS, make_figure
from experiments.tables import number, percent
from jmer.evaluation.plots import STYLES, save

UTTERANCES = 2000
NEIGHBOURS = 10
PERPLEXITY = 30


def classified(output: Any) -> dict[str, Any]:
    """Returns the classifier's input for each utterance, or the logits if the output does not have it."""
    return {"fused features": output.fused} if hasattr(output, "fused") else {"logits": output.logits}


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed and labelled utterance, at most 2000 of them, sampled by the seed.

    Columns `seed`, `space` (fused features or logits), `emotion`; `silhouette` of the gold emotions and `alike`, the
    share of the ten nearest neighbours that have the same emotion, both in the original space; and, for the first seed,
    the coordinates `x`, `y` on a t-SNE map, which is for inspection only. NaN where there is no value.
    """
    tables = []
    for subject in subjects:
        examples = subject.examples(split)
        known = np.flatnonzero(labelled(examples))
        sampled = np.random.default_rng(subject.seed).permutation(known)[:UTTERANCES]
        outputs = subject.outputs(examples, classified)
        (name,) = outputs[0]
        points = np.concatenate([output[name] for output in outputs]).astype(np.float64)[sampled]
        gold = labels(examples)[sampled]
        xy = _map(points) if subject is subjects[0] else np.full((len(points), 2), np.nan)
        columns = {
            "seed": subject.seed,
            "space": name,
            "emotion": np.array(subject.corpus.card.emotions)[gold],
            "silhouette": _silhouette(points, gold),
            "alike": _alike(points, gold),
            "x": xy[:, 0],
            "y": xy[:, 1],
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _map(points: np.ndarray) -> np.ndarray:
    # The perplexity is a number of neighbours; t-SNE needs about three times as many points.
    perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
    if perplexity < 1:
        return np.full((len(points), 2), np.nan)
    return TSNE(perplexity=perplexity, random_state=0).fit_transform(points)


def _silhouette(points: np.ndarray, gold: np.ndarray) -> np.ndarray | float:
    return silhouette_samples(points, gold) if 1 < len(np.unique(gold)) < len(gold) else np.nan


def _alike(points: np.ndarray, gold: np.ndarray) -> np.ndarray | float:
    if len(points) < 2:
        return np.nan
    found = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(points) - 1)).fit(points)
    # Without an argument, kneighbors leaves out the point itself.
    return (gold[found.kneighbors(return_distance=False)] == gold[:, None]).mean(1)


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws the map of the first seed, with a colour and a marker per emotion."""
    rows = frame.dropna(subset=["x", "y"])
    figure = make_figure(
        7, 6.4, f"{title}\nt-SNE of the {frame['space'].iloc[0]}, seed {frame['seed'].iloc[0]}; gold emotions"
    )
    axes = figure.subplots()
    for (emotion, points), (colour, marker) in zip(rows.groupby("emotion"), _styles(), strict=False):
        axes.scatter(points["x"], points["y"], s=22, c=colour, marker=marker, alpha=0.75, linewidths=0, label=emotion)
    axes.set(xticks=[], yticks=[])
    figure.legend(loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    save(figure, path)


def _styles() -> Iterator[tuple[str, str]]:
    """Yields pairs of a colour and a marker; the first ones differ in both."""
    for shift in range(len(MARKERS)):
        yield from ((colour, MARKERS[(i + shift) % len(MARKERS)]) for i, (colour, _) in enumerate(STYLES))


def describe(frame: pd.DataFrame) -> list[str]:
    """Summarises the mean silhouette and the share of neighbours with the same emotion, beside chance."""
    seeds = [rows for _, rows in frame.groupby("seed")]
    silhouette = number(rows["silhouette"].mean() for rows in seeds)
    counts = seeds[0]["emotion"].value_counts()
    chance = (counts * (counts - 1)).sum() / max(counts.sum() * (counts.sum() - 1), 1)
    return [
        f"Silhouette of the gold emotions, from −1 (mixed) to 1 (separated): {silhouette}. Of the {NEIGHBOURS} nearest "
        f"neighbours of an utterance {percent(rows['alike'].mean() for rows in seeds)} % have the same emotion, by "
        f"chance {100 * chance:.2f} %. Both in the space of the {frame['space'].iloc[0]}, {counts.sum()} utterances "
        "per seed. The map shows the first seed; distances between its clusters have no meaning.",
    ]


ANALYSIS = Analysis("Space before the classifier", measure, draw, describe)
