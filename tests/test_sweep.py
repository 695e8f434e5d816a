"""Sweeps: runs of one program that differ by weights of loss terms, learning rate, weight decay and seed."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_resume import Countdown, log
from tiny import Linear, tiny_corpus

import jmer
from jmer.models import is_off
from jmer.training import loop


@dataclasses.dataclass(frozen=True)
class WeightedLoss:
    """The mean square of the logits, and the mean of their absolute values."""

    squares: float = 0.5
    sizes: float = 0.1
    power: float = 2.0

    def __call__(self, output, batch):
        def term(weight, values):
            return weight, jnp.where(batch.mask, values.sum(-1), 0).sum(), batch.mask.sum()

        size = jnp.abs(output.logits)
        terms = {"squares": term(self.squares, size**self.power)}
        return terms if is_off(self.sizes) else terms | {"sizes": term(self.sizes, size)}


SPEC = jmer.ModelSpec("weighted", Linear, WeightedLoss, loss_weights=("squares", "sizes"), packing=True)
SWEEP = (
    {},
    {"loss.sizes": 2.0},
    {"loss.squares": 0.1, "seed": 3},
    {"optimizer.learning_rate": 0.02, "optimizer.weight_decay": 0.1},
)


@functools.cache
def corpus():
    return tiny_corpus()


def configs(*sweep):
    jmer.register_model(SPEC)
    base = {
        "model.dropout_rate": 0.5,
        "training.epochs": 2,
        "training.batch_size": 4,
        "training.parallel": "jit",
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
    }
    return [jmer.get_config(SPEC.name, base | changes) for changes in sweep]


def folders(parent):
    return [parent / str(i) for i in range(len(SWEEP))]


pytestmark = pytest.mark.usefixtures("no_figures")


def test_each_run_is_what_it_would_be_alone(tmp_path, capfd):
    commands = [f"run {i}" for i in range(len(SWEEP))]
    runs = jmer.train_many(configs(*SWEEP), corpus(), folders(tmp_path / "many"), log=None, commands=commands)
    assert capfd.readouterr() == ("", "")
    assert [run.command for run in runs] == commands
    for run, config, workdir in zip(runs, configs(*SWEEP), folders(tmp_path / "alone"), strict=True):
        alone = jmer.train(config, corpus(), workdir, log=None)
        assert run.config == alone.config
        for row, expected in zip(log(run.folder), log(alone.folder), strict=True):
            assert row == pytest.approx(expected, rel=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6), run.variables, alone.variables)
        assert run.scores["test"].confusion == alone.scores["test"].confusion
    assert len({run.history[-1]["train/loss"] for run in runs}) == len(SWEEP)


def test_a_sweep_resumes_with_the_weights_and_rates_of_each_run(tmp_path, monkeypatch):
    whole = jmer.train_many(configs(*SWEEP), corpus(), folders(tmp_path / "whole"), log=None)
    with monkeypatch.context() as patched, pytest.raises(jmer.Interrupted, match=r"^SIGTERM: saved after epoch 1$"):
        patched.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(1)))
        jmer.train_many(configs(*SWEEP), corpus(), folders(tmp_path / "stopped"), log=None)
    lines = []
    runs = jmer.train_many(configs(*SWEEP), corpus(), folders(tmp_path / "stopped"), log=lines.append)
    assert sum(": resumes after 1 of 2 epochs and 0 of 3 steps" in line for line in lines) == len(SWEEP)
    for run, expected in zip(runs, whole, strict=True):
        assert log(run.folder) == log(expected.folder)
        jax.tree.map(np.testing.assert_array_equal, run.variables, expected.variables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss.power": 1.0}, "loss.power is 2.0 in one run and 1.0 in another: train them one after the other"),
        # Without a weight its term is not computed at all: another program.
        ({"loss.sizes": 0.0}, "loss.sizes is 0.1 in one run and 0.0 in another: train them one after the other"),
        ({"model.dropout_rate": 0.1}, "model.dropout_rate is 0.5 in one run and 0.1 in another: train them one after"),
        ({"optimizer.learning_rate": -1.0}, "optimizer.learning_rate is -1.0: give a number that is not negative"),
        ({"loss.sizes": -1.0}, "loss.sizes is -1.0: give a number that is not negative"),
        ({"seeds": 2}, "seeds is 2: give train_many a configuration with seeds=1 for each seed"),
        ({"seed": -1}, "seed is -1: give a whole number from 0"),
    ],
)
def test_what_a_sweep_cannot_train_is_refused_before_a_directory_is_made(tmp_path, changes, message):
    with pytest.raises(jmer.UserError) as refusal:
        jmer.train_many(configs({}, changes), corpus(), folders(tmp_path)[:2], log=None)
    assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        (0, [], "no configurations: give train_many one for each run"),
        (2, ["a"], "2 configurations, but 1 workdirs: give one for each run"),
        (2, ["a", "b/../a"], "workdirs names a directory twice: give each run its own"),
    ],
)
def test_each_run_has_a_directory_of_its_own(tmp_path, count, names, message):
    with pytest.raises(jmer.UserError) as refusal:
        jmer.train_many(
            configs(*[{"seed": i} for i in range(count)]), corpus(), [tmp_path / n for n in names], log=None
        )
    assert str(refusal.value) == message
    assert not list(tmp_path.iterdir())
