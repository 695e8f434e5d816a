"""Fusion weights of modalities: their distribution, and their relation to correct predictions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from experiments.analysis.analysis import Analysis
from experiments.analysis.subjects import Subject, available, labelled, labels
from experiments.plots import histogram, make_figure, tidy, with_spread
from experiments.tables import markdown, number, percent
from jmer.evaluation.plots import STYLES, save

END = 0.02
"""Weights closer than this to an end of their range are saturated."""
BINS = 25
LIMITS = {"sigmoid": (0.5, 1.0), "two_sigmoid_minus_one": (0.0, 1.0), "one_minus": (0.5, 0.0)}
"""LFVD's weighting -> the weight at divergence 0 from the dominant modality's Gaussian, and at infinite divergence."""
CORRECT, WRONG = "correct", "wrong"


def limits(subject: Subject) -> tuple[float, float]:
    """Returns the limits of a model's weights (see `LIMITS`); 0 and 1 for a gate."""
    return LIMITS.get(getattr(subject.predictor.model.module, "weight_fn", ""), (0.0, 1.0))


def applies(subject: Subject) -> str:
    """Requires weights that can vary."""
    if not subject.weighted_modalities():
        return "this model has no fusion weights"
    module = subject.predictor.model.module
    if getattr(module, "fusion", "") == "add" or getattr(module, "weight_fn", "") == "ones":
        return "all weights are 1 by configuration (model.fusion, model.weight_fn)"
    return ""


def measure(subjects: Sequence[Subject], split: str) -> pd.DataFrame:
    """Returns a row per seed, modality and labelled utterance.

    Columns `seed`, `modality`, `conversation`, `utterance`, `weight`, `correct` (whether the prediction is
    correct), and `lowest` and `highest`, the range of the weight. The dominant modality, whose weight is 1, is left
    out, and so are utterances that lack a modality, since a missing modality changes weights by rule.
    """
    tables = []
    for subject in subjects:
        examples = subject.examples(split)
        predictions = subject.predictor.predict_normalized(examples)
        complete = labelled(examples)
        for m in subject.modalities:
            complete &= available(examples, m)
        lowest, highest = sorted(limits(subject))
        shared = {
            "conversation": np.repeat([example.id for example in examples], list(map(len, examples))),
            "utterance": np.concatenate([example.utterances for example in examples]),
            "correct": np.concatenate(predictions.probabilities).argmax(-1) == labels(examples),
            "lowest": lowest,
            "highest": highest,
        }
        for m in subject.weighted_modalities():
            weight = np.concatenate(predictions.weights[m]).astype(np.float64)
            table = pd.DataFrame({"seed": subject.seed, "modality": m, **shared, "weight": weight})
            tables.append(table[complete])
    return pd.concat(tables, ignore_index=True)


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the statistics of one seed and modality, NaN where they are undefined.

    `mean`, `sd`; `at_lowest` and `at_highest`, the shares at the ends of the range; `correct` and `wrong`, the mean
    weights of correct and wrong predictions; `correlation`, Spearman's rank correlation of the weight and a correct
    prediction; `quarter_1` to `quarter_4`, the accuracy in each quarter of the weights, ascending.
    """
    weight, correct = rows["weight"].to_numpy(), rows["correct"].to_numpy()
    varies = len(np.unique(weight)) > 1 and len(np.unique(correct)) > 1
    found = {
        "mean": _mean(weight),
        "sd": weight.std(ddof=1) if len(weight) > 1 else np.nan,
        "at_lowest": _mean(weight < rows["lowest"] + END),
        "at_highest": _mean(weight > rows["highest"] - END),
        CORRECT: _mean(weight[correct]),
        WRONG: _mean(weight[~correct]),
        "correlation": spearmanr(weight, correct).statistic if varies else np.nan,
    }
    quarter = np.searchsorted(np.quantile(weight, (0.25, 0.5, 0.75)), weight) if varies else np.full(len(weight), -1)
    return found | {f"quarter_{i + 1}": _mean(correct[quarter == i]) for i in range(4)}


def _mean(values: np.ndarray | pd.Series) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def summaries(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a row of `summary` for each seed and modality."""
    groups = frame.groupby(["modality", "seed"], sort=False)
    return pd.DataFrame([{"modality": m, "seed": seed} | summary(rows) for (m, seed), rows in groups])


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws for each modality the histogram over correct and wrong predictions, and the accuracy by quarter."""
    figures, modalities = summaries(frame), list(dict.fromkeys(frame["modality"]))
    figure = make_figure(2 + 4 * len(modalities), 6.6, with_spread(title, frame))
    panels = figure.subplots(2, len(modalities), sharey="row", squeeze=False)
    for modality, (above, below) in zip(modalities, panels.T, strict=True):
        rows = frame[frame["modality"] == modality]
        edges = np.linspace(rows["lowest"].iloc[0], rows["highest"].iloc[0], BINS + 1)
        for name, style in ((CORRECT, STYLES[0]), (WRONG, STYLES[1])):
            chosen = rows[rows["correct"] == (name == CORRECT)]
            histogram(above, [seed["weight"] for _, seed in chosen.groupby("seed")], edges, *style, name)
        tidy(above, xlabel=f"weight of {modality}", ylabel="share of predictions (%)" if above is panels[0, 0] else "")
        above.set_ylim(bottom=0)
        of_modality = figures[figures["modality"] == modality]
        quarters = 100 * of_modality[[f"quarter_{i}" for i in range(1, 5)]]
        below.errorbar(range(4), quarters.mean(), quarters.std().fillna(0), color=STYLES[0][0], marker="o", capsize=4)
        below.set_xticks(range(4), ["lowest", "2nd", "3rd", "highest"])
        label = "accuracy (%)" if below is panels[1, 0] else ""
        tidy(below, xlabel=f"quarter by weight of {modality}", ylabel=label)
    panels[0, 0].legend(title="predictions", fontsize=9, frameon=False)
    save(figure, path)


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates the distribution of each modality's weight and its relation to correct predictions."""
    spread, relation = [], []
    lowest, highest = frame["lowest"].iloc[0], frame["highest"].iloc[0]
    for modality, figures in summaries(frame).groupby("modality", sort=False):
        spread.append(
            {
                "modality": modality,
                "mean": number(figures["mean"]),
                "sd": number(figures["sd"]),
                f"below {lowest + END:g}, %": _shares(figures["at_lowest"]),
                f"above {highest - END:g}, %": _shares(figures["at_highest"]),
            }
        )
        relation.append(
            {
                "modality": modality,
                "mean, correct": number(figures[CORRECT]),
                "mean, wrong": number(figures[WRONG]),
                "rank correlation": number(figures["correlation"]),
                **{f"accuracy %, quarter {i}": _shares(figures[f"quarter_{i}"]) for i in range(1, 5)},
            }
        )
    return [
        f"Weights between {lowest:g} and {highest:g}, over utterances that have all modalities.",
        markdown(spread),
        "Their relation to correct predictions (Spearman's rank correlation; quarters from the lowest weights to the "
        "highest):",
        markdown(relation),
    ]


def _shares(values: pd.Series) -> str:
    return percent(values.dropna())


ANALYSIS = Analysis("Fusion weights", measure, draw, describe, applies)
