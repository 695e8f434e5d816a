"""Values that a run's directory holds are checked when they are read: a wrong one is one line, never a traceback."""

import json
import shutil
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import pytest
from tiny import linear_config, tiny_corpus

import jmer
from jmer.command import exit_status
from jmer.data.corpus import Card
from jmer.digests import DIGEST
from jmer.errors import UserError
from jmer.json_values import from_json
from jmer.main import main
from jmer.runs.cross_validation import PLAN_FILE, load_cross_validation
from jmer.runs.directory import CONFIG_FILE, RUN_FILE, SCORES_FILE, read_config, read_facts, read_json, write_json
from jmer.runs.initial_weights import INITIAL_WEIGHTS_FILE, read_record
from jmer.training.initial_weights import Array, InitialWeights

EXPERIMENT = str(Path(__file__).parent / "linear_experiment.py")
TABLE = "expected a table of names and values"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, no_figures):
    folder = tmp_path_factory.mktemp("trained")
    jmer.train(linear_config(), tiny_corpus(), folder / "run", log=None)
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def replaced(path, field, value):
    """Replaces one field of a file, named `section.field`, and leaves the digest out."""
    fields = read_json(path)
    *sections, last = field.split(".")
    inner = fields
    for section in sections:
        inner = inner[int(section) if isinstance(inner, list) else section]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(fields))


def refused(read, *arguments):
    with pytest.raises(UserError) as error:
        read(*arguments)
    (line,) = str(error.value).splitlines()
    return line


FACTS = [
    ("command", 7, "command is 7: expected a text"),
    ("command", None, "command is null: expected a text"),
    ("parameters", "many", 'parameters is "many": expected a whole number'),
    ("parameters", 1e308, "parameters is 1e+308: expected a whole number"),
    ("parameters", 10**30, f"parameters is {10**30}: expected a whole number"),
    ("parameters", True, "parameters is true: expected a whole number"),
    ("experiment", ["a"], "experiment is a list of 1: expected a text"),
    ("versions", None, f"versions is null: {TABLE}"),
    ("versions", {"jax": 9}, "versions.jax is 9: expected a text"),
    ("changes", {}, "changes is a table of 0: expected a list"),
    ("changes", [3], f"changes[0] is 3: {TABLE}"),
    ("changes", [{"field": "a", "before": "b", "after": 1, "epochs": 1, "steps": 0}], "changes[0].before is"),
    ("card.widths.text", 6.0, "card.widths.text is 6.0: expected a whole number"),
    ("card.emotions", "sad", 'card.emotions is "sad": expected a list'),
    ("card.synthetic", 1, "card.synthetic is 1: expected true or false"),
    ("corpus.splits.train.utterances", [], "corpus.splits.train.utterances is a list of 0: expected a whole number"),
    ("corpus.splits.train.digests.text", 5, "corpus.splits.train.digests.text is 5: expected a text"),
    ("wisdom", 1, "wisdom is an unknown field"),
    ("versions", KeyError, "versions is missing"),
]


@pytest.mark.parametrize(("field", "value", "expected"), FACTS, ids=[f"{n} {case[0]}" for n, case in enumerate(FACTS)])
def test_facts(run, field, value, expected):
    replaced(run / RUN_FILE, field, value)
    line = refused(read_facts, run)
    assert line.startswith(f"{run / RUN_FILE} is damaged ({expected}"), line
    assert line.endswith("): put a copy back, or train again in another workdir")


CONFIG = [
    ("training.epochs", 100_000_000, "training.epochs is 100000000: give at most 100,000"),
    ("training.epochs", "7", 'training.epochs is "7": expected a whole number'),
    ("training.epochs", 7.0, "training.epochs is 7.0: expected a whole number"),
    ("training.epochs", None, "training.epochs is null: expected a whole number"),
    ("training.epochs", 0, "training.epochs is 0: give at least 1"),
    ("training.batch_size", 10**12, "training.batch_size is 1000000000000: give at most"),
    ("training.buckets", 10**9, "training.buckets is 1000000000: give at most"),
    ("training.patience", -1, "training.patience is -1: give"),
    ("training", [], "training is an unknown field"),
    ("training.more", 1, "training.more is an unknown field"),
    ("data.clip", KeyError, "data.clip is missing"),
    ("data.path", {"a": 1}, "data.path.a is an unknown field"),
    ("optimizer.learning_rate", "fast", 'optimizer.learning_rate is "fast": expected a number'),
    ("seed", True, "seed is true: expected a whole number"),
    ("seed", -1, "seed is -1: give a whole number from 0"),
    ("selection", "worst", "unknown selection 'worst'"),
    ("model.name", 3, "model.name is 3: expected a text"),
    ("model.name", ["linear"], "model.name is a list of 1: expected a text"),
    ("model.modalities", ["text", 2], "model.modalities[1] is 2: expected a text"),
    ("model.modalities", ["smell"], "model.modalities is smell: expected some of text, audio, visual"),
    ("model.modalities", [], "model.modalities is empty: expected some of"),
    ("model.num_classes", 9, "model.num_classes is 9: expected 4"),
    ("loss.class_weight_values", ["a"], 'loss.class_weight_values[0] is "a": expected a number'),
]


@pytest.mark.parametrize(
    ("field", "value", "expected"), CONFIG, ids=[f"{n} {case[0]}" for n, case in enumerate(CONFIG)]
)
def test_configuration(run, field, value, expected):
    replaced(run / CONFIG_FILE, field, value)
    tracemalloc.start()
    line = refused(read_config, run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert line.startswith(f"{run / CONFIG_FILE} is damaged ({expected}"), line
    assert peak < 10 << 20


def test_an_absurd_number_is_refused_before_anything_is_made(tmp_path, capsys):
    for field, value in (("training.epochs", 10**8), ("seeds", 10**8), ("training.batch_size", 10**12)):
        flags = ["--config", EXPERIMENT, "--workdir", str(tmp_path / "w"), f"--config.{field}={value}"]
        assert exit_status(main, flags) == 2
        assert f"{field} is {value}: give at most" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


SCORES = [
    ("splits", [], f"splits is a list of 0: {TABLE}"),
    ("splits.test.weighted_f1", None, "splits.test.weighted_f1 is null: expected a number"),
    ("splits.test.weighted_f1", "0.5", 'splits.test.weighted_f1 is "0.5": expected a number'),
    ("splits.test.support", 2.5, "splits.test.support is 2.5: expected a whole number"),
    ("splits.test.confusion", [[1, "b"]], 'splits.test.confusion[0][1] is "b": expected a whole number'),
    ("splits.test.classes", {"sad": 0.5}, f"splits.test.classes.sad is 0.5: {TABLE}"),
    ("splits.test.classes.sad.f1", [], "splits.test.classes.sad.f1 is a list of 0: expected a number"),
    ("splits.test.macro_f1", KeyError, "splits.test.macro_f1 is missing"),
    ("epochs", "all", 'epochs is "all": expected a whole number'),
]


@pytest.mark.parametrize(
    ("field", "value", "expected"), SCORES, ids=[f"{n} {case[0]}" for n, case in enumerate(SCORES)]
)
def test_scores(run, field, value, expected):
    loaded = jmer.load_run(run)
    replaced(run / SCORES_FILE, field, value)
    line = refused(lambda: loaded.scores)
    assert line.startswith(f"{run / SCORES_FILE} is damaged ({expected})"), line


METRICS = [
    ("epoch", 1e308, "metrics.jsonl is damaged (epoch is 1e+308 in line 2: expected 2)"),
    ("epoch", None, "metrics.jsonl is damaged (epoch is None in line 2: expected 2)"),
    ("epoch", 7, "metrics.jsonl is damaged (epoch is 7 in line 2: expected 2)"),
    ("epoch", "2", 'metrics.jsonl, line 2, is not a line of metrics (epoch is "2": expected a number)'),
    ("step", 1.5, "metrics.jsonl, line 2, is not a line of metrics (step is 1.5: expected a whole number)"),
    ("train/loss", {"a": [1]}, "metrics.jsonl, line 2, is not a line of metrics (train/loss is a table of 1: expected"),
    ("train/loss", True, "metrics.jsonl, line 2, is not a line of metrics (train/loss is true: expected a number)"),
    ("train/loss", float("inf"), "metrics.jsonl, line 2, is not a line of metrics (train/loss is Infinity: expected"),
    ("train/loss", 10**400, "metrics.jsonl, line 2, is not a line of metrics (train/loss is 1000"),
]


@pytest.mark.parametrize(
    ("field", "value", "expected"), METRICS, ids=[f"{n} {case[0]}" for n, case in enumerate(METRICS)]
)
def test_metrics(run, field, value, expected):
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1][field] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused(lambda: jmer.load_run(run).history)
    assert line.startswith(f"{run}/{expected}") and ("put a copy back" in line or "repair it" in line), line


def test_metrics_that_lack_an_epoch(run):
    path = run / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "(it has 1 lines: expected one for each of 2 epochs)" in refused(lambda: jmer.load_run(run).history)


PLANS = [
    ({"rule": 2, "folds": {"a": "fold_a"}}, "rule is 2: expected a text"),
    ({"rule": "corpus", "folds": ["a"]}, f"folds is a list of 1: {TABLE}"),
    ({"rule": "corpus", "folds": {"a": 1}}, "folds.a is 1: expected a text"),
    ({"rule": "corpus", "folds": {"a": "../../a"}}, "folds.a is '../../a': expected the name of a folder of a fold"),
    ({"rule": "corpus", "folds": {}}, "folds is empty"),
    ({"rule": "corpus"}, "folds is missing"),
]


@pytest.mark.parametrize(("fields", "expected"), PLANS, ids=[expected for _, expected in PLANS])
def test_plans_of_folds(tmp_path, fields, expected):
    write_json(tmp_path / PLAN_FILE, fields)
    line = refused(load_cross_validation, tmp_path)
    assert line.startswith(f"{tmp_path / PLAN_FILE} is damaged ({expected}"), line


WEIGHTS = [
    ("source", 1, "source is 1: expected a text"),
    ("epoch", "last", 'epoch is "last": expected a whole number'),
    ("arrays", {}, "arrays is a table of 0: expected a list"),
    ("arrays.0.shape", [2, None], "arrays[0].shape[1] is null: expected a whole number"),
    ("arrays.0.name", KeyError, "arrays[0].name is missing"),
]


@pytest.mark.parametrize(("field", "value", "expected"), WEIGHTS, ids=[expected for *_, expected in WEIGHTS])
def test_records_of_initial_weights(tmp_path, field, value, expected):
    record = InitialWeights("runs/a", 3, "0" * 32, (Array("params/a/kernel", (2, 3)),), ())
    write_json(tmp_path / INITIAL_WEIGHTS_FILE, asdict(record))
    assert asdict(read_record(tmp_path)) == asdict(record) | {"arrays": [asdict(record.arrays[0])], "unused": []}
    replaced(tmp_path / INITIAL_WEIGHTS_FILE, field, value)
    line = refused(read_record, tmp_path)
    assert line.startswith(f"{tmp_path / INITIAL_WEIGHTS_FILE} is damaged ({expected})"), line


@pytest.mark.parametrize("name", [CONFIG_FILE, RUN_FILE, SCORES_FILE])
def test_a_number_that_has_changed_is_noticed_by_its_digest(run, name):
    text = (run / name).read_text()
    assert json.loads(text)[DIGEST]
    at = next(place for place, character in enumerate(text) if character in "123456789" and text[place - 1] == " ")
    (run / name).write_text(text[:at] + str(int(text[at]) ^ 1) + text[at + 1 :])
    read = {CONFIG_FILE: read_config, RUN_FILE: read_facts, SCORES_FILE: lambda folder: jmer.load_run(folder).scores}
    assert f"{run / name} is damaged (" in refused(read[name], run)


def test_what_has_no_digest_is_read(run):
    before = read_config(run), read_facts(run)
    for name in (CONFIG_FILE, RUN_FILE):
        replaced(run / name, "command" if name == RUN_FILE else "seed", read_json(run / name).get("command", 0))
        assert DIGEST not in json.loads((run / name).read_text())
    assert (read_config(run), read_facts(run)) == before


def test_values_of_all_types_come_back():
    card = {"name": "a", "widths": {"text": 3}, "emotions": ["x", "y"], "provenance": "", "synthetic": False}
    assert from_json(Card, card) == Card("a", {"text": 3}, ("x", "y"), "", False)
    assert from_json(float | None, None) is None and from_json(float, 3) == 3
    for kind, value in ((str, 1), (bool, 0), (int, False), (int, 2**63), (float, "1"), (list[int], "12")):
        with pytest.raises(ValueError, match=r"^the whole is"):
            from_json(kind, value)
