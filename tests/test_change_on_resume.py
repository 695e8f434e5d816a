"""A resumed run takes another rate or patience where it is asked to by name, and its record says so ever after."""

import contextlib
import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from test_resume import BY_STEP, Countdown, log, newest
from tiny import linear_config, start, tiny_corpus

import jmer
from jmer.cli.program import main
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.runs import read_facts
from jmer.runs.directory import Change
from jmer.training import Interrupted, loop
from jmer.training.optimizer import with_rates

RATE, DECAY, PATIENCE = "optimizer.learning_rate", "optimizer.weight_decay", "training.patience"
STEPS = 3


pytestmark = pytest.mark.usefixtures("no_figures")


@functools.cache
def corpus():
    return tiny_corpus()


def settings(**changes):
    return linear_config(**{"training__epochs": 4, "training__parallel": "jit", "seed": 3} | changes)


@pytest.fixture
def train(monkeypatch):
    """Returns a function that trains until the loop looks for signals the `looks`th time (0 = to the end)."""

    def train(folder, looks=0, change=(), **changes):
        monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))
        lines = []
        with pytest.raises(Interrupted) if looks else contextlib.nullcontext():
            jmer.train(settings(**changes), corpus(), folder, log=lines.append, change_on_resume=change)
        return lines

    return train


def by_hand(steps, changed_after, changed, **changes):
    """Takes steps one by one, and sets rates in the optimizer's state after some of them."""
    run = start(settings(**changes), corpus())
    state = run.state
    for number, batch in enumerate(run.batches(steps)):
        if number == changed_after:
            hyperparams = state.opt_state.hyperparams | {name: np.float32(value) for name, value in changed.items()}
            state = run.mapping.replicate(
                dataclasses.replace(state, opt_state=state.opt_state._replace(hyperparams=hyperparams))
            )
        state, _ = run.step(state, batch)
    return dataclasses.replace(jax.device_get(state), rng=jax.random.key_data(state.rng))


@pytest.mark.parametrize(("looks", "taken"), [(6, 6), (5, 5)])
@pytest.mark.parametrize("optimizer", ["adam_l2", "adamw"])
def test_the_next_step_has_the_new_rates_and_no_step_before(train, tmp_path, looks, taken, optimizer):
    """At the end of an epoch, and within one."""
    base = {**BY_STEP, "optimizer__name": optimizer, "optimizer__learning_rate": 0.02, "optimizer__weight_decay": 0.1}
    new = {"optimizer__learning_rate": 0.005, "optimizer__weight_decay": 0.01}
    train(tmp_path, looks, **base)
    train(tmp_path, 0, (RATE, DECAY), **base | new)
    expected = by_hand(4 * STEPS, taken, {"learning_rate": 0.005, "weight_decay": 0.01}, **base)
    state, progress = newest(tmp_path, start(settings(**base), corpus()))
    assert progress.epoch == 4
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_schedule_goes_on_from_where_it_was_with_another_peak(train, tmp_path):
    base = {**BY_STEP, "optimizer__schedule": "cosine", "optimizer__learning_rate": 0.02}
    train(tmp_path, 4, **base)
    train(tmp_path, 0, [RATE], **base | {"optimizer__learning_rate": 0.1})
    state, _ = newest(tmp_path, start(settings(**base), corpus()))
    jax.tree.map(np.testing.assert_array_equal, state, by_hand(4 * STEPS, 4, {"learning_rate": 0.1}, **base))


def test_a_changed_run_that_is_interrupted_again_is_the_one_that_is_not(train, tmp_path):
    new = {"optimizer__learning_rate": 0.5}
    for name in ("whole", "w"):
        train(tmp_path / name, 1)
    train(tmp_path / "whole", 0, RATE, **new)
    train(tmp_path / "w", 1, RATE, **new)
    train(tmp_path / "w", 1, RATE, **new)  # the same command again changes nothing more
    train(tmp_path / "w", **new)  # and the flag is not needed any more
    assert log(tmp_path / "w") == log(tmp_path / "whole")
    expected = (Change(RATE, 0.01, 0.5, 1, 0),)
    assert read_facts(tmp_path / "w").changes == read_facts(tmp_path / "whole").changes == expected


def test_seeds_together_are_changed_as_they_are_alone(train, tmp_path):
    # At a higher rate an utterance loses all of its text, and emotions are equally likely but for rounding.
    base = {"model__dropout_rate": 0.1}
    new = {**base, "optimizer__learning_rate": 0.5}
    train(tmp_path / "together", 1, seeds=2, **base)
    train(tmp_path / "together", 0, RATE, seeds=2, **new)
    for seed in (3, 4):
        train(tmp_path / str(seed), 1, seed=seed, **base)
        train(tmp_path / str(seed), 0, RATE, seed=seed, **new)
        for row, other in zip(log(tmp_path / "together" / f"seed{seed}"), log(tmp_path / str(seed)), strict=True):
            assert row == pytest.approx(other, rel=1e-5)


def test_reports_and_console_say_what_was_changed_and_when(train, tmp_path):
    train(tmp_path, 5, **BY_STEP)
    lines = train(tmp_path, 1, RATE, optimizer__learning_rate=0.001, **BY_STEP)
    first = f"{RATE} from 0.01 to 0.001 after 1 epochs and 2 steps"
    assert f"{tmp_path}: {first}" in lines
    train(tmp_path, 0, RATE, optimizer__learning_rate=0.002, **BY_STEP)
    second = f"{RATE} from 0.001 to 0.002 after 2 epochs"
    for name in ("report.md", "report.html"):
        assert f"{first}; {second}" in (tmp_path / name).read_text().replace("\\", "")
    assert json.loads((tmp_path / "config.json").read_text())["optimizer"]["learning_rate"] == 0.002


def test_patience_may_change_and_the_report_follows(train, tmp_path):
    changes = {"training__patience": 1, "training__epochs": 12, "optimizer__name": "sgd"}
    train(tmp_path, **changes)
    stopped = jmer.load_run(tmp_path)
    assert stopped.stopped
    train(tmp_path, 0, PATIENCE, **changes | {"training__patience": 4})
    longer = jmer.load_run(tmp_path)
    assert longer.epochs > stopped.epochs
    assert f"epoch {longer.epoch} of {longer.epochs}, chosen" in (tmp_path / "report.md").read_text()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("state", "change", "changes", "message"),
    [
        (
            "stopped",
            (),
            {"optimizer__learning_rate": 0.5},
            f"{RATE} is 0.01 there and 0.5 here; choose another workdir, or resume with the new value from the next "
            f"step by --change-on-resume {RATE}",
        ),
        ("stopped", DECAY, {"optimizer__learning_rate": 0.5}, f"{RATE} is 0.01 there and 0.5 here"),
        (
            "stopped",
            RATE,
            {"training__batch_size": 5},
            "training.batch_size is 4 there and 5 here; choose another",
        ),
        ("stopped", "optimizer.name", {}, "optimizer.name cannot be changed on resume, only optimizer.learning_rate"),
        ("stopped", RATE, {"optimizer__learning_rate": -1.0}, "optimizer.learning_rate is -1.0: give a number that is"),
        ("finished", RATE, {"optimizer__learning_rate": 0.5}, f"has nothing left to train with another {RATE}: raise"),
        ("none", RATE, {"optimizer__learning_rate": 0.5}, "holds no run that is resumed: leave out --change-on-resume"),
    ],
)
def test_what_cannot_be_changed_is_refused_before_anything_is_written(train, tmp_path, state, change, changes, message):
    if state != "none":
        train(tmp_path / "w", int(state == "stopped"))
    before = contents(tmp_path)
    with pytest.raises(UserError) as refusal:
        jmer.train(settings(**changes), corpus(), tmp_path / "w", log=None, change_on_resume=change)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


def test_a_run_that_is_changed_is_named():
    with pytest.raises(UserError, match="a run that is changed on resume must be named: give its workdir"):
        jmer.train(settings(), corpus(), log=None, change_on_resume=RATE)


def test_the_rates_of_a_state_are_those_of_the_configuration_bit_for_bit():
    run = start(settings(), corpus())
    same = with_rates(run.state.opt_state, settings().optimizer)
    jax.tree.map(np.testing.assert_array_equal, same, run.state.opt_state)
    assert jax.tree.map(lambda x: x.dtype, same) == jax.tree.map(lambda x: x.dtype, run.state.opt_state)


def test_the_command_line_changes_a_run(train, tmp_path):
    save_corpus(corpus(), tmp_path / "corpus")
    flags = ["--config", "packed_linear", "--corpus", str(tmp_path / "corpus"), "--workdir", str(tmp_path / "w")]
    linear_config()
    assert main(["train", *flags, "--config.training.epochs=1"]) == 0
    longer = [*flags, "--config.training.epochs=2", f"--config.{RATE}=0.5"]
    with pytest.raises(UserError, match=f"--change-on-resume {RATE}"):
        main(["train", *longer])
    assert main(["train", *longer, "--change-on-resume", RATE]) == 0
    assert read_facts(tmp_path / "w").changes == (Change(RATE, 0.01, 0.5, 1, 0),)
