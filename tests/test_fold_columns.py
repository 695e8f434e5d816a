"""Folds for cross-validation that a table declares: a column of folds, or a column of splits for each fold."""

import csv

import pytest

from jmer.data import load_corpus
from jmer.data.convert import convert
from jmer.errors import UserError

MAPPING = ["--conversation", "dialogue", "--speaker", "speaker", "--label", "label", "--emotions", "a,b", "--text", "t"]


def write(path, **columns):
    """Writes a table of 6 conversations of 2 utterances; a column has a value per conversation, or per row."""
    rows = {
        "dialogue": [f"d{i // 2}" for i in range(12)],
        "speaker": ["A", "B"] * 6,
        "label": ["a", "b"] * 6,
        "t_0": range(12),
        "t_1": range(12),
    }
    for name, values in columns.items():
        rows[name] = [values[i // 2] for i in range(12)] if len(values) == 6 else values
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return str(path)


def converted(tmp_path, *flags, **columns):
    dest = tmp_path / "corpus"
    convert(["table", write(tmp_path / "table.csv", **columns), str(dest), *MAPPING, *flags])
    return load_corpus(dest)


@pytest.mark.parametrize("names", [["10", "2", "2", "10", "1", "1"], ["b", "a", "a", "b", "c", "c"]])
def test_a_column_of_folds(tmp_path, capsys, names):
    corpus = converted(tmp_path, "--fold", "fold", fold=names)
    assert list(corpus.folds) == (["1", "2", "10"] if names[0] == "10" else ["a", "b", "c"])
    for name, fold in corpus.folds.items():
        assert fold["test"] == tuple(f"d{i}" for i in range(6) if names[i] == name)
        assert fold["train"] == tuple(f"d{i}" for i in range(6) if names[i] != name)
    # Nothing is held out here: each fold does that by itself.
    assert list(corpus.splits) == ["train"]
    assert f"folds: {', '.join(corpus.folds)}" in capsys.readouterr().out


def test_a_column_of_splits_per_fold(tmp_path):
    first = ["train", "train", "dev", "test", "test", ""]
    second = ["test", "test", "train", "train", "train", "train"]
    split = ["train", "train", "train", "train", "valid", "test"]
    flags = ["--split-per-fold", "f1,f2", "--split", "split"]
    corpus = converted(tmp_path, *flags, f1=first, f2=second, split=split)
    assert corpus.folds == {
        "f1": {"train": ("d0", "d1"), "validation": ("d2",), "test": ("d3", "d4")},
        "f2": {"train": ("d2", "d3", "d4", "d5"), "test": ("d0", "d1")},
    }
    assert {split: len(corpus.conversations(split)) for split in corpus.splits} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }


def test_a_yaml_file_names_them(tmp_path):
    (tmp_path / "map.yaml").write_text("split_per_fold: [f1, f2]\n")
    columns = {"f1": ["train"] * 5 + ["test"], "f2": ["test"] + ["train"] * 5}
    assert list(converted(tmp_path, "--columns", str(tmp_path / "map.yaml"), **columns).folds) == ["f1", "f2"]


def test_ids_per_split_are_those_of_the_folds(tmp_path):
    split = ["train", "train", "train", "train", "dev", "test"]
    flags = ["--fold", "fold", "--split", "split", "--ids-per-split"]
    corpus = converted(tmp_path, *flags, fold=["1", "2"] * 3, split=split)
    assert corpus.folds["1"]["test"] == ("train_d0", "train_d2", "validation_d4")


@pytest.mark.parametrize(
    ("flags", "columns", "message"),
    [
        (["--fold", "fold"], {"fold": ["1"] * 11 + ["2"]}, "conversation 'd5' has '1' and '2' in column 'fold'"),
        (["--fold", "fold"], {"fold": ["1", "2", "", "1", "2", "1"]}, "column 'fold' is empty in row 5: give the fold"),
        (["--fold", "no"], {}, "has no column 'no' for the fold"),
        (["--split-per-fold", "f1"], {"f1": ["train"] * 5 + ["testing"]}, "column 'f1' has split 'testing' in row 11"),
        (["--split-per-fold", "f1"], {"f1": ["train"] * 6}, "fold f1 has no conversations to test"),
        (
            ["--fold", "fold", "--split-per-fold", "f1"],
            {"fold": ["1", "2"] * 3},
            "both say the folds: give one of them",
        ),
    ],
)
def test_columns_that_declare_no_folds_are_refused(tmp_path, flags, columns, message):
    with pytest.raises(UserError, match=message):
        converted(tmp_path, *flags, **columns)
    assert not (tmp_path / "corpus").exists()
