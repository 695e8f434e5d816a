"""One call or command trains all folds and seeds, resumes, and reports over folds and pooled."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
from tiny import LINEAR, tiny_corpus

import jmer
from jmer.data import make_corpus
from jmer.data.corpus import save_corpus
from jmer.data.folds import fold_corpus, make_folds
from jmer.evaluation import classification_report
from jmer.main import main
from jmer.runs.cross_validation import PLAN_FILE

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def corpus():
    """The tiny corpus with ids of three sessions."""
    tiny = tiny_corpus()
    renamed = [
        dataclasses.replace(c, id=f"Ses0{1 + i % 3}{'FM'[i % 2]}_{i}")
        for i, c in enumerate(c for split in tiny.splits for c in tiny.conversations(split))
    ]
    return make_corpus({"train": renamed}, tiny.card)


def config(**changes):
    jmer.register_model(LINEAR)
    usual = {
        "training.epochs": 2,
        "training.parallel": "jit",
        "optimizer.learning_rate": 0.01,
        "data.folds": "leave_one_session_out",
    }
    return jmer.get_config("linear", usual | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture(scope="module")
def validated(corpus, tmp_path_factory):
    return jmer.train(config(seeds=2), corpus, tmp_path_factory.mktemp("cv") / "runs", log=None)


def test_every_fold_and_seed_is_a_run_of_its_own(validated, corpus):
    assert list(validated.folds) == ["Ses01", "Ses02", "Ses03"] and len(validated) == 6
    for name, runs in validated.folds.items():
        assert [run.seed for run in runs] == [0, 1]
        table = pd.read_csv(runs.runs[0].folder / "predictions" / "test.csv")
        assert {conversation[:5] for conversation in table["conversation"]} == {name}
        assert all(set(run.scores) == {"train", "validation", "test"} for run in runs)


def test_a_run_of_a_fold_equals_one_of_its_corpus_alone(validated, corpus, tmp_path):
    fold = make_folds(corpus, "leave_one_session_out")[1]
    alone = jmer.train(config(data__folds="", seed=1), fold_corpus(corpus, fold), tmp_path / "a", log=None)
    assert alone.scores == validated.folds["Ses02"].runs[1].scores
    named = jmer.train(config(data__fold="Ses02", seed=1), corpus, tmp_path / "b", log=None)
    assert named.scores == alone.scores


def test_the_summary_equals_a_computation_by_hand(validated):
    table = validated.summary()
    accuracies = {name: [run.scores["test"].accuracy for run in runs] for name, runs in validated.folds.items()}
    means = [np.mean(values) for values in accuracies.values()]
    assert table.loc["accuracy", "mean"] == pytest.approx(np.mean(means))
    assert table.loc["accuracy", "sd"] == pytest.approx(np.std(means, ddof=1))
    pooled = []
    for seed in range(2):
        folders = [runs.runs[seed].folder for runs in validated.folds.values()]
        tables = [pd.read_csv(folder / "predictions" / "test.csv", keep_default_na=False) for folder in folders]
        everything = pd.concat(tables)
        labelled = everything[everything["gold"] != ""]
        pooled.append((labelled["gold"] == labelled["predicted"]).mean())
        support = validated.pooled_scores[seed].support
        assert support == len(labelled) == sum(runs.runs[0].scores["test"].support for runs in validated.folds.values())
    assert table.loc["accuracy", "pooled"] == pytest.approx(np.mean(pooled))
    assert table.loc["accuracy", "pooled_sd"] == pytest.approx(np.std(pooled, ddof=1))


def test_it_is_loaded_and_resumed_from_its_folder(validated, corpus, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(validated.folder, folder)
    loaded = jmer.load_run(folder)
    pd.testing.assert_frame_equal(loaded.summary(), validated.summary())
    shutil.rmtree(folder / "fold_Ses02")
    with pytest.raises(jmer.UserError, match="has 2 of 3 folds: resume its training"):
        jmer.load_run(folder)
    kept = (folder / "fold_Ses01" / "seed0" / "scores.json").stat().st_mtime_ns
    lines = []
    again = jmer.train(config(seeds=2), corpus, folder, log=lines.append)
    pd.testing.assert_frame_equal(again.summary(), validated.summary())
    assert (folder / "fold_Ses01" / "seed0" / "scores.json").stat().st_mtime_ns == kept
    assert "all 3 folds are finished; their report" in lines[-1] and "± " in lines[-1]
    assert any(line.startswith("fold Ses02, 2 of 3") for line in lines)


def test_other_folds_and_other_files_are_refused(validated, corpus, tmp_path):
    files = sorted((path, path.stat().st_mtime_ns) for path in validated.folder.rglob("*"))
    with pytest.raises(
        jmer.UserError, match=r"holds other folds: leave_one_session_out with Ses01, .*, not 2 with 1, 2"
    ):
        jmer.train(config(seeds=2, data__folds="2"), corpus, validated.folder, log=None)
    assert files == sorted((path, path.stat().st_mtime_ns) for path in validated.folder.rglob("*"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(jmer.UserError, match=r"holds no run but other files \(notes.txt\)"):
        jmer.train(config(), corpus, tmp_path, log=None)


def test_folds_that_cannot_be_trained_are_refused_before_anything_is_written(corpus, tmp_path):
    for changes, message in (
        ({"data__folds": "x"}, "data.folds is 'x': choose"),
        ({"data__fold": "Ses09"}, "has no fold 'Ses09': choose one of Ses01, Ses02, Ses03"),
        ({"data__holdout": 0.0}, "fold Ses01: selection=validation needs labels in split 'validation'"),
        ({"data__holdout_by": "nobody"}, "fold Ses01: conversations cannot be grouped by 'nobody'"),
        ({"data__folds": "", "data__fold": "Ses01"}, "data.folds is '': choose"),
    ):
        with pytest.raises(jmer.UserError, match=message):
            jmer.train(config(**changes), corpus, tmp_path / "runs", log=None)
    with pytest.raises(jmer.UserError, match=r"data\.folds=leave_one_session_out takes a run for each fold"):
        jmer.train_many([config()], corpus, [tmp_path / "runs"], log=None)
    assert not (tmp_path / "runs").exists()


def test_a_fold_without_validation_is_trained_to_the_last_epoch(corpus, tmp_path):
    validated = jmer.train(
        config(data__folds="2", data__holdout=0.0, selection="last"), corpus, tmp_path / "runs", log=None
    )
    for run in validated:
        assert set(run.scores) == {"train", "test"} and run.epoch == 2
    assert validated.summary()["pooled_sd"].isna().all()


def test_the_command_line_trains_evaluates_and_predicts(corpus, tmp_path, capsys):
    save_corpus(corpus, tmp_path / "corpus")
    experiment = tmp_path / "experiment.py"
    experiment.write_text("import jmer\n\ndef get_config():\n    return jmer.get_config('linear')\n")
    changes = ["--config.training.epochs=2", "--config.training.parallel=jit"]
    command = ["--config", str(experiment), *changes, "--workdir", str(tmp_path / "runs")]
    assert main([*command, "--corpus", str(tmp_path / "corpus"), "--config.data.folds=2"]) == 0
    assert "pooled" in (tmp_path / "runs" / "report.md").read_text()
    capsys.readouterr()
    validated = jmer.load_run(tmp_path / "runs")
    run = next(iter(validated))
    # The recorded command trains this fold alone.
    assert f"--config.data.fold={run.config.data.fold}" in run.command and f"--workdir {run.folder}" in run.command
    # The corpus has moved: the fold of it is found again, and nothing changes.
    before = {run.folder: run.scores for run in validated}
    (tmp_path / "corpus").rename(tmp_path / "moved")
    use = ["--config", str(experiment), "--workdir", str(tmp_path / "runs"), "--corpus", str(tmp_path / "moved")]
    assert main([*use, "--mode", "evaluate"]) == 0
    assert "mean over the runs, on the training corpus" in capsys.readouterr().out
    assert {run.folder: run.scores for run in jmer.load_run(tmp_path / "runs")} == before
    assert not list((tmp_path / "runs").rglob("other_corpora"))
    # Another corpus is evaluated as it is.
    save_corpus(tiny_corpus(), tmp_path / "other")
    assert main([*use[:-1], str(tmp_path / "other"), "--mode", "predict"]) == 0
    assert len(list((tmp_path / "runs").rglob("other_corpora/*/predictions/test.csv"))) == len(validated)


def test_names_of_folds_make_distinct_folders(corpus, tmp_path):
    ids = [c.id for c in corpus.conversations("train")]
    names = ["a/b", "a b", "A.b"]
    folds = {name: {"train": ids[3:], "test": [ids[i]]} for i, name in enumerate(names)}
    declared = make_corpus({"train": corpus.conversations("train")}, corpus.card, folds=folds)
    validated = jmer.train(config(data__folds="corpus"), declared, tmp_path / "runs", log=None)
    assert list(validated.folds) == names
    assert len({run.folder.name.lower() for run in validated}) == 3
    assert (tmp_path / "runs" / PLAN_FILE).exists()


def test_a_majority_emotion_is_left_out_of_the_pooled_micro_f1(corpus, tmp_path):
    made = jmer.train(config(majority_emotion="neutral", data__folds="2"), corpus, tmp_path / "runs", log=None)
    (scores,) = made.pooled_scores.values()
    tables = [pd.read_csv(run.folder / "predictions" / "test.csv", keep_default_na=False) for run in made]
    labelled = pd.concat(tables).query("gold != ''")
    names = list(corpus.card.emotions)
    gold, predicted = ([names.index(name) for name in labelled[column]] for column in ("gold", "predicted"))
    expected = classification_report(gold, predicted, names, "neutral").micro_f1_without_majority
    assert scores.micro_f1_without_majority == expected == made.summary().loc["micro_f1_without_majority", "pooled"]
