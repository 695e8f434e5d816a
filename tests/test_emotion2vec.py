"""The files of emotion2vec's release become conversations of frames."""

import argparse

import numpy as np
import pytest

from jmer.data.readers import emotion2vec
from jmer.errors import UserError

LINES = [
    ("Ses01F_impro01_F000", "neu", 3),
    ("Ses01F_impro01_M000", "ang", 1),
    ("Ses01F_impro01_F001", "sad", 2),
    ("Ses01M_script01_1_M003", "hap", 4),
    ("Ses05F_impro04_MXX2", "neu", 2),
]


def write(folder, stem="train", lines=LINES, width=3, **content):
    folder.mkdir(exist_ok=True)
    total = sum(n for _, _, n in lines)
    values = np.arange(total * width, dtype=np.float32).reshape(total, width)
    np.save(folder / f"{stem}.npy", content.get("npy", values))
    (folder / f"{stem}.emo").write_text(content.get("emo", "".join(f"{name}\t{label}\n" for name, label, _ in lines)))
    (folder / f"{stem}.lengths").write_text(content.get("lengths", "".join(f"{n}\n" for _, _, n in lines)))
    return values


def read(*sources, dest=None, **options):
    parser = argparse.ArgumentParser()
    emotion2vec.add_arguments(parser)
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    parsed = parser.parse_args(flags)
    parsed.dest = sources[0].parent / "corpus"
    return emotion2vec.read(sources, parsed)


def test_frames_and_names(tmp_path):
    values = write(tmp_path / "feats")
    for source in (tmp_path / "feats", tmp_path / "feats" / "train.npy", tmp_path / "feats" / "train.emo"):
        corpus = read(source)
        assert corpus.card.widths == {"audio": 3}
        assert corpus.card.frames
        assert corpus.card.emotions == ("ang", "hap", "neu", "sad")
        first, second, third = corpus.conversations("train")
        assert (first.id, second.id, third.id) == ("Ses01F_impro01", "Ses01M_script01_1", "Ses05F_impro04")
        assert first.utterances == [name for name, _, _ in LINES[:3]]
        assert first.speakers == ["Ses01_F", "Ses01_M", "Ses01_F"]
        assert third.speakers == ["Ses05_M"]
        assert first.labels.tolist() == [2, 0, 3]
        for frames, expected in zip(first.features["audio"], (values[:3], values[3:4], values[4:6]), strict=True):
            np.testing.assert_array_equal(frames, expected)
        np.testing.assert_array_equal(second.features["audio"][0], values[6:10])


def test_frames_become_their_means_on_request(tmp_path):
    values = write(tmp_path / "feats")
    corpus = read(tmp_path / "feats", pool=True)
    assert not corpus.card.frames
    expected = [values[:3].mean(0), values[3], values[4:6].mean(0)]
    np.testing.assert_allclose(corpus.conversations("train")[0].features["audio"], expected, rtol=1e-6)


def test_splits_and_vectors(tmp_path):
    for stem, session in (("train", "1"), ("dev", "2"), ("test", "3")):
        lines = [
            (name.replace("Ses01", f"Ses0{session}").replace("Ses05", f"Ses0{session}"), e, 1) for name, e, _ in LINES
        ]
        write(tmp_path / "feats", stem, lines)
        (tmp_path / "feats" / f"{stem}.lengths").unlink()
    corpus = read(tmp_path / "feats", emotions="neu,hap,sad,ang")
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"train": 3, "validation": 3, "test": 3}
    assert not corpus.card.frames
    assert corpus.conversations("test")[0].labels.tolist() == [0, 3, 2]


def test_labels_can_be_merged_and_an_utterance_without_frames_is_unavailable(tmp_path):
    write(tmp_path / "feats", lines=[*LINES, ("Ses05F_impro04_F002", "exc", 0)])
    corpus = read(tmp_path / "feats", emotions="hap,sad,neu,ang", merge="exc=hap")
    last = corpus.conversations("train")[-1]
    assert last.available["audio"].tolist() == [True, False]
    assert corpus.card.emotions[last.labels[1]] == "exc"  # which the converter merges


def test_other_names(tmp_path):
    lines = [(f"clip{i}", "neu", 1) for i in range(3)]
    write(tmp_path / "feats", lines=lines)
    with pytest.raises(UserError, match=r"train.emo: utterance 'clip0' does not tell its conversation"):
        read(tmp_path / "feats")
    assert len(read(tmp_path / "feats", alone=True).splits["train"]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"lengths": "3\n1\n2\n4\n3\n"},
            "train.lengths has 5 utterances of 13 frames, but train.npy has 12 frames and",
        ),
        ({"lengths": "3\n1\n2\n6\n"}, "train.lengths has 4 utterances of 12 frames, .* the .emo file 5 utterances"),
        ({"lengths": "3\nx\n"}, "train.lengths, line 2 is 'x': expected a number of frames"),
        ({"lengths": "version https://git-lfs.github.com/spec/v1\n"}, "train.lengths is a Git LFS pointer"),
        ({"emo": "Ses01F_impro01_F000\n"}, "train.emo, line 1 is 'Ses01F_impro01_F000': expected NAME LABEL"),
        ({"emo": ""}, "train.emo is empty"),
        ({"npy": np.zeros((2, 3, 4))}, r"train.npy is float64 of shape \(2, 3, 4\): expected floats"),
        ({"npy": np.zeros((12, 3), np.int32)}, "train.npy is int32 of shape"),
        ({"npy": np.array([None, {}], object)}, "train.npy is truncated, or contains Python objects"),
        ({"npy": np.full((12, 3), np.nan)}, "NaN or infinity"),
    ],
)
def test_defects_are_one_line(tmp_path, content, message):
    write(tmp_path / "feats", **content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "feats")


def test_missing_and_ambiguous_files(tmp_path):
    write(tmp_path / "feats")
    with pytest.raises(UserError, match=r"no file .*nowhere: check its path"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty contains no .npy file: give the folder with train.npy"):
        read(tmp_path / "empty")
    write(tmp_path / "feats", "session5")
    with pytest.raises(UserError, match=r"session5.npy: name the files of several splits train.npy, valid"):
        read(tmp_path / "feats")
    (tmp_path / "feats" / "train.emo").unlink()
    with pytest.raises(UserError, match=r"cannot read .*train.emo: No such file"):
        read(tmp_path / "feats" / "train.npy")
    (tmp_path / "feats" / "session5.lengths").unlink()
    with pytest.raises(UserError, match=r"session5.npy has 12 rows for 5 utterances: give session5.lengths"):
        read(tmp_path / "feats" / "session5.npy")
