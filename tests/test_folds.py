"""Groups of conversations, hold-outs by group, and folds for cross-validation."""

import dataclasses

import numpy as np
import pytest

from jmer.data import hold_out, make_conversation, make_corpus
from jmer.data.corpus import load_saved, save_corpus
from jmer.data.folds import Fold, fold_corpus, make_folds
from jmer.data.groups import group_conversations, speaker_identities
from jmer.errors import UserError

EMOTIONS = ("a", "b")


def conversation(id, speakers=("F", "M", "F"), labels=None):
    n = len(speakers)
    features = {"text": np.random.default_rng(n).normal(size=(n, 3))}
    labels = [0, 1, 0][:n] if labels is None else labels
    return make_conversation(features, id=id, speakers=speakers, labels=labels)


def iemocap(sessions=5):
    ids = [f"Ses0{s}{g}_{scene}" for s in range(1, sessions + 1) for g in "FM" for scene in ("impro01", "script02")]
    return [conversation(name) for name in ids]


def corpus_of(conversations, **options):
    return make_corpus({"train": conversations}, emotions=EMOTIONS, **options)


def ids(conversations):
    return [c.id for c in conversations]


def speakers_of(conversations):
    return {name for c in conversations for name in speaker_identities(c)}


def test_iemocaps_speakers_are_known_by_session_and_others_by_name():
    assert speaker_identities(conversation("Ses03M_impro01", ("F", "M"))) == ["Ses03_F", "Ses03_M"]
    assert speaker_identities(conversation("train_Ses03M_impro01", ("F",))) == ["Ses03_F"]
    assert speaker_identities(conversation("Ses03M_impro01", ("Ses03F", "Ses03M"))) == ["Ses03F", "Ses03M"]
    assert speaker_identities(conversation("dia7", ("Ross", "F"))) == ["Ross", "F"]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("conversation", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        # a and c share nobody, but b connects them.
        ("speaker", [["a", "b", "c"], ["d"], ["e"]]),
    ],
)
def test_conversations_are_grouped(by, expected):
    speakers = {"e": "X", "d": "Y", "c": "QR", "b": "PQ", "a": "PO"}
    conversations = [conversation(name, tuple(who)) for name, who in speakers.items()]
    groups = [sorted(conversations[i].id for i in group) for group in group_conversations(conversations, by)]
    assert groups == expected


def test_sessions_are_grouped_and_must_be_named():
    conversations = iemocap(3)
    assert [len(group) for group in group_conversations(conversations, "session")] == [4, 4, 4]
    with pytest.raises(UserError, match=r"conversation 'dia7' names no session.*--fold COLUMN"):
        group_conversations([*conversations, conversation("dia7")], "session")
    with pytest.raises(UserError, match="grouped by 'sesion': choose one of conversation, speaker, session"):
        group_conversations(conversations, "sesion")


@pytest.mark.parametrize("by", ["speaker", "session"])
def test_a_hold_out_by_group_shares_no_speaker_with_training(by):
    splits = {"train": iemocap()}
    for seed in range(5):
        held = hold_out(splits, fraction=0.2, seed=seed, by=by)
        assert len(held["validation"]) == 4 and len(held["train"]) == 16
        assert not speakers_of(held["train"]) & speakers_of(held["validation"])
    # By conversation they do share some: the test above can fail.
    held = hold_out(splits, fraction=0.2, seed=0)
    assert speakers_of(held["train"]) & speakers_of(held["validation"])


def test_unlabelled_conversations_go_with_their_group():
    silent = conversation("Ses01F_silent", labels=[-1, -1, -1])
    held = hold_out({"train": [*iemocap(2), silent, conversation("dia1", ("X",), [-1])]}, fraction=0.5, by="speaker")
    with_session_1 = next(split for split, found in held.items() if "Ses01F_impro01" in ids(found))
    assert silent.id in ids(held[with_session_1]) and "dia1" in ids(held["train"])


def test_a_hold_out_by_group_needs_two_groups():
    friends = {"train": [conversation(f"dia{i}", ("Ross", "Monica")) for i in range(4)]}
    with pytest.raises(UserError, match="hold out by speaker: all 4 labelled training conversations are connected"):
        hold_out(friends, by="speaker")
    with pytest.raises(UserError, match="all 4 labelled training conversations are of one session"):
        hold_out({"train": iemocap(1)}, by="session")


def test_leave_one_session_out():
    corpus = make_corpus({"train": iemocap()[:12], "test": iemocap()[12:]}, emotions=EMOTIONS)
    folds = make_folds(corpus, "leave_one_session_out")
    assert [fold.name for fold in folds] == ["Ses01", "Ses02", "Ses03", "Ses04", "Ses05"]
    for fold in folds:
        made = fold_corpus(corpus, fold, by="session")
        parts = {split: made.conversations(split) for split in made.splits}
        assert {split: len(found) for split, found in parts.items()} == {"train": 12, "validation": 4, "test": 4}
        assert {c.id[:5] for c in parts["test"]} == {fold.name}
        assert sorted(ids(c for found in parts.values() for c in found)) == sorted(ids(iemocap()))
        assert f"Fold {fold.name}." in made.card.provenance and "held out by session" in made.card.provenance


def test_leave_one_speaker_out_tests_the_speaker_alone():
    corpus = corpus_of(iemocap())
    folds = make_folds(corpus, "leave_one_speaker_out")
    assert [fold.name for fold in folds] == [f"Ses0{s}_{g}" for s in range(1, 6) for g in "FM"]
    tested = []
    for fold in folds:
        made = fold_corpus(corpus, fold)
        test = made.conversations("test")
        assert fold.name not in speakers_of([*made.conversations("train"), *made.conversations("validation")])
        for c in test:
            labelled = c.labels != -1
            assert [name == fold.name for name in speaker_identities(c)] == labelled.tolist()
            tested += [(c.id, name) for name, there in zip(c.utterances, labelled, strict=True) if there]
    # Pooled over the folds, each utterance is tested once.
    everything = [(c.id, name) for c in iemocap() for name in c.utterances]
    assert sorted(tested) == sorted(everything)


def test_speakers_that_are_everywhere_are_no_identities():
    corpus = corpus_of([conversation(f"dia{i}", ("A", "B")) for i in range(4)])
    with pytest.raises(UserError, match=r"speaker 'A' takes part in every conversation.*are no identities"):
        make_folds(corpus, "leave_one_speaker_out")


@pytest.mark.parametrize("by", ["conversation", "session"])
def test_numbered_folds_are_balanced_and_test_everything_once(by):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 30, 40)
    conversations = [
        conversation(f"Ses{i % 8:02}F_{i}", ("F",) * n, rng.integers(0, 2, n)) for i, n in enumerate(lengths)
    ]
    corpus = corpus_of(conversations)
    folds = make_folds(corpus, "4", by=by)
    tested = [name for fold in folds for name in fold.splits["test"]]
    assert sorted(tested) == sorted(ids(conversations)) and [fold.name for fold in folds] == ["1", "2", "3", "4"]
    sizes = [sum(len(c) for c in conversations if c.id in fold.splits["test"]) for fold in folds]
    largest = max(sum(lengths[i] for i in group) for group in group_conversations(conversations, by))
    assert max(sizes) - min(sizes) <= largest
    if by == "session":
        assert all(
            not {name[:5] for name in fold.splits["test"]} & {name[:5] for name in fold.splits["train"]}
            for fold in folds
        )
    assert make_folds(corpus_of(conversations), "4", by=by) == folds


DECLARED = {
    "x": {
        "train": ("Ses01F_impro01", "Ses01M_impro01"),
        "validation": ("Ses02F_impro01",),
        "test": ("Ses02M_impro01",),
    },
    "y": {"train": ("Ses02F_impro01", "Ses02M_impro01"), "test": ("Ses01F_impro01",)},
}


def test_declared_folds_are_saved_and_used(tmp_path):
    save_corpus(corpus_of(iemocap(2), folds=DECLARED), tmp_path / "c")
    corpus = load_saved(tmp_path / "c")
    assert corpus.folds == DECLARED
    folds = make_folds(corpus, "corpus")
    x, y = (fold_corpus(corpus, fold) for fold in folds)
    assert {s: tuple(ids(x.conversations(s))) for s in x.splits} == DECLARED["x"]
    assert {s: len(y.conversations(s)) for s in y.splits} == {"train": 1, "validation": 1, "test": 1}
    assert set(fold_corpus(corpus, folds[1], holdout=0).splits) == {"train", "test"}
    with pytest.raises(UserError, match="declares no folds: convert a table with --fold or --split-per-fold"):
        make_folds(corpus_of(iemocap()), "corpus")


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"x": {"test": ["Ses01F_impro01"]}}, "fold x has no conversations to train"),
        ({"x": {"train": ["Ses01F_impro01"], "test": []}}, "fold x has no conversations to test"),
        (
            {"x": {"train": ["no"], "test": ["Ses01F_impro01"]}},
            "fold x names conversation 'no', which the corpus lacks",
        ),
        (
            {"x": {"train": ["Ses01F_impro01"], "test": ["Ses01F_impro01"]}},
            "fold x has conversation 'Ses01F_impro01' in two splits",
        ),
        (
            {"x": {"train": ["Ses01F_impro01"], "test": ["Ses01M_impro01"], "dev": []}},
            "fold x has the unknown split 'dev'",
        ),
    ],
)
def test_declared_folds_are_checked(folds, message):
    with pytest.raises(UserError, match=message):
        corpus_of(iemocap(2), folds=folds)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("loso", "data.folds is 'loso': choose corpus, leave_one_session_out, leave_one_speaker_out or a number"),
        ("1", "gives fewer than two folds of corpus 'in-memory'"),
        ("0", "gives fewer than two folds"),
        ("99", "data.folds=99, but there are 20 labelled conversations"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rule, message):
    with pytest.raises(UserError, match=message):
        make_folds(corpus_of(iemocap()), rule)


def test_a_single_session_makes_no_folds():
    with pytest.raises(UserError, match="gives fewer than two folds of corpus"):
        make_folds(corpus_of(iemocap(1)), "leave_one_session_out")


def test_a_fold_keeps_the_features_and_the_source():
    corpus = dataclasses.replace(corpus_of(iemocap(2)), source="somewhere")
    fold = Fold("z", {"train": ["Ses01F_impro01"], "test": ["Ses02F_script02"]})
    made = fold_corpus(corpus, fold, holdout=0)
    assert made.source == "somewhere" and not made.folds
    kept = next(c for c in iemocap(2) if c.id == "Ses02F_script02")
    np.testing.assert_array_equal(made.conversations("test")[0].features["text"], kept.features["text"])
