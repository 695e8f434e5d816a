"""Summary of runs that differ by their random seed: mean, standard deviation and ensemble of each score."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from jmer.errors import UserError
from jmer.evaluation.markdown import escape_markdown, markdown_table, percent
from jmer.evaluation.metrics import mean_and_deviation
from jmer.evaluation.report import banners
from jmer.selection import Selection, metric_title, metric_value, summarized_metrics


def seed_table(
    scores: Mapping[int, Mapping[str, Mapping[str, Any]]],
    ensemble: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Returns the scores of several seeds as a table of fractions.

    Args:
      scores: seed -> split -> scores, see `jmer.evaluation.metrics.Scores`; the same splits for each seed.
      ensemble: split -> scores of the seeds' mean probabilities, see `jmer.evaluation.predictions.mean_probabilities`;
        None = not computed.

    Returns:
      One row per `(split, score)`, the index, for each of `jmer.selection.summarized_metrics`. Columns: `mean` and `sd`
      over the seeds (sample standard deviation, NaN for one seed), `ensemble` unless that is None, and a `seed_<n>` per
      seed.

    Raises:
      UserError: if there is no seed, or the splits differ between seeds or from those of the ensemble.
    """
    if not scores:
        raise UserError("no seeds to summarize: give the scores of at least one run")
    splits = list(next(iter(scores.values())))
    named = {f"seed {seed}": found for seed, found in scores.items()}
    for name, found in (named if ensemble is None else named | {"the ensemble": ensemble}).items():
        if set(found) != set(splits):
            raise UserError(
                f"{name} has scores of the splits {', '.join(found)}, seed {next(iter(scores))} of "
                f"{', '.join(splits)}: evaluate all of them on the same corpus"
            )
    rows = {}
    for split in splits:
        for name in summarized_metrics(next(iter(scores.values()))[split]):
            values = {f"seed_{seed}": metric_value(found[split], name) for seed, found in scores.items()}
            mean, deviation = mean_and_deviation(list(values.values()))
            combined = {} if ensemble is None else {"ensemble": metric_value(ensemble[split], name)}
            rows[split, name] = {"mean": mean, "sd": deviation, **combined, **values}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(index=["split", "score"])


def seed_report(
    scores: Mapping[int, Mapping[str, Mapping[str, Any]]],
    ensemble: Mapping[str, Mapping[str, Any]] | None,
    *,
    title: str,
    selection: Selection,
    epochs: Mapping[int, int],
    synthetic: bool,
    stopped: Mapping[int, int] | None = None,
) -> str:
    """Returns the report of several seeds in Markdown: a table with the columns of `seed_table`, in percent.

    Args:
      scores, ensemble: see `seed_table`.
      title: model and corpus, the first part of the heading.
      selection: the rule that chose the epochs.
      epochs: seed -> the epoch it reports, counted from 1.
      synthetic: whether the corpus is synthetic.
      stopped: seed -> the epoch after which early stopping ended training, of the seeds that it ended.

    Raises:
      UserError: as `seed_table` does.
    """
    table = seed_table(scores, ensemble)
    combined = "" if ensemble is None else "; the ensemble predicts with the mean of the seeds' probabilities"
    chosen = ", ".join(str(epochs[seed]) for seed in scores)
    seeds = {f"seed {seed}": f"seed_{seed}" for seed in scores}
    columns = ({} if ensemble is None else {"ensemble": "ensemble"}) | seeds
    majority = next(iter(next(iter(scores.values())).values()))["majority_emotion"]
    rows = [
        (
            split,
            metric_title(name, majority),
            percent(row["mean"]) + ("" if math.isnan(row["sd"]) else f" ± {percent(row['sd'])}"),
            *(percent(row[column]) for column in columns.values()),
        )
        for (split, name), row in table.iterrows()
    ]
    return "\n\n".join(
        [
            f"# {escape_markdown(title)}, {len(scores)} seed{'' if len(scores) == 1 else 's'}",
            *banners(synthetic=synthetic, selection=selection),
            f"Scores in percent: mean ± sample standard deviation over seeds{combined}. "
            f"Epochs {chosen}: {selection.description}."
            + "".join(f" Seed {seed} stopped after epoch {epoch}." for seed, epoch in (stopped or {}).items()),
            markdown_table(("split", "score", "mean ± sd", *columns), rows),
        ]
    )
