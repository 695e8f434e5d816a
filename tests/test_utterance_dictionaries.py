"""Dictionaries of splits with a row per utterance become conversations; padding is removed, nothing is guessed."""

import argparse
import pickle

import numpy as np
import pytest

from jmer.data.readers import feature_pickles
from jmer.errors import UserError

ROWS = {"train": 6, "valid": 3, "test": 3}
SHORT = [2, 4, 1]  # real frames of the sequences, of 4


def video_ids(split, count, form="{}$_${}"):
    """Returns ids of two videos, the segments of the first in the reverse order."""
    half = count // 2
    names = [(f"{split}A", half - 1 - i) if i < half else (f"{split}B", i) for i in range(count)]
    return [form.format(video, segment) for video, segment in names]


def mmsa(frames=False, form="{}$_${}", **changes):
    """Returns a dictionary of splits in the layout of MMSA; changes are functions of split and count, None removes."""
    rng = np.random.default_rng(0)

    def features(count, width):
        values = rng.normal(size=(count, 4, width)).astype(np.float32)
        for row in range(count):
            values[row, SHORT[row % 3] :] = 0
        return values if frames else values[:, 0]

    content = {}
    for split, count in ROWS.items():
        part = {
            "text": features(count, 5),
            "audio": features(count, 3),
            "vision": features(count, 2),
            "text_bert": np.zeros((count, 3, 4)),
            "raw_text": [f"sentence {i} of {split}" for i in range(count)],
            "id": video_ids(split, count, form),
            "annotations": ["Negative", "Neutral", "Positive"] * (count // 3),
            "classification_labels": np.arange(count) % 3,
            "regression_labels": np.resize([-1.4, 0, 2.6], count).astype(np.float32),
        }
        part |= {key: value(split, count) for key, value in changes.items() if value}
        content[split] = {key: value for key, value in part.items() if changes.get(key, True)}
    return content


def read(path, content=None, **options):
    if content is not None:
        path.write_bytes(pickle.dumps(content))
    parser = argparse.ArgumentParser()
    parser.add_argument("--dest", type=type(path), default=path.parent / "corpus")
    feature_pickles.add_arguments(parser)
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    return feature_pickles.read([path], parser.parse_args(flags))


def test_vectors_of_utterances(tmp_path):
    content = mmsa()
    corpus = read(tmp_path / "mosi.pkl", content)
    assert corpus.card.widths == {"text": 5, "audio": 3, "visual": 2}
    assert corpus.card.emotions == ("negative", "neutral", "positive")
    assert not corpus.card.frames
    assert {split: [c.id for c in corpus.conversations(split)] for split in corpus.splits} == {
        "train": ["trainA", "trainB"],
        "validation": ["validA", "validB"],
        "test": ["testA", "testB"],
    }
    first, second = corpus.conversations("train")
    # The segments of the first video are in the order of their numbers.
    assert first.utterances == ["trainA$_$0", "trainA$_$1", "trainA$_$2"]
    assert second.utterances == ["trainB$_$3", "trainB$_$4", "trainB$_$5"]
    assert first.labels.tolist() == [2, 1, 0]
    assert first.speakers == ["trainA"] * 3
    assert first.sentences[0] == "sentence 2 of train"
    np.testing.assert_array_equal(first.features["visual"], content["train"]["vision"][[2, 1, 0]])


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("front", [False, True])
def test_sequences_lose_their_padding(tmp_path, lengths, front):
    given = {f"{m}_lengths": lambda split, count: np.resize(SHORT, count) for m in ("audio", "vision")}
    content = mmsa(frames=True, **(given if lengths else {}))
    if front:  # as MulT pads
        for part in content.values():
            for name in ("text", "audio", "vision"):
                part[name] = np.stack([np.roll(v, 4 - SHORT[i % 3], axis=0) for i, v in enumerate(part[name])])
    corpus = read(tmp_path / "mosi.pkl", content)
    assert corpus.card.frames
    expected = mmsa(frames=True)["train"]
    for conversation, rows in zip(corpus.conversations("train"), ([2, 1, 0], [3, 4, 5]), strict=True):
        for modality, name in (("text", "text"), ("audio", "audio"), ("visual", "vision")):
            for frames, row in zip(conversation.features[modality], rows, strict=True):
                np.testing.assert_array_equal(frames, expected[name][row, : SHORT[row % 3]])
            assert conversation.available[modality].all()


def test_sequences_become_their_means_on_request(tmp_path):
    corpus = read(tmp_path / "mosi.pkl", mmsa(frames=True), pool=True)
    assert not corpus.card.frames
    assert "the mean over the frames" in corpus.card.provenance
    expected = [mmsa(frames=True)["train"]["audio"][row, : SHORT[row % 3]].mean(0) for row in (2, 1, 0)]
    np.testing.assert_allclose(corpus.conversations("train")[0].features["audio"], expected, rtol=1e-6)


def test_lengths_keep_zeros_that_are_no_padding(tmp_path):
    def silent(split, count):
        values = np.ones((count, 4, 3), np.float32)
        values[:, 2:] = 0
        return values

    content = mmsa(frames=True, audio=silent, audio_lengths=lambda split, count: [3] * count)
    frames = read(tmp_path / "a.pkl", content).conversations("train")[0].features["audio"]
    assert [one.tolist() for one in frames] == [[[1.0] * 3, [1.0] * 3, [0.0] * 3]] * 3


def test_vectors_beside_sequences_become_one_frame_and_empty_sequences_are_unavailable(tmp_path, caplog):
    def text(split, count):
        values = np.ones((count, 5), np.float32)
        values[0] = np.nan
        return values

    def audio(split, count):
        values = np.ones((count, 4, 3), np.float32)
        values[0] = 0
        values[1, 0, 0] = -np.inf
        return values

    corpus = read(tmp_path / "a.pkl", mmsa(frames=True, text=text, audio=audio))
    first = corpus.conversations("train")[0]  # rows 2, 1, 0
    assert [frames.shape for frames in first.features["text"]] == [(1, 5), (1, 5), (0, 5)]
    assert first.available["text"].tolist() == first.available["audio"].tolist() == [True, True, False]
    assert first.features["audio"][1][0].tolist() == [0, 1, 1]
    assert "3 values in sequences that were infinite or NaN became 0" in caplog.text
    assert "3 values in sequences" in corpus.card.provenance


@pytest.mark.parametrize(
    ("regression", "labels", "emotions"),
    [
        ("binary", [1, 1, 0], ("negative", "positive")),
        ("nonzero", [1, -1, 0], ("negative", "positive")),
        ("ternary", [2, 1, 0], ("negative", "neutral", "positive")),
        ("seven", [6, 3, 2], 7),
    ],
)
def test_regression_labels_become_classes_on_request(tmp_path, regression, labels, emotions):
    changes = {"classification_labels": None, "annotations": None}
    with pytest.raises(UserError, match=r"train: regression_labels are regression labels: give --regression bin"):
        read(tmp_path / "a.pkl", mmsa(**changes))
    for content in (mmsa(), mmsa(**changes)):
        corpus = read(tmp_path / "a.pkl", content, regression=regression)
        assert corpus.conversations("train")[0].labels.tolist() == labels
        assert corpus.card.emotions == emotions or len(corpus.card.emotions) == emotions


def mult(split, count):
    return np.resize([-2.4, 0.0, 0.6], count).reshape(count, 1, 1)


def segments(split, count):
    """Returns CMU-MultimodalSDK's ids: video, start, end."""
    return np.array([[f"{split}{i // 3}".encode(), str(9 - i).encode(), str(10 - i).encode()] for i in range(count)])


def test_mult(tmp_path):
    names = ("raw_text", "annotations", "classification_labels", "regression_labels", "text_bert")
    content = mmsa(frames=True, labels=mult, id=segments, **dict.fromkeys(names))
    corpus = read(tmp_path / "mosei.pkl", content, regression="binary")
    first = corpus.conversations("train")[0]
    assert (first.id, first.utterances) == ("train0", ["train0_7", "train0_8", "train0_9"])
    assert first.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize("form", ["{}[{}]", "{}_{}", "{}$_${}"])
def test_forms_of_ids(tmp_path, form):
    corpus = read(tmp_path / "a.pkl", mmsa(form=form))
    assert [c.id for c in corpus.conversations("train")] == ["trainA", "trainB"]
    assert corpus.conversations("train")[0].utterances[0] == form.format("trainA", 0)


def test_names_of_emotions_as_labels(tmp_path):
    def names(split, count):
        return np.resize(["sad", "happy", "xxx"], count)

    content = mmsa(classification_labels=None, annotations=None, regression_labels=None, labels=names)
    corpus = read(tmp_path / "a.pkl", content)
    assert corpus.card.emotions == ("happy", "sad", "xxx")
    assert corpus.conversations("train")[0].labels.tolist() == [2, 0, 1]
    corpus = read(tmp_path / "a.pkl", content, emotions="sad,happy", unlabelled="xxx")
    assert corpus.conversations("train")[0].labels.tolist() == [2, 1, 0]
    with pytest.raises(UserError, match=r"a.pkl, train: labels has 'xxx', not one of 0 sad, 1 happy: name it in"):
        read(tmp_path / "a.pkl", content, emotions="sad,happy")


def test_a_layout_names_other_keys(tmp_path):
    content = {
        split: {
            "bert": part["text"],
            "y": part["classification_labels"],
            "clip": part["id"],
            "who": part["annotations"],
        }
        for split, part in mmsa().items()
    }
    with pytest.raises(UserError, match=r"train has no labels, only bert, y, clip, who: name them with --lay"):
        read(tmp_path / "a.pkl", content)
    corpus = read(tmp_path / "a.pkl", content, layout="text=bert,labels=y,ids=clip,speakers=who", emotions="a,b,c")
    assert corpus.card.widths == {"text": 5}
    assert corpus.conversations("train")[0].speakers == ["Positive", "Neutral", "Negative"]
    with pytest.raises(UserError, match=r"--layout: .*train has no 'z': give NAME=KEY"):
        read(tmp_path / "a.pkl", content, layout="text=z,labels=y")


def test_utterances_that_tell_no_conversation(tmp_path, caplog):
    content = mmsa(id=lambda split, count: [chr(97 + i) for i in range(count)])
    with pytest.raises(UserError, match=r"train: utterance 'a' does not tell its conversation, .* give --alone"):
        read(tmp_path / "a.pkl", content)
    corpus = read(tmp_path / "a.pkl", content, alone=True)
    assert [len(corpus.splits[split]) for split in corpus.splits] == [6, 3, 3]
    with pytest.raises(UserError, match=r"train has no id, which gives conversations: name it with --layout ids="):
        read(tmp_path / "a.pkl", mmsa(id=None))
    caplog.clear()
    assert len(read(tmp_path / "a.pkl", mmsa(id=None), alone=True).splits["train"]) == 6
    assert not caplog.text


def test_videos_that_are_divided_among_splits_are_kept_apart(tmp_path, caplog):
    content = mmsa(id=lambda split, count: [f"video$_${len(split) * 10 + i}" for i in range(count)])
    corpus = read(tmp_path / "sims.pkl", content)
    assert [corpus.conversations(split)[0].id for split in corpus.splits] == [
        "train_video",
        "validation_video",
        "test_video",
    ]
    assert "1 conversations are in several splits, for example 'video': kept as several" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": lambda s, n: np.zeros((n, 4), np.int64)}, "text is int64: token ids are not features"),
        ({"audio": lambda s, n: np.zeros((n, 2, 3, 4))}, r"audio is float64 \[., 2, 3, 4\]: expected floats"),
        ({"audio": lambda s, n: ["x"] * n}, "audio is <U1 .*: expected floats"),
        ({"audio": lambda s, n: np.zeros((n + 1, 4))}, "train: 7 audio but 6 classification_labels"),
        ({"id": lambda s, n: ["v_1"]}, "train: 1 ids but 6 classification_labels"),
        ({"classification_labels": lambda s, n: np.zeros((n, 4, 2))}, r"classification_labels have shape \[6, 4, 2\]"),
        ({"classification_labels": lambda s, n: np.full(n, 0.5)}, "classification_labels are regression labels"),
        ({"text": None, "audio": None, "vision": None}, "train has no features, only text_bert"),
        ({"annotations": None}, "does not name the classes: give them in the order of their labels, --emotions"),
        ({"classification_labels": lambda s, n: np.zeros(0)}, "train is empty: remove it"),
        ({"classification_labels": lambda s, n: [[1], [1, 2]]}, "classification_labels have different shapes"),
        ({"text": lambda s, n: 3.0}, "train: one float for text but 6 classification_labels"),
        ({"raw_text": lambda s, n: np.array(3)}, "train: one array for sentences but 6 classification_labels"),
        (
            {"id": lambda s, n: [["v", "0"], []] + [None] * (n - 2)},
            "the id in row 1 is not video, start",
        ),
        ({"audio": lambda s, n: [[[1.0]], [[1.0, 2.0]], ["x"]] * (n // 3)}, "audio is not numbers"),
        ({"audio": lambda s, n: np.ones((n, 4, 3)), "audio_lengths": lambda s, n: [1]}, "lengths of audio are not 6"),
        (
            {"audio": lambda s, n: np.ones((n, 4, 3)), "audio_lengths": lambda s, n: [None] * n},
            "the lengths of audio are not all numbers",
        ),
    ],
)
def test_defects_are_one_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.pkl", mmsa(**changes))
    assert "a.pkl" in str(caught.value) and "\n" not in str(caught.value)


def test_a_label_beyond_the_emotions(tmp_path):
    content = mmsa(classification_labels=lambda s, n: np.full(n, 2**40), annotations=None)
    with pytest.raises(UserError, match=r"utterance 'trainA\$_\$0' has label -2147483648"):
        read(tmp_path / "a.pkl", content, emotions="a,b,c")


def test_splits_are_named_in_any_case(tmp_path):
    content = {split.capitalize(): part for split, part in mmsa().items()}
    assert list(read(tmp_path / "a.pkl", content).splits) == ["train", "validation", "test"]


def test_two_splits_of_one_name_and_flags_that_do_not_apply(tmp_path):
    with pytest.raises(UserError, match=r"a.pkl has two validation splits: remove one"):
        read(tmp_path / "a.pkl", mmsa() | {"dev": mmsa()["valid"]})
    with pytest.raises(UserError, match=r"--splits: .*a.pkl names its splits: drop the flag"):
        read(tmp_path / "a.pkl", mmsa(), splits="train,valid,test")


def test_labels_of_bytes_and_of_two_kinds(tmp_path):
    corpus = read(tmp_path / "mosi.pkl", mmsa(classification_labels=lambda split, n: np.resize([b"no", b"yes"], n)))
    assert corpus.card.emotions == ("no", "yes")
    mixed = mmsa(classification_labels=lambda split, n: np.resize(["no"] if split == "test" else [0, 1, 2], n))
    with pytest.raises(UserError, match="test: classification_labels has 'no', not one of 0 negative, 1 neutral"):
        read(tmp_path / "mosi.pkl", mixed)
