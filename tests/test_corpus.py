"""Saving and loading a corpus is exact, and unreadable ones are refused."""

import json

import numpy as np
import pytest

from jmer.data.corpus import Card, Conversation, build_corpus, load_saved, save_corpus
from jmer.data.integrity import DIGESTS_FILE
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
    arrow = next((tmp_path / "c" / "train").glob("*.arrow"))
    arrow.write_bytes(b"cut")
    with pytest.raises(UserError, match=f"^{arrow} is damaged: convert the corpus again$"):
        load_saved(tmp_path / "c")
    arrow.unlink()
    with pytest.raises(UserError, match=f"^{arrow} is missing: convert the corpus again$"):
        load_saved(tmp_path / "c")


def test_a_corpus_without_digests_is_read_if_it_can_be(tmp_path):
    save_corpus(corpus(), tmp_path / "c")
    (tmp_path / "c" / DIGESTS_FILE).unlink()
    assert load_saved(tmp_path / "c").identity == corpus().identity
    next((tmp_path / "c" / "train").glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(UserError, match=r"the dataset in .* is damaged: convert the corpus again"):
        load_saved(tmp_path / "c")
    (tmp_path / "c" / "card.json").write_text("{")
    with pytest.raises(UserError, match=r"card.json is damaged"):
        load_saved(tmp_path / "c")


@pytest.mark.parametrize("places", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_one_line_or_harmless(tmp_path, places):
    """Wherever it is; half of the places are in the Arrow files, most of which is read as it is."""
    folder, rng, whole, refused = tmp_path / "c", np.random.default_rng(0), corpus(), 0
    save_corpus(whole, folder)
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.suffix)
    for number in range(places):
        path = files[number % 2] if number % 2 == number % 4 else files[number // 2 % len(files)]
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            found = load_saved(folder)
            assert (found.card, found.identity, found.folds) == (whole.card, whole.identity, whole.folds)
        except UserError as error:
            refused += 1
            assert "damaged: convert " in str(error) or "missing: convert " in str(error)
            assert "\n" not in str(error)
        path.write_bytes(content)
    assert refused > places / 2


def test_what_is_made_of_a_saved_corpus_may_differ_from_it(tmp_path):
    save_corpus(corpus(), tmp_path / "c")
    loaded = load_saved(tmp_path / "c")
    loaded.splits["train"] = loaded.splits["train"].select([0])
    assert loaded.identity.splits["train"].conversations == 1


def test_a_corpus_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jmer.data.corpus.write_digests", full_disk)
    with pytest.raises(UserError, match=rf"^cannot write {tmp_path}/c \(No space left on device\): "):
        save_corpus(corpus(), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "c").mkdir()
    save_corpus(corpus(), tmp_path / "c")
    assert load_saved(tmp_path / "c").identity == corpus().identity


@pytest.mark.parametrize(
    "change",
    [
        {"widths": None},
        {"widths": ["text"]},
        {"widths": {"text": 8.0}},
        {"emotions": [1, 2]},
        {"emotions": "joy"},
        {"emotions": [["joy"]]},
        {"name": 3},
        {"frames": "no"},
    ],
    ids=str,
)
def test_a_card_with_a_value_of_another_type_is_one_line(tmp_path, change):
    save_corpus(corpus(), tmp_path / "c")
    (tmp_path / "c" / DIGESTS_FILE).unlink()
    card = json.loads((tmp_path / "c" / "card.json").read_text())
    (tmp_path / "c" / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(UserError, match=r"card.json is damaged: convert the corpus again \(.*\)"):
        load_saved(tmp_path / "c")


def test_a_deep_card_is_one_line(tmp_path):
    save_corpus(corpus(), tmp_path / "c")
    (tmp_path / "c" / DIGESTS_FILE).unlink()
    (tmp_path / "c" / "card.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"card.json is nested too deeply: convert the corpus again"):
        load_saved(tmp_path / "c")
