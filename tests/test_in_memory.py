"""Conversations and corpora are made from arrays and lists; a wrong argument gets one line that names it."""

import dataclasses
import doctest

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jmer.data import Card, Conversation, in_memory, make_conversation, make_corpus
from jmer.data.corpus import load_saved, save_corpus
from jmer.errors import UserError

NAN = float("nan")
TEXT = np.arange(6.0).reshape(3, 2)
EMOTIONS = ("calm", "angry")


def frames(*counts, width=2):
    return [np.full((count, width), i + 1.0) for i, count in enumerate(counts)]


def test_features_alone_are_enough():
    made = make_conversation({"text": TEXT})
    assert isinstance(made, Conversation)
    assert (made.id, made.utterances, made.speakers, made.sentences) == ("", ["0", "1", "2"], ["speaker"] * 3, [""] * 3)
    np.testing.assert_array_equal(made.labels, [-1, -1, -1])
    np.testing.assert_array_equal(made.features["text"], TEXT)
    np.testing.assert_array_equal(made.available["text"], [True] * 3)
    assert (made.labels.dtype, made.features["text"].dtype, made.available["text"].dtype) == (
        np.int32,
        np.float32,
        bool,
    )


@pytest.mark.parametrize(
    "given",
    [
        TEXT,
        TEXT.astype(np.float32),
        TEXT.astype(np.float16),
        TEXT.astype(np.int64),
        TEXT.tolist(),
        list(TEXT),
        tuple(map(tuple, TEXT)),
        jnp.asarray(TEXT, jnp.float32),
        list(jnp.asarray(TEXT, jnp.float32)),
        pd.DataFrame(TEXT),
    ],
)
def test_features_may_be_any_array_or_lists(given):
    values = make_conversation({"text": given}).features["text"]
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, TEXT)


def test_everything_given_is_kept():
    made = make_conversation(
        {"visual": [[1.0]] * 2, "text": [[2.0]] * 2},
        speakers=pd.Series(["Ann", "Ben"]),
        labels=["angry", "calm"],
        emotions=EMOTIONS,
        id="talk",
        utterances=[7, 8],
        sentences=("Hello.", "Hi."),
    )
    assert list(made.features) == list(made.available) == ["text", "visual"]
    assert (made.id, made.utterances, made.speakers, made.sentences) == (
        "talk",
        ["7", "8"],
        ["Ann", "Ben"],
        ["Hello.", "Hi."],
    )
    np.testing.assert_array_equal(made.labels, [1, 0])


@pytest.mark.parametrize(
    ("labels", "emotions", "expected"),
    [
        ([0, -1, 5], None, [0, -1, 5]),
        (np.array([1, 0, -1]), EMOTIONS, [1, 0, -1]),
        (jnp.array([1, 0, -1]), EMOTIONS, [1, 0, -1]),
        (["angry", None, ""], EMOTIONS, [1, -1, -1]),
        (pd.Series(["calm", NAN, "angry"]), list(EMOTIONS), [0, -1, 1]),
        (["angry", 0, np.int64(1)], EMOTIONS, [1, 0, 1]),
        ([None] * 3, None, [-1] * 3),
    ],
)
def test_labels_are_names_or_indices(labels, emotions, expected):
    made = make_conversation({"text": TEXT}, labels=labels, emotions=emotions).labels
    assert made.dtype == np.int32
    np.testing.assert_array_equal(made, expected)


def test_an_unavailable_vector_is_nan_or_none_or_masked_and_becomes_zero():
    made = make_conversation(
        {"text": [[1, NAN], [2, 3], [4, 5]], "audio": [None, [6], [7]]}, available={"text": [True, True, False]}
    )
    np.testing.assert_array_equal(made.features["text"], [[0, 0], [2, 3], [0, 0]])
    np.testing.assert_array_equal(made.available["text"], [False, True, False])
    np.testing.assert_array_equal(made.features["audio"], [[0], [6], [7]])
    np.testing.assert_array_equal(made.available["audio"], [False, True, True])


def test_frames_are_one_array_per_utterance_and_may_be_absent():
    given = [*frames(2, 1), None, np.zeros((0, 2)), [[8, 9]]]
    made = make_conversation({"text": given}, available={"text": np.array([True, False, True, True, True])})
    assert made.has_frames
    assert [f.shape for f in made.features["text"]] == [(2, 2), (0, 2), (0, 2), (0, 2), (1, 2)]
    assert {f.dtype for f in made.features["text"]} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(made.available["text"], [True, False, False, False, True])
    np.testing.assert_array_equal(made.features["text"][4], [[8, 9]])


def test_frames_may_be_one_padded_array():
    made = make_conversation({"audio": np.ones((3, 4, 2))})
    assert [f.shape for f in made.features["audio"]] == [(4, 2)] * 3


def test_given_arrays_are_not_changed():
    given, mask = np.array([[1.0, NAN], [2.0, 3.0]], np.float32), np.array([True, False])
    before = given.copy()
    make_conversation({"text": given}, available={"text": mask})
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(mask, [True, False])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": TEXT}, "features must be a mapping of modality -> values, got ndarray"),
        ({"features": {}}, "features is empty: expected at least one of text, audio, visual"),
        ({"features": {"txt": TEXT}}, "features has the key 'txt': expected text, audio, visual"),
        (
            {"features": {"text": TEXT[0]}},
            "features['text'] has utterances of shape (): expected [n, D], one vector per utterance, or n arrays "
            "[frames, D]",
        ),
        (
            {"features": {"text": np.ones((2, 3, 4, 5))}},
            "features['text'] has utterances of shape (3, 4, 5): expected [n, D], one vector per utterance, or n "
            "arrays [frames, D]",
        ),
        (
            {"features": {"text": [[1.0, 2.0], np.ones((3, 2))]}},
            "features['text'] has utterances of shape (2,), (3, 2): expected [n, D], one vector per utterance, or n "
            "arrays [frames, D]",
        ),
        (
            {"features": {"text": 3.0}},
            "features['text'] is not an array ('float' object is not iterable): expected [n, D], one vector per "
            "utterance, or n arrays [frames, D]",
        ),
        (
            {"features": {"text": []}},
            "features['text'] has no utterances: expected [n, D], one vector per utterance, or n arrays [frames, D]",
        ),
        (
            {"features": {"text": [[1, 2], [1, 2, 3]]}},
            "features['text'] has utterances of width 2 and 3: expected one width, at least 1",
        ),
        (
            {"features": {"text": np.ones((2, 0))}},
            "features['text'] has utterances of width 0: expected one width, at least 1",
        ),
        (
            {"features": {"text": [np.ones((2, 3)), np.ones((1, 4))]}},
            "features['text'] has utterances of width 3 and 4: expected one width, at least 1",
        ),
        ({"features": {"text": [["a", "b"]]}}, "features['text'] contains values of type <U1: expected numbers"),
        (
            {"features": {"text": np.ones((2, 2), complex)}},
            "features['text'] contains values of type complex128: expected numbers",
        ),
        (
            {"features": {"text": [None, None]}},
            "features['text'] is None for every utterance: leave the modality out, or give an array with NaN",
        ),
        (
            {"features": {"text": [[1.0], [np.inf]]}},
            "features['text'] contains NaN or infinity in row 1: expected finite float32 numbers",
        ),
        (
            {"features": {"text": [[1.0], [1e300]]}},
            "features['text'] contains NaN or infinity in row 1: expected finite float32 numbers",
        ),
        (
            {"features": {"text": [np.ones((1, 2)), [[1, 2], [3, NAN]]]}},
            "features['text'][1] contains NaN or infinity in row 1: expected finite float32 numbers",
        ),
        (
            {"features": {"text": TEXT, "audio": TEXT[:2]}},
            "features['audio'] has 2 utterances: expected 3, as in features['text']",
        ),
        (
            {"features": {"text": TEXT, "audio": frames(1, 2, 3)}},
            "features['text'] and features['audio'] differ in kind: expected one vector per utterance in all "
            "modalities, or frames in all",
        ),
        ({"speakers": ["Ann"]}, "speakers has 1 entries: expected 3, one per utterance"),
        ({"speakers": "ABA"}, "speakers is 'ABA': expected a sequence of 3, one per utterance"),
        ({"speakers": 1}, "speakers is 1: expected a sequence of 3, one per utterance"),
        ({"speakers": ["Ann", None, "Ben"]}, "speakers[1] is None: expected a string"),
        ({"sentences": ["Hi.", 0.5, ""]}, "sentences[1] is 0.5: expected a string"),
        ({"utterances": ["a", "b"]}, "utterances has 2 entries: expected 3, one per utterance"),
        (
            {"utterances": ["a", "b", "b"]},
            "utterances repeats 'b': expected names that are unique in the conversation",
        ),
        ({"labels": [0, 1]}, "labels has 2 entries: expected 3, one per utterance"),
        (
            {"labels": ["calm", None, None]},
            "labels[0] is 'calm': expected an index, or the argument emotions with the names",
        ),
        ({"labels": [0, 1, "sad"], "emotions": EMOTIONS}, "labels[2] is 'sad': expected one of calm, angry"),
        (
            {"labels": [0, 2, 1], "emotions": EMOTIONS},
            "labels[1] is 2: expected an emotion's name, an index 0 to 1, or -1 or None",
        ),
        ({"labels": [0, -2, 1]}, "labels[1] is -2: expected an emotion's name, an index 0 or above, or -1 or None"),
        ({"labels": [0, 2**31, 1]}, "labels[1] is 2147483648: expected an emotion's name, an index 0 or above, or -1"),
        ({"labels": [0, 0.5, 1]}, "labels[1] is 0.5: expected an emotion's name, an index 0 or above, or -1 or None"),
        ({"labels": [0, True, 1]}, "labels[1] is True: expected an emotion's name, an index 0 or above, or -1 or None"),
        ({"labels": np.zeros((3, 1), int)}, "labels[0] is [0]: expected an emotion's name, an index 0 or above"),
        ({"labels": [0, 0, 0], "emotions": "calm"}, "emotions is 'calm': expected a sequence of names"),
        ({"labels": [0, 0, 0], "emotions": [1, 2]}, "emotions has the entry 1: expected a sequence of names"),
        ({"available": {"audio": [True] * 3}}, "available has the key 'audio': expected text"),
        ({"available": [True] * 3}, "available must be a mapping of modality -> values, got list"),
        ({"available": {"text": [1, 0, 1]}}, "available['text'] is int64 of shape (3,): expected bool of shape (3,)"),
        ({"available": {"text": [True]}}, "available['text'] is bool of shape (1,): expected bool of shape (3,)"),
        ({"id": 3}, "id is 3: expected a string"),
    ],
)
def test_a_wrong_argument_of_a_conversation_is_named(arguments, message):
    with pytest.raises(UserError) as refusal:
        make_conversation(**({"features": {"text": TEXT}} | arguments))
    assert str(refusal.value).startswith(message)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_corpus_derives_its_card_and_names_what_has_no_name(tmp_path):
    first = make_conversation({"audio": TEXT, "text": TEXT[:, :1]}, labels=[0, 1, None])
    second = make_conversation({"text": [[5], [6]]}, id="b")
    made = make_corpus({"test": [second], "train": [first, first]}, emotions=EMOTIONS)
    assert made.card == Card("in-memory", {"text": 1, "audio": 2}, EMOTIONS, "Made in memory.", False)
    assert list(made.card.widths) == ["text", "audio"]
    assert list(made.splits) == ["train", "test"]
    assert [c.id for c in made.conversations("train")] == ["train-0000", "train-0001"]
    (filled,) = made.conversations("test")
    assert filled.id == "b"
    np.testing.assert_array_equal(filled.features["audio"], np.zeros((2, 2)))
    np.testing.assert_array_equal(filled.available["audio"], [False, False])
    np.testing.assert_array_equal(filled.features["text"], [[5], [6]])
    assert "audio" not in second.features
    save_corpus(made, tmp_path / "c")
    assert load_saved(tmp_path / "c").card == made.card


def test_the_card_says_what_the_arguments_say():
    made = make_corpus(
        {"test": [make_conversation({"text": TEXT})]}, name="mine", provenance="By hand.", synthetic=True
    )
    assert made.card == Card("mine", {"text": 2}, (), "By hand.", True)


def test_conversations_with_frames_make_a_corpus_with_frames():
    conversations = [
        make_conversation({"text": frames(2, 1), "audio": frames(3, 1, width=4)}),
        make_conversation({"text": frames(5)}),
    ]
    made = make_corpus({"test": conversations})
    assert made.card.frames and made.card.widths == {"text": 2, "audio": 4}
    read = made.conversations("test")
    assert [f.shape for c in read for f in c.features["audio"]] == [(3, 4), (1, 4), (0, 4)]
    np.testing.assert_array_equal(read[1].available["audio"], [False])


def test_a_card_may_be_given():
    card = Card("made-up", {"text": 2, "audio": 3}, EMOTIONS, "drawn at random", True)
    made = make_corpus({"train": [make_conversation({"text": TEXT}, labels=[0, 1, 1])]}, card)
    assert made.card == card
    assert made.conversations("train")[0].features["audio"].shape == (3, 3)


LABELLED = make_conversation({"text": TEXT}, labels=[0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": [LABELLED]}, "splits must be a mapping of split name -> conversations, got list"),
        ({"splits": {"train": LABELLED}}, "splits['train'] must be a sequence of conversations, got one Conversation"),
        (
            {"splits": {"train": [LABELLED, {"text": TEXT}]}},
            "splits['train'][1] must be a conversation, such as make_conversation returns, got dict",
        ),
        (
            {"emotions": None},
            "emotions is missing: expected the names of the emotions in the order of their labels",
        ),
        ({"emotions": "calm"}, "emotions is 'calm': expected a sequence of names"),
        (
            {"emotions": ("calm",)},
            "train, conversation 'train-0000': utterance '1' has label 1 (and 1 more): with 1 emotions, expected 0 to",
        ),
        (
            {"card": Card("mine", {"text": 2}, EMOTIONS, "By hand.", False)},
            "emotions, name, provenance, synthetic and attributes are on the card: expected a card or these, got both",
        ),
        ({"splits": {"dev": [LABELLED]}}, "unknown split 'dev': the splits are train, validation, test"),
        ({"splits": {"train": []}}, "the corpus has no modality: expected features of text, audio, visual"),
        (
            {"splits": {"train": [dataclasses.replace(LABELLED, id=name) for name in "aa"]}},
            "train, conversation 'a': the id occurs 2 times in the split",
        ),
        (
            {"splits": {"train": [LABELLED, make_conversation({"text": TEXT[:, :1]})]}},
            "train, conversation 'train-0001': text has width 1: expected 2, as on the card",
        ),
        (
            {"splits": {"train": [dataclasses.replace(LABELLED, features={"txt": TEXT}, available={})]}},
            "unknown modality 'txt': the modalities are text, audio, visual",
        ),
        (
            {"splits": {"train": [dataclasses.replace(LABELLED, speakers=["Ann"])]}},
            "train, conversation 'train-0000': 1 speakers but 3 labels",
        ),
    ],
)
def test_a_wrong_argument_of_a_corpus_is_named(arguments, message):
    with pytest.raises(UserError) as refusal:
        make_corpus(**({"splits": {"train": [LABELLED]}, "emotions": EMOTIONS} | arguments))
    assert str(refusal.value).startswith(message)


def test_the_example_runs():
    result = doctest.testmod(in_memory)
    assert result.attempted and not result.failed
