"""Any score of a report can choose the epoch, DailyDialog's micro F1 among them, and all that is written says which."""

import dataclasses
import functools

import pandas as pd
import pytest
import sklearn.metrics as reference
from tiny import EMOTIONS, linear_config, tiny_corpus, train

import jmer
from jmer.cli.program import main
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.evaluation.metrics import Scores
from jmer.json_values import from_json
from jmer.runs import read_config
from jmer.runs.run import load_single_run
from jmer.training.checkpointing import Checkpoints

METRIC = "micro_f1_without_majority"


@functools.cache
def corpus():
    return tiny_corpus()


def settings(**changes):
    return linear_config(training__epochs=6, optimizer__learning_rate=0.1, **changes)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Two seeds whose epoch is chosen by the micro F1 without the neutral utterances, and what the console showed."""
    lines = []
    config = settings(seeds=2, majority_emotion="neutral", selection_metric=METRIC)
    return jmer.train(config, corpus(), tmp_path_factory.mktemp("runs") / "w", log=lines.append), lines


def test_the_micro_f1_of_what_was_predicted_is_that_of_scikit_learn(group):
    for run in group[0]:
        for split, scores in run.scores.items():
            table = pd.read_csv(run.folder / "predictions" / f"{split}.csv").dropna(subset="gold")
            others = [emotion for emotion in EMOTIONS if emotion != "neutral"]
            expected = reference.f1_score(table["gold"], table["predicted"], labels=others, average="micro")
            assert scores.micro_f1_without_majority == expected
            assert run.evaluate(corpus())[split] == scores


def test_it_chooses_the_epoch_and_every_epoch_has_its_value(group):
    for run in group[0]:
        values = [row[f"validation/{METRIC}"] for row in run.history]
        assert values[run.epoch - 1] == max(values) == run.scores["validation"][METRIC]
        assert all(row[f"train/{METRIC}"] >= 0 for row in run.history)
        with Checkpoints(run.folder / "checkpoints") as checkpoints:
            assert checkpoints.best == run.step


def test_reports_and_console_name_it_and_the_emotion(group):
    runs, lines = group
    title = "micro F1 without neutral"
    assert f"chosen by validation {title}." in runs.report()
    assert f"| {title} " in runs.report()
    assert list(runs.summary().loc["test"].index)[-1] == METRIC
    for run in runs:
        text, page = ((run.folder / name).read_text() for name in ("report.md", "report.html"))
        for report in (text, page):
            assert f"chosen by validation {title}." in report
            assert f"{title} {100 * run.scores['test'][METRIC]:.2f} %" in report
        assert f" | {title} % |" in text and f">{title} %</th>" in page
    assert sum(f"  {title} train " in line for line in lines) == 6
    assert sum(line.startswith("test: ") and title in line for line in lines) == 2


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "unweighted_accuracy", "recall_sad", "f1_angry"])
def test_any_other_metric_chooses_the_epoch(tmp_path, metric):
    train(settings(selection_metric=metric), corpus(), tmp_path)
    run = load_single_run(tmp_path)
    values = [row[f"validation/{metric}"] for row in run.history]
    assert values[run.epoch - 1] == max(values)


def test_the_metric_of_an_oracle_is_that_of_the_test_split(tmp_path):
    train(settings(selection="test_oracle", selection_metric="macro_f1"), corpus(), tmp_path)
    run = load_single_run(tmp_path)
    values = [row["test/macro_f1"] for row in run.history]
    assert values[run.epoch - 1] == max(values)
    assert run.selection.description == "chosen by TEST macro F1 (test_oracle: optimistic, not comparable)"


def test_scores_of_an_earlier_file_have_no_micro_f1(group):
    saved = dataclasses.asdict(group[0].runs[0].scores["test"])
    del saved["majority_emotion"], saved[METRIC]
    assert from_json(Scores, saved).micro_f1_without_majority is None


def test_a_trained_run_is_scored_without_another_emotion(tmp_path):
    save_corpus(corpus(), tmp_path / "corpus")
    jmer.train(linear_config(training__epochs=1), tmp_path / "corpus", tmp_path / "w", log=None)
    assert main(["evaluate", str(tmp_path / "w"), "--config.majority_emotion=sad"]) == 0
    assert read_config(tmp_path / "w").majority_emotion == ""
    assert load_single_run(tmp_path / "w").scores["test"].majority_emotion == "sad"
    # To train with it again gives the scores alone.
    scored = jmer.train(linear_config(training__epochs=1, majority_emotion="angry"), corpus(), tmp_path / "w", log=None)
    assert scored.config.majority_emotion == scored.scores["test"].majority_emotion == "angry"
    assert "micro F1 without angry" in (tmp_path / "w" / "report.md").read_text()
    assert len(scored.history) == 1


def test_an_emotion_that_the_selection_left_out_stays(tmp_path):
    train(settings(majority_emotion="neutral", selection_metric=METRIC), corpus(), tmp_path)
    with pytest.raises(UserError, match="majority_emotion is 'neutral' there and 'sad' here"):
        train(settings(majority_emotion="sad", selection_metric=METRIC), corpus(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"selection_metric": "f2"},
            "selection_metric is 'f2': choose one of accuracy, weighted_f1, macro_f1, unweighted",
        ),
        ({"selection_metric": "f1_joy"}, "or precision_, recall_, f1_ with an emotion (happy, sad, neutral, angry)"),
        ({"selection_metric": "support"}, "selection_metric is 'support': choose one of"),
        (
            {"selection_metric": METRIC},
            "needs the emotion that it leaves out: set majority_emotion to one of happy, sad",
        ),
        (
            {"majority_emotion": "Neutral"},
            "majority_emotion is 'Neutral': choose one of happy, sad, neutral, angry, or",
        ),
    ],
)
def test_an_unknown_metric_or_emotion_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UserError) as refusal:
        jmer.train(settings(**changes), corpus(), tmp_path / "w", log=None)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert not (tmp_path / "w").exists()
