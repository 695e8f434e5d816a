"""Significance tests between two models: paired over seeds, and a bootstrap over conversations."""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from jmer.errors import UserError

CONFIDENCE = 0.95
ALPHA = 0.05
BETTER, WORSE, NOT_DISTINGUISHABLE = "better", "worse", "not distinguishable"
# Largest number of pairs for which SciPy enumerates all signs of the differences instead of sampling them.
ENUMERABLE_PAIRS = 13
UTTERANCE = ["conversation", "utterance"]


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """Differences between the scores of two models over common seeds, and their tests; NaN = undefined.

    Attributes:
      differences: one per common seed, in ascending order of the seeds.
      mean: mean of the differences.
      sd: sample standard deviation of the differences.
      interval: 95 % confidence interval of the mean, from Student's t distribution.
      t_p: two-sided p-value of the paired t-test.
      wilcoxon_p: two-sided p-value of Wilcoxon's signed-rank test, at least `smallest_wilcoxon_p`.
      effect_size: Cohen's d_z, `mean / sd`.
    """

    differences: tuple[float, ...]
    mean: float
    sd: float
    interval: tuple[float, float]
    t_p: float
    wilcoxon_p: float
    effect_size: float

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.differences)

    @property
    def smallest_wilcoxon_p(self) -> float:
        """The smallest p-value that Wilcoxon's test can give for `n` pairs: 2^(1-n), so 0.0625 for five seeds."""
        return 2.0 ** (1 - self.n) if self.n > 1 else math.nan


@dataclasses.dataclass(frozen=True)
class BootstrapComparison:
    """Difference in weighted F1 between two models on the same conversations, and its bootstrap test.

    Attributes:
      difference: weighted F1 of the other model minus that of the reference, on all conversations.
      interval: 95 % percentile interval of the difference over the resamples.
      p: two-sided p-value.
      conversations: number of conversations with at least one label, which the resamples are drawn from.
      resamples: number of resamples.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    conversations: int
    resamples: int


def compare_paired(scores: Mapping[int, float], reference: Mapping[int, float]) -> PairedComparison:
    r"""Returns a comparison of two models over their common seeds: paired t-test and Wilcoxon's signed-rank test.

    The tests generalize over seeds; the split is fixed. With the difference $d_i$ of seed $i$, their mean $\bar d$ and
    sample standard deviation $s_d$ over $n$ seeds,

    .. math::
      t = \frac{\bar d}{s_d / \sqrt{n}}, \quad p = 2 \Pr(T_{n-1} \ge |t|), \quad
      \bar d \pm t_{n-1,\,0.975} \frac{s_d}{\sqrt{n}}, \quad d_z = \frac{\bar d}{s_d}

    - Fewer than two pairs: no test, so everything but `differences` and `mean` is NaN.
    - All differences are 0: both p-values are 1, the effect size is 0.
    - All differences are equal, but not 0: $s_d = 0$, so interval, `t_p` and effect size are NaN. Wilcoxon's test uses
      signs and ranks only and is still defined.

    Wilcoxon's test ignores differences of 0. Its p-value is exact for up to 50 pairs, or for up to 13 if there are ties
    or zeros among the differences.

    Args:
      scores: seed -> score of a model, a fraction.
      reference: seed -> score of the model it is compared with.

    >>> found = compare_paired({0: 0.68, 1: 0.70, 2: 0.69}, {0: 0.65, 1: 0.66, 2: 0.67})
    >>> round(found.mean, 3), round(found.t_p, 3), found.wilcoxon_p
    (0.03, 0.035, 0.25)
    """
    seeds = sorted(scores.keys() & reference.keys())
    # Differences that are equal in exact arithmetic must be equal here; scores are far less precise than 12 decimals.
    differences = np.round([scores[seed] - reference[seed] for seed in seeds], 12).astype(np.float64)
    n, mean = len(seeds), float(differences.mean()) if seeds else math.nan
    if n < 2:
        sd, interval, t_p, wilcoxon_p, effect_size = math.nan, (math.nan, math.nan), math.nan, math.nan, math.nan
    elif not differences.any():
        sd, interval, t_p, wilcoxon_p, effect_size = 0.0, (0.0, 0.0), 1.0, 1.0, 0.0
    elif (differences == differences[0]).all():
        sd, interval, t_p, effect_size = 0.0, (math.nan, math.nan), math.nan, math.nan
        wilcoxon_p = _wilcoxon_p(differences)
    else:
        sd = float(differences.std(ddof=1))
        test = stats.ttest_1samp(differences, 0.0)
        low, high = test.confidence_interval(CONFIDENCE)
        interval, t_p, effect_size = (float(low), float(high)), float(test.pvalue), mean / sd
        wilcoxon_p = _wilcoxon_p(differences)
    return PairedComparison(tuple(differences.tolist()), mean, sd, interval, t_p, wilcoxon_p, effect_size)


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Returns p-values adjusted for multiple testing with the step-down method of Holm (1979).

    Rejecting where the adjusted p-value is at most $\alpha$ bounds the family-wise error rate by $\alpha$. For the
    ordered p-values $p_{(1)} \le \dots \le p_{(m)}$,

    .. math:: \tilde p_{(k)} = \max_{j \le k} \min\left(1, (m - j + 1)\, p_{(j)}\right)

    Args:
      p_values: one per test of the family; NaN = no test, which stays NaN and does not count in $m$.

    Returns:
      The adjusted p-values, in the order of `p_values`.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    tested = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def verdict(p: float, difference: float, *, alpha: float = ALPHA) -> str:
    """Returns the outcome of a comparison: "better", "worse" or "not distinguishable".

    Args:
      p: p-value of the comparison, adjusted if it is one of several; NaN = no test.
      difference: positive = better.
      alpha: significance level; a difference is significant if `p` is below it.

    >>> verdict(0.035, difference=0.03)
    'better'
    """
    if not p < alpha:
        return NOT_DISTINGUISHABLE
    return BETTER if difference > 0 else WORSE


def bootstrap_conversations(
    reference: pd.DataFrame | Sequence[pd.DataFrame],
    other: pd.DataFrame | Sequence[pd.DataFrame],
    emotions: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> BootstrapComparison:
    r"""Returns a comparison of two models' weighted F1 by a paired bootstrap over conversations.

    The test generalizes over conversations; the runs are fixed. Utterances of a conversation are dependent, so each
    resample draws whole conversations with replacement, as many as there are, and both models are scored on it. A model
    with several runs is scored by the mean of their weighted F1.

    With the difference in weighted F1 $\Delta_b$ on resample $b$ of $B$ (Davison and Hinkley 1997, chapter 4),

    .. math::
      p = \min\left(1, \frac{2}{B + 1} \left(1 +
        \min\left(\sum_b [\Delta_b \le 0], \sum_b [\Delta_b \ge 0]\right)\right)\right)

    Args:
      reference: predictions of one model, as a table of `jmer.evaluation.predictions.prediction_table` or one such
        table per seed.
      other: predictions of the other model, in the same form.
      emotions: names of the `C` emotions.
      resamples: number of resamples $B$.
      seed: random seed of the resamples.

    Raises:
      UserError: if the tables do not hold the same utterances with the same labels, no utterance is labelled, or an
        emotion is not among `emotions`.
    """
    tables = [[table] if isinstance(table, pd.DataFrame) else list(table) for table in (reference, other)]
    if not all(tables):
        raise UserError("no predictions to compare: give the table of at least one run of each model")
    gold = _by_utterance(tables[0][0]).gold
    counts = [np.stack([_confusions(table, gold, emotions) for table in runs]) for runs in tables]
    labelled = counts[0][0].sum((1, 2)) > 0
    if not labelled.any():
        raise UserError("no utterance has a label, so there is nothing to compare: choose a split with labels")
    counts = [each[:, labelled] for each in counts]
    k = int(labelled.sum())
    draws = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=resamples).astype(np.float64)
    drawn, all_once = (_mean_difference(counts, times) for times in (draws, np.ones((1, k))))
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return BootstrapComparison(
        difference=float(all_once[0]),
        interval=(float(low), float(high)),
        p=min(1.0, 2 * (int(beyond) + 1) / (resamples + 1)),
        conversations=k,
        resamples=resamples,
    )


def _wilcoxon_p(differences: np.ndarray) -> float:
    sizes = np.abs(differences)
    tied = np.unique(sizes).size < sizes.size or not sizes.all()
    method = stats.PermutationMethod() if tied and sizes.size <= ENUMERABLE_PAIRS else "auto"
    return float(stats.wilcoxon(differences, method=method).pvalue)


def _mean_difference(counts: Sequence[np.ndarray], times: np.ndarray) -> np.ndarray:
    """Returns the second model's mean weighted F1 over its runs minus the first model's, float64 `[resamples]`.

    Args:
      counts: for each model, confusion matrices `[runs, k, C, C]` of `k` conversations.
      times: `[resamples, k]`, how often each resample contains each conversation.
    """
    first, second = (_weighted_f1(np.einsum("rk,skij->srij", times, each, optimize=True)).mean(0) for each in counts)
    return second - first


def _weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the weighted F1 `[...]` of confusion matrices `[..., C, C]` with gold emotions in rows, none all zero."""
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    # An emotion without support has weight 0, whatever its F1.
    f1 = 2 * correct / np.maximum(support + predicted, 1)
    return (f1 * support).sum(-1) / support.sum(-1)


def _by_utterance(table: pd.DataFrame) -> pd.DataFrame:
    indexed = table.set_index(UTTERANCE)
    if not indexed.index.is_unique:
        raise UserError(
            f"{_name(indexed.index[indexed.index.duplicated()][0])} is predicted twice: give one table per run"
        )
    return indexed


def _confusions(table: pd.DataFrame, gold: pd.Series, emotions: Sequence[str]) -> np.ndarray:
    """Returns a run's confusion matrix of each conversation in `gold`, float64 `[k, C, C]`."""
    labelled = gold != ""
    rows = _indices(gold[labelled], emotions)
    table = _by_utterance(table)
    missing = gold.index.symmetric_difference(table.index)
    if len(missing):
        raise UserError(f"{_name(missing[0])} is not in all tables of predictions: give tables of the same split")
    table = table.loc[gold.index]
    differing = table.gold != gold
    if differing.any():
        raise UserError(
            f"{_name(gold.index[differing][0])} is labelled '{gold[differing].iloc[0]}' in one table and "
            f"'{table.gold[differing].iloc[0]}' in another: give predictions on the same version of the corpus"
        )
    columns = _indices(table.predicted[labelled], emotions)
    conversation, _ = pd.factorize(gold.index.get_level_values(0))
    matrices = np.zeros((conversation.max() + 1, len(emotions), len(emotions)))
    np.add.at(matrices, (conversation[labelled], rows, columns), 1)
    return matrices


def _indices(names: pd.Series, emotions: Sequence[str]) -> np.ndarray:
    indices = pd.Index(emotions).get_indexer(names)
    if (indices < 0).any():
        raise UserError(
            f"{_name(names.index[indices < 0][0])} has the emotion '{names[indices < 0].iloc[0]}', which is not among "
            f"{', '.join(emotions)}: read the table with keep_default_na=False, or name its own emotions"
        )
    return indices


def _name(index: tuple[Hashable, Hashable]) -> str:
    return f"conversation '{index[0]}', utterance '{index[1]}',"
