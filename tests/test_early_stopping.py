"""Early stopping ends a run at the same epoch however it is trained: alone, beside others, or with interruptions."""

import contextlib
import functools
import itertools
import math

import pytest
from test_resume import Countdown, log, newest
from test_together import assert_close, assert_same
from tiny import by_shifts, linear_config, start, tiny_corpus, train, train_together

import jmer
from jmer.errors import UserError
from jmer.runs import is_reported, write_results
from jmer.runs.run import load_single_run
from jmer.training import Interrupted, loop
from jmer.training.early_stopping import is_finished, is_stopped
from jmer.training.progress import Progress

EPOCHS, PATIENCE = 12, 2
SEEDS = (3, 0, 7)


@functools.cache
def corpus():
    return tiny_corpus()


def settings(**changes):
    base = {"training__epochs": EPOCHS, "training__patience": PATIENCE, "optimizer__learning_rate": 0.03}
    return linear_config(**base | {"optimizer__name": "sgd"} | changes)


def like():
    return start(settings(), corpus())


def interruptions(monkeypatch, looks, call):
    """Calls until a call is not interrupted when it looks for signals the `looks`th time; returns the number before."""
    monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))
    for count in itertools.count():
        try:
            call()
            return count
        except Interrupted:
            pass


def stopping_epoch(values, patience):
    """The rule, by itself: the first epoch that is `patience` epochs after the first of the best until then."""
    for epoch in range(1, len(values) + 1):
        if epoch - (values.index(max(values[:epoch])) + 1) >= patience:
            return epoch
    return len(values)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Each seed by itself, with early stopping, and what its scores would be without."""
    parent = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        train(settings(seed=seed), corpus(), parent / f"seed{seed}")
        train(settings(seed=seed, training__patience=0), corpus(), parent / f"whole{seed}")
    return parent


def folders(parent):
    return [parent / f"seed{seed}" for seed in SEEDS]


def test_a_run_stops_where_the_rule_says_and_is_the_beginning_of_the_whole_run(alone):
    ends = []
    for seed, folder in zip(SEEDS, folders(alone), strict=True):
        whole = log(alone / f"whole{seed}")
        ends.append(stopping_epoch([row["validation/weighted_f1"] for row in whole], PATIENCE))
        assert log(folder) == whole[: ends[-1]]
    # The seeds stop after different epochs, and not all at the end.
    assert len(set(ends)) > 1 and min(ends) < EPOCHS


def test_seeds_together_are_what_they_are_alone(alone, tmp_path):
    configs = [settings(seed=seed) for seed in SEEDS]
    train_together(configs, corpus(), folders(tmp_path))
    for one, other in zip(folders(tmp_path), folders(alone), strict=True):
        assert_close(one, other, like())


def test_seeds_that_are_interrupted_after_every_epoch_are_those_that_are_not(tmp_path, monkeypatch):
    configs = [settings(seed=seed) for seed in SEEDS]
    train_together(configs, corpus(), folders(tmp_path / "whole"))
    again = functools.partial(train_together, configs, corpus(), folders(tmp_path / "w"))
    assert interruptions(monkeypatch, 1, again) == max(len(log(folder)) for folder in folders(tmp_path / "whole"))
    for one, other in zip(folders(tmp_path / "w"), folders(tmp_path / "whole"), strict=True):
        assert_same(one, other, like())


def test_a_run_of_single_steps_stops_and_resumes_at_the_same_epoch(alone, tmp_path, monkeypatch):
    by_step = {"training__resident_megabytes": 0, "seed": SEEDS[0]}
    train(settings(**by_step), corpus(), tmp_path / "whole")
    assert interruptions(monkeypatch, 4, lambda: train(settings(**by_step), corpus(), tmp_path / "w")) > 1
    assert log(tmp_path / "w") == log(tmp_path / "whole")
    assert newest(tmp_path / "w", like())[1] == newest(tmp_path / "whole", like())[1]


def test_the_result_says_why_it_ended_and_the_same_call_finds_it_finished(tmp_path):
    lines = []
    group = jmer.train(settings(seeds=2), corpus(), tmp_path / "w", log=lines.append)
    for run in group:
        expected = stopping_epoch([row["validation/weighted_f1"] for row in run.history], PATIENCE)
        assert run.epochs == expected and run.stopped == (expected < EPOCHS)
        reason = f"stopped after epoch {expected} of {EPOCHS}: no better validation weighted F1 for {PATIENCE} epochs"
        report = (run.folder / "report.md").read_text()
        assert (f"Training {reason}." in report) == run.stopped
        assert (f"{run.folder} {reason}" in lines) == run.stopped
        assert (f"Seed {run.seed} stopped after epoch {expected}." in group.report()) == run.stopped
        assert is_reported(run.folder, run.config) and f"epoch {run.epoch} of {expected}, chosen" in report
        assert load_single_run(run.folder).stopped == run.stopped
    assert any(run.stopped for run in group)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("*.png")}
    lines.clear()
    again = jmer.train(settings(seeds=2), corpus(), tmp_path / "w", log=lines.append)
    assert not any(line.startswith(("epoch ", "wrote ")) for line in lines)
    assert [run.epochs for run in again] == [run.epochs for run in group]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("*.png")}


def test_an_evaluation_of_an_unfinished_run_does_not_finish_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(1)))
    with pytest.raises(Interrupted):
        train(settings(), corpus(), tmp_path)
    write_results(tmp_path, corpus(), log=lambda line: None)
    assert load_single_run(tmp_path).epochs == 1 and not is_reported(tmp_path, settings())


@pytest.mark.parametrize(
    ("scores", "best", "stops"),
    [
        ([0.5, 0.4, 0.5], 1, True),  # an equal score is not a better one
        ([0.5, 0.4, 0.6], 3, False),
        ([math.nan, None, 0.1], 3, False),
        ([math.nan, math.nan], 0, True),
        ([0.0, -0.1, 0.1, 0.05], 3, False),
    ],
)
def test_what_counts_as_better(scores, best, stops):
    progress = Progress()
    for score in scores:
        progress = progress.next_epoch(score)
    assert (progress.best_epoch, is_stopped(progress, settings())) == (best, stops)
    assert is_finished(progress, settings()) == stops


def test_epochs_of_an_unfinished_curriculum_do_not_count():
    progress = Progress(epoch=4, best=0.5, best_epoch=1)
    assert is_stopped(progress, settings())
    assert not is_stopped(progress, settings(**by_shifts(3)))
    assert is_stopped(Progress(epoch=5, best=0.5, best_epoch=1), settings(**by_shifts(3)))
    # With two epochs for a bucket, the fifth is the first with all of them.
    slow = by_shifts(3) | {"curriculum__epochs_per_bucket": 2}
    assert not is_stopped(Progress(epoch=6, best=0.5, best_epoch=1), settings(**slow))
    assert is_stopped(Progress(epoch=7, best=0.5, best_epoch=1), settings(**slow))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__patience": -1}, "training.patience is -1: give a number of epochs, or 0 for no early stopping"),
        ({"selection": "last"}, "training.patience=2 waits for a better score, but selection=last has none: choose"),
    ],
)
def test_a_patience_that_cannot_be_had_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        jmer.train(settings(**changes), corpus(), tmp_path / "w", log=None)
    assert not (tmp_path / "w").exists()
