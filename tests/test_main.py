"""The command line trains, resumes, evaluates and predicts, and every mistake with a run is one line."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import jmer
from jmer.cli import program
from jmer.command import exit_status
from jmer.config import base_config, flatten
from jmer.data.convert import convert
from jmer.data.corpus import build_corpus, load_saved, save_corpus
from jmer.data.inspect import inspect
from jmer.data.synthetic import Size, generate
from jmer.main import main

MELD = "configs/lfvd_meld.py"
WIDTHS = {"text": 6, "audio": 4, "visual": 5}
SIZES = {"train": Size(6, 30, 8), "validation": Size(2, 12, 8), "test": Size(2, 12, 8)}
# One epoch of the smallest network, on one device, padded to one length: little to compile.
SMALL = {
    "model.modalities": "text,audio",
    "model.dag_layers": 1,
    "training.epochs": 1,
    "training.parallel": "jit",
    "training.batch_size": 6,
}


def corpus(path, name="synthetic-meld", widths=WIDTHS, change=lambda splits: splits):
    made = generate(name, sizes=SIZES, widths=widths)
    splits = change({split: made.conversations(split) for split in made.splits})
    save_corpus(build_corpus(splits, made.card), path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a trained run, beside its corpus, and the command line that made it."""
    folder = tmp_path_factory.mktemp("trained")
    path = corpus(folder / "corpus")
    fields = [f"--config.{name}={value}" for name, value in SMALL.items()]
    arguments = ["--config", f"{MELD}:tiny", "--corpus", path, *fields, "--workdir", str(folder / "run")]
    assert exit_status(main, arguments) == 0
    return folder / "run", arguments


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run that a test may change."""
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def told(capfd):
    """Runs a command; returns its exit status, its lines on stdout and its lines on stderr."""

    def tell(*arguments, command=main):
        capfd.readouterr()
        status = exit_status(command, list(map(str, arguments)))
        out, err = capfd.readouterr()
        return status, out.splitlines(), err.splitlines()

    return tell


@pytest.fixture
def refused(told):
    def tell(*arguments, command=main):
        status, out, err = told(*arguments, command=command)
        assert (status, len(err)) == (2, 1), (out, err)
        return err[0]

    return tell


def predictions(folder, split="test"):
    return pd.read_csv(folder / "predictions" / f"{split}.csv", keep_default_na=False)


def test_help_is_short_and_lists_an_experiments_fields(told):
    status, lines, errors = told("--help")
    assert (status, errors) == (0, [])
    assert len(lines) < 50 and max(map(len, lines)) <= 120
    assert any(line.strip().startswith("--workdir FOLDER") for line in lines)
    status, longer, errors = told("--help", "--config", MELD)
    assert (status, errors) == (0, []) and max(map(len, longer)) <= 120
    # What is indented further continues a field's documentation.
    fields = [re.fullmatch(r"  (\S+)=(\S*) +(\S.*)", line) for line in longer[len(lines) + 2 :] if line[:3] != "   "]
    assert {field[1] for field in fields} == flatten(base_config("lfvd")).keys() and len(fields) == len(set(fields))
    values = {field[1]: field[2] for field in fields}
    assert values["training.epochs"] == "80" and values["model.modalities"] == "()"


@pytest.mark.parametrize("program", ["jmer.main", "jmer.cli.program"])
def test_help_does_not_wait_for_jax(program):
    code = (
        f"import sys; from {program} import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_trained_run_predicts_the_same_in_the_readers_own_program(trained):
    folder, arguments = trained
    run = jmer.load_run(folder)
    table = run.predict(arguments[arguments.index("--corpus") + 1], split="test")
    written = predictions(folder)
    assert list(table["predicted"]) == list(written["predicted"])
    names = [name for name in written if name.startswith("probability_")]
    assert len(names) == len(run.card.emotions)
    np.testing.assert_allclose(table[names], written[names], atol=2e-6)


def test_training_leaves_scores_that_evaluation_gives_again(trained, run, told):
    folder, arguments = trained
    first = {split: predictions(folder, split) for split in SIZES}
    shutil.rmtree(run / "predictions")
    (run / "report.md").unlink()
    status, lines, errors = told("--config", MELD, "--workdir", run, "--mode", "evaluate")
    assert (status, errors) == (0, [])
    assert any(line.startswith("test: weighted F1 ") for line in lines)
    assert "synthetic" in (run / "report.md").read_text()
    for split, table in first.items():
        pd.testing.assert_frame_equal(predictions(run, split), table)
    status, lines, errors = told(*arguments)
    assert (status, errors) == (0, [])
    assert any(line.startswith("this run is finished; its report, ") for line in lines)


def test_the_command_jmer_does_the_same(trained, run, told):
    arguments = trained[1]
    status, lines, errors = told("train", *arguments, command=program.main)
    assert (status, errors) == (0, [])
    assert any(line.startswith("this run is finished; its report, ") for line in lines)
    for mode in ("evaluate", "predict"):
        (run / "predictions" / "test.csv").unlink()
        again = told(mode, run, command=program.main)
        assert again == told("--workdir", run, f"--mode={mode}") and again[0] == 0
        pd.testing.assert_frame_equal(predictions(run), predictions(trained[0]))
    corpus_path = arguments[arguments.index("--corpus") + 1]
    assert told("inspect", corpus_path, command=program.main) == told(corpus_path, command=inspect)


def test_the_command_jmer_records_itself(tmp_path, monkeypatch):
    """In the run, so that it can be repeated; with several seeds, each run by itself."""
    recorded, named = [], []

    def train(config, corpus, workdir, *, log, command, experiment, change_on_resume):
        recorded.append(command(config, workdir))
        named.append(change_on_resume)

    monkeypatch.setattr(jmer, "train", train, raising=False)
    arguments = ["--config", "lfvd_meld", "--config.seed", "3", "--workdir", "runs/a b"]
    assert program.main(["train", *arguments]) == 0
    assert main(arguments) == 0
    assert program.main(["train", *arguments, "--config.seeds=2"]) == 0
    flags = "--config lfvd_meld --config.seed 3 --workdir 'runs/a b'"
    alone = "--config.seeds=2 --workdir 'runs/a b' --config.seed=3 --config.seeds=1"
    assert recorded == [f"jmer train {flags}", f"python -m jmer.main {flags}", f"jmer train {flags} {alone}"]
    assert program.main(["train", *arguments, "--change-on-resume", "training.patience,optimizer.weight_decay"]) == 0
    assert named == [[], [], [], ["training.patience", "optimizer.weight_decay"]]


def test_mistakes_with_the_command_jmer(refused, tmp_path):
    assert "invalid choice: 'trian'" in refused("trian", command=program.main)
    assert "jmer train needs --config" in refused("train", command=program.main)
    assert "jmer evaluate needs the folder of a run" in refused("evaluate", command=program.main)
    assert "holds no run: it has no config.json" in refused("predict", tmp_path, command=program.main)
    wrong = refused("evaluate", tmp_path, "--corpsu=x", command=program.main)
    assert "unknown argument '--corpsu=x': did you mean --corpus? See `jmer evaluate --help`" in wrong
    wrong = refused("train", "--config=lfvd_meld", "--local_devices=0", command=program.main)
    assert "unknown argument '--local_devices=0': did you mean --local-devices? See `jmer train --help`" in wrong
    # The folder of a run is not a flag there.
    wrong = refused("evaluate", tmp_path, f"--workdir={tmp_path}", command=program.main)
    assert f"unknown argument '--workdir={tmp_path}': see `jmer evaluate --help`" in wrong


def test_a_run_is_used_on_other_corpora_without_touching_its_own_results(run, told, refused, tmp_path):
    own = {path: path.read_bytes() for path in run.rglob("*.csv")}

    def unlabelled(splits):
        return {"test": [dataclasses.replace(c, labels=np.full(len(c), -1, np.int32)) for c in splits["test"]]}

    path = corpus(tmp_path / "new", change=unlabelled)
    assert "has no labels to score: predict it instead" in refused(
        "--workdir", run, "--mode=evaluate", "--corpus", path
    )
    assert told("--workdir", run, "--mode=predict", "--corpus", path)[0] == 0
    (folder,) = (run / "other_corpora").iterdir()
    table = predictions(folder)
    assert set(table["gold"]) == {""} and len(table) == SIZES["test"].utterances
    assert not (folder / "report.md").exists()
    same_name = corpus(tmp_path / "same_name", change=lambda splits: splits | {"test": splits["test"][1:]})
    status, lines, _ = told("--workdir", run, "--mode=evaluate", f"--config.data.path={same_name}")
    assert status == 0 and any(line.startswith("test: weighted F1 ") for line in lines)
    assert any("the utterances of test differ (" in line and "results go to " in line for line in lines)
    assert len(list((run / "other_corpora").iterdir())) == 2
    pd.testing.assert_frame_equal(predictions(folder), table)
    assert {path: path.read_bytes() for path in run.glob("predictions/*.csv")} == own


def test_a_table_without_labels_splits_and_emotions_is_predicted(run, told, tmp_path):
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(9, width)) for m, width in WIDTHS.items()}
    np.savez(tmp_path / "new.npz", dialogue=np.repeat(["a", "b", "c"], 3), who=np.array(["x"] * 9), **features)
    flags = ["--conversation=dialogue", "--speaker=who", *(f"--{m}={m}" for m in WIDTHS), "--predict-only"]
    assert exit_status(convert, ["table", *flags, str(tmp_path / "new.npz"), str(tmp_path / "corpus")]) == 0
    assert told("--workdir", run, "--mode=predict", "--corpus", tmp_path / "corpus")[0] == 0
    (folder,) = (run / "other_corpora").iterdir()
    table = predictions(folder)
    assert table["conversation"].tolist() == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    emotions = [name.removeprefix("probability_") for name in table.columns if name.startswith("probability_")]
    assert set(table["predicted"]) <= set(emotions) and len(emotions) == 7


def test_a_corpus_that_does_not_fit_the_run(run, refused, tmp_path):
    wide = corpus(tmp_path / "wide", widths=WIDTHS | {"text": 7})
    line = refused("--workdir", run, "--mode=predict", "--corpus", wide)
    assert "text features of width 7, the model was trained on width 6" in line
    other = corpus(tmp_path / "other", name="synthetic-iemocap4")
    assert "has the emotions happy, sad, neutral, angry" in refused(
        "--workdir", run, "--mode=evaluate", "--corpus", other
    )


def test_a_run_keeps_its_configuration(trained, refused):
    folder, arguments = trained
    assert "model.dropout_rate is 0.1 there and 0.5 here" in refused(*arguments, "--config.model.dropout_rate=0.5")
    use = ["--workdir", folder, "--mode=evaluate"]
    assert "model.dropout_rate is 0.1 there and 0.5 here" in refused(*use, "--config.model.dropout_rate=0.5")
    assert "training.devices is 99" in refused(*use, "--config.training.devices=99", "--config.training.parallel=pmap")
    assert "did you mean training.epochs?" in refused(*use, "--config.training.epoch=3")
    line = refused(*use, "--config", "dagerc_meld")
    assert "was trained with model 'lfvd', and --config dagerc_meld has model 'dagerc': leave" in line


def test_a_folder_that_is_no_run(trained, refused, tmp_path):
    *arguments, _ = trained[1]
    (tmp_path / "thesis.tex").write_text("years of work")
    line = refused(*arguments, tmp_path)
    assert "holds no run but other files (thesis.tex): choose another workdir" in line
    assert "is a file, not a folder" in refused(*arguments, tmp_path / "thesis.tex")
    assert "cannot write" in refused(*arguments, tmp_path / "thesis.tex" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def lacking(text, *path):
    """JSON without one field."""
    fields = json.loads(text)
    inner = fields
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("config.json", lambda text: text[:100]),
        ("config.json", lambda text: "{}"),
        ("config.json", lambda text: "[1]"),
        ("config.json", lambda text: text.replace('"batch_size": 6', '"batch_size": "six"')),
        ("config.json", lambda text: text.replace('"batch_size"', '"size_of_batch"')),
        ("run.json", lambda text: text[:100]),
        ("run.json", lambda text: "{}"),
        ("run.json", lambda text: lacking(text, "card", "widths")),
        ("run.json", lambda text: lacking(text, "corpus", "splits")),
        ("run.json", lambda text: lacking(text, "versions")),
        ("run.json", lambda text: json.dumps(json.loads(text) | {"versions": None})),
        ("run.json", lambda text: "[" * 100_000),
    ],
)
def test_damaged_facts_of_a_run(trained, run, refused, name, damage):
    damaged = damage((run / name).read_text())
    (run / name).write_text(damaged)
    *arguments, _ = trained[1]
    for line in (refused("--workdir", run, "--mode=evaluate"), refused(*arguments, run)):
        assert f"{run / name} is damaged" in line
    assert (run / name).read_text() == damaged


def test_a_run_without_its_log_or_its_checkpoint(run, refused):
    before = (run / "predictions" / "test.csv").stat().st_mtime_ns
    (run / "metrics.jsonl").write_text("not a step\n{}\n")
    assert "metrics.jsonl, line 1, is not a line of metrics" in refused("--workdir", run, "--mode=evaluate")
    (run / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in refused("--workdir", run, "--mode=evaluate")
    assert (run / "predictions" / "test.csv").stat().st_mtime_ns == before
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint yet: train it" in refused("--workdir", run, "--mode=evaluate")


def test_a_run_killed_before_its_configuration_was_written_starts_again(trained, tmp_path, told):
    *arguments, _ = trained[1]
    workdir = tmp_path / "run"
    (workdir / ".writing-abc").mkdir(parents=True)
    shutil.copy(trained[0] / "run.json", workdir)
    assert told(*arguments, workdir)[0] == 0
    np.testing.assert_array_equal(predictions(workdir)["predicted"], predictions(trained[0])["predicted"])


def test_the_default_folder_follows_from_the_configuration(trained, tmp_path, monkeypatch, refused):
    corpus_path = str(trained[0].parent / "corpus")
    config = os.path.abspath(MELD)
    monkeypatch.chdir(tmp_path)

    def folder(*arguments):
        return refused("--mode=evaluate", "--config", config, *arguments).split()[1]

    assert folder() == folder() and folder().startswith("runs/lfvd_meld-")
    assert folder("--corpus", corpus_path) == folder(f"--config.data.path={corpus_path}") != folder()
    assert folder("--config.seed=1") != folder()


def test_ctrl_c_and_a_closed_pipe_end_without_a_traceback(capfd):
    def interrupted(_):
        raise KeyboardInterrupt

    assert exit_status(interrupted, []) == 128 + signal.SIGINT
    assert capfd.readouterr().err == "interrupted\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "jmer.main", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 128 + signal.SIGPIPE)
    process.stderr.close()


@pytest.mark.slow
def test_the_programs_say_nothing_but_their_own_lines(trained, tmp_path):
    folder, arguments = trained

    def shell(module, *arguments):
        return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)

    done = shell("jmer.main", *arguments[:-1], str(tmp_path / "run"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("corpus synthetic-meld: conversations train 6, validation 2, test 2; 7 emotions\n")
    wrong = shell("jmer.main", "--workdir", str(folder), "--mode=evaluate", "--config.model.dropout_rate=0.5")
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 1)
    save_corpus(load_saved(folder.parent / "corpus"), tmp_path / "corpus")
    (tmp_path / "corpus" / "dataset_dict.json").write_text("{")
    wrong = shell("jmer.data.inspect", str(tmp_path / "corpus"))
    assert (wrong.returncode, wrong.stdout, len(wrong.stderr.splitlines())) == (2, "", 1)
