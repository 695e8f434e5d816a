"""Mean, deviation and ensemble of runs that differ by their seed alone."""

import dataclasses
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_config, tiny_corpus

from experiments import seeds
from jmer.command import exit_status
from jmer.data.corpus import Card, save_corpus
from jmer.data.identity import Identity
from jmer.errors import UserError
from jmer.evaluation import classification_report
from jmer.evaluation.predictions import write_predictions
from jmer.evaluation.report import SYNTHETIC_BANNER
from jmer.main import main
from jmer.runs import Run, group_runs, read_facts
from jmer.runs.directory import CONFIG_FILE, PREDICTION_FOLDER, SCORES_FILE, RunFacts, write_json
from jmer.runs.run import Results
from jmer.training.metric_writers import read_json_lines

EMOTIONS = ("calm", "angry")
GOLD = np.array([0, 0, 1, 1])


def make_run(folder, seed, predicted, certainty=0.9, utterances="abcd", **changes):
    """Returns a run without a network, whose predictions are these, each with the same probability."""
    scores = classification_report(GOLD, np.array(predicted), EMOTIONS)
    results = Results("made up", "validation", "weighted_f1", "", seed + 3, 9, False, 0, {"validation": scores})
    write_json(folder / SCORES_FILE, dataclasses.asdict(results))
    angry = np.where(predicted, certainty, 1 - certainty)
    columns = {"gold": np.array(EMOTIONS)[GOLD], "probability_calm": 1 - angry, "probability_angry": angry}
    table = pd.DataFrame({"conversation": "c", "utterance": list(utterances), **columns})
    write_predictions(table, folder / PREDICTION_FOLDER / "validation.csv")
    card = Card("made up", {"text": 2}, EMOTIONS, "", synthetic=True)
    return Run(
        folder=folder,
        config=tiny_config(seed=seed, **changes),
        facts=RunFacts(card, Identity(EMOTIONS, {}), {}, "", 1),
        step=0,
        epoch=seed + 3,
        epochs=9,
        seconds=1.0,
    )


def test_the_report_has_mean_sample_deviation_and_ensemble(tmp_path):
    runs = [
        make_run(tmp_path / "a", 0, [0, 0, 1, 1], certainty=0.95),
        make_run(tmp_path / "b", 1, [0, 1, 1, 1], certainty=0.6),
        make_run(tmp_path / "c", 5, [1, 1, 1, 1], certainty=0.6, training__devices=1),
    ]
    title, banner, choice, table = group_runs(runs).report().split("\n\n")
    assert title == "# LFVD on made up (synthetic), 3 seeds"
    assert banner == SYNTHETIC_BANNER
    assert choice.endswith("Epochs 3, 4, 8: chosen by validation weighted F1.")
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert header == ["split", "score", "mean ± sd", "ensemble", "seed 0", "seed 1", "seed 5"]
    # One run is so certain that its word counts more than that of two.
    assert rows[0] == ["validation", "accuracy", "75.00 ± 25.00", "100.00", "100.00", "75.00", "50.00"]
    assert [row[1] for row in rows] == ["accuracy", "weighted F1", "macro F1", "unweighted accuracy"]


def test_refuses_runs_that_are_no_repetitions(tmp_path):
    one = make_run(tmp_path / "a", 0, [0, 0, 1, 1])
    with pytest.raises(UserError, match=r"seeds 0, 0 are not all different: name each run once"):
        group_runs([one, one])
    other = make_run(tmp_path / "b", 1, [0, 0, 1, 1], model__d_x=8)
    with pytest.raises(UserError, match=r"model.d_x is 8 there and 16 here"):
        group_runs([one, other])
    elsewhere = make_run(tmp_path / "c", 1, [0, 0, 1, 1], utterances="abce")
    with pytest.raises(UserError, match=r"have predicted different utterances of split 'validation': evaluate them"):
        group_runs([one, elsewhere]).report()
    (one.folder / SCORES_FILE).unlink()
    with pytest.raises(UserError, match=r"has no scores.json: train it to the end, or evaluate it"):
        group_runs([one]).report()


# Through the command line, with the smallest model.

EXPERIMENT = str(Path(__file__).parent / "linear_experiment.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of three seeds trained together, the corpus, and the command line that made it."""
    folder = tmp_path_factory.mktemp("seeds")
    save_corpus(tiny_corpus(), folder / "corpus")
    arguments = ["--config", EXPERIMENT, "--corpus", str(folder / "corpus"), "--config.training.epochs=2"]
    command = [*arguments, "--config.seed=4", "--config.seeds=3", "--workdir", str(folder / "runs")]
    assert exit_status(main, command) == 0
    return folder / "runs", command


def results(folder):
    """Names the files of a run, but for those of its checkpoints and of TensorBoard."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {path for path in files if path.parts[0] not in ("checkpoints", "tensorboard")}


def test_each_seeds_directory_is_what_its_own_command_makes(trained, tmp_path):
    folder, _ = trained
    assert sorted(path.name for path in folder.iterdir()) == ["report.md", "seed4", "seed5", "seed6"]
    command = shlex.split(read_facts(folder / "seed5").command)
    assert command[:3] == ["python", "-m", "jmer.main"]
    assert str(folder / "seed5") in command
    assert exit_status(main, [*command[3:], "--workdir", str(tmp_path / "alone")]) == 0
    one, alone = folder / "seed5", tmp_path / "alone"
    assert results(one) == results(alone)
    assert (one / CONFIG_FILE).read_text() == (alone / CONFIG_FILE).read_text()
    for row, other in zip(*(read_json_lines(path / "metrics.jsonl") for path in (one, alone)), strict=True):
        del row["utterances_per_second"], other["utterances_per_second"]
        assert row == pytest.approx(other, rel=1e-4)
    tables = [pd.read_csv(path / "predictions" / "test.csv", keep_default_na=False) for path in (one, alone)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3)


def test_the_report_is_that_of_experiments_seeds(trained, capfd):
    folder, command = trained
    report = (folder / "report.md").read_text()
    assert "3 seeds" in report and "SYNTHETIC" in report and "seed 6" in report
    seeds.main([str(folder / f"seed{seed}") for seed in (4, 5, 6)])
    assert capfd.readouterr().out == report
    assert exit_status(main, command) == 0
    assert report in capfd.readouterr().out


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_all_seeds_are_used_at_once(trained, tmp_path, mode):
    folder = shutil.copytree(trained[0], tmp_path / "runs")
    expected = (folder / "seed6" / "predictions" / "test.csv").read_bytes()
    for path in (folder / "report.md", *folder.glob("seed*/predictions/test.csv")):
        path.unlink()
    assert exit_status(main, ["--workdir", str(folder), "--mode", mode]) == 0
    assert (folder / "seed6" / "predictions" / "test.csv").read_bytes() == expected
    assert (folder / "report.md").exists() == (mode == "evaluate")


def test_directories_of_one_run_and_of_several_seeds_are_told_apart(trained, capfd):
    folder, command = trained

    def refused(*arguments):
        capfd.readouterr()
        assert exit_status(main, [*command, *arguments]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        return line

    several = f"{folder} holds the runs of several seeds: choose another workdir, or one of theirs (seed4)"
    assert several in refused("--config.seeds=1")
    single = refused("--workdir", str(folder / "seed4"))
    assert f"{folder / 'seed4'} is the directory of a single run: choose another workdir for several seeds" in single
    assert "seeds is 0: give at least 1" in refused("--config.seeds=0")
    assert "raise training.resident_megabytes" in refused("--config.training.resident_megabytes=0")
