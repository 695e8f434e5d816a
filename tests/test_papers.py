"""The papers' tables: declarations, shared runs, what is printed beside what was found, figures."""

import csv
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from sklearn.metrics import f1_score
from studies import by_hand, table_of
from tiny import tiny_corpus

from experiments.grid import models
from experiments.papers import __main__ as program
from experiments.papers import figures
from experiments.papers.declaration import TASKS, Entry, Printed, Table, task_of
from experiments.papers.planning import Planner
from jmer.data import make_corpus
from jmer.data.corpus import save_corpus
from jmer.data.load import load_corpus

pytestmark = pytest.mark.usefixtures("smallest_model")

ENTRIES = [(name, entry) for name, table in program.TABLES.items() for entry in table.entries]
SUPPORTS = {"iemocap6": (144, 245, 384, 170, 299, 381), "meld": (1256, 281, 50, 208, 402, 68, 345)}
SMALL = Table(
    source="a table (with a note)",
    base="full",
    entries=(
        Entry("elsewhere", None, printed={"iemocap4": Printed(61.0, None)}, absent="nobody has it"),
        Entry("w/o x", "linear", "slow", {"iemocap4": Printed(50.5, 49.25, {"sad": 12.0})}),
        Entry("the same", "linear", "still_slow"),
        Entry("no eyes", "linear", "visual"),
        Entry("full", "linear"),
    ),
    corpora=(),
    classes=True,
    figures=("scores", "lengths", "confusion"),
)


@pytest.fixture
def small(monkeypatch):
    """A table of the smallest model."""
    monkeypatch.setitem(program.TABLES, "small", SMALL)


def files(folder, *names):
    return {path: path.stat().st_mtime_ns for name in names for path in sorted(folder.rglob(name))}


@pytest.mark.parametrize("name", program.TABLES)
def test_declarations_are_complete(name):
    table = program.TABLES[name]
    titles = [entry.title for entry in table.entries]
    assert table.base in titles and len(set(titles)) == len(titles)
    assert set(table.figures) <= set(figures.FIGURES)
    for entry in table.entries:
        assert entry.model is None or entry.model in models.MODELS
        assert (entry.model is None) == bool(entry.absent) and (entry.model or entry.printed)
        for task, printed in entry.printed.items():
            values = [printed.accuracy, printed.weighted_f1, *printed.classes.values()]
            assert all(0 < value < 100 for value in values if value is not None)
            assert set(printed.classes) <= set(TASKS[task])


@pytest.mark.parametrize("name", program.TABLES)
def test_every_entry_can_be_planned_on_its_corpora(name):
    planner, table = Planner(variant="plain_features", changes={}), program.TABLES[name]
    for corpus in table.corpora:
        lines = planner.plan(table, corpus)
        base = next(line for line in lines if line.entry.title == table.base)
        assert base.row is not None or load_corpus(corpus).card.frames
        assert all(line.row or line.obstacle for line in lines if line.entry.model)


@pytest.mark.parametrize("task", SUPPORTS)
def test_printed_f1_per_emotion_add_up_to_the_printed_weighted_f1(task):
    """The supports of the test splits are known, so a number that was copied wrongly shows."""
    printed = [entry.printed[task] for _, entry in ENTRIES if task in entry.printed]
    full = [p for p in printed if p.weighted_f1 is not None and len(p.classes) == len(TASKS[task])]
    ours = [p for p in full if p.weighted_f1 in (72.75, 67.03)]
    assert ours
    for p in ours:
        values = [p.classes[emotion] for emotion in TASKS[task]]
        assert np.average(values, weights=SUPPORTS[task]) == pytest.approx(p.weighted_f1, abs=0.01)


def test_equal_runs_are_one(corpora):
    planner = Planner(variant="tiny", changes={})
    table5 = planner.plan(program.TABLES["lfvd_table5"], corpora[0])
    table6 = planner.plan(program.TABLES["lfvd_table6"], corpora[0])
    by_title = {line.entry.title: line.row for line in (*table5, *table6)}
    assert by_title["w/o CMVD-Distillation"] is by_title["w/o L_distillation"]
    assert table5[-1].row is table6[-1].row and table5[-1].row.name == "lfvd"
    # Nine and five rows, two of which are in both.
    assert len(planner.rows) == 12


def test_what_a_corpus_lacks_is_left_out_or_the_base_itself(corpora):
    planner = Planner(variant="tiny", changes={})
    lines = {line.entry.title: line for line in planner.plan(program.TABLES["lfvd_table4"], corpora[1])}
    assert lines["T"].row is lines["T+A+V"].row
    assert "visual" in lines["T+V"].obstacle and lines["T+V"].row is None
    table5 = {line.entry.title: line for line in planner.plan(program.TABLES["lfvd_table5"], corpora[1])}
    assert "visual cannot be dominant" in table5["visual dominant"].obstacle


def test_tasks_are_known_by_their_emotions():
    assert task_of(load_corpus("synthetic-meld").card) == "meld"
    assert task_of(load_corpus("synthetic-iemocap4").card) == "iemocap4"


def test_a_table_shows_what_its_runs_wrote(small, corpora, told, tmp_path):
    out = tmp_path / "out"
    arguments = ["small", "--corpus", corpora[1], "--seeds", 3, "--out", out, "--variant", ""]
    status, lines, errors = told(program, *arguments)
    assert (status, errors) == (0, [])
    runs = out / "runs" / "letters"
    folders = {name: [runs / name / f"seed{seed}" for seed in range(3)] for name in ("linear", "linear-slow")}
    scores = {
        name: [json.loads((run / "scores.json").read_text())["splits"]["validation"] for run in runs]
        for name, runs in folders.items()
    }
    text = (out / "small" / "table.md").read_text()
    main, tests, sizes = (table_of(part.splitlines()) for part in text.split("\n\n") if part.startswith("| row"))
    assert [row["row"] for row in main] == ["elsewhere", "w/o x", "the same", "full"]
    full = main[-1]
    assert full["W-F1 %"] == by_hand([s["weighted_f1"] for s in scores["linear"]])
    assert main[0]["accuracy %"] == "– [61.00]" and main[0]["n"] == "–"
    assert full["verdict"] == "base" and full["n"] == "3"
    assert f"{by_hand([s['accuracy'] for s in scores['linear-slow']])} [50.50]" in text
    with (out / "small" / "table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    slow = rows["w/o x"]
    pairs = zip(scores["linear-slow"], scores["linear"], strict=True)
    differences = np.array([cold["weighted_f1"] - base["weighted_f1"] for cold, base in pairs])
    assert float(slow["difference_mean"]) == pytest.approx(differences.mean(), abs=1e-12)
    assert slow["run"] == rows["the same"]["run"] == "linear-slow" and float(slow["accuracy_printed"]) == 50.5
    assert rows["no eyes"]["note"] and rows["no eyes"]["n"] == "0"
    assert slow["same_features"] == "False" and slow["selection"] == "validation"
    assert float(slow["p_holm"]) >= float(slow["p_t"])
    assert len(tests) == 2 and len(sizes) == 3
    assert "SYNTHETIC" in text and "not the paper's" in text and "no eyes: " in text
    assert "- elsewhere: nobody has it" in text.splitlines() and rows["elsewhere"]["note"] == "nobody has it"

    latex = (out / "small" / "table_letters.tex").read_text()
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule")) and r"accuracy \%" in latex
    for name in ("scores_letters", "lengths_letters", "confusion_letters_1"):
        picture = imread(out / "small" / f"{name}.png")
        assert picture.std() > 0.02 and (out / "small" / f"{name}.svg").stat().st_size > 1000

    before = files(out / "runs", "*.json*", "*.csv")
    status, again, _ = told(program, *arguments, "--resume")
    assert status == 0 and files(out / "runs", "*.json*", "*.csv") == before
    assert again[-10:] == lines[-10:]


def test_a_conversations_length_decides_its_class(small, corpora, told, tmp_path):
    told(program, "small", "--corpus", corpora[1], "--seeds", 1, "--out", tmp_path, "--variant", "", "--split", "test")
    frame = pd.read_csv(tmp_path / "small" / "lengths_letters.csv")
    run = tmp_path / "runs" / "letters" / "linear" / "seed0"
    predictions = pd.read_csv(run / "predictions" / "test.csv", keep_default_na=False)
    lengths = {c.id: len(c) for c in load_corpus(corpora[1]).conversations("test")}
    cut = np.quantile(list(lengths.values()), (0.25, 0.75)).round()
    classes = [sum(lengths[name] > c for c in cut) for name in predictions["conversation"]]
    for number, rows in frame[frame["row"] == "full"].groupby("class"):
        part = predictions[(np.array(classes) == number) & (predictions["gold"] != "")]
        expected = f1_score(part["gold"], part["predicted"], average="weighted", zero_division=0)
        assert rows["weighted_f1"].item() == pytest.approx(expected, abs=1e-12)
        assert rows["utterances"].item() == len(part)


def test_a_split_without_labels_is_refused_before_anything_is_trained(small, told, tmp_path):
    corpus = tiny_corpus()
    unlabelled = [dataclasses.replace(c, labels=np.full(len(c), -1, np.int32)) for c in corpus.conversations("test")]
    splits = {split: corpus.conversations(split) for split in ("train", "validation")}
    save_corpus(make_corpus(splits | {"test": unlabelled}, corpus.card), tmp_path / "hidden")
    arguments = ("--corpus", tmp_path / "hidden", "--variant", "", "--split", "test", "--out", tmp_path / "out")
    status, _, errors = told(program, "small", *arguments)
    assert status and len(errors) == 1 and "has no labels: choose another --split" in errors[0]
    assert not (tmp_path / "out").exists()


def test_mistakes_are_one_line(small, corpora, told, tmp_path):
    for arguments, what in (
        (("nothing",), "unknown name 'nothing' in TABLE: choose from lfvd_table2"),
        (("small", "--corpus", tmp_path / "no"), "no"),
        (("small", "--corpus", corpora[1], "--resume", "--out", tmp_path / "new"), "has no runs to resume"),
        (("small", "--corpus", corpora[1], "--variant", "nope"), "no variant 'nope'"),
        (("lfvd_table4", "--corpus", corpora[1], "--config.nope=1"), "unknown field 'nope'"),
        (("small", "--config.seed=1"), "use --seeds"),
    ):
        status, _, errors = told(program, *arguments)
        assert status == 2 or status == 1
        assert len(errors) == 1 and what in errors[0]
