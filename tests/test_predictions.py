"""Tables of predictions have one row per utterance and are written to files atomically."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from names import KEPT

from jmer.data.corpus import Card, Conversation
from jmer.errors import UserError
from jmer.evaluation.predictions import prediction_table, read_predictions, write_predictions

CARD = Card("meld", {"text": 3, "audio": 2}, ("none", "angry, loud", "Glück"), "drawn at random", True)


def conversation(name, labels, audio):
    n = len(labels)
    return Conversation(
        id=name,
        utterances=[f"{name}_{i}" for i in range(n)],
        speakers=["A", 'Zoë "Z"', "B"][:n],
        labels=np.array(labels, np.int32),
        features={m: np.zeros((n, d), np.float32) for m, d in CARD.widths.items()},
        available={"text": np.ones(n, bool), "audio": np.array(audio)},
        sentences=[""] * n,
    )


CONVERSATIONS = [conversation("c1", [0, -1, 2], [True, False, True]), conversation("c2", [1], [True])]
PROBABILITIES = [
    np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.3, 0.4, 0.3]], np.float32),
    np.array([[0.0, 1.0, 0.0]], np.float32),
]
WEIGHTS = {"audio": [np.array([0.6, 0.5, 0.9], np.float32), np.array([0.51], np.float32)]}


def table():
    return prediction_table(CONVERSATIONS, CARD, PROBABILITIES, WEIGHTS)


def test_rows_and_columns():
    got = table()
    fixed = ["corpus", "conversation", "utterance", "speaker", "gold", "predicted"]
    assert list(got) == [*fixed, *(f"probability_{name}" for name in CARD.emotions), "weight_audio"]
    assert list(got.conversation) == ["c1", "c1", "c1", "c2"]
    assert list(got.utterance) == ["c1_0", "c1_1", "c1_2", "c2_0"]
    assert list(got.speaker) == ["A", 'Zoë "Z"', "B", "A"]
    assert list(got.gold) == ["none", "", "Glück", "angry, loud"]
    assert list(got.predicted) == ["none", "Glück", "angry, loud", "angry, loud"]
    np.testing.assert_array_equal(got.filter(like="probability_"), np.concatenate(PROBABILITIES))
    np.testing.assert_array_equal(got.weight_audio, np.array([0.6, np.nan, 0.9, 0.51], np.float32))


def test_rows_of_a_synthetic_corpus_are_marked_synthetic():
    assert set(table().corpus) == {"meld (synthetic)"}


def test_a_modality_that_the_corpus_lacks_has_no_weight():
    weights = WEIGHTS | {"visual": [np.ones(3, np.float32), np.ones(1, np.float32)]}
    got = prediction_table(CONVERSATIONS, CARD, PROBABILITIES, weights)
    assert got.weight_visual.isna().all()
    pd.testing.assert_frame_equal(got.drop(columns="weight_visual"), table())


def test_without_labels_or_fusion():
    unlabelled = [conversation("c2", [-1], [True])]
    got = prediction_table(unlabelled, CARD, PROBABILITIES[1:], {})
    assert list(got.gold) == [""]
    assert not any(column.startswith("weight_") for column in got)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_hold_the_same_table(tmp_path, suffix):
    path = tmp_path / "new folder" / f"test.{suffix}"
    write_predictions(table(), path)
    if suffix == "csv":
        loaded = pd.read_csv(path, keep_default_na=False, na_values={"weight_audio": [""]})
    else:
        loaded = pd.read_parquet(path)
    pd.testing.assert_frame_equal(loaded, table(), check_dtype=False, rtol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_names_of_all_kinds_come_back_as_they_are(tmp_path):
    emotions = tuple(name for name in KEPT if name)
    names = list(KEPT)
    conversations = [
        dataclasses.replace(
            conversation(name, [i - 1 for i in range(len(names))], [True] * len(names)),
            utterances=names,
            speakers=names,
        )
        for name in names
    ]
    probabilities = [np.eye(len(emotions), dtype=np.float32)[[0, *range(len(emotions))]] for _ in names]
    card = dataclasses.replace(CARD, emotions=emotions, name='=HYPERLINK("x"), Zoë', synthetic=False)
    weights = {"audio": [np.arange(len(names), dtype=np.float32) / 8 for _ in names]}
    written = prediction_table(conversations, card, probabilities, weights)
    for suffix, read in ((".csv", read_predictions), (".parquet", pd.read_parquet)):
        write_predictions(written, tmp_path / f"test{suffix}")
        pd.testing.assert_frame_equal(read(tmp_path / f"test{suffix}"), written, check_dtype=False)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "test.csv"
    write_predictions(table(), path)
    before = path.read_bytes()

    def full_disk(self, target, **options):
        target.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(UserError, match=r"cannot write .*test.csv \(No space left on device\): free the disk"):
        write_predictions(table(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["test.csv"]


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"give a file name that ends in \.csv or \.parquet"):
        write_predictions(table(), tmp_path / "test.xlsx")
    with pytest.raises(UserError, match="probabilities for 1 conversations, but there are 2"):
        prediction_table(CONVERSATIONS, CARD, PROBABILITIES[:1], {})
    with pytest.raises(UserError, match=r"'c2': probabilities must have shape \(1, 3\), not \(1, 2\)"):
        prediction_table(CONVERSATIONS, CARD, [PROBABILITIES[0], PROBABILITIES[1][:, :2]], {})
    with pytest.raises(UserError, match=r"'c2': audio weights must have shape \(1,\), not \(2,\)"):
        prediction_table(CONVERSATIONS, CARD, PROBABILITIES, {"audio": [np.ones(3), np.ones(2)]})
    with pytest.raises(UserError, match="'c2': probabilities are not finite"):
        prediction_table(CONVERSATIONS, CARD, [PROBABILITIES[0], np.full((1, 3), np.nan)], {})


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n1,2,3,4\n", b"a,b\n\xff\xfe,1\n"], ids=["empty", "ragged", "no text"]
)
def test_damaged_predictions_are_one_line(tmp_path, content):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"p.csv is truncated or damaged: evaluate the run again \(.*\)$"):
        read_predictions(tmp_path / "p.csv")
