"""What a run in a folder is asked for when it is resumed is met, or refused in one line before anything is written."""

import contextlib
import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import orbax.checkpoint as ocp
import pytest
from test_resume import Countdown
from tiny import linear_config, tiny_corpus

import jmer
from jmer.data import make_corpus
from jmer.errors import UserError
from jmer.runs.directory import CONFIG_FILE, RUN_FILE, SCORES_FILE, RunInUse, lock, read_json
from jmer.training import loop
from jmer.training.active_run import CHECKPOINT_FOLDER
from jmer.training.checkpointing import Checkpoints, newest_progress

EPOCHS = 3


pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with runs in several states, which no test changes."""
    folder = tmp_path_factory.mktemp("runs")
    ask(folder / "finished")
    ask(folder / "scheduled", optimizer__schedule="linear")
    # After one epoch and a step of the next.
    interrupt(folder / "stopped", looks=4, training__resident_megabytes=0)
    interrupt(folder / "scheduled and stopped", looks=1, optimizer__schedule="cosine")
    ask(folder / "seeds", seed=2, seeds=3)
    return folder


def ask(folder, corpus=None, **changes):
    """Trains with a configuration of three epochs, and these changes of it."""
    config = linear_config(**{"training__epochs": EPOCHS} | changes)
    return jmer.train(config, corpus or tiny_corpus(), folder, log=None)


def interrupt(folder, looks, **changes):
    """Trains until the loop looks for signals the `looks`th time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))
        with pytest.raises(jmer.Interrupted):
            ask(folder, **changes)


def contents(folder):
    found = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    return found, {path: path.read_bytes() for path in found if path.is_file()}


def other_labels(conversation):
    return dataclasses.replace(conversation, labels=np.where(conversation.labels == 0, 1, conversation.labels))


def relabelled():
    made = tiny_corpus()
    splits = {split: made.conversations(split) for split in made.splits}
    return make_corpus(splits | {"test": [other_labels(c) for c in splits["test"]]}, made.card)


BELONGS = "belongs to another configuration"
REFUSED = {
    "another learning rate": ({"optimizer__learning_rate": 0.5}, f"{BELONGS}: optimizer.learning_rate is 0.01 there"),
    "another optimizer": ({"optimizer__name": "sgd"}, f"{BELONGS}: optimizer.name is 'adam_l2' there and 'sgd' here"),
    "a schedule": ({"optimizer__schedule": "linear"}, f"{BELONGS}: optimizer.schedule is 'constant' there"),
    "a warm-up": ({"optimizer__warmup_epochs": 1}, f"{BELONGS}: optimizer.warmup_epochs is 0 there and 1 here"),
    "another selection": ({"selection": "last"}, f"{BELONGS}: selection is 'validation' there and 'last' here"),
    "another seed": ({"seed": 1}, f"{BELONGS}: seed is 0 there and 1 here"),
    "another batch size": ({"training__batch_size": 5}, f"{BELONGS}: training.batch_size is 4 there and 5 here"),
    "a curriculum": (
        {"curriculum__measure": "shift"},
        f"{BELONGS}: curriculum.measure is 'none' there and 'shift' here",
    ),
    "patience": ({"training__patience": 1}, f"{BELONGS}: training.patience is 0 there and 1 here"),
    "no normalization": ({"data__normalization": "none"}, f"{BELONGS}: data.normalization is 'standard' there"),
    "another context": ({"data__context": "drop_unlabelled"}, f"{BELONGS}: data.context is 'mask_unlabelled' there"),
    "a model's field": ({"model__dropout_rate": 0.1}, f"{BELONGS}: model.dropout_rate is 0.2 there and 0.1 here"),
    "fewer modalities": (
        {"model__modalities": ("text",)},
        f"{BELONGS}: model.modalities is ('text', 'audio', 'visual')",
    ),
    "another precision": (
        {"training__matmul_precision": "float32"},
        f"{BELONGS}: training.matmul_precision is 'default' there and 'float32' here",
    ),
    "another corpus": ({"corpus": relabelled}, "was trained on another version of corpus 'synthetic-iemocap4': the la"),
    "more devices than there are": (
        {"training__parallel": "pmap", "training__devices": 9},
        "training.devices is 9, but there are 8",
    ),
    "several devices without a mapping": ({"training__devices": 2}, "training.parallel=jit uses one device"),
    "several seeds": ({"seeds": 2}, "is the directory of a single run: choose another workdir"),
    "fewer epochs": (
        {"training__epochs": 2},
        "has trained for 3 epochs, and training.epochs is 2: ask for at least 3, or choose another workdir",
    ),
}
OF_OTHER_RUNS = {
    "more epochs of a schedule": (
        "scheduled",
        {"optimizer__schedule": "linear", "training__epochs": 4},
        "depends on it",
    ),
    "fewer epochs of a schedule": (
        "scheduled and stopped",
        {"optimizer__schedule": "cosine", "training__epochs": 2},
        f"{BELONGS}: training.epochs is 3 there and 2 here, and optimizer.schedule=cosine depends on it; choose",
    ),
    "fewer epochs than are begun": (
        "stopped",
        {"training__epochs": 1},
        "has trained for 1 epochs and a part of another, and training.epochs is 1: ask for at least 2, or choose",
    ),
    "fewer seeds": (
        "seeds",
        {"seed": 2, "seeds": 2},
        "holds the runs of seeds 2, 3, 4, and seeds 2, 3 are asked for: ask for all of them (seed=2, seeds=3)",
    ),
    "seeds apart": (
        "seeds",
        {"seed": 5, "seeds": 2},
        "and seeds 5, 6 are asked for: ask for all of them (seed=2, seeds=5), or choose another workdir",
    ),
    "seeds that overlap": (
        "seeds",
        {"seed": 3, "seeds": 4},
        "seeds 3, 4, 5, 6 are asked for: ask for all of them (seed=2",
    ),
    "a single seed": (
        "seeds",
        {"seed": 2},
        "holds the runs of several seeds: choose another workdir, or one of theirs",
    ),
    "more seeds with another rate": (
        "seeds",
        {"seed": 1, "seeds": 4, "optimizer__learning_rate": 0.5},
        f"seed2 {BELONGS}: optimizer.learning_rate is 0.01 there and 0.5 here",
    ),
    "more seeds for fewer epochs": (
        "seeds",
        {"seed": 1, "seeds": 4, "training__epochs": 1},
        "seed2 has trained for 3 epochs, and training.epochs is 1",
    ),
}
ALL_REFUSED = [("finished", *row) for row in REFUSED.values()] + list(OF_OTHER_RUNS.values())


@pytest.mark.parametrize(("state", "asked", "said"), ALL_REFUSED, ids=[*REFUSED, *OF_OTHER_RUNS])
def test_refused_before_anything_is_written(runs, state, asked, said):
    before, asked = contents(runs), dict(asked)
    corpus = asked.pop("corpus", tiny_corpus)()
    with pytest.raises(UserError) as refused:
        ask(runs / state, corpus, **asked)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert contents(runs) == before


@pytest.fixture
def run(runs, tmp_path):
    """Returns a function that copies a run, which may be changed then."""
    return lambda state: shutil.copytree(runs / state, tmp_path / state)


def on_record(folder, name):
    return read_json(folder / name)


@pytest.mark.parametrize(
    ("state", "asked", "epochs"),
    [
        ("finished", {"training__epochs": EPOCHS + 1}, EPOCHS + 1),
        ("stopped", {}, EPOCHS),
        ("stopped", {"training__epochs": 2}, 2),
        ("stopped", {"training__parallel": "pmap", "training__devices": 2}, EPOCHS),
        ("stopped", {"training__resident_megabytes": 0}, EPOCHS),
        ("scheduled and stopped", {"optimizer__schedule": "cosine"}, EPOCHS),
    ],
)
def test_met(run, state, asked, epochs):
    folder = run(state)
    made = ask(folder, **asked)
    assert made.epochs == made.config.training.epochs == on_record(folder, SCORES_FILE)["epochs"] == epochs
    assert made.config.training.devices == asked.get("training__devices", 0)


def test_more_seeds_join_those_that_are_there(run):
    folder = run("seeds")
    before = {path: path.read_bytes() for path in folder.glob("seed*/checkpoints/**/*") if path.is_file()}
    made = ask(folder, seed=1, seeds=5)
    assert [one.seed for one in made] == [one.seed for one in jmer.load_run(folder)] == [1, 2, 3, 4, 5]
    assert "5 seeds" in (folder / "report.md").read_text()
    assert {path: path.read_bytes() for path in before} == before


def test_what_trained_a_finished_run_stays_on_record(run):
    folder = run("finished")
    facts, config = on_record(folder, RUN_FILE), on_record(folder, CONFIG_FILE)
    corpus = dataclasses.replace(tiny_corpus(), source="elsewhere")
    ask(folder, corpus, training__parallel="pmap", training__devices=2)
    assert on_record(folder, RUN_FILE) == facts
    config["data"]["path"] = "elsewhere"
    assert on_record(folder, CONFIG_FILE) == config


def test_a_run_that_was_planned_for_longer_and_is_asked_for_what_it_has(run):
    folder = run("stopped")
    ask(folder, training__epochs=2)
    ask(folder)
    assert jmer.load_run(folder).epochs == on_record(folder, CONFIG_FILE)["training"]["epochs"] == EPOCHS


def test_new_seeds_beside_a_busy_one_leave_nothing(run):
    """Neither a folder nor a lock."""
    folder = run("seeds")
    before = contents(folder)
    with ThreadPoolExecutor(1) as other, lock(folder / "seed3"):
        refused = other.submit(ask, folder, seed=1, seeds=4).exception()
    assert isinstance(refused, RunInUse) and contents(folder) == before


def test_one_process_alone_may_look_how_far_a_run_has_come(runs, monkeypatch):
    """Orbax waits for the others."""
    with Checkpoints(runs / "stopped" / CHECKPOINT_FOLDER) as checkpoints:
        expected = checkpoints.progress(checkpoints.newest)
    monkeypatch.setattr(ocp, "CheckpointManager", None)
    found = newest_progress(runs / "stopped" / CHECKPOINT_FOLDER)
    assert found == expected and (found.epoch, found.batch) == (1, 1)


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(run):
    folder = run("finished")
    *earlier, newest = sorted((folder / CHECKPOINT_FOLDER).iterdir(), key=lambda path: int(path.name))
    rest = f"resume from {earlier[-1]}" if earlier else "train from the start"
    (newest / "progress" / "metadata").write_text("{")
    before = contents(folder)
    with pytest.raises(UserError, match=rf"^checkpoint {newest} is damaged: remove that folder to {rest}"):
        ask(folder)
    assert contents(folder) == before
