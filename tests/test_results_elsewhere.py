"""Results can be written outside a run's folder, which is then left alone, and those that are read back are checked."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import linear_config, tiny_corpus

import jmer
from jmer.cli.program import main
from jmer.command import exit_status
from jmer.data.corpus import save_corpus
from jmer.data.load import load_corpus
from jmer.errors import UserError
from jmer.evaluation.predictions import labels_and_probabilities, read_predictions
from jmer.main import main as main_program
from jmer.runs.directory import PREDICTION_FOLDER, write_json
from jmer.runs.predictions import DIGESTS_FILE, read_split, write_split

SPLITS = ["test", "train", "validation"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, no_figures):
    """The folder of two seeds' runs, and that of one run alone."""
    folder = tmp_path_factory.mktemp("runs")
    save_corpus(tiny_corpus(), folder / "corpus")
    jmer.train(linear_config(seeds=2), load_corpus(folder / "corpus"), folder / "two", log=None)
    return folder / "two", folder / "two" / "seed1"


def contents(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def refused(capfd, *arguments):
    assert exit_status(main, list(map(str, arguments))) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_results_go_elsewhere_and_the_run_is_left_alone(runs, tmp_path, no_figures):
    group, run = runs
    before = contents(group)
    assert exit_status(main, ["evaluate", str(run), "--out", str(tmp_path / "a" / "one")]) == 0
    assert exit_status(main, ["predict", str(group), "--out", str(tmp_path / "two")]) == 0
    assert exit_status(main_program, [f"--workdir={group}", "--mode=evaluate", f"--out={tmp_path / 'three'}"]) == 0
    assert contents(group) == before
    for split in SPLITS:
        written = (run / PREDICTION_FOLDER / f"{split}.csv").read_bytes()
        for found in ("a/one", "two/seed1", "three/seed1"):
            assert (tmp_path / found / PREDICTION_FOLDER / f"{split}.csv").read_bytes() == written
    for found in ("a/one", "three/seed0"):
        assert (tmp_path / found / "report.md").exists() and (tmp_path / found / "scores.json").exists()
    assert (tmp_path / "three" / "report.md").read_text() == (group / "report.md").read_text()
    assert not (tmp_path / "two" / "seed1" / "scores.json").exists()


def test_a_folder_that_holds_anything_is_no_place_for_results(runs, tmp_path, capfd):
    run = runs[1]
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").touch()
    for out in (tmp_path / "there", tmp_path / "there" / "thesis.tex", run):
        line = refused(capfd, "predict", run, "--out", out)
        assert line == f"error: {out} already exists: give a new folder for the results (--out), or remove this one"
    line = refused(capfd, "predict", run, "--out", tmp_path / "there" / "thesis.tex" / "a")
    assert "Not a directory): name another folder" in line, line
    assert "leave out --out" in refused_by_main(capfd, "--config=lfvd_meld", f"--out={tmp_path / 'x'}")


def refused_by_main(capfd, *arguments):
    assert exit_status(main_program, arguments) == 2
    return capfd.readouterr().err


def test_a_run_that_cannot_be_written_is_refused_before_it_predicts_or_used_with_results_elsewhere(
    runs, tmp_path, capfd, monkeypatch, no_figures
):
    run, allowed = runs[1], os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(run) and allowed(path, mode))
    line = refused(capfd, "evaluate", run)
    assert line == (
        f"error: cannot write {run} (Permission denied): get permission to write there or write the results elsewhere "
        "(--out)"
    )
    assert exit_status(main, ["evaluate", str(run), "--out", str(tmp_path / "out")]) == 0
    loaded = jmer.load_run(run)
    assert loaded.scores["test"] == loaded.evaluate()["test"]


def test_training_a_finished_run_that_cannot_be_written_shows_its_report(runs, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    run, allowed = runs[1], os.access
    before, loaded, lines = contents(run), jmer.load_run(run), []
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(run) and allowed(path, mode))
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    found = jmer.train(loaded.config, tiny_corpus(), run, log=lines.append)
    assert lines == [f"this run is finished; its report, {run / 'report.md'}:\n\n{(run / 'report.md').read_text()}"]
    assert found.scores == loaded.scores and contents(run) == before
    more = loaded.config.copy_and_resolve_references()
    more.training.epochs += 1
    with pytest.raises(UserError, match=rf"^cannot write {run} \(Read-only file system\): "):
        jmer.train(more, tiny_corpus(), run, log=None)


@pytest.fixture
def group(runs, tmp_path):
    return Path(shutil.copytree(runs[0], tmp_path / "two"))


def test_predictions_that_have_changed_are_not_read_back(group):
    path = group / "seed1" / PREDICTION_FOLDER / "test.csv"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=40):
        content = bytearray(whole)
        content[place] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"^{path} is not what was written: evaluate the run again$"):
            jmer.load_run(group).summary()
    path.write_bytes(whole)
    assert len(jmer.load_run(group).summary())
    path.unlink()
    with pytest.raises(UserError, match=f"^{path} is missing: evaluate the run again$"):
        jmer.load_run(group).summary()


def test_damaged_digests_are_one_line_and_made_anew_with_the_predictions(group):
    path = group / "seed1" / PREDICTION_FOLDER / DIGESTS_FILE
    path.write_text(path.read_text().replace("test", "tesd"))
    with pytest.raises(UserError, match=f"^{path} is damaged .its contents and its digest differ.: put a copy back"):
        jmer.load_run(group).summary()
    table = read_predictions(path.with_name("test.csv"))
    write_split(group / "seed1", "test", table)
    assert read_split(group / "seed1", "test").equals(table)
    for wrong in ({"test.csv": 3}, {"test.csv": None}):
        write_json(path, wrong)
        with pytest.raises(UserError, match=r"damaged .test.csv is .*: expected a text"):
            read_split(group / "seed1", "test")


DAMAGE = {
    "no column": ("probability_sad", "probability_sat", "'probability_sad'"),
    "no emotion": (",happy,", ",hapqy,", "hapqy"),
    "no number": ("0.", "O.", "could not convert string to float"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_predictions_without_a_digest_are_refused_if_they_are_none(group, damage):
    old, new, expected = DAMAGE[damage]
    path = group / "seed1" / PREDICTION_FOLDER / "test.csv"
    path.with_name(DIGESTS_FILE).unlink()
    assert len(read_split(group / "seed1", "test"))
    path.write_text(path.read_text().replace(old, new))
    emotions = jmer.load_run(group / "seed1").card.emotions
    with pytest.raises(UserError, match=re.escape(expected)):
        labels_and_probabilities(read_split(group / "seed1", "test"), emotions)


def test_predictions_that_are_no_table_are_one_line(tmp_path):
    (tmp_path / "test.csv").touch()
    with pytest.raises(UserError, match=r"test.csv is truncated or damaged: evaluate the run again .No columns"):
        read_predictions(tmp_path / "test.csv")
