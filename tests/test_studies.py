"""The comparison and the study of interpretations show the results of their runs, and name obstacles and failures."""

import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from studies import by_hand, table_of

from experiments import tables
from experiments.baselines.context_regression import regress
from experiments.comparison import __main__ as comparison
from experiments.grid import models
from experiments.grid.cells import Outcome, Result
from experiments.grid.corpora import training_corpus
from experiments.grid.models import model_row
from experiments.interpretations import __main__ as interpretations
from experiments.interpretations.factors import FACTORS, Value
from experiments.tuning import __main__ as tuning
from jmer.config import fit_to_corpus, flatten
from jmer.models import build_model
from jmer.selection import get_selection

LINEAR = Path(__file__).parent / "linear_experiment.py"
VARIANT = ("--variant", "")

pytestmark = pytest.mark.usefixtures("smallest_model")


def test_the_comparison_shows_what_its_runs_wrote(corpora, told, tmp_path):
    arguments = [
        *("--corpus", corpora[1] + "/", "--models", "linear,lpgnet", "--seeds", 2, "--out", tmp_path / "out"),
        *VARIANT,
    ]
    status, lines, errors = told(comparison, *arguments)
    assert (status, errors) == (0, [])
    linear, lpgnet, alone, with_context = table_of(lines)
    runs = [tmp_path / "out" / "letters" / "linear" / f"seed{seed}" for seed in range(2)]
    scores = [json.loads((run / "scores.json").read_text())["splits"] for run in runs]
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    assert linear["corpus"] == "letters (synthetic)" and linear["modalities"] == "text" and linear["seeds"] == "2"
    assert linear["accuracy %"] == by_hand([s["validation"]["accuracy"] for s in scores])
    assert linear["W-F1 %"] == by_hand([s["validation"]["weighted_f1"] for s in scores])
    last = [np.mean([row["validation/weighted_f1"] for row in rows[-5:]]) for rows in logs]
    assert linear["W-F1 %, last 5 epochs"] == by_hand(last)
    assert linear["parameters"] == "28"
    speed = np.mean([np.median([row["utterances_per_second"] for row in rows]) for rows in logs])
    assert linear["utterances/s"] == f"{speed:.0f}"
    assert lpgnet["modalities"] == "cannot use the corpus" and lpgnet["W-F1 %"] == "–"
    reason = "model.modalities has audio, but corpus 'letters' has only text: choose "
    assert any(line.startswith(f"- {corpora[1]}, lpgnet: {reason}") for line in lines)
    for row, context in ((alone, 0), (with_context, 3)):
        expected = regress(training_corpus(corpora[1]), ("text",), context)
        assert row["model"] == f"logistic regression, context {context}"
        assert row["accuracy %"] == f"{100 * expected.accuracy:.2f}"
        assert row["W-F1 %"] == f"{100 * expected.weighted_f1:.2f}"
    assert any("SYNTHETIC" in line for line in lines)
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.splitlines() == lines[lines.index("# Comparison of models") : -1]
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        first, second, *_ = csv.DictReader(file)
    assert float(first["validation_weighted_f1_mean"]) == pytest.approx(
        np.mean([s["validation"]["weighted_f1"] for s in scores]), abs=1e-12
    )
    assert float(first["test_accuracy_sd"]) == pytest.approx(
        np.std([s["test"]["accuracy"] for s in scores], ddof=1), abs=1e-12
    )
    assert second["note"].startswith(reason) and second["validation_weighted_f1_mean"] == ""

    before = [path.stat().st_mtime_ns for run in runs for path in sorted(run.rglob("*"))]
    _, again, _ = told(comparison, *arguments)
    assert [path.stat().st_mtime_ns for run in runs for path in sorted(run.rglob("*"))] == before
    assert again[-12:] == lines[-12:]


def test_settings_of_a_model_are_rows_that_are_compared_with_the_base(corpora, told, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "linear", models.Experiments("linear"))
    out, variants = tmp_path / "out", ("--variant", "", "--variant", "slow")
    arguments = ("--corpus", corpora[0], "--models", "linear", "--seeds", 2, "--out", out, *variants)
    status, lines, errors = told(comparison, *arguments, "--base", "linear-slow")
    assert (status, errors) == (0, [])
    runs = {
        name: [json.loads((out / "talks" / name / f"seed{seed}" / "scores.json").read_text()) for seed in range(2)]
        for name in ("linear-published", "linear-slow")
    }
    scores = {name: [run["splits"]["validation"]["weighted_f1"] for run in each] for name, each in runs.items()}
    assert [row["W-F1 %"] for row in table_of(lines)[:2]] == [by_hand(values) for values in scores.values()]
    assert scores["linear-published"] != scores["linear-slow"]
    (heading,) = [i for i, line in enumerate(lines) if line.endswith(": against linear-slow")]
    (tested,) = table_of(lines[heading:])
    differences = np.subtract(*scores.values())
    assert (tested["row"], tested["difference"], tested["n"]) == ("linear-published", by_hand(differences), "2")
    (sentence,) = [line for line in lines if line.startswith("Over conversations: ")]
    assert (
        f"linear-published, the best other row, minus linear-slow is {100 * differences.mean():.2f} points" in sentence
    )
    wrong = told(comparison, *arguments, "--base", "linear")[2]
    assert "--base is 'linear': choose one of the rows linear-published, linear-slow" in " ".join(wrong)


def test_the_search_tries_every_combination_and_names_the_best(corpora, told, tmp_path):
    values = ("--learning-rates", "0.01,0.001", "--dropout-rates", "0.2,0.5", "--variant", "")
    arguments = ("--corpus", corpora[0], "--models", "linear", "--seeds", 2, "--out", tmp_path / "out", *values)
    status, lines, errors = told(tuning, *arguments)
    assert (status, errors) == (0, [])
    found = {}
    for rate, dropout in itertools.product(("0.01", "0.001"), ("0.2", "0.5")):
        folders = [
            tmp_path / "out" / "talks" / f"linear-lr{rate}-dropout{dropout}" / f"seed{seed}" for seed in range(2)
        ]
        configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
        assert {(c["optimizer"]["learning_rate"], c["model"]["dropout_rate"]) for c in configs} == {
            (float(rate), float(dropout))
        }
        scores = [json.loads((folder / "scores.json").read_text())["splits"]["validation"] for folder in folders]
        found[f"optimizer.learning_rate={rate}, model.dropout_rate={dropout}"] = [s["weighted_f1"] for s in scores]
    rows = table_of(lines)
    assert {row["changes"]: row["W-F1 %"] for row in rows} == {name: by_hand(each) for name, each in found.items()}
    (best,) = [row["changes"] for row in rows if row["best"]]
    assert np.mean(found[best]) == max(map(np.mean, found.values())) > min(map(np.mean, found.values()))
    fields = " ".join(f"--config.{field}" for field in best.split(", "))
    (command,) = [line for line in lines if "--config linear" in line]
    assert command.endswith(fields)
    wrong = told(tuning, *arguments, "--learning-rates", "fast")[2]
    assert "--learning-rates has 'fast': give numbers separated by commas" in " ".join(wrong)


OUTSIDE = """
from typing import Any, NamedTuple

from flax import linen as nn

import jmer
from jmer.config import base_config
from jmer.losses import cross_entropy


class Output(NamedTuple):
    logits: Any


class Outside(nn.Module):
    num_classes: int = 0

    @nn.compact
    def __call__(self, batch, *, train=False):
        return Output(nn.Dense(self.num_classes)(batch.features["text"]))


def loss(output, batch):
    labelled = batch.labels >= 0
    return {"task": (1.0, cross_entropy(output.logits, batch.labels, where=labelled).sum(), labelled.sum())}


jmer.register_model(jmer.ModelSpec("outside", Outside, loss, variants={"fast": {"optimizer.learning_rate": 0.01}}))


def get_config():
    config = base_config("outside")
    config.training.update(epochs=3, batch_size=4, parallel="jit")
    return config
"""


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_model_of_a_file_outside_the_repository_is_compared(corpora, told, tmp_path, jobs):
    path = tmp_path / "mine.py"
    # A process knows one model of a name, whatever test registered it.
    path.write_text(OUTSIDE.replace('"outside"', f'"outside{jobs}"'))
    out, names = tmp_path / "out", f"{LINEAR},{path},{path}:fast"
    arguments = ("--corpus", corpora[0], "--models", names, "--seeds", 2, "--jobs", jobs, "--out", out, *VARIANT)
    status, lines, errors = told(comparison, *arguments)
    assert (status, errors) == (0, [])
    linear, mine, fast, *_ = table_of(lines)
    assert [row["model"] for row in (linear, mine, fast)] == ["linear_experiment", "mine", "mine-fast"]
    for row in (mine, fast):
        runs = [out / "talks" / row["model"] / f"seed{seed}" for seed in range(2)]
        scores = [json.loads((run / "scores.json").read_text())["splits"]["validation"] for run in runs]
        assert row["W-F1 %"] == by_hand([s["weighted_f1"] for s in scores]) and row["seeds"] == "2"
    _, again, _ = told(comparison, *arguments)
    assert "6 already finished, 0 to do" in " ".join(again)


def result(weighted_f1, last_epochs=0.5):
    scores = {"validation": {"weighted_f1": weighted_f1, "accuracy": weighted_f1}}
    return Result(scores, get_selection("validation"), 3, 7, last_epochs, 28, 500, 1000.0, "1 x cpu")


def test_failed_runs_are_listed_and_counted(corpora):
    pair = comparison.candidate("linear", corpora[0], variant="", changes={})
    assert pair.modalities == ("text", "audio", "visual") and not pair.obstacle
    outcome = Outcome(pair.row, {0: result(0.5), 2: result(0.75)}, {1: "it | exploded"})
    text, (values,) = comparison.report([pair], {pair.row: outcome}, [])
    (row,) = table_of(text.splitlines())
    assert row["seeds"] == "2 of 3" and row["W-F1 %"] == by_hand([0.5, 0.75])
    assert text.endswith(f"Failed runs:\n\n- {corpora[0]}, linear, seed 1: it | exploded")
    assert values["seeds"] == 2 and values["note"] == "it | exploded"


def test_cells_of_a_table_stay_in_their_column():
    assert tables.markdown([{"a": "x | y\nz", "b": ""}]).splitlines()[2] == r"| x \| y z |   |"


def test_the_corpus_chooses_among_a_models_experiments(corpora):
    four = model_row("lpgnet", corpora[0], name="a", variant="tiny", changes={})
    six = model_row("lpgnet", "synthetic-iemocap6", name="a", variant="", changes={})
    assert (four.experiment, six.experiment) == ("lpgnet_iemocap4:tiny", "lpgnet_iemocap6")


@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_has_its_experiments(model, corpora):
    for variant in ("", "tiny", "plain_features"):
        row = model_row(model, corpora[0], name=model, variant=variant, changes={})
        corpus = training_corpus(corpora[0])
        build_model(fit_to_corpus(row.config, corpus.card, corpus.conversations("train")))


@pytest.mark.parametrize("model", FACTORS)
@pytest.mark.parametrize("variant", ["", "plain_features"])
def test_each_setting_of_a_study_differs_from_its_default_in_its_factor_alone(model, variant, corpora):
    found = interpretations.settings(model, corpora[0], variant=variant, changes={})
    corpus = training_corpus(corpora[0])
    default = next(setting.row for setting in found if setting.row.name == "default")
    base = flatten(default.config)
    assert len({setting.row.name for setting in found}) == len({setting.row for setting in found})
    for setting in found:
        build_model(fit_to_corpus(setting.row.config, corpus.card, corpus.conversations("train")))
        changed = {name for name, value in flatten(setting.row.config).items() if value != base[name]}
        assert bool(changed) == (setting.row is not default)
        assert changed <= {"model.fusion_input", "model.d_z"} if setting.factor == "fusion_input" else len(changed) <= 1
        if setting.value in ("mu", "z"):
            assert flatten(setting.against.config) == base | {"model.d_z": base["model.d_x"]}
        else:
            assert setting.against is default
    assert {setting.factor for setting in found} == set(FACTORS[model](default.config))


def test_a_value_that_the_default_has_needs_no_run(corpora):
    found = interpretations.settings(
        "lfvd", corpora[0], variant="tiny", changes={"model.d_z": "16"}, only="fusion_input,d_z"
    )
    shared = [(setting.factor, setting.value) for setting in found if setting.row.name == "default"]
    assert shared == [("fusion_input", "x"), ("fusion_input", "x, d_z = d_x"), ("d_z", "16")]


def test_a_study_lays_out_differences_seed_by_seed(corpora):
    found = interpretations.settings("lfvd", corpora[0], variant="tiny", changes={}, only="d_z,cross_residual")
    scores = {"default": [0.50, 0.52, 0.51], "d_z=2": [0.60, 0.61, 0.62], "cross_residual=query": [0.51, 0.50, 0.52]}
    outcomes = {}
    for row in {setting.row for setting in found} | {setting.against for setting in found}:
        values = scores.get(row.name, [0.5, 0.5, 0.5])
        outcomes[row] = Outcome(row, {seed: result(value, value - 0.1) for seed, value in enumerate(values)}, {})
    text, values = interpretations.report("lfvd", found, outcomes)
    shown = {(row["factor"], row["value"]): row for row in table_of(text.splitlines())}
    narrow, default = shown["d_z", "2"], shown["cross_residual", "source"]
    assert narrow["W-F1 %"] == by_hand(scores["d_z=2"]) and narrow["n"] == "3"
    assert narrow["W-F1 %, last 5 epochs"] == by_hand(np.array(scores["d_z=2"]) - 0.1)
    assert narrow["difference"] == by_hand(np.array(scores["d_z=2"]) - scores["default"])
    assert (narrow["compared with"], narrow["verdict"]) == ("default", "better")
    # Differences 0.10, 0.09, 0.11, and twice 0, -0.02, -0.01: t with 2 degrees of freedom, Holm for three tests.
    assert [shown["d_z", value]["p"] for value in ("2", "16", "64")] == ["0.010", "0.451", "0.451"]
    assert shown["d_z", "16"]["verdict"] == shown["cross_residual", "query"]["verdict"] == "not distinguishable"
    assert (default["W-F1 %"], default["verdict"]) == (by_hand(scores["default"]), "default")
    assert default["difference"] == default["p"] == "–" and default["compared with"] == ""
    row = next(row for row in values if (row["factor"], row["value"]) == ("d_z", "2"))
    assert row["difference_mean"] == pytest.approx(0.1, abs=1e-12) and row["pairs"] == 3
    t = 0.1 / (0.01 / math.sqrt(3))
    assert row["p"] == pytest.approx(3 * (1 - t / math.sqrt(2 + t * t)), rel=1e-6)


def test_a_study_runs_its_default_once_for_all_factors(corpora, told, tmp_path, monkeypatch):
    factors = {"dropout": (Value("0.2", {}), Value("0", {"model.dropout_rate": "0"}))}
    monkeypatch.setitem(FACTORS, "linear", lambda config: factors)
    out = tmp_path / "out"
    status, lines, errors = told(
        interpretations, "linear", "--corpus", corpora[0], "--seeds", 1, "--out", out, *VARIANT
    )
    assert (status, errors) == (0, [])
    assert sorted(str(path.relative_to(out)) for path in out.glob("*/*/seed0")) == [
        "talks/default/seed0",
        "talks/dropout=0/seed0",
    ]
    assert [(row["value"], row["n"], row["verdict"]) for row in table_of(lines)] == [
        ("0.2", "1", "default"),
        ("0", "1", "not distinguishable"),
    ]
    assert (out / "table.md").exists() and (out / "table.csv").exists()


def test_mistakes_are_one_line(corpora, told, tmp_path):
    given = ("--corpus", corpora[0], "--out", tmp_path / "new", *VARIANT)

    def refused(program, *arguments):
        status, _, errors = told(program, *arguments)
        assert (status, len(errors)) == (2, 1), errors
        return errors[0]

    assert "unknown name 'cnn' in --models: choose from concat_mlp, dialoguernn" in refused(
        comparison, *given, "--models", "cnn"
    )
    assert "nowhere.py does not exist" in refused(comparison, *given, "--models", "lfvd,nowhere.py")
    assert "--seeds is 0: give at least 1" in refused(comparison, *given, "--seeds", "0")
    assert "--jobs is 0: give at least 1" in refused(comparison, *given, "--jobs", "0")
    assert "no corpus 'nowhere'" in refused(comparison, "--corpus", "nowhere")
    assert "unknown flag '--fast'" in refused(comparison, *given, "--fast")
    assert "--config.seed cannot be set: use --seeds" in refused(comparison, *given, "--config.seed=3")
    assert "unknown flag '--config.training.epochs'" in refused(comparison, *given, "--config.training.epochs", "3")
    wrong = refused(comparison, *given, "--models", "linear", "--config.model.width=3")
    assert "unknown field 'model.width'" in wrong
    unable = refused(comparison, "--corpus", corpora[1], "--models", "lpgnet", *VARIANT)
    assert "no model can use the corpus: model.modalities has audio" in unable
    assert "no variant 'huge'" in refused(comparison, *given, "--models", "lfvd", "--variant", "huge")
    assert "unknown name 'depth' in --only: choose from" in refused(interpretations, "lfvd", *given, "--only", "depth")
    assert "invalid choice: 'sdt'" in refused(interpretations, "sdt", *given)
    assert "required: --corpus" in refused(interpretations, "lfvd")
    assert not (tmp_path / "new").exists()
    failing = ("--models", "linear", "--config.optimizer.learning_rate=1e30", "--seeds", 1)
    assert "no run succeeded: loss term squares is not finite" in refused(comparison, *given, *failing)
