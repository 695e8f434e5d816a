"""The convert command writes a corpus of its sources; an error is one line, status 2, and nothing is written."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jmer.command import exit_status
from jmer.data.convert import FORMATS, _parser, convert
from jmer.data.corpus import load_saved

MAPPING = ["--conversation=talk", "--speaker=talk", "--label=label", "--split=split", "--emotions=calm,angry"]
FLAGS = ["table", *MAPPING, "--text=words", "--audio=sound"]


def write(path, splits=("train",) * 10, lengths=4, **changes):
    """Saves a table with one conversation per entry of `splits`."""
    talk = np.repeat(np.arange(len(splits)), lengths)
    columns = {
        "talk": talk,
        "split": np.repeat(splits, lengths),
        "label": talk % 2,
        "words": np.random.default_rng(0).normal(size=(talk.size, 3)),
        "sound": np.ones((talk.size, 2)),
    }
    np.savez(path, **columns | changes)
    return str(path)


def ids(corpus, split):
    return [c.id for c in corpus.conversations(split)]


def test_it_writes_the_corpus_and_prints_its_sizes(tmp_path, capsys):
    sound = np.ones((12, 2))
    sound[[0, 8]] = np.nan
    source = write(tmp_path / "a.npz", ("train", "valid", "test"), label=np.repeat([0, 1, -1], 4), sound=sound)
    convert([*FLAGS, source, str(tmp_path / "corpus"), "--name=mine"])
    corpus = load_saved(tmp_path / "corpus")
    assert corpus.card.name == "mine"
    assert {split: ids(corpus, split) for split in corpus.splits} == {
        "train": ["0"],
        "validation": ["1"],
        "test": ["2"],
    }
    assert capsys.readouterr().out.splitlines() == [
        f"wrote mine to {tmp_path / 'corpus'}: text 3, audio 2; 2 emotions",
        "             conversations  utterances  labelled",
        "train                    1           4         4",
        "validation               1           4         4",
        "test                     1           4         0",
        "train: audio unavailable in 1 of 4 utterances",
        "test: audio unavailable in 1 of 4 utterances",
        "audio: 2 of 2 columns are constant in training and ignored",
    ]


def test_flags_may_be_anywhere_among_several_sources(tmp_path):
    first, second = write(tmp_path / "a.npz"), write(tmp_path / "b.npz", talk=np.repeat(np.arange(50, 60), 4))
    convert(["table", first, *FLAGS[1:], second, str(tmp_path / "corpus")])
    corpus = load_saved(tmp_path / "corpus")
    assert sum(len(corpus.splits[split]) for split in corpus.splits) == 20


def test_validation_conversations_are_held_out_if_there_are_none(tmp_path, capsys):
    source = write(tmp_path / "a.npz")
    for dest in "ab":
        convert([*FLAGS, "--holdout=0.3", "--seed=7", source, str(tmp_path / dest)])
    a, b = load_saved(tmp_path / "a"), load_saved(tmp_path / "b")
    assert (len(ids(a, "train")), len(ids(a, "validation"))) == (7, 3)
    assert sorted(ids(a, "train") + ids(a, "validation")) == [str(i) for i in range(10)]
    assert ids(a, "validation") == ids(b, "validation")
    assert "about 30% of the training utterances, seed 7" in a.card.provenance
    assert "validation               3          12        12  held out of train" in capsys.readouterr().out
    convert([*FLAGS, "--seed=8", source, str(tmp_path / "c")])
    assert len(ids(load_saved(tmp_path / "c"), "validation")) == 1


def test_labels_are_merged_and_declared_unlabelled_whatever_they_are(tmp_path, capsys):
    names = np.array(["hap", "exc", "xxx", "sad", "neu", "ang", "fru", "hap", "oth", "exc"])
    parts = ("train",) * 7 + ("valid", "test", "test")
    text = write(tmp_path / "text.npz", parts, 1, label=names)
    indices = write(tmp_path / "indices.npz", parts, 1, label=np.array([0, 4, -1, 1, 2, 3, 5, 0, -1, 4]))
    pairs = "--merge=exc=hap", "--unlabelled=fru"
    named = [*FLAGS, "--emotions=hap,sad,neu,ang", *pairs, "--unlabelled=xxx,oth"]
    numbered = [*FLAGS, "--emotions=hap,sad,neu,ang,exc,fru", *pairs]
    for source, flags in ((text, named), (indices, numbered)):
        dest = tmp_path / f"corpus{len(flags)}"
        convert([*flags, source, str(dest)])
        corpus = load_saved(dest)
        assert corpus.card.emotions == ("hap", "sad", "neu", "ang")
        assert [int(c.labels[0]) for split in corpus.splits for c in corpus.conversations(split)] == [
            *(0, 0, -1, 1, 2, 3, -1),
            *(0, -1, 0),
        ]
        note = capsys.readouterr().out.splitlines()[-1]
        assert note.startswith("Labels: 2 of exc became hap; unlabelled are 1 of fru")
        assert corpus.card.provenance.endswith(note)


NAMES = ["hap", "exc", "xxx", "sad"]  # of the utterances of every conversation


def table_source(folder):
    return [*FLAGS, "--emotions=hap,sad", write(folder / "a.npz", ("train", "valid"), label=np.array(NAMES * 2))]


def json_source(folder):
    rows = [{"text": "said", "speaker": "A", "label": name, "cls": [1.0, i]} for i, name in enumerate(NAMES)]
    for split in ("train", "dev"):
        (folder / f"{split}_data_x.json.feature").write_text(json.dumps([rows]))
    return ["dag-json", str(folder)]


def frames_source(folder):
    np.save(folder / "train.npy", np.arange(16.0, dtype=np.float32).reshape(8, 2))
    for suffix, lines in (
        ("lengths", "2\n" * 4),
        ("emo", "".join(f"Ses01F_impro01_F00{i} {name}\n" for i, name in enumerate(NAMES))),
    ):
        (folder / f"train.{suffix}").write_text(lines)
        (folder / f"valid.{suffix}").write_text(lines.replace("Ses01", "Ses02"))
    np.save(folder / "valid.npy", np.load(folder / "train.npy"))
    return ["emotion2vec", str(folder)]


@pytest.mark.parametrize("make", [table_source, json_source, frames_source])
def test_labels_are_removed_in_every_format(make, tmp_path):
    arguments = make(tmp_path)
    convert([*arguments, str(tmp_path / "corpus"), "--unlabelled=xxx", "--merge=exc=hap"])
    corpus = load_saved(tmp_path / "corpus")
    assert corpus.card.emotions == ("hap", "sad")
    for split in corpus.splits:
        assert [c.labels.tolist() for c in corpus.conversations(split)] == [[0, 0, -1, 1]]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_flags_of_labels(name):
    flags = _parser("convert", FORMATS[name])._option_string_actions
    assert {"--emotions", "--unlabelled", "--merge"} <= flags.keys()


def test_suspicious_conversations_are_told(tmp_path, capsys, caplog):
    convert([*FLAGS, write(tmp_path / "a.npz", lengths=201), str(tmp_path / "corpus")])
    assert "10 of 10 conversations have more than 200 utterances" in caplog.text
    assert "wrote a to" in capsys.readouterr().out


def test_a_corpus_without_labels_keeps_all_rows_for_prediction(tmp_path):
    source = write(tmp_path / "a.npz", label=np.full(40, -1))
    convert([*FLAGS, "--predict-only", source, str(tmp_path / "corpus")])
    corpus = load_saved(tmp_path / "corpus")
    assert {split: len(corpus.splits[split]) for split in corpus.splits} == {"train": 10}
    assert "Validation" not in corpus.card.provenance


def test_an_error_is_one_line_and_writes_nothing(tmp_path, capsys):
    source, dest = write(tmp_path / "a.npz"), tmp_path / "corpus"
    (tmp_path / "blocked").write_text("a file where a folder is needed")
    for arguments, message in [
        ([], "the following arguments are required: format"),
        (["tables", source, str(dest)], "argument format: invalid choice: 'tables'"),
        ([*FLAGS, source], "the following arguments are required"),
        ([*FLAGS, source, str(dest), "--dialog=x"], "unrecognized arguments: --dialog=x (see `python -m jmer.data"),
        ([*FLAGS, source, str(dest), "--seed=x"], "argument --seed: invalid int value: 'x'"),
        ([*FLAGS, source, str(dest), "--seed=-3"], "cannot shuffle with seed -3"),
        (
            [*FLAGS, source, str(dest), "--holdout=1.5"],
            "cannot hold out a fraction of 1.5: expected a number between 0 and 1",
        ),
        ([*FLAGS, str(tmp_path / "b.npz"), str(dest)], "b.npz: check the path of the table"),
        ([*FLAGS, source, source], "a.npz already exists: give a new folder for the corpus after the sources"),
        (
            [*FLAGS, write(tmp_path / "c.npz", ("train",)), str(dest)],
            "1 training conversations have labels, at least 2",
        ),
        ([*FLAGS, source, str(tmp_path / "blocked" / "corpus")], "blocked"),
        ([*FLAGS, source, str(dest), "--merge=calm=angry"], "--unlabelled and --merge leave 1 of 2 emotions"),
        ([*FLAGS, source, str(dest), "--unlabelled=mad"], "--unlabelled mad: 'mad' is neither an emotion nor the"),
    ]:
        assert exit_status(convert, arguments) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines()), err[:7]) == ("", 1, "error: ")
        assert message in err
        assert not dest.exists()


@pytest.mark.slow
def test_the_command_runs_from_a_shell(tmp_path):
    command = [sys.executable, "-m", "jmer.data.convert", *FLAGS, write(tmp_path / "a.npz"), str(tmp_path / "corpus")]
    first = subprocess.run(command, capture_output=True, text=True)
    assert (first.returncode, first.stderr) == (0, "")
    assert "held out of train" in first.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("error: ") and len(again.stderr.splitlines()) == 1
    helped = subprocess.run([*command[:4], "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "--conversation COLUMN" in helped.stdout
