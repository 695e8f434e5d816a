"""Saving and loading a corpus is exact, and unreadable ones are refused."""

import numpy as np
import pytest

from jmer.data.corpus import Card, Conversation, build_corpus, load_saved, save_corpus
from jmer.errors import UserError

CARD = Card("made-up", {"text": 3, "audio": 2}, ("calm", "angry"), "drawn at random", True)


def conversation(name, length, seed=0):
    rng = np.random.default_rng([seed, length])
    return Conversation(
        id=name,
        utterances=[f"{name}_{i}" for i in range(length)],
        speakers=["A" if i % 2 else "Zoë" for i in range(length)],
        labels=rng.integers(-1, 2, length).astype(np.int32),
        features={m: rng.normal(size=(length, d)).astype(np.float32) for m, d in CARD.widths.items()},
        available={m: rng.random(length) < 0.8 for m in CARD.widths},
        sentences=["“Hello”, he said" if i else "" for i in range(length)],
    )


def corpus():
    return build_corpus(
        {"test": [conversation("c", 4)], "train": [conversation("a", 1), conversation("b", 5), conversation("d", 5)]},
        CARD,
    )


def assert_same(one, other):
    assert (one.id, list(one.utterances), list(one.speakers), list(one.sentences)) == (
        other.id,
        list(other.utterances),
        list(other.speakers),
        list(other.sentences),
    )
    for a, b in ((one.labels, other.labels), *((one.features[m], other.features[m]) for m in CARD.widths)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    for m in CARD.widths:
        np.testing.assert_array_equal(one.available[m], other.available[m])


def test_round_trip_is_exact(tmp_path):
    original = corpus()
    save_corpus(original, tmp_path / "c")
    loaded = load_saved(tmp_path / "c")
    assert loaded.card == original.card
    assert list(loaded.splits) == ["train", "test"]
    for split, ids in (("train", "abd"), ("test", "c")):
        for name, got in zip(ids, loaded.conversations(split), strict=True):
            assert_same(got, conversation(name, {"a": 1, "b": 5, "c": 4, "d": 5}[name]))


def test_rows_may_be_selected_before_reading():
    chosen = corpus()
    chosen.splits["train"] = chosen.splits["train"].select([2, 0])
    for name, got in zip("da", chosen.conversations("train"), strict=True):
        assert_same(got, conversation(name, {"a": 1, "d": 5}[name]))


def test_errors_name_the_place_and_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"no split 'validation', only train, test"):
        corpus().conversations("validation")
    with pytest.raises(UserError, match=r"no such folder .*jmer.data.convert"):
        load_saved(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is not a saved corpus: it has no card.json"):
        load_saved(tmp_path / "empty")
    save_corpus(corpus(), tmp_path / "c")
    with pytest.raises(UserError, match="already exists: give a new folder"):
        save_corpus(corpus(), tmp_path / "c")
    next((tmp_path / "c" / "train").glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(UserError, match="missing or damaged: convert the corpus again"):
        load_saved(tmp_path / "c")
    (tmp_path / "c" / "card.json").write_text("{")
    with pytest.raises(UserError, match=r"card.json is damaged"):
        load_saved(tmp_path / "c")
