"""Epochs that are not saved are lost to nothing but a crash, after which they are trained again with the same bits."""

import types

import jax
import numpy as np
import pytest
from test_resume import assert_same_run, log, newest, run  # noqa: F401 (a fixture)
from test_together import assert_same
from tiny import linear_config, start, tiny_corpus, train, train_together

from jmer.errors import UserError
from jmer.training import Interrupted, saving
from jmer.training.active_run import CHECKPOINT_FOLDER, ActiveRun
from jmer.training.checkpointing import Checkpoints
from jmer.training.saving import SavingTime

EPOCHS = 8
EVERY, SELDOM = {"training__save_share": 1.0}, {"training__save_share": 1e-9}


def config(**changes):
    base = {"training__epochs": EPOCHS, "training__batch_size": 4, "model__dropout_rate": 0.5}
    return linear_config(**base | {"optimizer__name": "sgd", "optimizer__learning_rate": 0.1} | changes)


def like():
    return start(config(), tiny_corpus())


def steps(workdir):
    """The steps of the checkpoints that were kept: the newest, and that of the best score."""
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
        kept = {int(path.name) for path in checkpoints.folder.iterdir()}
        assert kept == {checkpoints.newest, checkpoints.best}
        return checkpoints.newest, checkpoints.best


@pytest.fixture
def saves(monkeypatch):
    """The epochs of the progress that was saved, in order."""
    found = []

    def save(self, state, normalization, progress, score):
        found.append(progress.epoch)
        return original(self, state, normalization, progress, score)

    original = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", save)
    return found


def test_saving_takes_no_more_than_its_share(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(saving, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    spent = SavingTime(0.25)
    assert spent.is_over(), "nothing is known before the first time"
    with spent.measured():
        now[0] += 2
    assert not spent.is_over()
    now[0] += 5.9
    assert not spent.is_over()
    now[0] += 0.1
    assert spent.is_over() and spent.seconds == 2
    with spent.measured():
        now[0] += 1
    assert spent.seconds == 3 and not spent.is_over()
    now[0] += 3
    assert spent.is_over()
    always = SavingTime(1.0)
    with always.measured():
        now[0] += 100
    assert always.is_over()


def best(workdir):
    """The parameters of the best checkpoint, and the epoch and the score in it."""
    one = like()
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
        normalization, sharding = one.pipeline.normalization, one.mapping.state_sharding
        restored = checkpoints.restore(checkpoints.best, one.state, normalization, sharding)
    return jax.device_get((restored.state.params, restored.progress.epoch, restored.progress.best))


@pytest.mark.parametrize(("rate", "best_epoch"), [(0.1, 5), (0.0, EPOCHS)])
def test_a_run_keeps_the_same_checkpoints_however_seldom_it_saves(tmp_path, saves, rate, best_epoch):
    """The best epoch is held while later steps are taken; of epochs with one score, the last counts as the best."""
    for name, share in (("every", EVERY), ("seldom", SELDOM)):
        train(config(seed=3, optimizer__learning_rate=rate, **share), tiny_corpus(), tmp_path / name)
    assert saves[:EPOCHS] == list(range(1, EPOCHS + 1)) and saves[EPOCHS:] == sorted({1, best_epoch, EPOCHS})
    assert_same_run(tmp_path / "seldom", tmp_path / "every", like())
    assert steps(tmp_path / "seldom") == steps(tmp_path / "every")
    found, expected = best(tmp_path / "seldom"), best(tmp_path / "every")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found[1] == best_epoch


def test_after_a_crash_the_epochs_since_the_last_checkpoint_are_trained_again(tmp_path, monkeypatch, saves):
    train(config(**EVERY), tiny_corpus(), tmp_path / "whole")
    original = ActiveRun.finish_epoch

    def crash(self, *arguments):
        if self.progress.epoch == 5:
            raise MemoryError
        return original(self, *arguments)

    monkeypatch.setattr(ActiveRun, "finish_epoch", crash)
    with pytest.raises(MemoryError):
        train(config(**SELDOM), tiny_corpus(), tmp_path / "w")
    assert len(log(tmp_path / "w")) == 5 and newest(tmp_path / "w", like())[1].epoch == 1
    monkeypatch.setattr(ActiveRun, "finish_epoch", original)
    lines = []
    train(config(**SELDOM), tiny_corpus(), tmp_path / "w", lines.append)
    assert any("resumes after 1 of 8 epochs" in line for line in lines)
    assert_same_run(tmp_path / "w", tmp_path / "whole", like())
    assert steps(tmp_path / "w") == steps(tmp_path / "whole")


@pytest.mark.parametrize("looks", [3, 5])
def test_a_signal_saves_what_was_not(run, tmp_path, saves, looks):  # noqa: F811
    run(tmp_path / "whole", training__epochs=EPOCHS, **EVERY)
    saves.clear()
    with pytest.raises(Interrupted, match=f"SIGTERM: saved after epoch {looks}$"):
        run(tmp_path / "w", looks, training__epochs=EPOCHS, **SELDOM)
    assert saves[0] == 1 and saves[-1] == looks and len(saves) <= 3
    run(tmp_path / "w", training__epochs=EPOCHS, **SELDOM)
    assert_same_run(tmp_path / "w", tmp_path / "whole", like())
    assert steps(tmp_path / "w") == steps(tmp_path / "whole")


def test_a_signal_within_an_epoch_saves_the_best_one_before_it(run, tmp_path, saves):  # noqa: F811
    by_step = {"training__epochs": EPOCHS, "training__resident_megabytes": 0}
    run(tmp_path / "whole", **by_step, **EVERY)
    saves.clear()
    with pytest.raises(Interrupted, match=r"^SIGTERM: saved after step 11$"):
        run(tmp_path / "w", looks=11, **by_step, **SELDOM)
    assert saves[0] == 1 and saves[-1] == 3
    run(tmp_path / "w", **by_step, **SELDOM)
    assert steps(tmp_path / "w") == steps(tmp_path / "whole")


def test_runs_that_are_trained_together_are_saved_together(tmp_path, saves):
    configs = [config(seed=seed, training__patience=2, **SELDOM) for seed in (0, 1)]
    train_together(configs, tiny_corpus(), [tmp_path / "0", tmp_path / "1"])
    often = [config(seed=seed, training__patience=2, **EVERY) for seed in (0, 1)]
    train_together(often, tiny_corpus(), [tmp_path / "often0", tmp_path / "often1"])
    for i in (0, 1):
        assert_same(tmp_path / f"{i}", tmp_path / f"often{i}", like())
        assert steps(tmp_path / f"{i}") == steps(tmp_path / f"often{i}")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_is_a_share(tmp_path, share):
    with pytest.raises(UserError, match=r"^training.save_share is .*: give a share above 0, at most 1 \(every epoch\)"):
        train(config(training__save_share=share), tiny_corpus(), tmp_path / "w")
