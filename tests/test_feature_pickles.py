"""All public layouts of feature pickles are read, and each error is reported in one line."""

import argparse
import pickle

import numpy as np
import pytest

from jmer.data.emotions import IEMOCAP6, MELD
from jmer.data.readers import feature_pickles
from jmer.errors import UserError

WIDTHS = {"text": 4, "text2": 4, "text3": 4, "text4": 4, "audio": 3, "visual": 2}


def iemocap(**changes):
    """Returns the elements of an IEMOCAP pickle by name: three training conversations and one test conversation."""
    rng = np.random.default_rng(0)
    lengths = {"Ses01F_impro01": 3, "Ses02M_script01": 2, "Ses03F_impro02": 4, "Ses05M_impro04": 2}
    vectors = {
        name: {key: list(rng.normal(size=(n, width))) for key, n in lengths.items()} for name, width in WIDTHS.items()
    }
    return {
        "ids": {key: [f"{key}_F{i:03}" for i in range(n)] for key, n in lengths.items()},
        "speakers": {key: ["F", "M", "M", "F"][:n] for key, n in lengths.items()},
        "labels": {key: [5, 0, -1, 2][:n] for key, n in lengths.items()},
        **vectors,
        "sentences": {key: ["You\x92re late.", "Am I?", "", "né"][:n] for key, n in lengths.items()},
        "train": {"Ses01F_impro01", "Ses03F_impro02", "Ses02M_script01"},
        "test": ["Ses05M_impro04"],
        **changes,
    }


def meld():
    """Returns the elements of a MELD pickle of MMGCN: numbered conversations, development split under training."""
    rng = np.random.default_rng(1)
    keys = [0, 1, 59, 61, *range(1039, 1433)]
    return {
        "ids": {key: [0, 2] for key in keys},
        "speakers": {key: [[1, 0, 0], np.array([0, 0, 1])] for key in keys},
        "labels": {key: [key % 7, 0] for key in keys},
        **{
            name: {key: rng.normal(size=(2, width)).astype(np.float32) for key in keys}
            for name, width in WIDTHS.items()
        },
        "sentences": {key: ["What?", "No."] for key in keys},
        "train": keys[: 4 + 114],
        "test": list(range(1153, 1433)),
        "sentiments": {key: [key % 3, 0] for key in keys},
    }


START, END = ("ids", "speakers", "labels"), ("sentences", "train", "test")
MMGCN = (*START, "text", "audio", "visual", *END)
SDT = (*START, *feature_pickles.ROBERTA, "audio", "visual", *END)
COSMIC = ("speakers", "labels", *feature_pickles.ROBERTA, *END, "validation")


def write(path, elements, names, protocol=2):
    path.write_bytes(pickle.dumps(tuple(elements[name] for name in names), protocol))
    return path


def read(*paths, **options):
    parser = argparse.ArgumentParser()
    feature_pickles.add_arguments(parser)
    arguments = [item for name, value in options.items() for item in (f"--{name}", value)]
    return feature_pickles.read(paths, parser.parse_args(arguments))


def ids(corpus):
    return {split: [c.id for c in corpus.conversations(split)] for split in corpus.splits}


def assert_holds(corpus, elements, text, modalities):
    assert corpus.card.modalities == modalities
    for split in corpus.splits:
        for c in corpus.conversations(split):
            key = int(c.id) if c.id.isdigit() else c.id
            expected = {m: elements[m][key] for m in modalities} | {"text": text(key)}
            np.testing.assert_array_equal(c.labels, elements["labels"][key])
            assert c.labels.dtype == np.int32
            for modality in modalities:
                np.testing.assert_array_equal(c.features[modality], np.array(expected[modality], np.float32))
                assert c.available[modality].all()


@pytest.mark.parametrize(("names", "layout"), [(MMGCN, "MMGCN, 9"), (SDT, "SDT, 12")])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_iemocap(tmp_path, names, layout, protocol):
    elements = iemocap()
    corpus = read(write(tmp_path / "iemocap.pkl", elements, names, protocol))
    assert_holds(corpus, elements, elements["text"].get, ("text", "audio", "visual"))
    assert ids(corpus) == {"train": sorted(elements["train"]), "test": ["Ses05M_impro04"]}
    first = corpus.conversations("train")[0]
    assert (first.speakers, first.utterances[1]) == (["F", "M", "M"], "Ses01F_impro01_F001")
    assert first.sentences == ["You’re late.", "Am I?", ""]
    assert corpus.card.emotions == IEMOCAP6
    assert corpus.card.name == "iemocap"
    assert f"iemocap.pkl ({layout} elements)" in corpus.card.provenance
    assert not corpus.card.synthetic


@pytest.mark.parametrize(
    ("names", "modalities"),
    [
        ((*MMGCN, "sentiments"), ("text", "audio", "visual")),
        ((*SDT, "sentiments"), ("text", "audio", "visual")),
        ((*START, "text", "audio", *END, "sentiments"), ("text", "audio")),
    ],
)
def test_meld(tmp_path, names, modalities):
    elements = meld()
    corpus = read(write(tmp_path / "meld.pkl", elements, names))
    assert_holds(corpus, elements, elements["text"].get, modalities)
    assert ids(corpus) == {
        "train": ["0", "1", "59", "61"],
        "validation": [str(key) for key in range(1039, 1153)],
        "test": [str(key) for key in range(1153, 1433)],
    }
    assert "MELD's development split, which the file lists under training" in corpus.card.provenance
    assert corpus.card.emotions == MELD
    assert corpus.conversations("train")[0].speakers == ["0", "2"]
    assert corpus.conversations("train")[0].utterances == ["0", "2"]


@pytest.mark.parametrize("names", [SDT, COSMIC])
def test_choice_of_the_roberta_vectors(tmp_path, names):
    elements = iemocap(train=["Ses01F_impro01", "Ses03F_impro02"], validation=["Ses02M_script01"])
    path = write(tmp_path / "a.pkl", elements, names)

    def layers(key):
        return [np.array(elements[name][key]) for name in feature_pickles.ROBERTA]

    modalities = ("text", "audio", "visual") if names is SDT else ("text",)
    for choice, text in {
        "first": lambda key: layers(key)[0],
        "mean": lambda key: sum(layers(key)) / 4,
        "concat": lambda key: np.hstack(layers(key)),
    }.items():
        corpus = read(path, roberta=choice)
        assert_holds(corpus, elements, text, modalities)
        assert f"Text: {choice} of the RoBERTa vectors." in corpus.card.provenance
    assert corpus.card.widths["text"] == 16


def test_cosmic_of_meld_has_two_kinds_of_labels(tmp_path):
    elements = meld() | {"train": [0, 1, 59, 61], "validation": list(range(1039, 1153))}
    corpus = read(write(tmp_path / "meld.pkl", elements, ("speakers", "labels", "sentiments", *COSMIC[2:])))
    assert_holds(corpus, elements, elements["text"].get, ("text",))
    assert list(corpus.splits) == ["train", "validation", "test"]
    assert corpus.conversations("train")[0].utterances == ["0", "1"]


def cosmic_of(elements, **changes):
    rng = np.random.default_rng(2)
    lengths = {key: len(labels) for key, labels in elements["labels"].items()}
    vectors = {name: {key: rng.normal(size=(n, 5)) for key, n in lengths.items()} for name in feature_pickles.ROBERTA}
    splits = {"train": ["Ses03F_impro02", "Ses01F_impro01"], "validation": ["Ses02M_script01"]}
    return elements | vectors | splits | changes


def test_text_and_splits_of_cosmic_with_audio_and_visual_of_another(tmp_path):
    elements = iemocap()
    cosmic = cosmic_of(elements)
    paths = write(tmp_path / "roberta.pkl", cosmic, COSMIC), write(tmp_path / "av.pkl", elements, MMGCN)
    for sources in (paths, paths[::-1]):
        corpus = read(*sources)
        assert_holds(corpus, elements, cosmic["text"].get, ("text", "audio", "visual"))
        assert corpus.card.widths == {"text": 5, "audio": 3, "visual": 2}
        assert ids(corpus) == {
            "train": ["Ses03F_impro02", "Ses01F_impro01"],
            "validation": ["Ses02M_script01"],
            "test": ["Ses05M_impro04"],
        }
        assert "roberta.pkl (COSMIC, 10 elements)" in corpus.card.provenance
        assert "av.pkl (MMGCN, 9 elements)" in corpus.card.provenance


def test_files_that_do_not_belong_together(tmp_path):
    elements = iemocap()
    av = write(tmp_path / "av.pkl", elements, MMGCN)

    def refuses(message, **changes):
        with pytest.raises(UserError, match=message):
            read(write(tmp_path / "roberta.pkl", cosmic_of(elements, **changes), COSMIC), av)

    labels = elements["labels"]
    refuses(r"have different labels in conversation 'Ses02M_script01'$", labels=labels | {"Ses02M_script01": [5, 1]})
    refuses(r"different labels in conversation .*Ses03F.*'", labels=labels | {"Ses03F_impro02": [5]})
    refuses(r"have different conversations: only one has 'Ses01F_impro01'", train=["Ses03F_impro02"])
    refuses(
        r"have different test splits: conversation 'Ses02M_script01' and 1 more",
        test=["Ses02M_script01"],
        validation=["Ses05M_impro04"],
    )
    with pytest.raises(UserError, match=r"of which one is COSMIC's, not av.pkl \(MMGCN, 9 elements\), av.pkl"):
        read(av, av)


def test_nan_features_become_unavailable_and_unlisted_conversations_are_mentioned(tmp_path):
    elements = iemocap(train=["Ses01F_impro01", "Ses02M_script01"])
    elements["audio"]["Ses02M_script01"][1][0] = np.nan
    corpus = read(write(tmp_path / "a.pkl", elements, MMGCN))
    second = corpus.conversations("train")[1]
    assert second.available["audio"].tolist() == [True, False]
    assert not second.features["audio"][1].any()
    assert second.available["text"].all()
    assert "1 conversations in no split left out" in corpus.card.provenance


def test_emotions_of_an_unknown_dataset_must_be_given(tmp_path):
    elements = iemocap()
    elements["labels"] = {key: [min(label, 3) for label in labels] for key, labels in elements["labels"].items()}
    path = write(tmp_path / "four.pkl", elements, MMGCN)
    with pytest.raises(UserError, match=r"four.pkl has neither the six emotions of IEMOCAP .*--emotions A,B"):
        read(path)
    assert read(path, emotions="happy, sad,neutral,angry").card.emotions == ("happy", "sad", "neutral", "angry")
    with pytest.raises(UserError, match=r"has label 3: with 2 emotions, expected 0 to 1"):
        read(path, emotions="happy,sad")


def test_unknown_layouts_are_described(tmp_path):
    elements = iemocap(validation=["Ses02M_script01"])
    descriptions = {
        ("ids", "labels", "text"): r"a tuple of 3: 0 dict of 4, 'Ses01F_impro01': 3 strings; 1 dict of 4, "
        r"'Ses01F_impro01': 3 integers; 2 dict of 4, 'Ses01F_impro01': 3 x 4 vectors$",
        # As many elements as in the layouts of MMGCN and COSMIC, but of other kinds.
        (*MMGCN[:3], "audio", "audio", "sentences", *END): r"a tuple of 9: .*; 7 set of 3 keys; 8 list of 1 keys",
        (*COSMIC[:4], "labels", "labels", *COSMIC[6:]): "a tuple of 10: 0 dict",
    }
    for names, description in descriptions.items():
        with pytest.raises(
            UserError, match=rf"a.pkl has an unknown layout \(--help lists the known ones\): it is {description}"
        ):
            read(write(tmp_path / "a.pkl", elements, names))
    for content, description in (
        ({"train": 1}, "one dict, not a tuple"),
        ((None, {}, {"a": 1}), r"a tuple of 3: 0 NoneType; 1 dict of 0; 2 dict of 1, 'a': dict"),
        ((), "a tuple of 0: "),
    ):
        (tmp_path / "b.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=rf"b.pkl has an unknown layout .* it is {description}"):
            read(tmp_path / "b.pkl")


def test_defects_name_the_file_the_field_and_the_conversation(tmp_path):
    key = "Ses03F_impro02"

    def refuses(message, names=MMGCN, options=None, **fields):
        elements = iemocap()
        elements |= {field: elements[field] | {key: value} for field, value in fields.items()}
        with pytest.raises(UserError, match=message):
            read(write(tmp_path / "a.pkl", elements, names), **options or {})

    refuses(
        rf"a.pkl: the audio vectors of conversation '{key}' differ in width", audio=[[1.0], [1.0, 2.0], [1.0], [1.0]]
    )
    refuses(rf"a.pkl: the text vectors of conversation '{key}' differ in width or are not", text=["a"] * 4)
    refuses(rf"a.pkl: the labels of conversation '{key}' are not all integers", labels=[0.5, 1.0, 2.0, 3.0])
    refuses(rf"a.pkl: the labels of conversation '{key}' are not all integers", labels=[0, 1, 2**40, 3])
    refuses(rf"a.pkl: conversation '{key}' is empty", labels=[])
    refuses(
        rf"a.pkl: the speakers of conversation '{key}' are neither names", speakers=[[1, 1], [0, 1], [1, 0], [0, 1]]
    )
    refuses(rf"train, conversation '{key}': 3 speakers but 4 labels", speakers=["M", "F", "F"])
    refuses(rf"conversation '{key}': visual has width 5: expected 2, as on the card", visual=np.zeros((4, 5)))
    refuses(
        rf"the four RoBERTa vectors of conversation '{key}' differ in shape",
        names=SDT,
        options={"roberta": "mean"},
        text3=np.zeros((4, 9)),
    )
    refuses(r"--roberta mean: .*a.pkl has one text vector per utterance", options={"roberta": "mean"})
    elements = iemocap(train=["Ses04F_impro01", "Ses04F_impro02"])
    with pytest.raises(UserError, match=r"a.pkl: conversation 'Ses04F_impro01' has no ids and 1 more"):
        read(write(tmp_path / "a.pkl", elements, MMGCN))
    with pytest.raises(UserError, match="conversation 'Ses05M_impro04' is in more than one split: train, test"):
        read(write(tmp_path / "a.pkl", iemocap(train=["Ses01F_impro01", "Ses05M_impro04"]), MMGCN))
