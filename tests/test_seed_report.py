"""The summary over seeds has mean, sample deviation, ensemble and each seed's score, as a table and as Markdown."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from jmer.errors import UserError
from jmer.evaluation import classification_report, mean_probabilities, seed_report, seed_table
from jmer.evaluation.report import ORACLE_BANNER, SYNTHETIC_BANNER
from jmer.selection import get_selection

GOLD, EMOTIONS = np.array([0, 0, 1, 1]), ("calm", "angry")


def scored(*predictions):
    return classification_report(GOLD, np.array(predictions), EMOTIONS)


# Accuracies 1, 3/4 and 1/2 on the test split.
SCORES = {
    0: {"validation": scored(0, 0, 1, 1), "test": scored(0, 0, 1, 1)},
    1: {"validation": scored(0, 0, 1, 1), "test": scored(0, 1, 1, 1)},
    5: {"validation": scored(0, 0, 1, 1), "test": scored(1, 1, 1, 1)},
}
ENSEMBLE = {"validation": scored(0, 0, 1, 1), "test": scored(0, 1, 1, 1)}


def cells(markdown):
    lines = markdown.split("\n\n")[-1].splitlines()
    assert len({len(line) for line in lines}) == 1
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def report(scores=SCORES, ensemble=ENSEMBLE, **changes):
    facts = {
        "title": "LFVD on meld",
        "selection": get_selection("validation"),
        "synthetic": False,
        "epochs": {0: 3, 1: 4, 5: 8},
    }
    return seed_report(scores, ensemble, **facts | changes)


def test_the_table_has_fractions_per_split_and_score():
    table = seed_table(SCORES, ENSEMBLE)
    assert table.index.names == ["split", "score"]
    names = ["accuracy", "weighted_f1", "macro_f1", "unweighted_accuracy"]
    assert list(table.index) == [(split, name) for split in ("validation", "test") for name in names]
    assert list(table) == ["mean", "sd", "ensemble", "seed_0", "seed_1", "seed_5"]
    # By hand: F1 of seed 1 are 2/3 and 4/5, of seed 5 they are 0 and 2/3; each class has half of the utterances.
    f1 = (1, 11 / 15, 1 / 3)
    mean = sum(f1) / 3
    sd = math.sqrt(sum((value - mean) ** 2 for value in f1) / 2)
    np.testing.assert_allclose(table.loc["test", "weighted_f1"], [mean, sd, 11 / 15, *f1], rtol=1e-12)
    np.testing.assert_allclose(table.loc["test", "accuracy"], [0.75, 0.25, 0.75, 1, 0.75, 0.5], rtol=1e-12)
    assert (table.loc["validation"] == [1, 0, 1, 1, 1, 1]).all(axis=None)


def test_scores_read_from_a_file_and_scores_in_memory_give_the_same():
    saved = {
        seed: {split: dataclasses.asdict(result) for split, result in found.items()} for seed, found in SCORES.items()
    }
    pd.testing.assert_frame_equal(seed_table(saved), seed_table(SCORES))
    assert report(saved) == report()


def test_without_an_ensemble_there_is_no_column_for_it():
    assert list(seed_table(SCORES)) == ["mean", "sd", "seed_0", "seed_1", "seed_5"]
    assert cells(report(ensemble=None))[0] == ["split", "score", "mean ± sd", "seed 0", "seed 1", "seed 5"]
    assert "ensemble" not in report(ensemble=None)


def test_a_single_seed_has_no_deviation():
    table = seed_table({7: SCORES[1]})
    assert table.sd.isna().all() and (table["mean"] == table.seed_7).all()
    single = report({7: SCORES[1]}, None, epochs={7: 2})
    assert single.startswith("# LFVD on meld, 1 seed\n") and "nan" not in single
    assert cells(single)[-4] == ["test", "accuracy", "75.00", "75.00"]


def test_the_report_shows_the_table_in_percent():
    title, sentence, _ = report().split("\n\n")
    assert title == "# LFVD on meld, 3 seeds"
    assert sentence == (
        "Scores in percent: mean ± sample standard deviation over seeds; the ensemble predicts with the mean of the "
        "seeds' probabilities. Epochs 3, 4, 8: chosen by validation weighted F1."
    )
    header, _, *rows = cells(report())
    assert header == ["split", "score", "mean ± sd", "ensemble", "seed 0", "seed 1", "seed 5"]
    assert rows[4] == ["test", "accuracy", "75.00 ± 25.00", "75.00", "100.00", "75.00", "50.00"]
    assert rows[5] == ["test", "weighted F1", "68.89 ± 33.55", "73.33", "100.00", "73.33", "33.33"]
    assert [row[1] for row in rows[:4]] == ["accuracy", "weighted F1", "macro F1", "unweighted accuracy"]


def test_synthetic_corpora_and_test_oracles_have_their_warnings():
    assert SYNTHETIC_BANNER not in report() and ORACLE_BANNER not in report()
    _, first, second, sentence, _ = report(synthetic=True, selection=get_selection("test_oracle")).split("\n\n")
    assert (first, second) == (SYNTHETIC_BANNER, ORACLE_BANNER)
    assert "optimistic, not comparable" in sentence


def test_seeds_that_do_not_fit_together_are_refused():
    with pytest.raises(UserError, match="no seeds to summarize"):
        seed_table({})
    fewer = {"test": SCORES[0]["test"]}
    with pytest.raises(UserError, match="seed 1 has scores of the splits test, seed 0 of validation, test"):
        seed_table({0: SCORES[0], 1: fewer})
    with pytest.raises(UserError, match="the ensemble has scores of the splits test, seed 0 of validation, test"):
        seed_table(SCORES, fewer)


def test_an_ensemble_has_the_mean_of_its_members_probabilities():
    rng = np.random.default_rng(0)
    members = [[rng.dirichlet(np.ones(4), n).astype(np.float32) for n in (3, 1)] for _ in range(3)]
    got = mean_probabilities(members)
    assert [array.shape for array in got] == [(3, 4), (1, 4)]
    for i, array in enumerate(got):
        assert array.dtype == np.float32
        expected = sum(member[i].astype(np.float64) for member in members) / 3
        np.testing.assert_allclose(array, expected, rtol=1e-7)
        np.testing.assert_allclose(array.sum(-1), 1, rtol=1e-6)
    for array, only in zip(mean_probabilities(members[:1]), members[0], strict=True):
        np.testing.assert_array_equal(array, only)


def test_members_that_do_not_fit_together_are_refused():
    one, two = np.full((1, 2), 0.5), np.full((2, 2), 0.5)
    with pytest.raises(UserError, match="needs at least one member"):
        mean_probabilities([])
    with pytest.raises(UserError, match="member 1 of the ensemble has probabilities of 1 conversations, member 0 of 2"):
        mean_probabilities([[one, two], [one]])
    with pytest.raises(UserError, match=r"conversation 1: member 2 .* \(1, 2\), member 0 \(2, 2\)"):
        mean_probabilities([[one, two], [one, two], [one, one]])
    with pytest.raises(UserError, match=r"conversation 0: member 0 .* \(2,\)"):
        mean_probabilities([[np.array([0.5, 0.5])]])
