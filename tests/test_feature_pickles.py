"""All public layouts of feature pickles are read, and each error is reported in one line."""

import argparse
import itertools
import pickle
import re

import numpy as np
import pytest

from jmer.data.emotions import IEMOCAP6, MELD
from jmer.data.readers import feature_pickles
from jmer.data.readers.pickle_elements import ROBERTA
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
SDT = (*START, *ROBERTA, "audio", "visual", *END)
COSMIC = ("speakers", "labels", *ROBERTA, *END, "validation")


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
        return [np.array(elements[name][key]) for name in ROBERTA]

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
    vectors = {name: {key: rng.normal(size=(n, 5)) for key, n in lengths.items()} for name in ROBERTA}
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


def test_the_splits_of_cosmic_can_be_named(tmp_path):
    elements = iemocap()
    cosmic = write(tmp_path / "roberta.pkl", cosmic_of(elements), (*COSMIC[:-3], "train", "validation", "test"))
    av = write(tmp_path / "av.pkl", elements, MMGCN)
    with pytest.raises(
        UserError, match=r"roberta.pkl has 3 lists of conversations, of 2, 1, 1, and nothing that tells"
    ):
        read(cosmic, av)
    corpus = read(cosmic, av, splits="train,validation,test")
    assert ids(corpus)["validation"] == ["Ses02M_script01"]
    with pytest.raises(UserError, match=r"--splits train: .*roberta.pkl has 3 lists of conversations"):
        read(cosmic, av, splits="train")


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
    cosmic = cosmic_of(elements, test=["Ses02M_script01"], validation=["Ses05M_impro04"])
    three = write(tmp_path / "three.pkl", cosmic_of(elements), (*MMGCN, "validation"))
    with pytest.raises(UserError, match=r"have different test splits: conversation 'Ses02M_script01' and 1 more"):
        read(write(tmp_path / "roberta.pkl", cosmic, COSMIC), three, splits="train,test,validation")
    with pytest.raises(UserError, match=r"of which one is COSMIC's, not av.pkl \(MMGCN, 9 elements\), av.pkl2"):
        read(av, write(tmp_path / "av.pkl2", elements, MMGCN))


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
        r"'Ses01F_impro01': 3 integers; 2 dict of 4, 'Ses01F_impro01': 3 x 4 vectors; .* --layout ids,labels,text$",
        # As many elements as in the layouts of MMGCN and COSMIC, but of other kinds.
        (*MMGCN[:3], "audio", "audio", "sentences", *END): r"a tuple of 9: .*; 7 set of 3 keys; 8 list of 1 keys",
        (*COSMIC[:4], "labels", "labels", *COSMIC[6:]): "a tuple of 10: 0 dict",
    }
    for names, description in descriptions.items():
        with pytest.raises(
            UserError, match=rf"a.pkl has an unknown layout \(--help lists the known ones\): it is {description}"
        ):
            read(write(tmp_path / "a.pkl", elements, names))


@pytest.mark.parametrize(("content", "name"), [((), "tuple"), (3, "int"), (np.ones(3), "array"), ({}, "dict")])
def test_content_that_is_no_tuple(tmp_path, content, name):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f"a.pkl contains one {name}, not a tuple of dictionaries of conv"):
        read(tmp_path / "a.pkl")


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
    with pytest.raises(UserError, match="train and test have 1 conversations in common, for example 'Ses05M_"):
        read(write(tmp_path / "a.pkl", iemocap(train=["Ses01F_impro01", "Ses05M_impro04"]), MMGCN))


def three_lists(**changes):
    """Returns the elements of a file of no known corpus: ten conversations, with lists of validation and test."""
    keys = [f"call{i}" for i in range(12)]
    rng = np.random.default_rng(3)
    vectors = {m: {key: rng.normal(size=(2, width)) for key in keys} for m, width in WIDTHS.items()}
    return {
        "ids": {key: [f"{key}_{i}" for i in range(2)] for key in keys},
        "speakers": {key: ["a", "b"] for key in keys},
        "labels": {key: [i % 3, 0] for i, key in enumerate(keys)},
        **vectors,
        "sentences": {key: ["Who is it?", "Me."] for key in keys},
        "train": keys[:6],
        "validation": keys[6:8],
        "test": keys[8:10],
        **changes,
    }


def sizes(corpus):
    return {split: len(rows) for split, rows in corpus.splits.items()}


@pytest.mark.parametrize("order", list(itertools.permutations(("train", "validation", "test"))))
@pytest.mark.parametrize("names", [MMGCN, SDT])
def test_three_lists_in_a_layout_that_documents_two_are_refused_or_named(tmp_path, names, order):
    elements = three_lists()
    path = write(tmp_path / "a.pkl", elements, (*names[:-2], *order))
    with pytest.raises(UserError, match=r"has 3 lists of conversations, of .* nothing that tells .*--splits"):
        read(path, emotions="a,b,c")
    corpus = read(path, emotions="a,b,c", splits=",".join(order))
    assert ids(corpus) == {split: elements[split] for split in ("train", "validation", "test")}
    assert "2 conversations in no split left out" in corpus.card.provenance


def test_conversations_in_no_split_are_counted_on_the_console(tmp_path, caplog):
    path = write(tmp_path / "a.pkl", three_lists(), MMGCN)
    assert sizes(read(path, emotions="a,b,c")) == {"train": 6, "test": 2}
    assert f"{path}: 4 conversations are in no split and were left out" in caplog.text
    caplog.clear()
    read(write(tmp_path / "b.pkl", three_lists(), (*MMGCN, "validation")), emotions="a,b,c", splits="train,test,_")
    assert "4 conversations are in no split" in caplog.text
    caplog.clear()
    read(write(tmp_path / "c.pkl", iemocap(), MMGCN))
    assert not caplog.text


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("train,teste", "'teste' is not a split: expected train, valid"),
        ("train,test,dev,val", "has validation twice"),
        ("train,test", "--splits train,test: .*a.pkl has 3 lists of conversations, of 6, 2, 2"),
    ],
)
def test_wrong_splits(tmp_path, flag, message, capsys):
    path = write(tmp_path / "a.pkl", three_lists(), (*MMGCN, "validation"))
    with pytest.raises((UserError, SystemExit)) as caught:
        read(path, splits=flag)
    assert re.search(message, str(caught.value) + capsys.readouterr().err)


GRAPHSMILE = (*START, "sentiments", *ROBERTA, "audio", "visual", "sentences", "train", "test", "extra")


def test_graphsmile(tmp_path):
    elements = meld() | {"extra": None}
    corpus = read(write(tmp_path / "meld.pkl", elements, GRAPHSMILE))
    assert_holds(corpus, elements, elements["text"].get, ("text", "audio", "visual"))
    assert sizes(corpus) == {"train": 4, "validation": 114, "test": 280}
    assert corpus.card.emotions == MELD


@pytest.mark.parametrize("extra", [["neg", "neu", "pos"], [0.5, 1.5], [], None, {"a": 0}])
def test_an_element_after_the_lists_is_ignored(tmp_path, extra):
    elements = three_lists(extra=extra)
    assert sizes(read(write(tmp_path / "a.pkl", elements, (*MMGCN, "extra")), emotions="a,b,c")) == {
        "train": 6,
        "test": 2,
    }


def daily(texts=("text",)):
    rng = np.random.default_rng(4)
    keys = {split: [f"{split[:2]}_c{i}" for i in range(n)] for split, n in (("train", 6), ("test", 2), ("valid", 2))}
    every = [key for one in keys.values() for key in one]
    return {
        "speakers": {key: ["0", "1", "0"] for key in every},
        **{name: {key: rng.normal(size=(3, 4)).tolist() for key in every} for name in texts},
        "acts": {key: [1, 2, 3] for key in every},
        "labels": {key: [0, 0, i % 3] for i, key in enumerate(every)},
        **{split: set(own) for split, own in keys.items()},
    }


@pytest.mark.parametrize("texts", [("text",), ROBERTA])
def test_dailydialog(tmp_path, texts):
    elements = daily(texts)
    corpus = read(write(tmp_path / "daily.pkl", elements, elements), emotions="none,joy,anger")
    assert_holds(corpus, elements, elements["text"].get, ("text",))
    assert sizes(corpus) == {"train": 6, "validation": 2, "test": 2}
    assert corpus.conversations("validation")[0].id == "va_c0"
    assert corpus.conversations("train")[0].sentences == ["", "", ""]
    with pytest.raises(UserError, match="give them in the order of their labels with --emotions"):
        read(tmp_path / "daily.pkl")


def test_word_indices_and_sentences_are_not_features(tmp_path):
    elements = daily()
    elements["words"] = {key: [[4, 7, 0]] * 3 for key in elements["text"]}
    elements["lengths"] = dict.fromkeys(elements["text"], 2)
    names = ("speakers", "words", "lengths", "acts", "labels", "train", "test", "valid")
    with pytest.raises(UserError, match=r"\(DialogueRNN's DailyDialog\) has no features of utterances: give pickles"):
        read(write(tmp_path / "daily.pkl", elements, names), emotions="a,b,c")
    names = ("speakers", "labels", "sentences", "train", "test", "validation")
    with pytest.raises(UserError, match=r"\(COSMIC's sentences\) has no features of utterances: give pickles"):
        read(write(tmp_path / "a.pkl", three_lists(), names), emotions="a,b,c")


def test_features_in_files_of_their_own(tmp_path):
    elements, others = iemocap(), {"text": 7, "audio": 6, "visual": 5}
    rng = np.random.default_rng(5)
    sources = [write(tmp_path / "Speakers.pkl", elements, MMGCN)]
    for modality, width in others.items():
        elements[modality] = {key: rng.normal(size=(len(v), width)) for key, v in elements["labels"].items()}
        path = tmp_path / f"{modality.capitalize()}Features.pkl"
        path.write_bytes(pickle.dumps(elements[modality]))
        sources.append(path)
    for order in (sources, sources[::-1]):
        corpus = read(*order)
        assert_holds(corpus, elements, elements["text"].get, ("text", "audio", "visual"))
        assert corpus.card.widths == others
        assert "VisualFeatures.pkl" in corpus.card.provenance
    sentences = write(tmp_path / "a.pkl", elements | {"validation": ["Ses02M_script01"]}, ("speakers", "labels", *END))
    assert sentences and read(sources[0], sources[2]).card.widths == {"text": 4, "audio": 6, "visual": 2}
    with pytest.raises(UserError, match=r"TextFeatures.pkl have features only: give the file with speakers, labels"):
        read(sources[1])
    sources[1].rename(tmp_path / "features.pkl")
    with pytest.raises(UserError, match=r"features.pkl has vectors of conversations: rename it to contain one of text"):
        read(sources[0], tmp_path / "features.pkl")
    (tmp_path / "features.pkl").rename(tmp_path / "audio2.pkl")
    with pytest.raises(UserError, match=r"both have audio vectors by their names"):
        read(sources[0], sources[2], tmp_path / "audio2.pkl")
    del elements["audio"]["Ses03F_impro02"]
    sources[2].write_bytes(pickle.dumps(elements["audio"]))
    with pytest.raises(UserError, match=r"AudioFeatures.pkl: conversation 'Ses03F_impro02' has no audio"):
        read(sources[0], sources[2])


ODD = ("labels", "sentences", "text", "speakers", "extra", "audio", "ids", "test", "validation", "train")


def test_an_unknown_layout_is_given(tmp_path):
    elements = three_lists(extra={"a": 1})
    path = write(tmp_path / "a.pkl", elements, ODD)
    with pytest.raises(UserError, match=r"--layout labels,sentences,text,speakers,_,audio,ids,\?,\?,train$"):
        read(path)
    corpus = read(path, emotions="a,b,c", layout="labels,sentences,text,speakers,_,audio,ids,test,valid,train")
    assert_holds(corpus, elements, elements["text"].get, ("text", "audio"))
    assert ids(corpus) == {split: elements[split] for split in ("train", "validation", "test")}
    assert corpus.conversations("train")[0].sentences == ["Who is it?", "Me."]
    assert corpus.conversations("train")[0].utterances == ["call0_0", "call0_1"]
    assert "as --layout says" in corpus.card.provenance


def test_without_speakers_and_sentences(tmp_path):
    path = write(tmp_path / "a.pkl", three_lists(), ("labels", "text", "train", "test"))
    with pytest.raises(UserError, match=r"--layout labels,text,train,test$"):
        read(path)
    corpus = read(path, emotions="a,b,c", layout="labels,text,train,test")
    first = corpus.conversations("train")[0]
    assert (first.speakers, first.sentences) == (["call0", "call0"], ["", ""])


def test_a_dictionary_of_elements(tmp_path):
    elements = three_lists()
    path = tmp_path / "a.pkl"

    def write_as(**names):
        path.write_bytes(pickle.dumps({names.get(name, name): elements[name] for name in (*MMGCN, "validation")}))

    write_as(visual="vision", validation="dev", labels="emotion")
    corpus = read(path, emotions="a,b,c")
    assert_holds(corpus, elements, elements["text"].get, ("text", "audio", "visual"))
    assert ids(corpus) == {split: elements[split] for split in ("train", "validation", "test")}
    write_as(visual="resnet", text="bert", labels="y", train="a", validation="b", test="c")
    with pytest.raises(
        UserError,
        match=r"--layout ids=ids,speakers=speakers,labels=y,text=bert,audio=audio,visual=resnet,sentences=sentences,"
        r"train=a,\?=c,\?=b$",
    ):
        read(path)
    corpus = read(
        path, emotions="a,b,c", layout="speakers=speakers,labels=y,text=bert,visual=resnet,train=a,test=c,dev=b"
    )
    assert_holds(corpus, elements, elements["text"].get, ("text", "visual"))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("labels,text,train", "has 3 names, but .*a.pkl 4 elements: _ leaves one out"),
        ("labels,text,train,train", "has train twice"),
        ("labels,text,train,dave", "'dave' is not what an element can be"),
        ("labels,text=b,train,test", "mixes positions and keys"),
        ("_,text,train,test", "--layout has no labels"),
        ("labels,text,_,test", "--layout has no train"),
        ("text,labels,train,test", "--layout: text of .*a.pkl is dict of 12, 'call0': 2 integers: expected vectors"),
        ("labels,train,text,test", "--layout: train of .*a.pkl is dict of 12, .*: expected listing"),
        ("labels=a,text=b,train=c", "--layout: .*a.pkl has no 'a', only 0, 1, 2, 3"),
    ],
)
def test_wrong_layouts(tmp_path, layout, message, capsys):
    path = write(tmp_path / "a.pkl", three_lists(), ("labels", "text", "train", "test"))
    with pytest.raises((UserError, SystemExit)) as caught:
        read(path, layout=layout)
    assert re.search(message, str(caught.value) + capsys.readouterr().err)


@pytest.mark.parametrize(
    ("elements", "proposal"),
    [
        (({"a": [], "b": [np.array(1), np.array(2)]}, {"a": [], "b": ["x", "y z"]}, ["a"]), "ids,sentences,train"),
        (({"b": [1, 0], "c": [None, "x"]}, {"b": ["x"], "c": [None]}, ["b"], ["c"]), "labels,ids,train,test"),
        (({"b": [[0.5, 1.0]], "c": [None]}, {"b": [np.ones((1, 9))]}, {"b": 3}, None, ["b"]), "text,_,_,_,train"),
        (({"b": [0.5]}, {"b": [[0, 1], [1, 0]]}, np.array(["b"])), "labels,speakers,train"),
        (({"b": [1, 0]}, {"b": ["x y"]}, np.array(3), [np.array(1)], ["b"]), "labels,sentences,_,_,train"),
    ],
    ids=str,
)
def test_proposals_for_uncommon_content(tmp_path, elements, proposal):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(elements))
    with pytest.raises(UserError, match=rf"--layout {re.escape(proposal)}$"):
        read(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("speakers", "expected"),
    [
        (["M", "F"], ["M", "F"]),
        (["Ross", "Monica Geller"], ["Ross", "Monica Geller"]),
        ([[0, 1, 0], [1, 0, 0]], ["1", "0"]),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), ["1", "0"]),
        ([3, 1], ["3", "1"]),
        (np.array([1, 0]), ["1", "0"]),
        ([np.int32(7), np.int32(8)], ["7", "8"]),
    ],
    ids=str,
)
def test_speakers(tmp_path, speakers, expected):
    elements = three_lists()
    elements["speakers"] = {key: speakers for key in elements["speakers"]}
    corpus = read(write(tmp_path / "a.pkl", elements, MMGCN), emotions="a,b,c")
    assert corpus.conversations("test")[0].speakers == expected


def test_regression_labels_need_a_conversion(tmp_path):
    elements = three_lists()
    elements["labels"] = {key: [-2.6, 0.0] for key in elements["labels"]}
    path = write(tmp_path / "mosei.pkl", elements, MMGCN)
    with pytest.raises(UserError, match=r"if they are regression labels, give --regression binary\|nonzero"):
        read(path)
    corpus = read(path, regression="ternary")
    assert corpus.card.emotions == ("negative", "neutral", "positive")
    assert corpus.conversations("train")[0].labels.tolist() == [0, 1]
    assert "Labels: ternary of regression labels." in corpus.card.provenance


def test_a_torch_file_has_the_same_corpus(tmp_path):
    torch = pytest.importorskip("torch")
    elements = iemocap()
    torch.save(tuple(elements[name] for name in MMGCN), tmp_path / "arrays.pt")
    for modality in ("text", "audio", "visual"):
        elements[modality] = {key: torch.tensor(np.array(v)) for key, v in elements[modality].items()}
    elements["labels"] = {key: torch.tensor(v) for key, v in elements["labels"].items()}
    torch.save(tuple(elements[name] for name in MMGCN), tmp_path / "tensors.pt")
    for name in ("arrays.pt", "tensors.pt"):
        corpus = read(tmp_path / name)
        expected = iemocap()
        assert_holds(corpus, expected, expected["text"].get, ("text", "audio", "visual"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 151409987\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning", "a page of Google Drive"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip: decompress it with `gunzip`"),
        (b"", "empty: get the file again"),
    ],
)
def test_a_whole_file_of_another_kind_is_named(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=f"a.pkl is .*{message}"):
        read(tmp_path / "a.pkl")


def test_dictionaries_of_conversations(tmp_path):
    elements = three_lists()
    names = {"speakers": "speakers", "labels": "labels", "text": "text", "visual": "visual", "sentences": "sentence"}
    splits = {"train": "train", "dev": "validation", "test": "test"}
    content = {
        split: [{"vid": key, **{k: elements[name][key] for name, k in names.items()}} for key in elements[own]]
        for split, own in splits.items()
    }
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    corpus = read(tmp_path / "data.pkl", emotions="a,b,c")
    assert_holds(corpus, elements, elements["text"].get, ("text", "visual"))
    assert ids(corpus) == {split: elements[split] for split in ("train", "validation", "test")}
    assert corpus.conversations("train")[0].sentences == ["Who is it?", "Me."]
    del content["test"][0]["text"]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"data.pkl: conversation 'call8' has no text"):
        read(tmp_path / "data.pkl", emotions="a,b,c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([((np.zeros((3, 4)),), 1.0, f"v[{i}]") for i in range(40)], "a list of 40, such as 0: tuple of 3"),
        ({f"c{i}": ["Hello.", "Hi."] for i in range(40)}, "a dict of 40, such as 'c0': list of 2"),
        ((1,), "a tuple of 1, such as 0: int"),
        ((None, {}, {"a": 1}), "a tuple of 3, such as 0: NoneType"),
        ({"train": 1}, "a dict of 1, such as 'train': int"),
    ],
)
def test_content_of_other_or_many_elements_is_described_briefly(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=f"a.pkl contains {message}.*, not a tuple of dictionaries of conversations"):
        read(tmp_path / "a.pkl")
