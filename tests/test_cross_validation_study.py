"""The study of cross-validation shows what its runs wrote, over folds and pooled."""

import csv

import pytest
from studies import by_hand, table_of

import jmer
from experiments.cross_validation import __main__ as study

VARIANT = ("--variant", "")
pytestmark = pytest.mark.usefixtures("smallest_model")


def test_the_table_shows_the_runs_and_compares_models(corpora, told, tmp_path):
    arguments = [
        *("--corpus", corpora[1], "--models", "linear,linear:slow", "--seeds", 2, "--folds", 2),
        *("--out", tmp_path / "out", "--vectorize", 2, "--config.training.epochs=2", *VARIANT),
    ]
    status, lines, errors = told(study, *arguments)
    assert (status, errors) == (0, [])
    rows = table_of(lines)
    assert [row["model"] for row in rows] == ["linear", "linear-slow"] and rows[0]["corpus"] == "letters (synthetic)"
    validated = jmer.load_run(tmp_path / "out" / "letters" / "linear")
    assert isinstance(validated, jmer.CrossValidation) and len(validated) == 4
    table = validated.summary()
    columns = [name for name in table if name.startswith("fold_")]
    assert rows[0]["W-F1, folds"] == by_hand(table.loc["weighted_f1", columns].to_list())
    pooled = [scores.weighted_f1 for scores in validated.pooled_scores.values()]
    assert rows[0]["W-F1, pooled"] == by_hand(pooled) and rows[0]["runs"] == "4"
    (compared,) = (line for line in lines if line.startswith("- letters, linear-slow - linear: "))
    other = jmer.load_run(tmp_path / "out" / "letters" / "linear-slow")
    difference = 100 * (other.summary().loc["weighted_f1", "pooled"] - table.loc["weighted_f1", "pooled"])
    assert f"linear: {difference:+.2f} points" in compared
    with (tmp_path / "out" / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["fold"] for row in written[:6]] == ["1", "1", "2", "2", "pooled", "pooled"]
    assert float(written[4]["weighted_f1"]) == pooled[0]
    again = told(study, *arguments)[1]
    assert again[0].endswith("8 already finished, 0 to do") and table_of(again) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "99"], "data.folds=99, but there are 23 labelled conversations"),
        (["--folds", "corpus"], "declares no folds: convert a table with --fold"),
        (["--config.data.fold=1"], "--config.data.fold cannot be set: use --folds"),
    ],
)
def test_wrong_folds_are_refused(corpora, told, tmp_path, arguments, message):
    status, _, errors = told(
        study, "--corpus", corpora[1], "--models", "linear", "--out", tmp_path / "out", *VARIANT, *arguments
    )
    assert status == 2 and message in " ".join(errors)
    assert not (tmp_path / "out").exists()
