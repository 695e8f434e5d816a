"""Summary of a cross-validation: mean and standard deviation over folds, and scores of all test utterances pooled."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from jmer.errors import UserError
from jmer.evaluation.markdown import escape_markdown, markdown_table, percent
from jmer.evaluation.metrics import Scores, mean_and_deviation
from jmer.evaluation.report import banners
from jmer.selection import EMOTION_SCORES, Selection, metric_value, summarized_metrics

# Seed -> scores of a test split.
SeedScores = Mapping[int, Mapping[str, Any]]


def fold_table(folds: Mapping[str, SeedScores], pooled: SeedScores) -> pd.DataFrame:
    """Returns the test scores of a cross-validation as a table of fractions.

    Args:
      folds: name of a fold -> seed -> scores of its test split; the same seeds for each.
      pooled: seed -> scores of the predictions of all folds taken together.

    Returns:
      One row per score, the index, for each of `jmer.selection.summarized_metrics`. Columns: `mean` and `sd` over the
      folds (sample standard deviation) of the mean over a fold's seeds; `pooled` and `pooled_sd`, mean and deviation
      over the seeds of the pooled scores; and the mean over seeds of each fold, `fold_<name>`.

    Raises:
      UserError: if there is no fold, or the seeds differ.
    """
    if not folds:
        raise UserError("no folds to summarize: give the scores of at least one")
    for name, scores in folds.items():
        if set(scores) != set(pooled):
            raise UserError(
                f"fold {name} has the seeds {', '.join(map(str, scores))}, the pooled scores have "
                f"{', '.join(map(str, pooled))}: train all folds with the same seeds"
            )
    rows = {}
    for score in summarized_metrics(next(iter(pooled.values()))):
        of_folds = {name: _over_seeds(scores, score)[0] for name, scores in folds.items()}
        mean, deviation = mean_and_deviation(list(of_folds.values()))
        together, spread = _over_seeds(pooled, score)
        columns = {"mean": mean, "sd": deviation, "pooled": together, "pooled_sd": spread}
        rows[score] = columns | {f"fold_{name}": value for name, value in of_folds.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="score")


def fold_report(
    folds: Mapping[str, SeedScores],
    pooled: Mapping[int, Scores],
    *,
    title: str,
    rule: str,
    selection: Selection,
    epochs: Mapping[str, Mapping[int, int]],
    synthetic: bool,
) -> str:
    """Returns the report of a cross-validation in Markdown, in percent.

    Args:
      folds, pooled: see `fold_table`.
      title: model and corpus, the first part of the heading.
      rule: that made the folds, see `jmer.data.folds.make_folds`.
      selection: the rule that chose the epochs.
      epochs: name of a fold -> seed -> the epoch it reports, counted from 1.
      synthetic: whether the corpus is synthetic.

    Raises:
      UserError: as `fold_table` does.
    """
    table = fold_table(folds, pooled)
    metrics = summarized_metrics(next(iter(pooled.values())))
    seeds = f"{len(pooled)} seed{'' if len(pooled) == 1 else 's'}"
    summary = [
        (metrics[str(score)], _spread(row["mean"], row["sd"]), _spread(row["pooled"], row["pooled_sd"]))
        for score, row in table.iterrows()
    ]
    by_fold = [
        (
            name,
            str(next(iter(scores.values()))["support"]),
            *(_spread(*_over_seeds(scores, score)) for score in metrics),
            ", ".join(str(epochs[name][seed]) for seed in scores),
        )
        for name, scores in folds.items()
    ]
    emotions = next(iter(pooled.values())).classes
    by_emotion = [
        (
            emotion,
            str(next(iter(pooled.values())).classes[emotion].support),
            *(
                _spread(*mean_and_deviation([scores.classes[emotion][score] for scores in pooled.values()]))
                for score in EMOTION_SCORES
            ),
        )
        for emotion in emotions
    ]
    return "\n\n".join(
        [
            f"# {escape_markdown(title)}, {len(folds)} folds, {seeds}",
            *banners(synthetic=synthetic, selection=selection),
            f"Test scores in percent, of the folds {escape_markdown(rule)}. Over folds: mean ± sample standard "
            "deviation of the folds' scores, each the mean over its seeds. Pooled: the predictions of all folds scored "
            "together, mean ± sample standard deviation over seeds. "
            f"Epochs {selection.description}, for each fold and seed by itself.",
            markdown_table(("score", "mean ± sd over folds", "pooled"), summary),
            "## Folds",
            markdown_table(("fold", "utterances", *metrics.values(), "epochs"), by_fold),
            "## Emotions, pooled",
            markdown_table(("emotion", "utterances", *EMOTION_SCORES.values()), by_emotion),
        ]
    )


def _over_seeds(scores: SeedScores, score: str) -> tuple[float, float]:
    return mean_and_deviation([metric_value(of_seed, score) for of_seed in scores.values()])


def _spread(mean: float, deviation: float) -> str:
    return percent(mean) + ("" if math.isnan(deviation) else f" ± {percent(deviation)}")
