"""Whether two models differ by more than chance: over the seeds of their runs, or the conversations of a split."""

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
# Up to so many pairs, SciPy goes through all signs of their differences instead of drawing some.
ENUMERABLE_PAIRS = 13
UTTERANCE = ["conversation", "utterance"]


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """How the scores of a model differ from those of another one, seed by seed. NaN = there is no such number.

    Attributes:
      differences: one per seed of both, in the order of the seeds.
      mean: of the differences.
      sd: their sample standard deviation.
      interval: 95 % confidence interval of the mean, from Student's t distribution.
      t_p: p of the paired t-test, two-sided.
      wilcoxon_p: p of Wilcoxon's signed-rank test, two-sided; never below `smallest_wilcoxon_p`.
      effect_size: Cohen's d_z = `mean / sd`.
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
        """The smallest p that Wilcoxon's test can give for so many pairs: 2^(1-n), thus 0.0625 for five seeds."""
        return 2.0 ** (1 - self.n) if self.n > 1 else math.nan


@dataclasses.dataclass(frozen=True)
class BootstrapComparison:
    """How the weighted F1 of a model differs from that of another one on the same conversations.

    Attributes:
      difference: of the weighted F1 on all conversations, the other model's minus the reference's.
      interval: 95 % percentile interval of the difference over the resamples.
      p: two-sided.
      conversations: how many have a label, so that they can be drawn.
      resamples: how many were drawn.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    conversations: int
    resamples: int


def compare_paired(scores: Mapping[int, float], reference: Mapping[int, float]) -> PairedComparison:
    """Compares two models over the seeds that both were trained with.

    The tests ask whether another draw of seeds would show a difference, too; the split stays the same.

    - Fewer than two pairs: no test, NaN.
    - All differences are 0: both p are 1, the effect is 0.
    - All differences are equal, but not 0: seeds play no role, so the t-test has no spread to measure the mean with.
      Interval, `t_p` and effect are NaN; Wilcoxon's test goes by the signs and holds.

    Wilcoxon's test leaves differences of 0 out. Its p is exact: up to 50 pairs, or up to 13 if some of them are 0 or
    of the same size.

    Args:
      scores: seed -> score of a model, a fraction.
      reference: seed -> score of what it is compared with.
    """
    seeds = sorted(scores.keys() & reference.keys())
    # What is equal in exact arithmetic has to be equal here: no score has 12 digits that mean anything.
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
    """Adjusts the p values of a family of tests so that the chance of any false alarm among them stays at alpha.

    The step-down method of Holm (1979): of m tests, the one with the k-th smallest p gets p * (m - k + 1), but no less
    than the one before, and no more than 1.

    Args:
      p_values: of the family; NaN = there was no test, which stays NaN and is not counted.

    Returns:
      The adjusted p values in the same order.
    """
    tested = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def verdict(p: float, difference: float, *, alpha: float = ALPHA) -> str:
    """Says in a word what a comparison came to.

    Args:
      p: of the comparison, adjusted if it is one of several; NaN = there was no test.
      difference: positive = better.
      alpha: below it a difference counts.
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
    """Compares two models' weighted F1 on resamples of whole conversations, the same ones for both.

    It asks whether other conversations would show the difference, too; the runs stay the same. Utterances of a
    conversation depend on each other, so conversations are drawn, with replacement, as many as there are. Where a
    model has several runs, the weighted F1 is its mean over them in every resample.

    The p is twice the share of resamples whose difference lies on the other side of 0, or on it, with 1 added to both
    counts (Davison and Hinkley 1997, chapter 4).

    Args:
      reference: of one model, a table of `jmer.evaluation.predictions.prediction_table`, or one per seed.
      other: of the other model, likewise.
      emotions: names of the `C` emotions.
      resamples: how many to draw.
      seed: of the draws.

    Raises:
      UserError: if the tables are not of the same utterances with the same labels, none of which is lacking, or name
        an emotion that is not among `emotions`.
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
    """Returns how the mean weighted F1 of the second model's runs differs from that of the first one's.

    Args:
      counts: of both models, `[runs, k, C, C]`, confusion matrices of `k` conversations.
      times: `[resamples, k]`, how often each conversation is drawn.

    Returns:
      `[resamples]`.
    """
    first, second = (_weighted_f1(np.einsum("rk,skij->srij", times, each, optimize=True)).mean(0) for each in counts)
    return second - first


def _weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """Returns the weighted F1 of confusion matrices `[..., C, C]`, rows gold, each with a count at least."""
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    # An emotion without support has no weight, whatever its F1.
    f1 = 2 * right / np.maximum(support + predicted, 1)
    return (f1 * support).sum(-1) / support.sum(-1)


def _by_utterance(table: pd.DataFrame) -> pd.DataFrame:
    indexed = table.set_index(UTTERANCE)
    if not indexed.index.is_unique:
        raise UserError(f"{_name(indexed.index[indexed.index.duplicated()][0])} is predicted twice: give one run each")
    return indexed


def _confusions(table: pd.DataFrame, gold: pd.Series, emotions: Sequence[str]) -> np.ndarray:
    """Returns a run's confusion matrix in each conversation of `gold`, float64 `[k, C, C]`."""
    labelled = gold != ""
    rows = _indices(gold[labelled], emotions)
    table = _by_utterance(table)
    lacking = gold.index.symmetric_difference(table.index)
    if len(lacking):
        raise UserError(f"{_name(lacking[0])} is not in all tables of predictions: give those of the same split")
    table = table.loc[gold.index]
    differing = table.gold != gold
    if differing.any():
        raise UserError(
            f"{_name(gold.index[differing][0])} is labelled '{gold[differing].iloc[0]}' in one table and "
            f"'{table.gold[differing].iloc[0]}' in another: give predictions for the same version of the corpus"
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
