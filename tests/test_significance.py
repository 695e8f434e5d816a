"""Significance tests equal their textbook formulas and plain loops over signs, hypotheses and resamples."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from jmer.errors import UserError
from jmer.evaluation.significance import bootstrap_conversations, compare_paired, holm, verdict

EMOTIONS = ("calm", "angry", "None")


def by_seed(values):
    return dict(enumerate(map(float, values)))


def compared(differences):
    reference = np.linspace(0.4, 0.6, len(differences))
    return compare_paired(by_seed(reference + differences), by_seed(reference))


def two_sided_t(t, freedom):
    """Returns the p-value of Student's t with 2 or 4 degrees of freedom, which have closed forms."""
    if freedom == 2:
        return 1 - abs(t) / math.sqrt(2 + t * t)
    x = t * t / (1 + t * t / 4)
    return 1 - 0.75 * math.sqrt(x) * (1 - x / 12)


def signed_rank_p(differences):
    """Returns the p-value of Wilcoxon's test by enumeration of all signs; a difference of 0 has no rank."""
    sizes = [round(abs(float(d)), 12) for d in differences]
    kept = [size for size in sizes if size]
    ranks = [
        sum(other < size for other in kept) + (sum(other == size for other in kept) + 1) / 2 if size else 0
        for size in sizes
    ]
    observed, middle = sum(r for r, d in zip(ranks, differences, strict=True) if d > 0), sum(ranks) / 2
    sums = [
        sum(r for r, sign in zip(ranks, signs, strict=True) if sign)
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return sum(abs(s - middle) >= abs(observed - middle) - 1e-9 for s in sums) / len(sums)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_a_paired_comparison_equals_its_formulas(n, seed):
    differences = np.random.default_rng(seed).normal(0.01, 0.02, n)
    got = compared(differences)
    mean = sum(differences) / n
    sd = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    assert got.n == n and got.differences == pytest.approx(differences, abs=1e-12)
    assert (got.mean, got.sd) == pytest.approx((mean, sd), abs=1e-11)
    assert got.effect_size == pytest.approx(mean / sd, rel=1e-8)
    assert got.t_p == pytest.approx(two_sided_t(mean / (sd / math.sqrt(n)), n - 1), rel=1e-7)
    quantile = {3: 4.302652729749464, 5: 2.7764451051977987}[n]  # of the t distribution, at 0.975
    half = quantile * sd / math.sqrt(n)
    assert got.interval == pytest.approx((mean - half, mean + half), abs=1e-11)


@pytest.mark.parametrize("seed", range(8))
def test_the_bounds_of_the_interval_are_where_the_test_rejects(seed):
    rng = np.random.default_rng(seed)
    differences = rng.normal(0.01, 0.02, rng.integers(2, 9))
    for bound in compared(differences).interval:
        assert compared(differences - bound).t_p == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_wilcoxons_test_is_exact_with_ties_and_zeros_too(seed):
    rng = np.random.default_rng(seed)
    differences = rng.integers(-3, 5, rng.integers(2, 9)) / 100 if seed % 2 else rng.normal(0.01, 0.02, 7)
    assert compared(differences).wilcoxon_p == pytest.approx(signed_rank_p(differences), rel=1e-12)


def test_wilcoxons_test_of_more_pairs_than_can_be_enumerated():
    rng = np.random.default_rng(0)
    assert compared(rng.normal(0.02, 0.01, 30)).wilcoxon_p < 1e-4
    tied = compared(rng.integers(-3, 4, 30) / 100)
    assert 0.01 < tied.wilcoxon_p <= 1


def test_five_seeds_cannot_go_below_a_sixteenth_in_wilcoxons_test():
    got = compared(np.array([0.31, 0.32, 0.33, 0.34, 0.35]))
    assert got.wilcoxon_p == got.smallest_wilcoxon_p == 0.0625
    assert got.t_p < 1e-5


def test_only_common_seeds_are_paired():
    got = compare_paired({4: 0.5, 0: 0.7, 9: 0.1}, {0: 0.6, 4: 0.1, 1: 0.9})
    assert got.differences == pytest.approx((0.1, 0.4))
    assert got.mean == pytest.approx(0.25)


@pytest.mark.parametrize("pairs", [0, 1])
def test_fewer_than_two_pairs_give_no_test(pairs):
    got = compare_paired({0: 0.5, 2: 0.6}, {5 - 5 * pairs: 0.25})
    assert got.n == pairs
    assert got.mean == 0.25 if pairs else math.isnan(got.mean)
    rest = (got.sd, *got.interval, got.t_p, got.wilcoxon_p, got.effect_size, got.smallest_wilcoxon_p)
    assert all(map(math.isnan, rest))


def test_equal_scores_do_not_differ():
    got = compare_paired(by_seed([0.5, 0.6, 0.7]), by_seed([0.5, 0.6, 0.7]))
    assert (got.mean, got.sd, got.interval, got.effect_size) == (0, 0, (0, 0), 0)
    assert (got.t_p, got.wilcoxon_p) == (1, 1)


def test_equal_differences_leave_the_t_test_undefined():
    # In binary, 0.6 - 0.5 and 0.8 - 0.7 are not the same.
    got = compare_paired(by_seed([0.6, 0.8, 0.3]), by_seed([0.5, 0.7, 0.2]))
    assert (got.mean, got.sd) == (pytest.approx(0.1), 0)
    assert all(map(math.isnan, (*got.interval, got.t_p, got.effect_size)))
    assert got.wilcoxon_p == got.smallest_wilcoxon_p == 0.25


def test_swapping_the_models_flips_the_signs():
    scores, reference = by_seed([0.5, 0.62, 0.58]), by_seed([0.49, 0.6, 0.61])
    there, back = compare_paired(scores, reference), compare_paired(reference, scores)
    assert back.differences == tuple(-d for d in there.differences)
    assert (back.t_p, back.wilcoxon_p) == pytest.approx((there.t_p, there.wilcoxon_p))
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))


def rejected(p_values, alpha):
    """Returns the hypotheses that Holm's procedure rejects, in ascending order of p until one is not rejected."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    passed = itertools.takewhile(lambda k: p_values[order[k]] <= alpha / (len(order) - k), range(len(order)))
    return {order[k] for k in passed}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6, 0.7]) == [1, 1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_adjusted_p_values_decide_as_the_procedure_does(seed):
    rng = np.random.default_rng(seed)
    p_values = (rng.random(rng.integers(1, 9)) ** 3).tolist()
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.2, 0.7):
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected(p_values, alpha)
    assert all(p <= q <= min(1, p * len(p_values)) for p, q in zip(p_values, adjusted, strict=True))
    order = rng.permutation(len(p_values))
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]


def test_missing_tests_are_not_counted():
    first, missing, second = holm([0.02, math.nan, 0.03])
    assert (first, second) == (0.04, 0.04) and math.isnan(missing)


def test_verdicts():
    assert [verdict(p, d) for p, d in ((0.049, 0.1), (0.049, -0.1), (0.05, 0.1), (math.nan, 0.1))] == [
        "better",
        "worse",
        "not distinguishable",
        "not distinguishable",
    ]
    assert verdict(0.05, 0.1, alpha=0.1) == "better"


def predictions(gold, rng, right):
    """Draws a run's predictions: the fraction `right` of them correct, the others uniform over the emotions."""
    drawn = rng.choice(EMOTIONS, len(gold)).astype(object)
    hit = (rng.random(len(gold)) < right) & (gold.gold != "")
    return gold.assign(predicted=np.where(hit, gold.gold, drawn))


def split(rng, conversations=7):
    """Draws utterances with labels, some missing, and one conversation without any label."""
    lengths = rng.integers(2, 9, conversations)
    names = [f"c{i}" for i, length in enumerate(lengths) for _ in range(length)]
    gold = rng.choice((*EMOTIONS, ""), len(names)).astype(object)
    gold[: lengths[0]] = ""
    utterances = [str(i) for length in lengths for i in range(length)]
    return pd.DataFrame({"conversation": names, "utterance": utterances, "gold": gold})


def f1(rows):
    """Returns the weighted F1 of pairs (gold, predicted)."""
    total = 0.0
    for emotion in EMOTIONS:
        support = sum(gold == emotion for gold, _ in rows)
        named = sum(predicted == emotion for _, predicted in rows)
        right = sum(gold == predicted == emotion for gold, predicted in rows)
        total += support * (2 * right / (support + named) if support else 0)
    return total / len(rows)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_bootstrap_equals_a_loop_over_resamples(seeds):
    rng = np.random.default_rng(seeds + 7)
    gold = split(rng)
    reference, other = ([predictions(gold, rng, right) for _ in range(seeds)] for right in (0.5, 0.5))
    labelled = [name for name in dict.fromkeys(gold.conversation) if (gold.gold[gold.conversation == name] != "").any()]
    pairs = [
        [
            [
                [(g, p) for c, g, p in zip(t.conversation, t.gold, t.predicted, strict=True) if c == name and g]
                for name in labelled
            ]
            for t in runs
        ]
        for runs in (reference, other)
    ]

    def difference(times):
        means = [
            sum(f1([row for rows, n in zip(run, times, strict=True) for row in rows * n]) for run in runs) / seeds
            for runs in pairs
        ]
        return means[1] - means[0]

    k = len(labelled)
    draws = np.random.default_rng(5).multinomial(k, [1 / k] * k, size=200)
    drawn = [difference(times) for times in draws.tolist()]
    got = bootstrap_conversations(reference, other, EMOTIONS, resamples=200, seed=5)
    assert (got.conversations, got.resamples) == (k, 200) and k == 6
    assert got.difference == pytest.approx(difference([1] * k), abs=1e-12)
    assert got.interval == pytest.approx((np.quantile(drawn, 0.025), np.quantile(drawn, 0.975)), abs=1e-12)
    other_side = min(sum(d <= 0 for d in drawn), sum(d >= 0 for d in drawn))
    assert 0 < other_side < 100
    assert got.p == pytest.approx(2 * (other_side + 1) / 201)


def test_a_single_table_and_rows_in_any_order_are_accepted():
    rng = np.random.default_rng(0)
    gold = split(rng)
    reference, other = predictions(gold, rng, 0.2), predictions(gold, rng, 0.9)
    expected = bootstrap_conversations([reference], [other], EMOTIONS, resamples=100)
    shuffled = other.sample(frac=1, random_state=1)
    assert bootstrap_conversations(reference, shuffled, EMOTIONS, resamples=100) == expected
    assert expected.difference > 0 and expected.interval[0] > 0 and expected.p == pytest.approx(2 / 101)
    swapped = bootstrap_conversations(other, reference, EMOTIONS, resamples=100)
    assert swapped.difference == -expected.difference and swapped.p == expected.p
    assert swapped.interval == pytest.approx((-expected.interval[1], -expected.interval[0]))


def test_a_model_does_not_differ_from_itself():
    rng = np.random.default_rng(1)
    table = predictions(split(rng), rng, 0.5)
    got = bootstrap_conversations(table, table, EMOTIONS, resamples=50)
    assert (got.difference, got.interval, got.p) == (0, (0, 0), 1)


def test_wrong_arguments_are_refused(tmp_path):
    rng = np.random.default_rng(2)
    gold = split(rng)
    table = predictions(gold, rng, 0.5)

    def refused(other, match, reference=table):
        with pytest.raises(UserError, match=match) as error:
            bootstrap_conversations(reference, other, EMOTIONS, resamples=10)
        assert "\n" not in str(error.value)

    last = rf"conversation 'c6', utterance '{gold.utterance.iloc[-1]}'"
    refused(table.iloc[:-1], f"{last}, is not in all tables of predictions")
    refused([table, pd.concat([table, table.iloc[-1:]])], f"{last}, is predicted twice")
    relabelled = table.assign(gold=[*table.gold[:-1], "calm" if table.gold.iloc[-1] != "calm" else "angry"])
    refused(relabelled, f"{last}, is labelled '.*' in one table and '.*' in another")
    refused(table.assign(predicted="bored"), "has the emotion 'bored', which is not among calm, angry, None")
    refused([], "no predictions to compare")
    refused(table.assign(gold=""), "no utterance has a label", reference=table.assign(gold=""))
    table.to_csv(tmp_path / "test.csv", index=False)
    read = pd.read_csv(tmp_path / "test.csv", dtype={"utterance": str})
    refused(read, "has the emotion 'nan'.*: read the table with keep_default_na=False", reference=read)
    whole = pd.read_csv(tmp_path / "test.csv", dtype={"utterance": str}, keep_default_na=False)
    assert bootstrap_conversations(table, whole, EMOTIONS, resamples=10).difference == 0
