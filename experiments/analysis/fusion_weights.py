"""How a model weighs its modalities, and whether the weights have to do with being right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from experiments.analysis.analysis import Analysis
from experiments.analysis.pictures import make_figure, tidy, with_spread
from experiments.analysis.runs import Run, available, labelled, labels
from experiments.analysis.text import number
from experiments.tables import markdown, percent
from jmer.evaluation.plots import STYLES, save

END = 0.02
"""A weight this close to an end of its range is saturated."""
BINS = 25
LIMITS = {"sigmoid": (0.5, 1.0), "two_sigmoid_minus_one": (0.0, 1.0), "one_minus": (0.5, 0.0)}
"""How LFVD weighs -> the weight of a modality whose Gaussian is the dominant one's, and of one infinitely far away."""
RIGHT, WRONG = "right", "wrong"


def weights_of(output: Any) -> Mapping[str, Any]:
    """Returns the fusion weights in a model's output; empty if it has none."""
    return dict(getattr(output, "weights", {}))


def limits(run: Run) -> tuple[float, float]:
    """Returns between what two values a run's weights lie, see `LIMITS`; from 0 to 1 for a gate."""
    return LIMITS.get(getattr(run.trained.model.module, "weight_fn", ""), (0.0, 1.0))


def applies(run: Run) -> str:
    """The model must have weights that can differ."""
    names = run.shapes(weights_of).keys() - {run.lead}
    if not names:
        return "this model gives its modalities no weights"
    module = run.trained.model.module
    if getattr(module, "fusion", "") == "add" or getattr(module, "weight_fn", "") == "ones":
        return "every weight is 1 by the configuration (model.fusion, model.weight_fn)"
    return ""


def measure(runs: Sequence[Run], split: str) -> pd.DataFrame:
    """Returns a row per seed, modality and labelled utterance.

    Columns `seed`, `modality`, `conversation`, `utterance`, `weight`, `right` (whether the emotion was predicted
    right), and `lowest` and `highest`, the range of the weight. The dominant modality, whose weight is 1, is left out,
    and so are utterances that lack a modality: what they lack changes weights by rule.
    """
    tables = []
    for run in runs:
        conversations = run.conversations(split)
        logits, weights = zip(*run.outputs(conversations, _logits_and_weights), strict=True)
        gold = labels(conversations)
        whole = np.logical_and.reduce([labelled(conversations), *(available(conversations, m) for m in run.modalities)])
        lowest, highest = sorted(limits(run))
        shared = {
            "conversation": np.repeat([c.id for c in conversations], list(map(len, conversations))),
            "utterance": np.concatenate([c.utterances for c in conversations]),
            "right": np.concatenate(logits).argmax(-1) == gold,
            "lowest": lowest,
            "highest": highest,
        }
        for m in (m for m in run.modalities if m != run.lead):
            weight = np.concatenate([w[m] for w in weights]).astype(np.float64)
            table = pd.DataFrame({"seed": run.seed, "modality": m, **shared, "weight": weight})
            tables.append(table[whole])
    return pd.concat(tables, ignore_index=True)


def _logits_and_weights(output: Any) -> tuple[Any, Mapping[str, Any]]:
    return output.logits, weights_of(output)


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the figures of one seed and modality; NaN where there is nothing to compute it from.

    `mean`, `sd`; `at_lowest` and `at_highest`, the shares at the ends of the range; `right` and `wrong`, the mean
    weights where the prediction is; `correlation`, Spearman's rank correlation of weight and being right; `quarter_1`
    to `quarter_4`, the accuracy among the weights up to the first quartile, between it and the median, and so on.
    """
    weight, right = rows["weight"].to_numpy(), rows["right"].to_numpy()
    varies = len(np.unique(weight)) > 1 and len(np.unique(right)) > 1
    figures = {
        "mean": _mean(weight),
        "sd": weight.std(ddof=1) if len(weight) > 1 else np.nan,
        "at_lowest": _mean(weight < rows["lowest"] + END),
        "at_highest": _mean(weight > rows["highest"] - END),
        RIGHT: _mean(weight[right]),
        WRONG: _mean(weight[~right]),
        "correlation": spearmanr(weight, right).statistic if varies else np.nan,
    }
    quarter = np.searchsorted(np.quantile(weight, (0.25, 0.5, 0.75)), weight) if varies else np.full(len(weight), -1)
    return figures | {f"quarter_{i + 1}": _mean(right[quarter == i]) for i in range(4)}


def _mean(values: np.ndarray | pd.Series) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def summaries(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns `summary` for each seed and modality, a row each."""
    groups = frame.groupby(["modality", "seed"], sort=False)
    return pd.DataFrame([{"modality": m, "seed": seed} | summary(rows) for (m, seed), rows in groups])


def draw(frame: pd.DataFrame, path: Path, title: str) -> None:
    """Draws for each modality the histogram among right and wrong predictions, and the accuracy by quarter."""
    figures, modalities = summaries(frame), list(dict.fromkeys(frame["modality"]))
    figure = make_figure(2 + 4 * len(modalities), 6.6, with_spread(title, frame))
    panels = figure.subplots(2, len(modalities), sharey="row", squeeze=False)
    for modality, (above, below) in zip(modalities, panels.T, strict=True):
        rows = frame[frame["modality"] == modality]
        edges = np.linspace(rows["lowest"].iloc[0], rows["highest"].iloc[0], BINS + 1)
        for name, style in ((RIGHT, STYLES[0]), (WRONG, STYLES[1])):
            _histogram(above, rows[rows["right"] == (name == RIGHT)], edges, *style, name)
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


def _histogram(axes, rows: pd.DataFrame, edges: np.ndarray, colour: str, style, name: str) -> None:
    """Draws the mean over seeds of each bin's share, and a band of ± one sample standard deviation."""
    seeds = [group["weight"] for _, group in rows.groupby("seed")]
    if not seeds:
        return
    shares = pd.DataFrame([100 * np.histogram(w, edges)[0] / len(w) for w in seeds])
    mean, deviation = shares.mean().to_numpy(), shares.std().fillna(0).to_numpy()
    axes.stairs(mean, edges, baseline=None, color=colour, linestyle=style, linewidth=1.6, label=name)
    axes.stairs(mean + deviation, edges, baseline=mean - deviation, color=colour, alpha=0.15, fill=True)


def describe(frame: pd.DataFrame) -> list[str]:
    """Tabulates the distribution of each modality's weight and its relation to being right."""
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
                "mean, right": number(figures[RIGHT]),
                "mean, wrong": number(figures[WRONG]),
                "rank correlation": number(figures["correlation"]),
                **{f"accuracy %, quarter {i}": _shares(figures[f"quarter_{i}"]) for i in range(1, 5)},
            }
        )
    return [
        f"Weights between {lowest:g} and {highest:g}, over the utterances that have every modality.",
        markdown(spread),
        'Their relation to being right ("right" and "wrong" are predictions; quarters from the lowest weights to the '
        "highest; rank correlation after Spearman):",
        markdown(relation),
    ]


def _shares(values: pd.Series) -> str:
    return percent(values.dropna())


ANALYSIS = Analysis("Fusion weights", measure, draw, describe, applies)
