"""`jmer predict` of dialogues, manifests and subtitles, and what it says of inputs that it cannot predict."""

import dataclasses
import io
import json
import re
import subprocess
import sys

import pytest
from tiny import EMOTIONS

import jmer
from jmer.command import exit_status
from jmer.data import load_corpus
from jmer.extract.command import extract

SENTENCES = {"happy": "how lovely", "sad": "i cried", "neutral": "it is nine", "angry": "get out"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The folder of a corpus of hashed texts."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        f"{name},{('Ann', 'Ben')[i % 2]},{SENTENCES[emotion]} {i},{emotion},{split}"
        for name, split in (("a", "train"), ("b", "train"), ("c", "dev"))
        for i, emotion in enumerate(EMOTIONS)
    ]
    (folder / "texts.csv").write_text("\n".join(["conversation,speaker,transcript,label,split", *rows, ""]))
    arguments = ["texts.csv", "texts", "--emotions", ",".join(EMOTIONS), "--text=hashing,columns=16"]
    assert exit_status(extract, [str(folder / arg) if arg.startswith("texts") else arg for arg in arguments]) == 0
    return folder / "texts"


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory):
    """The folders of a run and of the runs of two seeds."""
    from pathlib import Path

    jmer.get_config(Path(__file__).parent / "linear_experiment.py")
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        from jmer.evaluation import report

        for plot in ("plot_confusion", "plot_learning_curves"):
            patch.setattr(report, plot, lambda *_, **__: None)
        for name, seeds in (("one", 1), ("two", 2)):
            config = jmer.get_config("linear", {"training.epochs": 2, "seeds": seeds})
            jmer.train(config, load_corpus(corpus), folder / name, log=None)
    return folder


@pytest.fixture
def told(capfd, caplog, monkeypatch):
    """Runs `jmer predict`; returns its exit status, its lines on standard output, and its warnings and errors."""
    from jmer.cli.program import predict

    def tell(*arguments, given=b""):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        capfd.readouterr()
        caplog.clear()
        status = exit_status(predict, list(map(str, arguments)))
        out, err = capfd.readouterr()
        return status, out.splitlines(), [*caplog.messages, *err.splitlines()]

    return tell


DIALOGUE = json.dumps([{"speaker": "Zoë", "text": "how lovely"}, {"speaker": "Ann", "text": "get out"}])


def test_a_dialogue_on_standard_input_is_shown_and_written(runs, told, tmp_path):
    status, out, err = told(runs / "one", "-", "--out", tmp_path / "p", given=DIALOGUE.encode())
    assert status == 0 and not err
    assert any(line.startswith("Zoë") and "how lovely" in line for line in out)
    written = [json.loads(line) for line in (tmp_path / "p/predictions.jsonl").read_text("utf-8").splitlines()]
    table = jmer.load_run(runs / "one").predict(json.loads(DIALOGUE))
    assert [one["predicted"] for one in written] == table["predicted"].tolist()
    assert [one["speaker"] for one in written] == ["Zoë", "Ann"]
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        "predictions.csv",
        "predictions.jsonl",
        "predictions.html",
    }


def test_nothing_is_written_without_a_folder(runs, told):
    before = sorted(runs.rglob("*"))
    assert told(runs / "one", "-", given=DIALOGUE.encode())[0] == 0
    assert sorted(runs.rglob("*")) == before


def test_several_seeds_predict_with_their_mean(runs, told, tmp_path):
    status, out, _ = told(runs / "two", "-", "--out", tmp_path / "p", given=DIALOGUE.encode())
    assert status == 0 and any("agree" in line for line in out)
    written = [json.loads(line) for line in (tmp_path / "p/predictions.jsonl").read_text("utf-8").splitlines()]
    members = [run.predict(json.loads(DIALOGUE)) for run in jmer.load_run(runs / "two")]
    for i, one in enumerate(written):
        for emotion in EMOTIONS:
            mean = sum(table[f"probability_{emotion}"][i] for table in members) / 2
            assert one["probabilities"][emotion] == pytest.approx(mean, abs=1e-6)


def test_subtitles_are_predicted_with_their_times(runs, told, tmp_path):
    pytest.importorskip("srt")
    (tmp_path / "talk.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nAnn: how lovely\n\n")
    status, _, _ = told(runs / "one", tmp_path / "talk.srt", "--out", tmp_path / "p")
    assert status == 0
    shown = (tmp_path / "p/subtitles/talk.srt").read_text("utf-8")
    assert "00:00:01,000 --> 00:00:02,500" in shown and "Ann: how lovely" in shown


def test_a_manifest_keeps_its_labels_and_leaves_out_those_of_others(runs, told, tmp_path):
    (tmp_path / "m.csv").write_text("conversation,transcript,label\na,hi,sad\na,ho,bored\na,hu,3\n")
    status, _, err = told(runs / "one", tmp_path / "m.csv", "--out", tmp_path / "p")
    assert status == 0
    assert err == ["warning: the labels bored are none of the run's emotions, and are left out"]
    written = [json.loads(line) for line in (tmp_path / "p/predictions.jsonl").read_text("utf-8").splitlines()]
    assert [one["gold"] for one in written] == ["sad", None, "angry"]


def test_a_corpus_as_input_is_predicted_as_ever(runs, corpus, told, tmp_path):
    for arguments in ([corpus], ["--corpus", corpus]):
        out = tmp_path / str(len(arguments))
        assert told(runs / "one", *arguments, "--out", out)[0] == 0
        assert sorted(path.name for path in (out / "predictions").glob("*.csv")) == ["train.csv", "validation.csv"]


def test_a_corpus_whose_extractors_are_unknown_is_predicted_with_a_warning(runs, corpus, caplog):
    run, known = jmer.load_run(runs / "one"), load_corpus(corpus)
    table = run.predict(known)
    assert not caplog.messages
    unknown = dataclasses.replace(known, card=dataclasses.replace(known.card, extractors={}))
    assert run.predict(unknown).equals(table)
    assert run.evaluate(unknown) == run.evaluate(known)
    assert caplog.messages == 2 * [
        "warning: text: the card of the corpus does not say which extractor made its features, so they may differ"
    ]


@pytest.mark.parametrize(
    ("arguments", "given", "line"),
    [
        (["-"], b"", "the input is empty: expected a dialogue as JSON"),
        (["-"], b"\xff", r"standard input is not in UTF-8 \(byte 0\)"),
        (["-"], b"[1]", "utterance 1 is 1: expected text, or an object"),
        (["none.mp4"], b"", "no file none.mp4: give a manifest, a recording, subtitles, or a corpus"),
        (["-", "--corpus=synthetic-meld"], b"[]", r"both an input \(-\) and --corpus are given"),
        (["-", "--config.data.clip=5"], b"[]", "--config.data.clip has no effect on an input that is no corpus"),
        (["-", "--coordinator=auto"], b"[]", "is predicted by one process: leave --coordinator out"),
        (["-", "--text=bert:x"], b'["hi"]', "x does not exist"),
        (["-", "--text=hashing,columns=32"], b'["hi"]', r"not the one of training \(columns of extractor 'hashing'"),
    ],
    ids=["empty", "not UTF-8", "number", "no file", "corpus too", "field", "processes", "no folder", "other options"],
)
def test_an_input_that_cannot_be_predicted_gets_one_line(runs, told, arguments, given, line):
    status, out, err = told(runs / "one", *arguments, given=given)
    assert status == 2 and not out and len(err) == 1
    assert re.search(line, err[0]), err[0]


def test_what_is_missing_is_said_in_python_too(runs, caplog):
    table = jmer.load_run(runs / "one").predict([{"file": __file__}, {"transcript": "hi"}])
    assert len(table) == 2
    assert caplog.messages == ["warning: text is missing in 1 of 2 utterances: 1 no transcript"]


def test_a_run_of_other_features_cannot_predict_recordings(told, corpora, tmp_path, smallest_model):
    jmer.train("linear", load_corpus(corpora[0]), tmp_path / "run", log=None)
    status, _, err = told(tmp_path / "run", "-", given=b'["hi"]')
    assert status == 2 and "were not extracted by jmer" in err[0] and "--corpus" in err[0]


def test_it_is_a_module_too(runs):
    command = [sys.executable, "-m", "jmer.predict", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "INPUT" in done.stdout and "--subtitles" in done.stdout
