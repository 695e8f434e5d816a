"""JSON files of DAG-ERC and MultiDAG are read, and errors name their conversation and utterance."""

import argparse
import json

import numpy as np
import pytest

from jmer.data.emotions import IEMOCAP6, MELD
from jmer.data.readers import dag_json
from jmer.errors import UserError

WIDTHS = (4, 3, 2)


def utterance(label, seed, multimodal):
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=width).tolist() for width in WIDTHS]
    return {
        "text": "You\x92re “late”.",
        "speaker": "MF"[seed % 2],
        **({} if label is None else {"label": label}),
        "cls": vectors if multimodal else vectors[0],
    }


def conversations(labels, multimodal=False):
    return [[utterance(label, i + 10 * j, multimodal) for i, label in enumerate(row)] for j, row in enumerate(labels)]


def write(folder, split, content, suffix="roberta"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}_data_{suffix}.json.feature"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read(*sources, emotions=None, flags=()):
    parser = argparse.ArgumentParser()
    dag_json.add_arguments(parser)
    return dag_json.read(sources, parser.parse_args([*(["--emotions", emotions] if emotions else []), *flags]))


@pytest.mark.parametrize("multimodal", [False, True])
def test_a_folder_of_three_splits(tmp_path, multimodal):
    labels = {
        "train": [["joy", None, "fear"], ["surprise"]],
        "dev": [["neutral", "anger"]],
        "test": [["sadness", "disgust", "anger", None]],
    }
    folder = tmp_path / "MELD"
    content = {split: conversations(rows, multimodal) for split, rows in labels.items()}
    for split in labels:
        write(folder, split, content[split])
    corpus = read(folder)
    modalities = ("text", "audio", "visual")[: 3 if multimodal else 1]
    assert corpus.card.widths == dict(zip(modalities, WIDTHS, strict=False))
    assert (corpus.card.emotions, corpus.card.name) == (MELD, "MELD")
    assert f"{'MultiDAG' if multimodal else 'DAG-ERC'}'s JSON: dev_data_roberta.json.feature" in corpus.card.provenance
    assert list(corpus.splits) == ["train", "validation", "test"]
    for split, file in (("train", "train"), ("validation", "dev"), ("test", "test")):
        for number, c in enumerate(corpus.conversations(split)):
            expected = content[file][number]
            assert c.id == f"{split}_{number}"
            assert c.utterances == [str(i) for i in range(len(expected))]
            assert c.speakers == [u["speaker"] for u in expected]
            assert c.labels.tolist() == [MELD.index(u["label"]) if "label" in u else -1 for u in expected]
            assert set(c.sentences) == {"You’re “late”."}
            for i, modality in enumerate(modalities):
                vectors = [u["cls"][i] if multimodal else u["cls"] for u in expected]
                np.testing.assert_array_equal(c.features[modality], np.array(vectors, np.float32))
                assert c.available[modality].all()


def test_order_of_the_emotions(tmp_path):
    path = write(tmp_path, "train", conversations([[*sorted(IEMOCAP6), None]]))
    assert read(path).card.emotions == IEMOCAP6
    path = write(tmp_path, "train", conversations([["mad", "joyful", "mad"]]))
    assert read(path).card.emotions == ("joyful", "mad")
    corpus = read(path, emotions="mad,joyful,scared")
    assert corpus.card.emotions == ("mad", "joyful", "scared")
    assert corpus.conversations("train")[0].labels.tolist() == [0, 1, 0]
    path = write(tmp_path, "train", conversations([[1, 0, -1]]))
    assert read(path, emotions="calm,angry").conversations("train")[0].labels.tolist() == [1, 0, -1]


def test_labels_that_will_be_removed_do_not_change_the_order_of_the_others(tmp_path):
    path = write(tmp_path, "train", conversations([[*sorted(IEMOCAP6), "other", "xxx"]]))
    flags = ["--unlabelled=xxx", "--merge=other=neutral"]
    assert read(path, flags=flags).card.emotions == (*IEMOCAP6, "other", "xxx")
    assert read(path, emotions=",".join(IEMOCAP6), flags=flags).card.emotions == (*IEMOCAP6, "xxx", "other")
    path = write(tmp_path, "train", conversations([["-1", "1", " calm"]]))
    assert read(path, emotions="calm,angry").conversations("train")[0].labels.tolist() == [-1, 1, 0]


def test_nan_features_become_unavailable(tmp_path):
    content = conversations([["calm", "angry"]], multimodal=True)
    content[0][1]["cls"][1][2] = float("nan")
    c = read(write(tmp_path, "train", content)).conversations("train")[0]
    assert c.available["audio"].tolist() == [True, False]
    assert c.available["visual"].all()
    assert not c.features["audio"][1].any()


def test_errors_name_the_conversation_and_the_utterance(tmp_path):
    def refuses(message, *edits, labels=(("calm", "angry"), ("calm",)), multimodal=False, emotions=None):
        content = conversations(labels, multimodal)
        for edit in edits:
            edit(content)
        path = write(tmp_path, "train", content)
        with pytest.raises(UserError, match=message) as caught:
            read(path, emotions=emotions)
        assert "\n" not in str(caught.value)

    refuses(r"conversation 0: utterance 1 has no speaker: add it", lambda c: c[0][1].pop("speaker"))
    refuses(r"conversation 1: utterance 0 has no cls: add it", lambda c: c[1][0].pop("cls"))
    refuses(r"conversation 1 is not a list of utterances, or is empty: remove it", lambda c: c[1].clear())
    refuses(r"conversation 0: utterance 1 has no text", lambda c: c[0].__setitem__(1, "Hello"))
    for wrong in ("abc", None, [], [[1.0], [2.0]], [["x"], [1.0], [2.0]], [[[1.0]]] * 3, [[1.0], 2.0, 3.0], 5):
        refuses(
            r"train_data_roberta.json.feature, conversation 0: cls of utterance 1 is neither a vector of numbers nor",
            lambda c, wrong=wrong: c[0][1].update(cls=wrong),
        )
    refuses(r"conversation 0: cls differs in size .* text features of one width", lambda c: c[0][1].update(cls=[1.0]))
    refuses(r"conversation 0: cls differs in size", lambda c: c[0][1].update(cls=[[1.0] * w for w in WIDTHS]))
    refuses(r"train_1': text has width 5: expected 4, as on the card", lambda c: c[1][0].update(cls=[1.0] * 5))
    refuses(r"has label 1, not a name: give --emotions A,B", labels=[[1]])
    refuses(r"no utterance has a label: give --emotions A,B", labels=[[None]])
    refuses(r"conversation 0: label 'angry' is not one of the emotions 0 calm, 1 mad", emotions="calm,mad")
    refuses(r"conversation 0: label 7 is not one of the emotions", labels=[[7]], emotions="calm,mad")
    refuses(r"contains no list of conversations", lambda c: c.clear())


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no file .*train_data_x.json.feature: check its path"):
        read(tmp_path / "train_data_x.json.feature")
    whole = json.dumps(conversations([["calm", "angry"]]))
    with pytest.raises(UserError, match=r"is not a JSON file, or is truncated: get the file again \("):
        read(write(tmp_path, "train", whole[:-30]))
    with pytest.raises(UserError, match=r"is nested too deeply: get the file again"):
        read(write(tmp_path, "train", "[" * 100_000))
    for content, message in [
        (b"\x80\x04\x95\xff", "is a pickle: convert it with the format `pickle`"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n", "is a Git LFS pointer, not the file"),
        (b"<html><head><title>Not found</title></head></html>", "is a web page, not the file itself"),
        (b"", "is empty: get the file again"),
        (b"text,speaker,label\na,b,c\n", "is a text file that begins with 'text,speaker,label': if it is a csv file"),
        (whole[:-30].encode("utf-8-sig"), r"is not a JSON file, or is truncated: get the file again \("),
    ]:
        (tmp_path / "train_data_roberta.json.feature").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read(tmp_path)
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "train_data_roberta.json.feature").write_bytes(whole.replace("M", "Zoë").encode(encoding))
        assert set(read(tmp_path).conversations("train")[0].speakers) == {"Zoë", "F"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty contains no \*_data_\*.json.feature: give the folder"):
        read(tmp_path / "empty")
    content = conversations([["calm", "angry"]])
    mixed = (
        write(tmp_path / "mixed", "dev", content),
        write(tmp_path / "mixed", "train", conversations([["calm"]], True)),
    )
    with pytest.raises(UserError, match=r"'train_0': audio features, but the card has no audio"):
        read(*mixed)
    with pytest.raises(UserError, match=r"rename it to begin with its split and _ \(the splits are train"):
        read(write(tmp_path / "other", "all", whole))
    one, other = (write(tmp_path / "two", "train", whole, suffix) for suffix in ("roberta", "roberta_mm"))
    with pytest.raises(UserError, match=r"train_data_roberta.json.* and .*_mm.json.feature are both train"):
        read(tmp_path / "two")
    assert read(other).card.name == read(one).card.name == "two"
