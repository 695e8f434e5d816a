"""Each defect of a corpus is reported in one line, and validation conversations are held out reproducibly."""

import dataclasses

import numpy as np
import pytest

from jmer.data.corpus import Card, Conversation
from jmer.data.splits import hold_out
from jmer.data.validation import check_card, checked_corpus, defects, mark_missing
from jmer.errors import UserError

CARD = Card("made-up", {"text": 3, "audio": 2}, ("calm", "angry"), "drawn at random", True)


def conversation(name="a", length=4, **changes):
    rng = np.random.default_rng(length)
    sound = Conversation(
        id=name,
        utterances=[f"u{i}" for i in range(length)],
        speakers=["A"] * length,
        labels=(np.arange(length) % 2).astype(np.int32),
        features={m: rng.normal(size=(length, width)).astype(np.float32) for m, width in CARD.widths.items()},
        available={m: np.ones(length, bool) for m in CARD.widths},
        sentences=[""] * length,
    )
    return dataclasses.replace(sound, **changes)


def changed(field, modality, values):
    return {field: getattr(conversation(), field) | {modality: values}}


def audio(*entries):
    values = conversation().features["audio"].copy()
    for row, column, value in entries:
        values[row, column] = value
    return changed("features", "audio", values)


def test_a_sound_corpus_has_no_defects():
    splits = {"train": [conversation("a"), conversation("b", 1)], "test": [conversation("c", 2)]}
    assert defects(splits, CARD) == []
    assert [c.id for c in checked_corpus(splits, CARD).conversations("train")] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "defect"),
    [
        ({"labels": np.zeros(0, np.int32)}, "no utterances"),
        ({"utterances": ["u0", "u1"]}, "2 utterances but 4 labels"),
        ({"speakers": ["A"] * 5}, "5 speakers but 4 labels"),
        ({"sentences": []}, "0 sentences but 4 labels"),
        (
            {"utterances": ["u0", "u1", "u0", "u2"]},
            "utterance id 'u0' occurs more than once: rename it, or tell merged conversations apart by their ids",
        ),
        (
            {"labels": np.array([0, 2, -1, -2])},
            "utterance 'u1' has label 2 (and 1 more): with 2 emotions, expected 0 to 1, or -1 for unlabelled",
        ),
        ({"labels": np.zeros(4)}, "labels are float64 of shape (4,), not one integer per utterance"),
        (changed("features", "text", np.ones((4, 5))), "text has width 5: expected 3, as on the card"),
        (changed("features", "text", np.ones(4)), "text is float64 of shape (4,), not floats [utterances, width]"),
        (changed("features", "text", np.ones((3, 3))), "text features of 3 utterances but 4 labels"),
        (changed("available", "text", np.ones(6, bool)), "text availability of 6 utterances but 4 labels"),
        (
            audio((1, 0, np.nan), (1, 1, np.nan), (2, 0, np.inf)),
            "audio of utterance 'u1' contains NaN or infinity (and 1 more), 3 values in total",
        ),
        (
            changed("available", "audio", np.array([True, False, False, True])),
            "audio of utterance 'u1' is marked unavailable but is not zero (and 1 more)",
        ),
        ({"features": {"text": np.ones((4, 3))}}, "no audio features or no audio availability"),
        (changed("features", "visual", np.ones((4, 2))), "visual features, but the card has no visual"),
    ],
)
def test_a_defect_of_a_conversation_is_named(changes, defect):
    splits = {"train": [conversation("sound"), conversation("x", **changes)]}
    assert defects(splits, CARD) == [f"train, conversation 'x': {defect}"]
    with pytest.raises(UserError) as refusal:
        checked_corpus(splits, CARD)
    assert str(refusal.value) == f"train, conversation 'x': {defect}"


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": "aba"}, ["train, conversation 'a': the id occurs 2 times in the split"]),
        (
            {"train": "abc", "validation": "d", "test": "eb"},
            ["conversation 'b' is in more than one split: train, test"],
        ),
        ({"train": "a", "dev": "b"}, ["unknown split 'dev': the splits are train, validation, test"]),
        ({"train": "a", "test": ""}, ["test: no conversations; leave the split out"]),
        ({"test": "a"}, ["no training split, only test"]),
        ({}, ["no training split: the corpus is empty"]),
    ],
)
def test_a_defect_of_the_splits_is_named(splits, expected):
    assert defects({split: [conversation(name) for name in names] for split, names in splits.items()}, CARD) == expected


def test_labels_are_required_for_training_only():
    unlabelled = [conversation("a", labels=np.full(4, -1, np.int32))]
    assert defects({"train": unlabelled}, CARD) == ["train: no labelled utterances"]
    assert defects({"test": unlabelled}, CARD, for_training=False) == []
    assert list(checked_corpus({"test": unlabelled}, CARD, for_training=False).splits) == ["test"]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({"widths": {}}, "the corpus has no modality: expected features of text, audio, visual"),
        ({"widths": {"smell": 2}}, "unknown modality 'smell': the modalities are text, audio, visual"),
        ({"widths": {"text": 0}}, "text has width 0: expected at least 1"),
        ({"emotions": ("calm", "angry", "calm")}, "emotion 'calm' occurs more than once in calm, angry, calm"),
    ],
)
def test_a_defect_of_the_card_is_named(card, expected):
    assert expected in defects({"train": [conversation()]}, dataclasses.replace(CARD, **card))


def test_an_error_lists_ten_defects_and_counts_the_rest():
    broken = [conversation(f"c{i}", sentences=[]) for i in range(13)]
    with pytest.raises(UserError) as refusal:
        checked_corpus({"train": broken}, CARD)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "train, conversation 'c0': 0 sentences but 4 labels"
    assert (len(lines), lines[-1]) == (11, "and 3 more")


def test_one_nan_makes_the_modality_unavailable_for_the_utterance():
    given = np.array([[1, 2], [np.nan, 3], [np.nan, np.nan], [0, 0], [1e300, 1]])
    before = given.copy()
    values, available = mark_missing(given)
    np.testing.assert_array_equal(available, [True, False, False, True, True])
    np.testing.assert_array_equal(values, np.array([[1, 2], [0, 0], [0, 0], [0, 0], [np.inf, 1]], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(given, before)


def names(conversations):
    return [c.id for c in conversations]


def corpus_of(lengths):
    return {"train": [conversation(f"c{i:03}", length) for i, length in enumerate(lengths)]}


def test_held_out_conversations_are_whole_disjoint_and_about_the_fraction():
    lengths = np.random.default_rng(0).integers(5, 60, 80)
    splits = corpus_of(lengths)
    for fraction in (0.05, 0.1, 0.5):
        held = hold_out(splits, fraction=fraction, seed=3)
        chosen = set(names(held["validation"]))
        assert names(held["train"]) == [n for n in names(splits["train"]) if n not in chosen]
        assert names(held["validation"]) == [n for n in names(splits["train"]) if n in chosen]
        # The last conversation that is taken misses the fraction by at most half its length.
        assert abs(sum(map(len, held["validation"])) - fraction * lengths.sum()) <= lengths.max() / 2


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_the_file():
    splits = corpus_of([10] * 40)
    chosen = [frozenset(names(hold_out(splits, seed=seed)["validation"])) for seed in range(5)]
    assert len(set(chosen)) == 5
    turned = {"train": splits["train"][::-1]}
    assert frozenset(names(hold_out(turned, seed=2)["validation"])) == chosen[2]


def test_an_existing_validation_split_and_unlabelled_conversations_stay():
    splits = corpus_of([3, 3]) | {"validation": [conversation("v")]}
    assert hold_out(splits) == splits
    unlabelled = [conversation(f"x{i}", labels=np.full(4, -1, np.int32)) for i in range(30)]
    held = hold_out({"train": [*unlabelled, *corpus_of([3, 3])["train"]]}, fraction=0.9)
    assert len(held["validation"]) == 1 and held["validation"][0].id in ("c000", "c001")


def test_impossible_hold_outs_are_refused():
    for splits in (corpus_of([4]), {"test": [conversation()]}):
        with pytest.raises(UserError, match="training conversations have labels, at least 2 are needed"):
            hold_out(splits)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"between 0 and 1, such as 0\.1"):
            hold_out(corpus_of([4, 4]), fraction=fraction)
    with pytest.raises(UserError, match="seed -1: expected 0 or more"):
        hold_out(corpus_of([4, 4]), seed=-1)


BAD_NAMES = {"a\rb": "U+000D", "\x00": "U+0000", "\x1b[2J": "U+001B", "a\ud800": "U+D800", "u\u2028": "U+2028"}


@pytest.mark.parametrize("name", [*BAD_NAMES, 7, None, "x" * 5000], ids=ascii)
def test_a_name_that_cannot_be_written_and_read_back_is_one_defect_wherever_it_is(name):
    sound, fold = conversation(), {"train": ["a"], "test": ["a"]}
    (corpus,) = defects({"train": [sound]}, dataclasses.replace(CARD, name=name))
    (emotion,) = defects({"train": [sound]}, dataclasses.replace(CARD, emotions=("calm", name)))
    (split,) = defects({"train": [sound], name: [sound]}, CARD)
    (declared,) = defects({"train": [sound]}, CARD, folds={name: fold})
    (conversation_id,) = defects({"train": [sound, conversation(name)]}, CARD)
    (utterance,) = defects({"train": [conversation(utterances=["u0", "u1", name, "u3"])]}, CARD)
    (speaker,) = defects({"train": [conversation(speakers=["A", "B", "C", name])]}, CARD)
    starts = {
        corpus: "corpus name ",
        emotion: "emotion ",
        split: "split ",
        declared: "fold ",
        conversation_id: "train, conversation 2: id ",
        utterance: "train, conversation 'a': utterance ",
        speaker: "train, conversation 'a': speaker ",
    }
    reason = BAD_NAMES.get(name, "5000 characters" if isinstance(name, str) else "expected a string")
    for line, start in starts.items():
        assert line.startswith(start) and reason in line and len(line) < 200
        assert line.isprintable() and line.encode()


def test_an_emotion_has_a_name_since_unlabelled_utterances_have_none():
    (line,) = defects({"train": [conversation()]}, dataclasses.replace(CARD, emotions=("calm", "")))
    assert line == "emotion 1 has no name, like utterances without a label: name it"
    with pytest.raises(UserError, match=r"corpus name 'a\sb' contains U\+000A"):
        check_card(dataclasses.replace(CARD, name="a\nb"))


def test_sentences_are_strings_of_some_length_and_what_cannot_be_stored_of_them_is_replaced(caplog):
    spoken = ["one\ntwo,\t\r\n", "\ud83d half", "\x00\x1b[0m", 'שלום 👍 "=1"']
    splits = {"train": [conversation("a", sentences=spoken), conversation("b", 1, sentences=["\udcff"])]}
    corpus = checked_corpus(splits, dataclasses.replace(CARD, provenance="from \udcff.csv"))
    first, second = corpus.conversations("train")
    assert first.sentences == [spoken[0], "\ufffd half", "\ufffd\ufffd[0m", spoken[3]]
    assert second.sentences == ["\ufffd"] and corpus.card.provenance == "from \ufffd.csv"
    assert [record.getMessage() for record in caplog.records] == [
        "warning: train, conversation 'a' (and 1 more): control characters and halves of characters in "
        "sentences became U+FFFD"
    ]
    assert defects({"train": [conversation(sentences=["", "", "", None])]}, CARD) == [
        "train, conversation 'a': a sentence is of type NoneType: expected a string"
    ]
    assert defects({"train": [conversation(sentences=["", "x" * 100_001, "", ""])]}, CARD) == [
        "train, conversation 'a': a sentence has 100001 characters: expected at most 100000"
    ]
