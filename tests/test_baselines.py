"""The regression that models must beat reads its neighbours, chooses C fairly and prints the same table again."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from experiments.baselines.__main__ import main
from experiments.baselines.context_regression import STRENGTHS, regress, with_context
from jmer.command import exit_status
from jmer.data import make_corpus
from jmer.data.corpus import build_corpus, save_corpus
from jmer.data.synthetic import Size, generate
from jmer.errors import UserError

WIDTHS = {"text": 8, "audio": 5}


@pytest.fixture(scope="module")
def corpus():
    sizes = {"train": Size(30, 300, 20), "validation": Size(10, 90, 15)}
    return generate("synthetic-iemocap4", sizes=sizes, widths=WIDTHS)


def test_context_is_put_beside_the_utterance():
    features = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    expected = [[0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 0, 0]]
    np.testing.assert_array_equal(with_context(features, 1), expected)
    np.testing.assert_array_equal(with_context(features, 0), features)
    assert with_context(features, 4).shape == (3, 18)
    np.testing.assert_array_equal(with_context(features, 4)[:, 8:10], features)


def test_equals_a_regression_written_out(corpus):
    def table(split, mean=None, scale=None):
        conversations = corpus.conversations(split)
        raw = [np.concatenate([c.features[m] for m in WIDTHS], axis=1).astype(np.float64) for c in conversations]
        there = [np.repeat(np.stack([c.available[m] for m in WIDTHS], 1), [8, 5], axis=1) for c in conversations]
        if mean is None:
            masked = np.ma.array(np.concatenate(raw), mask=~np.concatenate(there))
            mean, scale = masked.mean(0).data, masked.std(0).data
        rows = []
        for x, real in zip(raw, there, strict=True):
            z = np.where(real, (x - mean) / scale, 0)
            for t in range(len(z)):
                rows.append(np.concatenate([z[u] if 0 <= u < len(z) else np.zeros(13) for u in (t - 1, t, t + 1)]))
        return np.stack(rows), np.concatenate([c.labels for c in conversations]), mean, scale

    x, y, mean, scale = table("train")
    held_out, expected, *_ = table("validation", mean, scale)
    predictions = LogisticRegression(C=0.01, max_iter=2000).fit(x, y).predict(held_out)
    got = regress(corpus, tuple(WIDTHS), 1, strengths=(0.01,))
    # The one computes in float32, the other in float64: allow one utterance of 90 on the other side of a border.
    assert abs(got.accuracy - accuracy_score(expected, predictions)) <= 1.001 / 90
    assert abs(got.weighted_f1 - f1_score(expected, predictions, average="weighted")) <= 0.03
    assert abs(got.macro_f1 - f1_score(expected, predictions, average="macro")) <= 0.03


def test_c_is_chosen_on_the_training_split_alone(corpus):
    chosen = regress(corpus, ["text"], 1)
    assert chosen.strength in STRENGTHS
    assert chosen == regress(corpus, ["text"], 1, strengths=(chosen.strength,))
    shuffled = [
        dataclasses.replace(c, labels=np.random.default_rng(0).permutation(c.labels))
        for c in corpus.conversations("validation")
    ]
    other = make_corpus({"train": corpus.conversations("train"), "validation": shuffled}, corpus.card)
    assert regress(other, ["text"], 1).strength == chosen.strength


def test_c_follows_the_data(corpus):
    """Labels that the features spell out want no strong penalty."""
    spelt_out = [
        dataclasses.replace(c, features=c.features | {"text": np.eye(8, dtype=np.float32)[c.labels]})
        for c in corpus.conversations("train")
    ]
    clear = build_corpus({"train": spelt_out, "validation": spelt_out}, corpus.card)
    got = regress(clear, ["text"], 0)
    assert got.strength > STRENGTHS[0]
    assert got.accuracy == got.weighted_f1 == got.macro_f1 == 1


def test_unlabelled_utterances_are_neither_fitted_nor_scored(corpus):
    def cut(c, kept):
        return dataclasses.replace(
            c,
            utterances=[name for name, k in zip(c.utterances, kept, strict=True) if k],
            speakers=[name for name, k in zip(c.speakers, kept, strict=True) if k],
            sentences=[""] * int(kept.sum()),
            labels=c.labels[kept],
            features={m: x[kept] for m, x in c.features.items()},
            available={m: x[kept] for m, x in c.available.items()},
        )

    def hide(c, kept):
        available = {m: x & kept for m, x in c.available.items()}
        return dataclasses.replace(c, labels=np.where(kept, c.labels, -1).astype(np.int32), available=available)

    def scores(change):
        splits = {
            split: [change(c, np.arange(len(c)) % 3 > 0) for c in corpus.conversations(split) if len(c) > 1]
            for split in ("train", "validation")
        }
        return regress(build_corpus(splits, corpus.card), ["text"], 0, strengths=(0.01,))

    assert scores(hide) == scores(cut)


def test_prints_the_same_table_twice_and_says_synthetic(corpus, tmp_path, capsys):
    save_corpus(corpus, tmp_path / "c")
    tables = []
    for _ in range(2):
        main([str(tmp_path / "c"), "--context", "1"])
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    head, _, *rows = tables[0].splitlines()
    assert head.startswith("synthetic-iemocap4 (synthetic)")
    assert [row.split()[:2] for row in rows] == [[m, k] for k in "01" for m in ("text", "audio", "text+audio")]


def test_mistakes_get_one_line(corpus, tmp_path, capsys):
    save_corpus(corpus, tmp_path / "c")
    with pytest.raises(UserError, match="has no visual, only text, audio"):
        regress(corpus, ["visual"], 0)
    for arguments, message in (
        (["nowhere"], "no corpus 'nowhere'"),
        ([str(tmp_path / "c"), "--modalities", "text,smell"], "has no smell, only text, audio"),
    ):
        assert exit_status(main, arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
