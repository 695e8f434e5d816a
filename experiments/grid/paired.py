"""Rows of a table against one of them, seed by seed and conversation by conversation."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from experiments import tables
from jmer.evaluation.significance import PairedComparison, bootstrap_conversations, compare_paired, holm, verdict

# With fewer conversations, the bootstrap interval is too narrow.
ENOUGH_CONVERSATIONS = 20


@dataclasses.dataclass(frozen=True)
class Compared:
    """The comparison of a row with the table's base over the same seeds.

    Attributes:
      comparison: of weighted F1.
      adjusted: p of the paired t-test after Holm's correction over the table.
      verdict: better, worse or not distinguishable.
    """

    comparison: PairedComparison
    adjusted: float
    verdict: str


def compare_with(base: Mapping[int, float], scores: Mapping[str, Mapping[int, float]]) -> dict[str, Compared]:
    """Returns title -> comparison with the base.

    Args:
      base: seed -> weighted F1 of the base.
      scores: title of another row -> seed -> weighted F1.
    """
    found = {title: compare_paired(values, base) for title, values in scores.items()}
    adjusted = holm([comparison.t_p for comparison in found.values()])
    return {
        title: Compared(comparison, p, verdict(p, comparison.mean))
        for (title, comparison), p in zip(found.items(), adjusted, strict=True)
    }


def explanation(base: str, compared: Mapping[str, Compared]) -> str:
    """Returns what the columns of `cells` mean."""
    fewest = min((own.comparison for own in compared.values()), key=lambda comparison: comparison.n)
    return (
        f"Weighted F1 against {base}, seed by seed, in percentage points. p: paired t-test, with Holm's "
        f"correction for the {len(compared)} in this table; below 0.05 the verdict is better or worse. "
        f"Wilcoxon's signed-rank test (not corrected) can reach no p below {fewest.smallest_wilcoxon_p:.3g} with "
        f"{fewest.n} seeds. d: mean over standard deviation of the differences. Seeds measure the variation of "
        "training, not that over other samples of conversations."
    )


def cells(title: str, own: Compared) -> dict[str, str]:
    """Returns the cells of a row's comparison."""
    comparison = own.comparison
    low, high = (100 * bound for bound in comparison.interval)
    return {
        "row": title,
        "difference": tables.percent(comparison.differences),
        "95 % interval": tables.NOTHING if math.isnan(low) else f"{low:.2f} to {high:.2f}",
        "p (t)": tables.statistic(comparison.t_p),
        "p (Holm)": tables.statistic(own.adjusted),
        "p (Wilcoxon)": tables.statistic(comparison.wilcoxon_p),
        "d": tables.statistic(comparison.effect_size),
        "n": str(comparison.n),
        "verdict": own.verdict,
    }


def over_conversations(
    base: str, rival: str, runs: Mapping[str, Sequence[pd.DataFrame]], emotions: Sequence[str]
) -> str:
    """Returns a sentence on the bootstrap over whole conversations of the best other row against the base.

    Args:
      base, rival: titles.
      runs: title -> the predictions of each seed, of the two rows at least.
      emotions: of the corpus.
    """
    found = bootstrap_conversations(runs[base], runs[rival], emotions)
    low, high = (100 * bound for bound in found.interval)
    few = (
        "" if found.conversations >= ENOUGH_CONVERSATIONS else " With so few conversations the interval is too narrow."
    )
    return (
        f"Over conversations: {rival}, the best other row, minus {base} is {100 * found.difference:.2f} points of "
        f"weighted F1, 95 % interval {low:.2f} to {high:.2f}, p: {tables.statistic(found.p)} (bootstrap of "
        f"{found.conversations} whole conversations, {found.resamples} resamples, averaged over seeds). The row was "
        f"selected by its score, so p is optimistic.{few}"
    )
