"""Training and predicting off the main thread: a notebook, Ray or a web server may call from any."""

import functools
import signal
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from test_resume import log
from tiny import linear_config, tiny_corpus

import jmer
from jmer.runs import RunInUse
from jmer.training.preemption import SIGNALS

TIMEOUT = 120  # seconds


pytestmark = pytest.mark.usefixtures("no_figures")


@functools.cache
def corpus():
    return tiny_corpus()


def config(**changes):
    return linear_config(training__parallel="jit", model__dropout_rate=0.5, **changes)


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def in_thread(call, *arguments, **options):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call, *arguments, **options).result(TIMEOUT)


def test_a_thread_trains_the_same_run_and_leaves_signals_alone(tmp_path):
    before, while_training, in_main_thread = handlers(), [], []
    run = in_thread(
        jmer.train, config(), corpus(), tmp_path / "thread", log=lambda line: while_training.append(handlers())
    )
    expected = jmer.train(config(), corpus(), tmp_path / "main", log=lambda line: in_main_thread.append(handlers()))
    assert all(found == before for found in while_training)
    assert any(found != before for found in in_main_thread) and handlers() == before
    assert log(run.folder) == log(expected.folder)
    assert run.scores == expected.scores
    pd.testing.assert_frame_equal(in_thread(run.predict, corpus()), expected.predict(corpus()))


@pytest.mark.parametrize("seeds", [1, 2])
def test_without_a_log_nothing_is_printed(tmp_path, capfd, seeds):
    for call in (jmer.train, functools.partial(in_thread, jmer.train)):  # the second one finds the run finished
        call(config(seeds=seeds), corpus(), tmp_path / "run", log=None)
        assert capfd.readouterr() == ("", "")
    jmer.train(config(seeds=seeds), corpus(), tmp_path / "run")
    assert "finished" in capfd.readouterr().out


def test_threads_train_different_runs_at_the_same_time(tmp_path):
    def train(seed, parent):
        return jmer.train(config(seed=seed), corpus(), tmp_path / parent / str(seed), log=None)

    with ThreadPoolExecutor(3) as pool:
        runs = [*pool.map(functools.partial(train, parent="together"), range(3), timeout=TIMEOUT)]
    for seed, run in enumerate(runs):
        expected = train(seed, "alone")
        assert log(run.folder) == log(expected.folder)
        pd.testing.assert_frame_equal(run.predict(corpus()), expected.predict(corpus()))


def test_a_second_thread_is_kept_out_of_a_run_in_training(tmp_path):
    refusals = []

    def try_beside(line):
        if line.startswith("epoch"):
            with pytest.raises(RunInUse, match=f"^another process or thread works in {tmp_path / 'run'}: ") as refusal:
                in_thread(jmer.train, config(), corpus(), tmp_path / "run", log=None)
            refusals.append(refusal)

    run = jmer.train(config(), corpus(), tmp_path / "run", log=try_beside)
    assert len(refusals) == run.epochs == 2
    assert log(run.folder) == log(jmer.train(config(), corpus(), tmp_path / "alone", log=None).folder)
