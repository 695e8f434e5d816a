"""From recordings to predictions: videos of a few dialogues are extracted, trained on, and another one is predicted."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from media import cut_off, numbered_pictures, tone, write_media
from onnx_files import node, onnx_file

import jmer
from jmer.command import exit_status
from jmer.data import load_corpus
from jmer.extract.command import extract
from jmer.extract.sources import rows_of_utterances

pytest.importorskip("av")

EMOTIONS = {"joy": 440, "anger": 220, "sadness": 110}
SENTENCES = {"joy": "How lovely, thank you!", "anger": "Get out of my house.", "sadness": "I miss the old flat."}
HEADER = "conversation,speaker,transcript,file,start,end,label,split,face_x,face_y,face_w,face_h"
SECONDS = 0.5
"""Of an utterance."""


def dialogue(folder, name, emotions, *, pictures=True):
    """Writes a video in which each emotion has a tone, and returns its rows."""
    sound = np.concatenate([tone(EMOTIONS[emotion], SECONDS) for emotion in emotions])
    shown = numbered_pictures(round(25 * SECONDS * len(emotions)), (96, 64)) if pictures else None
    write_media(folder / f"{name}.mp4", sound, shown)
    return [
        f'{name},{("Ann", "Ben")[i % 2]},"{SENTENCES[emotion]}",{name}.mp4,{i * SECONDS},{(i + 1) * SECONDS},{emotion},'
        f"{'test' if name == 'd' else ''},8,8,32,32"
        for i, emotion in enumerate(emotions)
    ]


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """A folder with the recordings of three dialogues, their manifest, and a network for faces."""
    folder = tmp_path_factory.mktemp("talk")
    cycle = list(EMOTIONS)
    rows = [row for i, name in enumerate("abc") for row in dialogue(folder, name, [*cycle[i:], *cycle[:i], *cycle[:2]])]
    (folder / "talk.csv").write_text("\n".join([HEADER, *rows, ""]))
    pooled = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["y"])]
    onnx_file(folder / "mean.onnx", pooled, [("x", [1, 3, 8, 8])], [("y", [1, 3])])
    return folder


@pytest.fixture
def told(capfd, caplog):
    """Runs the extraction; returns its exit status, its lines on standard output, and its warnings and errors."""

    def tell(*arguments):
        capfd.readouterr()
        caplog.clear()
        status = exit_status(extract, list(map(str, arguments)))
        out, err = capfd.readouterr()
        return status, out.splitlines(), [*caplog.messages, *err.splitlines()]

    return tell


def extractors(folder):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    return [
        "--text=hashing,columns=32",
        "--audio=acoustic",
        f"--visual=faces:{folder / 'mean.onnx'},detector=box",
    ]


@pytest.fixture(scope="module")
def corpus(talk):
    folder = talk / "corpus"
    arguments = [str(talk / "talk.csv"), str(folder), *extractors(talk), "--emotions", ",".join(EMOTIONS)]
    assert exit_status(extract, arguments) == 0
    return load_corpus(folder)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_recordings_become_a_corpus_whose_card_names_the_extractors(corpus):
    assert corpus.card.emotions == tuple(EMOTIONS)
    assert {m: fields["extractor"] for m, fields in corpus.card.extractors.items()} == {
        "text": "hashing",
        "audio": "acoustic",
        "visual": "faces",
    }
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"train": 2, "validation": 1}
    for split in corpus.splits:
        for conversation in corpus.conversations(split):
            assert all(mask.all() for mask in conversation.available.values())
            # What is in the same dialogue at another time sounds different, and the same emotion the same.
            assert conversation.speakers[:2] == ["Ann", "Ben"]
            audio = dict(zip(conversation.labels.tolist(), conversation.features["audio"], strict=True))
            assert np.abs(audio[0] - audio[1]).max() > 1


def test_the_same_recordings_give_the_same_bytes_however_they_are_done(talk, corpus, told, tmp_path):
    again = tmp_path / "again"
    flags = [*extractors(talk), "--emotions", ",".join(EMOTIONS)]
    assert told(talk / "talk.csv", again, *flags, "--jobs", 2)[0] == 0
    assert contents(again) == contents(talk / "corpus")
    status, out, _ = told(talk / "talk.csv", tmp_path / "third", *flags, "--cache", tmp_path / "again.features")
    assert (
        status == 0 and out[0] == "33 of 33 features are in the cache" and not any("computed" in line for line in out)
    )
    assert contents(tmp_path / "third") == contents(again)


class Output(NamedTuple):
    logits: Any


class Concatenated(nn.Module):
    """Logits that are linear in the features of all modalities; what is recorded must be in each."""

    num_classes: int
    modalities: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, batch, *, train=False):
        return Output(nn.Dense(self.num_classes)(jnp.concatenate([batch.features[m] for m in self.modalities], -1)))


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """The cross-entropy of labelled utterances."""

    def __call__(self, output, batch):
        counted = batch.mask & (batch.labels >= 0)
        values = jmer.losses.cross_entropy(output.logits, batch.labels, where=counted)
        return {"classification": (1.0, values.sum(), counted.sum())}


@pytest.fixture(scope="module")
def run(talk, corpus, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        from jmer.evaluation import report

        for plot in ("plot_confusion", "plot_learning_curves"):
            patch.setattr(report, plot, lambda *_, **__: None)
        jmer.register_model(jmer.ModelSpec(name="concatenated", module=Concatenated, loss=CrossEntropy))
        config = jmer.get_config("concatenated", {"training.epochs": 60, "optimizer.learning_rate": 0.03})
        return jmer.train(config, corpus, tmp_path_factory.mktemp("runs") / "a", log=None)


def test_a_recording_that_nobody_labelled_is_predicted(talk, run, tmp_path):
    rows = dialogue(tmp_path, "d", ["anger", "joy", "sadness", "joy"])
    unlabelled = [",".join([*row.split(",")[:-6], "", "", *row.split(",")[-4:]]) for row in rows]
    (tmp_path / "new.csv").write_text("\n".join([HEADER, *unlabelled, ""]))
    table = run.predict(tmp_path / "new.csv")
    assert table["predicted"].tolist() == ["anger", "joy", "sadness", "joy"]
    assert table["gold"].tolist() == [""] * 4
    assert table["corpus"].unique().tolist() == ["new"]


def test_features_of_another_extractor_are_refused(talk, run, told, tmp_path):
    flags = ["--text=hashing,columns=32,longest=3", *extractors(talk)[1:], "--emotions", ",".join(EMOTIONS)]
    cache = ["--cache", talk / "corpus.features"]
    assert told(talk / "talk.csv", tmp_path / "other", *flags, *cache)[0] == 0
    for use in (run.predict, run.evaluate):
        with pytest.raises(jmer.UserError, match=r"longest of extractor 'hashing': 4 there, 3 here"):
            use(tmp_path / "other")


def test_an_extractor_whose_file_has_moved_or_changed_is_refused(talk, run, tmp_path):
    rows = rows_of_utterances(["Hi"])
    moved = tmp_path / "moved.onnx"
    moved.write_bytes((talk / "mean.onnx").read_bytes())
    given = {"visual": f"faces:{moved},detector=box"}
    assert len(run.extract(rows, given=given).corpus.conversations("test")[0]) == 1
    moved.write_bytes(moved.read_bytes()[:-1] + b"\x12")
    with pytest.raises(jmer.UserError, match=r"visual features is not the one of training \(sha256 of extractor"):
        run.extract(rows, given={"visual": f"faces:{moved},detector=box,fps=5"})
    with pytest.raises(jmer.UserError, match=r"none\.onnx.*elsewhere now, give --visual faces:PATH"):
        run.extract(rows, given={"visual": f"faces:{tmp_path / 'none.onnx'},detector=box"})


def test_rows_that_cannot_be_read_are_reported_at_once_before_any_work(talk, told, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "folder.wav").mkdir()
    names = ["none.wav", "empty.wav", "text.wav", "folder.wav"]
    rows = "\n".join(["conversation,transcript,file", *(f"a,hi {i},{name}" for i, name in enumerate(names)), ""])
    (tmp_path / "m.csv").write_text(rows)
    status, out, err = told(tmp_path / "m.csv", tmp_path / "c")
    assert status == 2 and not out and not (tmp_path / "c").exists()
    assert len(err) == 5 and err[-1].endswith("leave them without features: --skip-bad")
    for line, (number, name) in zip(err, enumerate(names, 2), strict=False):
        assert f"m.csv, line {number}: " in line and name in line
    status, out, err = told(tmp_path / "m.csv", tmp_path / "c", "--skip-bad")
    assert status == 0 and len(err) == 4
    assert "audio is missing in 4 of 4 utterances: 4 no recording" in out


@pytest.fixture
def odd(tmp_path):
    """A manifest with a row for each oddity of sound or pictures: reason that its features are missing, or none."""
    second = tone(300, 1.0)
    write_media(tmp_path / "whole.wav", second)
    write_media(tmp_path / "silent.wav", np.zeros(16_000, np.float32))
    write_media(tmp_path / "loud.wav", np.clip(4 * second, -1, 1))
    write_media(tmp_path / "stereo.wav", np.stack([second, second], 1).repeat(3, 0)[: 3 * 16_000], rate=48_000)
    write_media(tmp_path / "mute.mp4", None, numbered_pictures(25))
    cut_off(write_media(tmp_path / "cut.mkv", tone(300, 4.0), numbered_pictures(100)), 0.5)
    rows = {
        "whole.wav,0,1": "",
        "whole.wav,0.5,1.5": "the recording's sound ends at 1.00 s, before 1.50 s",
        "whole.wav,0.2,0.218": "too short: 18 ms",
        "silent.wav,,": "silent",
        "loud.wav,,": "",
        "stereo.wav,,": "",
        "mute.mp4,,": "it has no sound",
        "cut.mkv,3,4": "the recording's sound ends",
    }
    lines = [f'odd,"hi {i}",{row}' for i, row in enumerate(rows)]
    (tmp_path / "odd.csv").write_text("\n".join(["conversation,transcript,file,start,end", *lines, ""]))
    return tmp_path, list(rows.values())


def test_an_oddity_costs_the_modality_of_that_utterance_and_is_named(odd, told):
    folder, reasons = odd
    status, out, err = told(folder / "odd.csv", folder / "c", "--audio=acoustic", "--text=hashing")
    assert status == 0
    (conversation,) = load_corpus(folder / "c").conversations("test")
    assert conversation.available["audio"].tolist() == [not reason for reason in reasons]
    assert conversation.available["text"].all()
    (summary,) = (line for line in out if line.startswith("audio is missing"))
    assert summary.startswith("audio is missing in 5 of 8 utterances") and "1 silent" in summary
    assert any("loud.wav" in line and "samples are clipped" in line for line in err)
    assert any("cut.mkv: its sound ends" in line for line in err)
    assert "resampled from 48000 Hz in 1 recording" in out


def test_strict_stops_at_what_is_damaged(odd, told):
    folder, _ = odd
    status, _, err = told(folder / "odd.csv", folder / "c", "--audio=acoustic", "--strict")
    assert status == 2 and any("cut.mkv" in line for line in err) and not (folder / "c").exists()


def test_an_extractor_that_fails_for_an_utterance_is_named_and_the_others_are_done(odd, told, monkeypatch):
    from jmer.extract.acoustic import Acoustic

    folder, _ = odd
    work = Acoustic.__call__

    def failing(self, sound):
        if np.abs(sound).max() > 0.9:
            raise RuntimeError("no\nluck")
        return work(self, sound)

    monkeypatch.setattr(Acoustic, "__call__", failing)
    status, out, err = told(folder / "odd.csv", folder / "c", "--audio=acoustic")
    assert status == 1
    assert any(line.endswith("loud.wav, 0.000 to the end: extractor 'acoustic' failed: no luck") for line in err)
    assert any("1 extractor failed" in line for line in out)
    monkeypatch.undo()
    # A failure is not kept: the next run tries again.
    assert told(folder / "odd.csv", folder / "c2", "--audio=acoustic", "--cache", folder / "c.features")[0] == 0


def test_a_recording_with_subtitles_becomes_a_corpus_without_labels(talk, told, tmp_path):
    pytest.importorskip("srt")
    (tmp_path / "talk.srt").write_text("1\n00:00:00,000 --> 00:00:00,500\nAnn: How lovely\n\n")
    recording = tmp_path / "talk.mp4"
    recording.write_bytes((talk / "a.mp4").read_bytes())
    for source, flags in ((recording, []), (talk / "b.mp4", ["--subtitles", tmp_path / "talk.srt"])):
        assert told(source, tmp_path / source.stem / "c", *flags)[0] == 0
        (conversation,) = load_corpus(tmp_path / source.stem / "c").conversations("test")
        assert (conversation.id, conversation.speakers, conversation.sentences) == (
            source.stem,
            ["Ann"],
            ["How lovely"],
        )
        assert conversation.available["audio"].all()
    assert told(recording, tmp_path / "d", "--jobs", 0)[2] == [
        "error: argument --jobs: '0' is no number of processes from 1 to 256 (see `python -m jmer.extract --help`)"
    ]


def test_a_killed_extraction_resumes_to_the_same_bytes(talk, corpus, told, tmp_path):
    flags = [*extractors(talk), "--emotions", ",".join(EMOTIONS)]
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "jmer.extract", str(talk / "talk.csv"), str(tmp_path / "c"), *flags]
    process = subprocess.Popen([*command, f"--cache={cache}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(cache.rglob("*.features"))) < 8:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(cache.rglob("*.features")))
    assert not (tmp_path / "c").exists()
    status, out, _ = told(talk / "talk.csv", tmp_path / "c", *flags, "--cache", cache)
    assert status == 0 and out[0] == f"{kept} of 33 features are in the cache"
    assert contents(tmp_path / "c") == contents(talk / "corpus")
