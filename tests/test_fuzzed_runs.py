"""Whatever is done to a saved corpus or to a run, it is read as it was saved, or refused in a line.

With `--slow` there are many more changes, other ones in each run.
"""

import subprocess
import sys
from pathlib import Path

import hypothesis
import pandas as pd
import pytest
from fuzzing import BYTE_EDITS, WHERE, damaged, kept_files, refusal
from hypothesis import given
from test_corpus import corpus
from tiny import linear_config, tiny_corpus

import jmer
from jmer.data.corpus import load_saved, save_corpus
from jmer.evaluation.predictions import read_predictions
from jmer.training.active_run import CHECKPOINT_FOLDER


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "c"
    save_corpus(corpus(), folder)
    return folder


@given(file=WHERE, edits=BYTE_EDITS)
def test_corpora(saved, file, edits):
    whole, files = corpus(), kept_files(saved)
    path = list(files)[file % len(files)]

    def read():
        found = load_saved(saved)
        assert (found.card, found.identity, found.folds) == (whole.card, whole.identity, whole.folds)

    path.write_bytes(damaged(files[path], edits))
    try:
        refusal(read)
    finally:
        path.write_bytes(files[path])


def test_runs(tmp_path, request):
    # In a process of its own: Orbax leaves open the other reads where one fails, and pytest would report them.
    profile = "slow" if request.config.getoption("--slow") else "fast"
    script = f"""
import conftest, hypothesis, test_fuzzed_runs
hypothesis.settings.load_profile({profile!r})
test_fuzzed_runs.damage_run({str(tmp_path)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4_000:]


def damage_run(folder):
    """Trains a run and reads it after changes of its checkpoints and of what it wrote besides."""
    trained = jmer.train(linear_config(), tiny_corpus(), Path(folder) / "run", log=None).folder
    predictions = read_run(trained)
    files = kept_files(trained)
    checkpoint = {path: content for path, content in files.items() if CHECKPOINT_FOLDER in path.parts}
    others = {
        path: content
        for path, content in files.items()
        if path not in checkpoint and path.suffix in (".json", ".jsonl", ".csv")
    }

    def check(path, content, edits):
        def read():
            pd.testing.assert_frame_equal(read_run(trained), predictions)

        path.write_bytes(damaged(content, edits))
        try:
            refusal(read)
        finally:
            path.write_bytes(content)

    def changing(some):
        @hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 2)
        @given(file=WHERE, edits=BYTE_EDITS)
        def change(file, edits):
            path = list(some)[file % len(some)]
            check(path, some[path], edits)

        return change

    changing(checkpoint)()
    changing(others)()


def read_run(folder):
    """Returns the predictions of a run's network, after reading all else that it has written."""
    run = jmer.load_run(folder)
    assert isinstance(run.history, list) and run.scores
    for path in sorted(folder.glob("predictions/*.csv")):
        read_predictions(path)
    return run.predict(tiny_corpus(), "test")
