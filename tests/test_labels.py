"""A label means the same in every format; labels are declared unlabelled or merged by name; mistakes are refused."""

import argparse
import dataclasses

import numpy as np
import pytest

from jmer.command import Parser
from jmer.data.corpus import Card, Conversation, build_corpus, load_saved, save_corpus
from jmer.data.readers.labels import LabelNames, add_label_arguments, relabelled
from jmer.errors import UserError

IEMOCAP = ("hap", "sad", "neu", "ang", "exc", "fru")


@pytest.mark.parametrize(
    ("label", "index"),
    [
        *[("calm", 0), (" sad ", 1), ("mad", None), ("", -1), (None, -1), (float("nan"), -1), ("nan", -1), ("NaN", -1)],
        *[("-1", -1), ("-1.0", -1), (" -1", -1), (-1, -1), (-1.0, -1), (np.int8(-1), -1), (np.float32(-1), -1)],
        *[("1", 1), (" 1 ", 1), ("1.0", 1), ("+1", 1), ("01", 1), (1, 1), (1.0, 1), (np.int64(1), 1), (True, 1)],
        *[("2", None), (2, None), ("-2", None), ("0.5", None), (0.5, None), ("1e0", None), ("9" * 5000, None)],
        *[("none", None), (b"calm", None), (float("inf"), None)],
    ],
)
def test_a_label_is_a_name_or_an_index_as_a_number_or_a_numeral(label, index):
    assert LabelNames(("calm", "sad")).index(label) == index


def test_a_numeral_is_the_name_of_an_emotion_that_is_called_so():
    names = LabelNames(("-1", "0", "1"))
    for labels in ((-1, 0, 1), ("-1", "0", "1"), (-1.0, 0.0, 1.0), ("-1.0", "0.0", "1.0")):
        assert [names.index(label) for label in labels] == [0, 1, 2]
    assert names.index("2") is None and names.index(2) is None
    # From 1: 0 is nobody's name, and not an index beside names.
    assert [LabelNames(("1", "2", "3")).index(label) for label in (0, 1, 3, -1)] == [None, 0, 2, -1]


def test_blanks_around_a_name_count_if_an_emotion_has_them():
    names = LabelNames(("calm", " calm", "sad "))
    assert [names.index(label) for label in ("calm", " calm", "sad ", " calm ", "sad")] == [0, 1, 2, 0, None]


def test_declared_names_are_known_as_names_only():
    names = LabelNames(("calm", "sad"), ("xxx", "mad"))
    assert [names.index(label) for label in ("xxx", "mad", "sad", 1)] == [2, 3, 1, 1]
    assert names.index(2) is None and names.index("3") is None


def flags(*arguments):
    parser = Parser()
    add_label_arguments(parser, "none")
    return parser.parse_args(arguments)


def test_flags_are_lists_that_may_be_repeated():
    options = flags("--unlabelled=xxx, oth", "--unlabelled=oth,sur", "--merge=exc=hap, fru = ang", "--merge", "dis=ang")
    assert options.unlabelled == ("xxx", "oth", "sur")
    assert options.merge == {"exc": "hap", "fru": "ang", "dis": "ang"}
    assert LabelNames.of(["hap", "ang", "exc"], options).declared == ("xxx", "oth", "sur", "fru", "dis")
    assert (flags().unlabelled, flags().merge, flags().emotions) == ((), {}, None)
    for argument, message in [
        ("--merge=exc", "'exc' is not A=B: give the label and the emotion"),
        ("--merge==hap", "'=hap' is not A=B"),
        ("--merge=exc=hap,exc=sad", "'exc' becomes both hap and sad: give one"),
        ("--unlabelled=xxx,", "'xxx,' has an empty or repeated name"),
    ]:
        with pytest.raises(UserError, match=message):
            flags(argument)


def corpus(*labels, emotions=IEMOCAP, test=()):
    def conversations(split, rows):
        return [
            Conversation(
                id=f"{split}{i}",
                utterances=[str(n) for n in range(len(row))],
                speakers=["A"] * len(row),
                labels=np.array(row, np.int32),
                features={"text": np.full((len(row), 2), i, np.float32)},
                available={"text": np.ones(len(row), bool)},
                sentences=[""] * len(row),
            )
            for i, row in enumerate(rows)
        ]

    splits = {"train": conversations("train", labels)} | ({"test": conversations("test", test)} if test else {})
    return build_corpus(splits, Card("made", {"text": 2}, emotions, "Made.", True))


def labels_of(changed, split="train"):
    return [c.labels.tolist() for c in changed.conversations(split)]


def test_emotions_keep_their_order_and_the_other_columns_their_values(tmp_path):
    made = corpus([0, 1, 2], [3, 4, 5, -1], test=[[4, 0, 5]])
    changed, notes = relabelled(made, ["fru"], {"exc": "hap"})
    assert changed.card.emotions == ("hap", "sad", "neu", "ang")
    assert (labels_of(changed), labels_of(changed, "test")) == ([[0, 1, 2], [3, 0, -1, -1]], [[0, 0, -1]])
    assert notes == ["Labels: 2 of exc became hap; unlabelled are 2 of fru."]
    assert changed.card.provenance == f"Made. {notes[0]}"
    assert changed.splits["train"].features == made.splits["train"].features
    save_corpus(changed, tmp_path / "corpus")
    saved = load_saved(tmp_path / "corpus")
    assert labels_of(saved) == labels_of(changed)
    np.testing.assert_array_equal(saved.conversations("train")[1].features["text"], np.ones((4, 2)))
    assert (labels_of(made), made.card.emotions) == ([[0, 1, 2], [3, 4, 5, -1]], IEMOCAP)
    assert relabelled(made, [], {}) == (made, [])


def test_an_emotion_before_the_one_that_it_becomes_shifts_the_indices():
    changed, _ = relabelled(corpus([0, 1, 2, 3, 4, 5]), ["sad"], {"hap": "exc"})
    assert changed.card.emotions == ("neu", "ang", "exc", "fru")
    assert labels_of(changed) == [[2, -1, 0, 1, 2, 3]]


def test_conversations_in_several_chunks_are_relabelled(tmp_path):
    made = corpus([0, 1, 2], [3, 4, 5])
    chunked = build_corpus({"train": made.conversations("train")}, made.card, folder=tmp_path)
    changed, _ = relabelled(dataclasses.replace(chunked, folds={"1": {"test": ["train0"]}}), (), {"exc": "hap"})
    assert labels_of(changed) == [[0, 1, 2], [3, 0, 4]]
    assert changed.folds == {"1": {"test": ["train0"]}}


@pytest.mark.parametrize(
    ("unlabelled", "merge", "message"),
    [
        (["xxx"], {}, "--unlabelled xxx: 'xxx' is neither an emotion nor the label of an utterance: they are hap, sad"),
        ([], {"exd": "hap"}, "--merge exd=hap: 'exd' is neither an emotion"),
        ([], {"exc": "happy"}, "--merge exc=happy: 'happy' is neither an emotion"),
        ([], {"sad": "sad"}, "--merge sad=sad: a label cannot become itself"),
        (["hap"], {"exc": "hap"}, "--merge exc=hap: 'hap' is also --unlabelled: give it to one of the two"),
        (["exc"], {"exc": "hap"}, "--merge exc=hap: 'exc' is also --unlabelled"),
        ([], {"exc": "hap", "hap": "exc"}, "--merge exc=hap: 'hap' itself becomes 'exc': give the emotion that both"),
        (
            [],
            dict.fromkeys(IEMOCAP[1:], "hap"),
            "--unlabelled and --merge leave 1 of 6 emotions: at least 2 are",
        ),
        (IEMOCAP[:2], {}, "--unlabelled hap,sad: no utterance of train keeps a label"),
    ],
)
def test_a_mistake_is_one_line(unlabelled, merge, message):
    with pytest.raises(UserError, match=message) as refusal:
        relabelled(corpus([0, 1, 0]), unlabelled, merge)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_name_that_no_utterance_has_is_told(caplog):
    relabelled(corpus([0, 1, 2]), ["fru"], {})
    assert "no utterance is labelled 'fru', which --unlabelled or --merge names" in caplog.text
    caplog.clear()
    relabelled(corpus([-1, -1]), ["fru"], {})
    assert caplog.text == ""


def test_a_label_to_be_merged_that_occurs_nowhere_is_refused():
    options = argparse.Namespace(unlabelled=("xxx",), merge={"exd": "hap"})
    names = LabelNames.of(("hap", "sad"), options)
    assert names.of_corpus([0, 2, 3], options.merge) == ("hap", "sad", "xxx", "exd")
    assert names.of_corpus([0, 1, -1], options.merge) == ("hap", "sad")
    with pytest.raises(UserError, match="--merge exd=hap: no utterance is labelled 'exd', and the emotions are"):
        names.of_corpus([0, 2], options.merge)
