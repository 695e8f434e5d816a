"""The CSV files of MELD are joined with features by split, dialogue and utterance, whatever their irregularities."""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jmer.data.emotions import MELD
from jmer.data.readers import meld_csv
from jmer.errors import UserError

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
TRAIN = (
    '1,"Well, you’re late.",Ross,anger,negative,0,0,8,21,"00:16:16,059","00:16:21,731"',
    '2,"So?",Zoë,neutral,neutral,0,1,8,21,"00:16:21,940","00:16:23,442"',
    # A gap in the utterances and in the dialogues, a serial number used twice, and a row out of order.
    '2,"Oh\x92s.",Ross,Joy,positive,0,5,8,21,"00:16:26,820","00:16:29,572"',
    '4,"Never mind.",Ross,sadness,negative,0,3,8,21,"00:16:24,820","00:16:25,572"',
    '5,"Hello?",Phoebe,surprise,positive,7,0,1,1,"00:00:01,000","00:00:02,000"',
)
DEV = ('1,"Hi.",Joey,disgust,negative,0,0,4,7,"00:20:57,256","00:21:00,049"',)


def write_csv(folder, split, rows, encoding="utf-8"):
    path = folder / f"{split}_sent_emo.csv"
    path.write_bytes("".join(f"{line}\r\n" for line in (HEADER, *rows)).encode(encoding))
    return path


def table(**changes):
    """Writes features of all utterances except training dialogue 7, in another order than the CSV files."""
    rng = np.random.default_rng(0)
    return {
        "split": np.array(["train", "dev", "train", "train", "train"]),
        "dialogue": np.array([0, 0, 0, 0, 0], np.int16),
        "utt": np.array([5, 0, 0, 3, 1], np.int16),
        "words": rng.normal(size=(5, 3)).astype(np.float16),
        "sounds": rng.normal(size=(5, 2)),
        **changes,
    }


def write_npz(folder, **changes):
    np.savez(folder / "features.npz", **table(**changes))
    return folder / "features.npz"


def read(source, features, *flags):
    parser = argparse.ArgumentParser()
    meld_csv.add_arguments(parser)
    arguments = ["--features", str(features), *(flags or ("--text", "words", "--audio", "sounds"))]
    return meld_csv.read([source], parser.parse_args(arguments))


@pytest.fixture
def folder(tmp_path):
    write_csv(tmp_path, "train", TRAIN)
    write_csv(tmp_path, "dev", DEV)
    return tmp_path


def test_features_are_joined_by_split_dialogue_and_utterance(folder):
    corpus = read(folder, write_npz(folder))
    features = table()
    assert corpus.card.emotions == MELD
    assert corpus.card.widths == {"text": 3, "audio": 2}
    assert "dev_sent_emo.csv, train_sent_emo.csv and features.npz (text from words; audio" in corpus.card.provenance
    first, second = corpus.conversations("train")
    (only,) = corpus.conversations("validation")
    assert (first.id, second.id, only.id) == ("train_0", "train_7", "validation_0")
    assert first.utterances == ["0", "1", "3", "5"]
    assert first.speakers == ["Ross", "Zoë", "Ross", "Ross"]
    assert first.sentences == ["Well, you’re late.", "So?", "Never mind.", "Oh’s."]
    assert [MELD[label] for label in first.labels] == ["anger", "neutral", "sadness", "joy"]
    np.testing.assert_array_equal(first.features["text"], features["words"][[2, 4, 3, 0]].astype(np.float32))
    np.testing.assert_array_equal(first.features["audio"], features["sounds"][[2, 4, 3, 0]].astype(np.float32))
    np.testing.assert_array_equal(only.features["text"], features["words"][[1]].astype(np.float32))
    assert first.available["text"].all()
    # Dialogue 7 has no row in the table.
    assert not second.available["text"].any() and not second.available["audio"].any()
    assert not second.features["text"].any()


def test_parquet_with_other_column_names_and_nan(folder):
    sounds = table()["sounds"]
    sounds[4, 0] = np.nan
    columns = table(sounds=sounds)
    names = {"split": "part", "dialogue": "dia", "utt": "number"}
    arrays = {names.get(name, name): pa.array(list(v) if v.ndim == 2 else v) for name, v in columns.items()}
    pa.parquet.write_table(pa.table(arrays), folder / "features.parquet")
    flags = ("--split-column", "part", "--dialogue-column", "dia", "--utterance-column", "number", "--visual", "sounds")
    corpus = read(folder, folder / "features.parquet", *flags)
    first = corpus.conversations("train")[0]
    assert corpus.card.modalities == ("visual",)
    assert first.available["visual"].tolist() == [True, False, True, True]
    np.testing.assert_array_equal(first.features["visual"][3], sounds[0].astype(np.float32))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_encodings(tmp_path, encoding):
    rows = [row.replace("\x92", "’") if encoding == "cp1252" else row for row in TRAIN]
    path = write_csv(tmp_path, "train", rows, encoding)
    first = read(path, write_npz(tmp_path)).conversations("train")[0]
    assert first.sentences == ["Well, you’re late.", "So?", "Never mind.", "Oh’s."]
    assert first.speakers[1] == "Zoë"


def test_rows_without_an_utterance_are_reported(folder, caplog):
    (folder / "dev_sent_emo.csv").unlink()
    corpus = read(folder, write_npz(folder, utt=np.array([5, 0, 0, 3, 9])))
    (message,) = (record.message for record in caplog.records)
    assert (
        "features.npz: 2 of 5 rows match no utterance of the CSV files, the first is validation, dialogue 0" in message
    )
    assert "2 of 5 rows match no utterance" in corpus.card.provenance
    assert corpus.conversations("train")[0].available["text"].tolist() == [True, False, True, True]


def test_errors_in_the_csv_files(tmp_path):
    features = write_npz(tmp_path)

    def refuses(message, rows=TRAIN, header=HEADER):
        path = tmp_path / "train_sent_emo.csv"
        path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=message) as caught:
            read(path, features)
        assert "\n" not in str(caught.value)

    refuses(
        r"train_sent_emo.csv has no column 'Speaker': it has Sr No., Utterance, Who",
        header=HEADER.replace("Speaker", "Who"),
    )
    refuses(r"train_sent_emo.csv, line 6: dialogue 0 has two utterances 1: remove", rows=(*TRAIN[:4], TRAIN[1]))
    refuses(r"line 2: unknown emotion 'rage': they are neutral", rows=[TRAIN[0].replace("anger", "rage")])
    refuses(r"line 2: Dialogue_ID is 'x': expected an integer", rows=[TRAIN[0].replace(",0,0,8", ",x,0,8")])
    refuses(r"line 3: the row has fewer cells than the header", rows=[TRAIN[0], "2,Hello,Ross"])
    refuses(r"after line 1, is no csv: close its quotes, or get the file again", rows=['1,"Well'])
    refuses(r"has a header but no utterances: get the file again", rows=())
    with pytest.raises(UserError, match=r"no file .*nowhere: check its path"):
        read(tmp_path / "nowhere", features)
    (tmp_path / "sent.csv").write_text(HEADER)
    with pytest.raises(UserError, match=r"sent.csv: rename it to begin with its split and _"):
        read(tmp_path / "sent.csv", features)


def test_errors_in_the_features(folder):
    def refuses(message, *flags, **changes):
        with pytest.raises(UserError, match=message):
            read(folder, write_npz(folder, **changes), *flags)

    refuses(r"no columns of features in .*features.npz: give --text, --audio", "--split-column", "split")
    refuses(r"no column 'part': it has split, .*: give --split-column", "--split-column", "part", "--text", "words")
    refuses(r"no column 'voice': it has split, dialogue, utt, words, sounds", "--audio", "voice")
    refuses(r"column 'utt' has shape \(5,\): expected \(5, width\)", "--audio", "utt")
    refuses(r"column 'words' has shape \(4, 3\): expected \(5, width\)", words=np.ones((4, 3)))
    refuses(r"the columns split, dialogue, utt differ in length", utt=np.arange(4))
    refuses(
        r"features.npz, row 3: split 'all' in column 'split' is not one of train",
        split=np.array(["train"] * 2 + ["all"] * 3),
    )
    refuses(r"row 2: dialogue and utterance are \[0, nan\]: expected integers", utt=np.array([5, np.nan, 0, 3, 1]))
    refuses(r"row 5 is the same utterance as row 4: train, 0, 3", utt=np.array([5, 0, 0, 3, 3]))
    refuses(r"no row matches an utterance of .*check the columns of split", dialogue=np.full(5, 99))
    refuses(r"sounds' is <U1: expected numbers", sounds=np.full((5, 2), "x"))
    refuses(r"train_0': audio of utterance '0' contains NaN or infinity .and 3 more", sounds=np.full((5, 2), np.inf))
    with pytest.raises(UserError, match=r"no file .*nowhere.npz"):
        read(folder, Path(folder / "nowhere.npz"))


def test_sentiments_are_labels_too(folder):
    features = write_npz(folder)
    corpus = read(folder, features, "--text", "words", "--label", "sentiment")
    assert corpus.card.emotions == ("neutral", "positive", "negative")
    assert [c.labels.tolist() for c in corpus.conversations("train")] == [[2, 0, 2, 1], [1]]
    merged = read(folder, features, "--text=words", "--merge=joy=surprise", "--unlabelled=fear")
    assert merged.card.emotions == MELD  # `jmer.data.convert` removes emotions


def test_files_of_other_kinds_are_named(tmp_path):
    features, path = write_npz(tmp_path), tmp_path / "train_sent_emo.csv"
    for content, message in [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"", "is empty"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read(path, features)


def test_tabs_and_utf16_are_read(tmp_path):
    features = write_npz(tmp_path)
    tabs = [
        line.replace('"Well, you’re late."', "Well you’re late.").replace(",", "\t") for line in (HEADER, *TRAIN[:2])
    ]
    (tmp_path / "train_sent_emo.csv").write_bytes("\n".join(tabs).encode("utf-16"))
    assert read(tmp_path, features).conversations("train")[0].sentences == ["Well you’re late.", "So?"]


def test_dialogues_whose_rows_are_not_contiguous_are_told(folder, caplog):
    features = write_npz(folder)
    read(folder, features)
    assert caplog.text == ""
    write_csv(folder, "train", (*TRAIN, *(TRAIN[1].replace(",0,1,", f",0,{number},") for number in (11, 12, 13))))
    read(folder, features)
    assert "the rows of 1 dialogues are not contiguous, for example of train, dialogue 0" in caplog.text
