"""The summary of a cross-validation: mean and deviation over folds, pooled scores, a row per fold."""

import math
import statistics

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.evaluation import classification_report
from jmer.evaluation.fold_report import fold_report, fold_table
from jmer.evaluation.report import SYNTHETIC_BANNER
from jmer.selection import get_selection

EMOTIONS = ("calm", "angry")
# Fold -> (labels, seed -> predictions); the folds differ in size, so that pooled scores are not the folds' mean.
DATA = {
    "Ses01": ([0, 0, 1, 1], {0: [0, 0, 1, 1], 3: [0, 1, 1, 1]}),
    "Ses02": ([0, 1], {0: [1, 1], 3: [0, 1]}),
}


def scored(labels, predictions):
    return classification_report(np.array(labels), np.array(predictions), EMOTIONS)


FOLDS = {name: {s: scored(labels, p) for s, p in seeds.items()} for name, (labels, seeds) in DATA.items()}
POOLED = {
    seed: scored(
        [y for labels, _ in DATA.values() for y in labels], [y for _, seeds in DATA.values() for y in seeds[seed]]
    )
    for seed in (0, 3)
}


def report(**changes):
    facts = {
        "title": "SDT on iemocap",
        "rule": "leave_one_session_out",
        "selection": get_selection("validation"),
        "synthetic": False,
    }
    epochs = {"Ses01": {0: 7, 3: 8}, "Ses02": {0: 1, 3: 2}}
    return fold_report(FOLDS, POOLED, epochs=epochs, **facts | changes)


def test_the_table_has_the_spread_over_folds_and_the_pooled_scores():
    table = fold_table(FOLDS, POOLED)
    assert list(table) == ["mean", "sd", "pooled", "pooled_sd", "fold_Ses01", "fold_Ses02"]
    accuracy = table.loc["accuracy"]
    # By hand: 4/4 and 3/4 in the first fold, 1/2 and 2/2 in the second one; pooled 5/6 and 5/6.
    assert accuracy["fold_Ses01"] == 7 / 8 and accuracy["fold_Ses02"] == 3 / 4
    assert accuracy["mean"] == 13 / 16 and math.isclose(accuracy["sd"], statistics.stdev([7 / 8, 3 / 4]))
    assert math.isclose(accuracy["pooled"], 5 / 6) and accuracy["pooled_sd"] == 0
    f1 = table.loc["weighted_f1"]
    assert f1["pooled"] == statistics.fmean(scores.weighted_f1 for scores in POOLED.values()) != f1["mean"]


def test_a_single_fold_or_seed_has_no_deviation():
    table = fold_table({"1": {0: FOLDS["Ses01"][0]}}, {0: POOLED[0]})
    assert table["sd"].isna().all() and table["pooled_sd"].isna().all()


def test_the_report_has_a_row_per_fold_and_emotion():
    text = report()
    assert "# SDT on iemocap, 2 folds, 2 seeds" in text and "of the folds leave_one_session_out" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert ["accuracy", "81.25 ± 8.84", "83.33 ± 0.00"] in rows
    (first,) = (row for row in rows if row[0] == "Ses01")
    assert first[:3] == ["Ses01", "4", "87.50 ± 17.68"] and first[-1] == "7, 8"
    (calm,) = (row for row in rows if row[0] == "calm")
    assert calm[1] == "3"
    assert SYNTHETIC_BANNER in report(synthetic=True) and SYNTHETIC_BANNER not in text


def test_folds_with_other_seeds_and_no_folds_are_refused():
    with pytest.raises(UserError, match="fold Ses02 has the seeds 0, the pooled scores have 0, 3"):
        fold_table(FOLDS | {"Ses02": {0: FOLDS["Ses02"][0]}}, POOLED)
    with pytest.raises(UserError, match="no folds to summarize"):
        fold_table({}, POOLED)
