"""A model in one file outside the repository trains, resumes, evaluates and predicts like those of jmer."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_corpus

import jmer
from jmer.data.corpus import save_corpus
from jmer.training.metric_writers import read_json_lines

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder outside the repository with the model's file and a corpus."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(TESTS / "own_model.py", folder / "mine.py")
    save_corpus(tiny_corpus(), folder / "talks")
    return folder


def call(place, *command, status=0):
    """Runs a command in the folder of the model; returns its lines on stdout and stderr."""
    done = subprocess.run([sys.executable, *command], cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


def rows(folder):
    """The metrics of a run, without those of a clock."""
    return [{k: v for k, v in row.items() if k != "utterances_per_second"} for row in read_json_lines(folder)]


@pytest.fixture(scope="module")
def trained(place):
    """The run of the command line."""
    out, _ = call(place, "-m", "jmer.main", "--config", "mine.py", "--corpus", "talks", "--workdir", "runs/a")
    assert "model mine: " in out and "test: weighted F1" in out
    return place / "runs" / "a"


def test_the_api_trains_the_same_run(place, trained, capfd):
    run = jmer.train(place / "mine.py", place / "talks", place / "runs" / "b", log=None)
    assert capfd.readouterr().out == ""
    assert rows(run.folder / "metrics.jsonl") == rows(trained / "metrics.jsonl")
    assert run.scores["test"] == jmer.load_run(trained).scores["test"]
    table = run.predict(place / "talks", split="test")
    written = pd.read_csv(trained / "predictions" / "test.csv", keep_default_na=False)
    np.testing.assert_allclose(table.filter(like="probability"), written.filter(like="probability"), rtol=1e-5)


def test_a_killed_run_resumes(place, trained):
    arguments = ["--config", "mine.py", "--corpus", "talks", "--workdir", "runs/killed"]
    call(place, str(TESTS / "sabotage.py"), "SIGKILL", json.dumps(2), "--", *arguments, status=-signal.SIGKILL)
    out, _ = call(place, "-m", "jmer.main", *arguments)
    assert "resumes after" in out
    assert rows(place / "runs" / "killed" / "metrics.jsonl") == rows(trained / "metrics.jsonl")


def test_it_is_evaluated_and_predicts_with_its_file(place, trained):
    test = (trained / "predictions" / "test.csv").read_bytes()
    for command in (
        ("jmer.main", "--workdir", "runs/a", "--mode", "evaluate"),
        ("jmer", "evaluate", "runs/a"),
        ("jmer", "predict", "runs/a"),
    ):
        (trained / "predictions" / "test.csv").unlink()
        call(place, "-m", *command, "--config", "mine.py")
        assert (trained / "predictions" / "test.csv").read_bytes() == test


def test_without_its_file_one_line_names_it(place, trained):
    _, err = call(place, "-m", "jmer.main", "--workdir", "runs/a", "--mode", "evaluate", status=2)
    assert err == (
        "error: runs/a was trained with model 'mine', which is not registered: import the file that registers it, or "
        f"add --config {place / 'mine.py'}\n"
    )


def test_its_variants_seeds_and_sweeps(place):
    group = jmer.train(
        jmer.get_config(f"{place / 'mine.py'}:small", {"seeds": 2}), place / "talks", place / "s", log=None
    )
    assert [run.config.model.width for run in group] == [8, 8]
    assert list(group.summary()) == ["mean", "sd", "ensemble", "seed_0", "seed_1"]
    configs = [jmer.get_config(place / "mine.py", changes) for changes in ({}, {"loss.weight": 2.0})]
    one, other = jmer.train_many(configs, place / "talks", [place / "m1", place / "m2"], log=None)
    assert one.history[0]["train/loss"] != other.history[0]["train/loss"]
