"""The Python API: what a user writes in a few lines, and what a wrong call gets."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import LINEAR, WIDTHS, tiny_corpus

import jmer
from jmer.data import make_conversation, make_corpus
from jmer.data.corpus import save_corpus

ROOT = Path(__file__).parent.parent


pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def corpus():
    return tiny_corpus()


def config(**changes):
    jmer.register_model(LINEAR)
    usual = {
        "training.epochs": 2,
        "training.batch_size": 4,
        "training.parallel": "jit",
        "optimizer.learning_rate": 0.01,
    }
    return jmer.get_config("linear", usual | {name.replace("__", "."): value for name, value in changes.items()})


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    return jmer.train(config(), corpus, tmp_path_factory.mktemp("api") / "run", log=None)


@pytest.fixture(scope="module")
def group(corpus, tmp_path_factory):
    return jmer.train(config(seeds=3), corpus, tmp_path_factory.mktemp("api") / "group", log=None)


def test_importing_costs_nothing_and_names_are_listed():
    code = (
        "import sys, time; start = time.perf_counter(); import jmer; took = time.perf_counter() - start\n"
        "assert took < 0.05, took\n"
        "assert not {'jax', 'numpy', 'flax'} & sys.modules.keys()\n"
        "names = dir(jmer)\n"
        "assert {'train', 'load_run', 'load_corpus', 'get_config', 'register_model', 'ModelSpec'} <= set(names)\n"
        "assert all(hasattr(jmer, name) for name in names), names\n"
        "assert jmer.layers.BiGRU and jmer.losses.cross_entropy and jmer.data.make_corpus"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_run_has_what_it_was_trained_with(run, corpus):
    assert run.config.model.num_classes == 4 and run.card == corpus.card and run.epochs == 2
    assert set(run.normalization) == set(WIDTHS) and set(run.variables) == {"params"}
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.parameters == (WIDTHS["text"] + 1) * 4
    assert 0 <= run.scores["test"].weighted_f1 <= 1 and run.scores["test"]["accuracy"] == run.scores["test"].accuracy
    assert "jax" in run.versions and run.command


def test_it_is_loaded_and_resumed_from_its_folder(run, corpus, capsys):
    for folder in (run.folder, str(run.folder)):
        loaded = jmer.load_run(folder)
        assert loaded.scores == run.scores
        np.testing.assert_array_equal(
            loaded.variables["params"]["Dense_0"]["kernel"], run.variables["params"]["Dense_0"]["kernel"]
        )
    lines = []
    again = jmer.train(config(), corpus, str(run.folder), log=lines.append)
    assert again.scores == run.scores
    assert any(line.startswith("this run is finished") for line in lines)
    longer = config(training__epochs=3)
    assert jmer.train(longer, corpus, run.folder.parent / "longer", log=None).epochs == 3
    assert capsys.readouterr().out == ""


def test_predictions_of_a_corpus_are_those_in_its_folder(run, corpus):
    table = run.predict(corpus, split="test")
    written = pd.read_csv(run.folder / "predictions" / "test.csv", keep_default_na=False)
    assert list(table) == ["split", *written]
    assert table["predicted"].tolist() == written["predicted"].tolist()
    np.testing.assert_allclose(table.filter(like="probability"), written.filter(like="probability"), rtol=1e-5)
    assert len(run.predict(corpus)) == sum(len(c) for s in corpus.splits for c in corpus.conversations(s))


def test_conversations_made_in_memory_are_predicted(run, corpus):
    made = corpus.conversations("test")[0]
    features = {m: np.where(made.available[m][:, None], x, np.nan) for m, x in made.features.items()}
    conversation = make_conversation(features, speakers=made.speakers)
    one, several = run.predict(conversation), run.predict([conversation, conversation])
    expected = run.predict(corpus, split="test")
    expected = expected[expected["conversation"] == made.id]
    np.testing.assert_allclose(one.filter(like="probability"), expected.filter(like="probability"), rtol=1e-5)
    assert len(several) == 2 * len(one) and set(several["conversation"]) == {"0", "1"}
    assert (one["gold"] == "").all()


def test_scores_of_a_corpus_are_those_of_the_run(run, corpus):
    found = run.evaluate(corpus)
    assert found == run.scores
    folder = run.folder.parent / "corpus"
    save_corpus(corpus, folder)
    assert run.evaluate(folder) == run.evaluate(str(folder)) == found


def test_the_whole_output_of_a_batch(run, corpus):
    (examples,) = ([run.predictor.normalize(corpus.conversations("test"))[0]],)
    (batch,) = jmer.data.batches(examples, run.predictor.widths, batch_size=1)
    logits = np.asarray(run.apply(batch).logits)[0, : len(examples[0])].astype(np.float64)
    odds = np.exp(logits)
    expected = run.predict(corpus.conversations("test")[0]).filter(like="probability")
    np.testing.assert_allclose(odds / odds.sum(-1, keepdims=True), expected, rtol=1e-4)


def test_several_seeds_have_a_summary_and_an_ensemble(group, corpus):
    assert [run.seed for run in group.runs] == [0, 1, 2] == [run.seed for run in jmer.load_run(group.folder)]
    table = group.summary()
    values = [run.scores["test"].weighted_f1 for run in group]
    row = table.loc[("test", "weighted_f1")]
    assert (row["mean"], row["sd"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    tables = [run.predict(corpus, split="test").filter(like="probability") for run in group]
    found = group.ensemble.predict(corpus, split="test")
    np.testing.assert_allclose(found.filter(like="probability"), np.mean(tables, axis=0), rtol=1e-5)
    assert row["ensemble"] == pytest.approx(group.ensemble.evaluate(corpus)["test"].weighted_f1)
    assert "ensemble" in (group.folder / "report.md").read_text()


def test_a_corpus_made_in_memory_is_trained_on(tmp_path):
    rng = np.random.default_rng(0)

    def conversations(count):
        return [
            make_conversation(
                {"text": rng.normal(size=(5, 3)), "audio": rng.normal(size=(5, 2))},
                speakers=list("ABABA"),
                labels=rng.choice(["calm", "angry"], 5),
                emotions=("calm", "angry"),
            )
            for _ in range(count)
        ]

    made = make_corpus({"train": conversations(6), "validation": conversations(2)}, emotions=("calm", "angry"))
    run = jmer.train(config(), made, tmp_path / "run", log=None)
    assert set(run.scores) == {"train", "validation"}
    assert jmer.load_run(tmp_path / "run").predict(conversations(1)).shape[0] == 5
    with pytest.raises(jmer.UserError, match="the corpus was made in memory, and cannot be loaded again"):
        run.evaluate()


def unnormalised(corpus):
    return corpus.conversations("test")[0]


WRONG_CALLS = [
    (lambda run, c: jmer.train("no_such", c), r"experiment no_such is unknown: "),
    (lambda run, c: jmer.train("lfvd_meld:nothing", c), r"no variant 'nothing' of this experiment: choose from tiny"),
    (lambda run, c: jmer.train(config(), "no_such"), r"no corpus 'no_such'"),
    (lambda run, c: jmer.train(config(), 3), r"corpus is of type int: give a name, a folder, a corpus"),
    (lambda run, c: jmer.train(config(training__epochs=0), c, run.folder), r"training\.epochs is 0: give at least 1"),
    (lambda run, c: jmer.get_config("linear", {"training.epoch": 3}), r"unknown field 'training\.epoch': .*epochs"),
    (lambda run, c: jmer.get_config("linear", {"training.epochs": "many"}), r"training\.epochs"),
    (lambda run, c: jmer.load_run(run.folder / "nothing"), r"holds no run: it has no config\.json"),
    (lambda run, c: run.predict(c, split="dev"), r"has no split 'dev', only train, validation, test"),
    (lambda run, c: run.predict([]), r"predict takes a corpus or conversations .* not an empty list"),
    (lambda run, c: run.predict([1]), r"utterance 1 is 1: expected text, or an object with speaker and transcript"),
    (lambda run, c: run.predict(unnormalised(c), split="test"), r"split='test' needs a corpus"),
    (
        lambda run, c: run.predict(make_conversation({"text": np.ones((2, 9))})),
        r"conversation '0' has text features of width 9, the model was trained on width 6",
    ),
    (
        lambda run, c: run.predict(make_conversation({"text": [np.ones((3, 6))] * 2})),
        r"conversation '0' has frames in each utterance, the model was trained on one vector per utterance",
    ),
    (
        lambda run, c: run.predict(make_conversation({"text": np.ones((2, 6))})),
        r"has no audio, visual, and model 'linear' does not declare that it handles missing modalities",
    ),
    (lambda run, c: jmer.register_model("mine"), r"register_model takes a jmer\.ModelSpec, not str"),
    (lambda run, c: jmer.train(config(), c, "gs://bucket/run"), r"^gs://bucket/run is an address"),
    (lambda run, c: jmer.train(config(), "s3://bucket/corpus"), r"^s3://bucket/corpus is an address"),
    (lambda run, c: jmer.train(config(data__path="hdfs://n/c"), None, "a"), r"^hdfs://n/c is an address"),
    (lambda run, c: jmer.train(config(training__init_from="gs://b/r"), c, "a"), r"^gs://b/r is an address"),
    (lambda run, c: jmer.train("https://host/experiment.py", c, "a"), r"^https://host/experiment\.py is an address"),
    (lambda run, c: jmer.train_many([config()], c, [Path("gs://bucket/run")]), r"^gs:/bucket/run is an address"),
    (
        lambda run, c: jmer.load_run("file:///runs/a"),
        r"^file:///runs/a is an address, .*: give the path alone \(/runs/a",
    ),
    (lambda run, c: run.predict("s3://bucket/talk.csv"), r"^s3://bucket/talk\.csv is an address"),
    (lambda run, c: run.evaluate("s3://bucket/corpus"), r"^s3://bucket/corpus is an address"),
    (lambda run, c: save_corpus(c, "abfs://bucket/corpus"), r"^abfs://bucket/corpus is an address"),
    (lambda run, c: jmer.train_many([config(), config(training__batch_size=5)], c, ["a", "b"]), r"batch_size"),
]


@pytest.mark.parametrize(("call", "message"), WRONG_CALLS, ids=[message for _, message in WRONG_CALLS])
def test_a_wrong_call_gets_one_line_that_names_it(call, message, run, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jmer.UserError, match=message) as refusal:
        call(run, corpus)
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())
