"""Runs that are trained together are those that are trained alone, whatever stops them, on any number of devices."""

import contextlib
import functools
import signal

import jax
import numpy as np
import pytest
from test_resume import BY_STEP, EPOCHS, IN_PIECES, STEPS, Countdown, lfvd, linear, log, newest
from tiny import by_shifts, start, tiny_corpus, train, train_together

from jmer.errors import UserError
from jmer.runs import read_config, train_runs
from jmer.training import Interrupted, active_run, create_train_state, loop
from jmer.training.checkpointing import Checkpoints
from jmer.training.multi_run import map_runs

SEEDS = (3, 0, 7)


@functools.cache
def corpus():
    return tiny_corpus()


def folders(parent, seeds=SEEDS):
    return [parent / f"seed{seed}" for seed in seeds]


def alone(parent, seeds=SEEDS, config=linear, **changes):
    for seed, folder in zip(seeds, folders(parent, seeds), strict=True):
        train(config(**changes, seed=seed), corpus(), folder)
    return folders(parent, seeds)


@pytest.fixture
def at_once(monkeypatch):
    """Returns a function that trains seeds together until the loop looks for signals the `looks`th time (0 = never)."""

    def run(parent, seeds=SEEDS, looks=0, config=linear, **changes):
        monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))
        lines = []
        configs = [config(**changes, seed=seed) for seed in seeds]
        return train_together(configs, corpus(), folders(parent, seeds), lines.append), lines

    return run


def assert_close(workdir, expected, like):
    for row, other in zip(log(workdir), log(expected), strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    (state, progress), (expected_state, expected_progress) = newest(workdir, like), newest(expected, like)
    assert progress == expected_progress
    assert state.step == expected_state.step
    np.testing.assert_array_equal(state.rng, expected_state.rng)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), state.params, expected_state.params)


def assert_same(workdir, expected, like):
    assert log(workdir) == log(expected)
    (state, progress), (expected_state, expected_progress) = newest(workdir, like), newest(expected, like)
    assert progress == expected_progress
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


def like():
    """A state of the runs' shapes."""
    return start(linear(), corpus())


ONE, EIGHT, TWO = {}, {"training__parallel": "pmap"}, {"training__parallel": "shard_map", "training__devices": 2}
MAPPINGS = [(3, ONE), (0, EIGHT)] + [pytest.param(*case, marks=pytest.mark.slow) for case in ((0, ONE), (3, TWO))]


@pytest.mark.parametrize(("curriculum", "devices"), MAPPINGS)
def test_each_run_is_what_it_would_be_alone(at_once, tmp_path, curriculum, devices):
    changes = by_shifts(curriculum)
    trained, lines = at_once(tmp_path / "together", **changes, **devices)
    assert trained and sum(line.startswith("epoch ") for line in lines) == EPOCHS
    for one, other in zip(folders(tmp_path / "together"), alone(tmp_path / "alone", **changes), strict=True):
        assert_close(one, other, like())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [ONE, EIGHT])
def test_each_run_of_lfvd_is_what_it_would_be_alone(at_once, tmp_path, devices):
    sampling = {"loss__kl_estimator": "mc", "loss__recon_weight": 0.1, "model__dropout_rate": 0.3}
    at_once(tmp_path / "together", config=lfvd, **sampling, **devices)
    expected = alone(tmp_path / "alone", config=lfvd, **sampling)
    for one, other in zip(folders(tmp_path / "together"), expected, strict=True):
        assert_close(one, other, start(lfvd(**sampling), corpus()))


def test_runs_of_different_seeds_differ(at_once, tmp_path):
    at_once(tmp_path)
    losses = [[row["train/loss"] for row in log(folder)] for folder in folders(tmp_path)]
    assert all(one != other for i, one in enumerate(losses) for other in losses[:i])


@pytest.mark.parametrize("devices", [ONE, pytest.param(EIGHT, marks=pytest.mark.slow)])
def test_stopped_after_every_epoch(at_once, tmp_path, devices):
    at_once(tmp_path / "whole", **devices)
    for epoch in range(1, EPOCHS + 1):
        with pytest.raises(Interrupted, match=f"^SIGTERM: saved after epoch {epoch}$") as stop:
            at_once(tmp_path / "w", looks=1, **devices)
        assert stop.value.signal == signal.SIGTERM
    finished, _ = at_once(tmp_path / "w", **devices)
    assert not finished
    for one, other in zip(folders(tmp_path / "w"), folders(tmp_path / "whole"), strict=True):
        assert_same(one, other, like())


def test_stopped_between_the_pieces_of_an_epoch(at_once, tmp_path):
    changes = {"training__epochs": 2}
    at_once(tmp_path / "whole", **changes)
    for saved in ("step 1", "step 2", "epoch 1", "step 4", "step 5", "epoch 2"):
        with pytest.raises(Interrupted, match=f"^SIGTERM: saved after {saved}$"):
            at_once(tmp_path / "w", looks=1, **changes, **IN_PIECES)
    for one, other in zip(folders(tmp_path / "w"), folders(tmp_path / "whole"), strict=True):
        assert_same(one, other, like())


def test_a_kill_between_two_saves_makes_some_wait_for_the_others(at_once, tmp_path, monkeypatch):
    at_once(tmp_path / "whole")

    class Killed(Exception):
        pass

    saves = []
    save = Checkpoints.save

    def kill_at_the_fifth(self, *arguments):
        saves.append(self)
        if len(saves) == 5:
            raise Killed
        save(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Checkpoints, "save", kill_at_the_fifth)
        at_once(tmp_path / "w")
    steps = [int(newest(folder, like())[0].step) for folder in folders(tmp_path / "w")]
    assert steps == [2 * STEPS, STEPS, STEPS]
    at_once(tmp_path / "w")
    for one, other in zip(folders(tmp_path / "w"), folders(tmp_path / "whole"), strict=True):
        assert_same(one, other, like())


def test_runs_that_were_begun_alone_resume_together(at_once, tmp_path, monkeypatch):
    """One seed stands in the middle of an epoch, one at its end, one at the start, and one comes new."""
    seeds = (*SEEDS, 5)
    expected = alone(tmp_path / "alone", seeds)
    for seed, looks in ((3, 4), (0, 6)):
        monkeypatch.setattr(loop, "catch_preemption", lambda looks=looks: contextlib.nullcontext(Countdown(looks)))
        with pytest.raises(Interrupted):
            alone(tmp_path / "w", (seed,), **BY_STEP)
    at_once(tmp_path / "w", (3, 0, 7), looks=0, training__epochs=2)
    at_once(tmp_path / "w", seeds)
    for one, other in zip(folders(tmp_path / "w", seeds), expected, strict=True):
        assert_close(one, other, like())


@pytest.mark.parametrize("way", [{}, IN_PIECES])
def test_a_run_that_breaks_is_named_and_the_others_are_saved(at_once, tmp_path, monkeypatch, way):
    def break_seed_0(*arguments, **options):
        state = create_train_state(*arguments, **options)
        scale = 1e25 if arguments[-1] == 0 else 1
        return state.replace(params=jax.tree.map(lambda x: x * np.float32(scale), state.params))

    monkeypatch.setattr(active_run, "create_train_state", break_seed_0)
    for epoch in (1, 2):
        message = r"^seed 0: loss term squares is not finite in step 1: .* saved in .*seed0; lower optimizer"
        with pytest.raises(UserError, match=message):
            at_once(tmp_path, **way)
        reached = [newest(folder, like())[1] for folder in folders(tmp_path)]
        # The others wait for the one that has not come through its first epoch.
        assert [(progress.epoch, progress.batch) for progress in reached] == [(1, 0), (0, 0), (1, 0)], epoch


def test_runs_are_mapped_over_as_few_devices_as_finish_as_soon():
    devices = [f"device {i}" for i in range(8)]
    found = [(len(map_runs(count, devices).devices), map_runs(count, devices).rows) for count in (1, 3, 8, 9, 12, 17)]
    assert found == [(1, 1), (3, 3), (8, 8), (5, 10), (6, 12), (6, 18)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__resident_megabytes": 0}, "raise training.resident_megabytes, or set seeds=1 and train one seed"),
        ({"training__epochs": 0}, "training.epochs is 0: give at least 1"),
    ],
)
def test_what_cannot_be_trained_together_leaves_no_folder(tmp_path, changes, message):
    configs = [linear(**changes, seed=seed) for seed in SEEDS]
    with pytest.raises(UserError, match=message):
        train_runs(configs, corpus(), folders(tmp_path / "w"), log=print)
    assert not (tmp_path / "w").exists()


def test_runs_that_differ_by_more_than_the_seed(tmp_path):
    configs = [lfvd(), lfvd(model__d_x=8)]
    with pytest.raises(UserError, match=r"^model\.d_x is 16 in one run and 8 in another: train them one after"):
        train_runs(configs, corpus(), folders(tmp_path, (0, 1)), log=print)


SWEEP = (
    {},
    {"loss__gamma_full": 0.5, "loss__gamma_distillation": 0.1, "seed": 1},
    {"optimizer__learning_rate": 0.02, "optimizer__weight_decay": 0.1},
)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "devices"), [("sgd", ONE), ("adamw", EIGHT)])
def test_runs_may_differ_in_loss_weights_and_rates(tmp_path, rule, devices):
    base = {"optimizer__name": rule, "optimizer__schedule": "linear"}
    together, apart = ([tmp_path / way / str(i) for i in range(3)] for way in ("together", "apart"))
    train_together([lfvd(**base | devices | changes) for changes in SWEEP], corpus(), together)
    for one, other, changes in zip(together, apart, SWEEP, strict=True):
        train(lfvd(**base | changes), corpus(), other)
        assert read_config(one).loss == read_config(other).loss
        for row, expected in zip(log(one), log(other), strict=True):
            assert row == pytest.approx(expected, rel=1e-5 if rule == "sgd" else 1e-3)
    assert len({log(one)[-1]["train/loss"] for one in together}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss__tau": 0.4},
            r"^loss\.tau is 0\.5 in one run and 0\.4 in another: train them one after the other$",
        ),
        (
            {"loss__gamma_full": 0.0},
            r"^loss\.gamma_full is 0\.005 in one run and 0\.0 in another: train them one after",
        ),
        ({"loss__kl_estimator": "mc"}, r"^loss\.kl_estimator is 'analytic' in one run and 'mc' in another: train"),
    ],
)
def test_what_is_no_weight_may_not_differ(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        train_runs([lfvd(), lfvd(**changes)], corpus(), folders(tmp_path / "w", (0, 1)), log=print)
    assert not (tmp_path / "w").exists()
