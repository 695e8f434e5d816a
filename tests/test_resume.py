"""A run that is stopped, whenever and however, resumes as if nothing had happened."""

import contextlib
import dataclasses
import functools
import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import by_shifts, linear_config, start, tiny_config, tiny_corpus, train

from jmer.data import make_corpus
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.training import Interrupted, loop
from jmer.training.active_run import CHECKPOINT_FOLDER
from jmer.training.checkpointing import Checkpoints
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines
from jmer.training.preemption import Preemption, catch_preemption

ROOT = Path(__file__).parent.parent
EPOCHS, STEPS = 3, 3
SETTINGS = {
    "training.batch_size": 4,
    "training.epochs": EPOCHS,
    "training.parallel": "jit",
    # Kills are at points of the saving of a certain epoch.
    "training.save_share": 1.0,
    # Adam's first step would give emotions the same bias but for rounding, and leave to that what is predicted of an
    # utterance without features.
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.01,
}
# Each step is a call, and signals are looked for after each.
BY_STEP = {"training__resident_megabytes": 0}
# An epoch on the device is a call for each step.
IN_PIECES = {"training__grace_seconds": 0.0}


def settings(**changes):
    return {name.replace(".", "__"): value for name, value in SETTINGS.items()} | changes


def linear(**changes):
    """The configuration of the runs in this process, with the smallest model."""
    return linear_config(**settings(model__dropout_rate=0.5) | changes)


def lfvd(**changes):
    """The configuration of the runs in processes of their own."""
    return tiny_config(**settings(**changes))


def log(workdir):
    """Returns the metrics without what a clock measured."""
    rows = read_json_lines(workdir / JSON_LINES_FILE)
    return [{name: value for name, value in row.items() if name != "utterances_per_second"} for row in rows]


def newest(workdir, like):
    """Returns the arrays of the newest checkpoint's state, and its progress without what a clock measured."""
    with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
        sharding = like.mapping.state_sharding
        restored = checkpoints.restore(checkpoints.newest, like.state, like.pipeline.normalization, sharding)
    state = dataclasses.replace(restored.state, rng=jax.random.key_data(restored.state.rng))
    return jax.device_get(state), dataclasses.replace(restored.progress, seconds=0.0, batch_seconds=0.0)


def assert_same_run(workdir, expected, like):
    assert log(workdir) == log(expected)
    (state, progress), (expected_state, expected_progress) = newest(workdir, like), newest(expected, like)
    assert progress == expected_progress
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)


# In this process, with the smallest model.


class Countdown(Preemption):
    """A signal is received when the loop looks for the `count`th time."""

    def __init__(self, count):
        self.count = count

    @property
    def received(self):
        self.count -= 1
        return signal.SIGTERM if self.count == 0 else None


@pytest.fixture
def run(monkeypatch):
    """Returns a function that trains in a folder until the loop looks for signals the `looks`th time (0 = never)."""

    def run(workdir, looks=0, corpus=None, **changes):
        monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))
        lines = []
        finished = train(linear(**changes), corpus or tiny_corpus(), workdir, lines.append)
        return finished, lines

    return run


@pytest.fixture
def whole(run, tmp_path):
    """A run of single steps that nothing disturbed, and a state of its shapes."""
    run(tmp_path / "whole", **BY_STEP)
    return tmp_path / "whole", start(linear(), tiny_corpus())


def resumes(workdir, epochs, batches, steps):
    """The line of a run that resumes."""
    return f"{workdir}: resumes after {epochs} of {EPOCHS} epochs and {batches} of {steps} steps"


# The loop looks after each batch but an epoch's last, and after each epoch.
@pytest.mark.parametrize(("looks", "saved"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 6), (9, 9)])
def test_stopped_between_any_two_steps(run, whole, tmp_path, looks, saved):
    expected, like = whole
    with pytest.raises(Interrupted, match=rf"SIGTERM: saved after (step {saved}|epoch {saved // STEPS})$") as stop:
        run(tmp_path / "w", looks, **BY_STEP)
    assert stop.value.signal == signal.SIGTERM
    assert int(newest(tmp_path / "w", like)[0].step) == saved
    unfinished, lines = run(tmp_path / "w", **BY_STEP)
    assert resumes(tmp_path / "w", saved // STEPS, saved % STEPS, STEPS) in lines
    assert unfinished == (saved < EPOCHS * STEPS)
    assert_same_run(tmp_path / "w", expected, like)


def test_stopped_at_every_step(run, whole, tmp_path):
    expected, like = whole
    for _ in range(EPOCHS * STEPS):
        with pytest.raises(Interrupted):
            run(tmp_path / "w", looks=1, **BY_STEP)
    unfinished, _ = run(tmp_path / "w", looks=1, **BY_STEP)
    assert not unfinished
    assert_same_run(tmp_path / "w", expected, like)


@pytest.mark.parametrize("curriculum", [0, 3])
def test_stopped_after_every_epoch_on_the_device(run, tmp_path, curriculum):
    """Without a curriculum epochs have three steps, with it one, two and three."""
    changes = by_shifts(curriculum)
    run(tmp_path / "whole", **changes)
    for epoch in range(1, EPOCHS + 1):
        with pytest.raises(Interrupted, match=f"SIGTERM: saved after epoch {epoch}$"):
            run(tmp_path / "w", looks=1, **changes)
    unfinished, _ = run(tmp_path / "w", **changes)
    assert not unfinished
    assert_same_run(tmp_path / "w", tmp_path / "whole", start(linear(), tiny_corpus()))


ONE_DEVICE, EIGHT_DEVICES = {}, {"training__parallel": "pmap"}


@pytest.mark.parametrize(
    ("looks", "saved", "devices"),
    [(1, "step 1", ONE_DEVICE), (3, "epoch 1", ONE_DEVICE), (5, "step 5", EIGHT_DEVICES), (9, "epoch 3", ONE_DEVICE)],
)
def test_stopped_between_the_pieces_of_an_epoch_on_the_device(run, tmp_path, looks, saved, devices):
    run(tmp_path / "whole", **devices)
    with pytest.raises(Interrupted, match=f"SIGTERM: saved after {saved}$"):
        run(tmp_path / "w", looks, **devices, **IN_PIECES)
    run(tmp_path / "w", **devices)
    assert_same_run(tmp_path / "w", tmp_path / "whole", start(linear(), tiny_corpus()))


def test_stopped_at_every_piece_of_the_epochs_of_a_curriculum(run, tmp_path):
    """Epochs of one, two and three steps, in a program of three."""
    changes = by_shifts(3)
    run(tmp_path / "whole", **changes)
    for saved in ("epoch 1", "step 2", "epoch 2", "step 4", "step 5", "epoch 3"):
        with pytest.raises(Interrupted, match=f"SIGTERM: saved after {saved}$"):
            run(tmp_path / "w", looks=1, **changes, **IN_PIECES)
    assert_same_run(tmp_path / "w", tmp_path / "whole", start(linear(), tiny_corpus()))


def assert_close_run(workdir, expected, like):
    for row, other in zip(log(workdir), log(expected), strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    (state, _), (expected_state, _) = newest(workdir, like), newest(expected, like)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state, expected_state)


@pytest.mark.parametrize("looks", [1, 5])
def test_stopped_in_mid_epoch_and_resumed_on_the_device(run, whole, tmp_path, looks):
    expected, like = whole
    with pytest.raises(Interrupted):
        run(tmp_path / "w", looks, **BY_STEP)
    run(tmp_path / "w")
    assert_close_run(tmp_path / "w", expected, like)


def test_stopped_within_and_between_the_epochs_of_a_curriculum(run, tmp_path):
    """Epochs of one, two and three steps."""
    changes = by_shifts(3) | BY_STEP
    run(tmp_path / "whole", **changes)
    for looks, saved in ((1, "epoch 1"), (1, "step 2"), (2, "step 4")):
        with pytest.raises(Interrupted, match=f"SIGTERM: saved after {saved}$"):
            run(tmp_path / "w", looks, **changes)
    _, lines = run(tmp_path / "w", **changes)
    assert resumes(tmp_path / "w", 2, 1, 3) in lines
    assert_same_run(tmp_path / "w", tmp_path / "whole", start(linear(), tiny_corpus()))


def test_resumes_on_other_devices(run, whole, tmp_path):
    expected, like = whole
    with pytest.raises(Interrupted):
        run(tmp_path / "w", looks=5, training__parallel="pmap", training__devices=8, **BY_STEP)
    run(tmp_path / "w", training__parallel="shard_map", training__devices=2)
    assert_close_run(tmp_path / "w", expected, like)


def test_trains_on_for_more_epochs(run, whole, tmp_path):
    expected, like = whole
    run(tmp_path / "w", training__epochs=1, **BY_STEP)
    run(tmp_path / "w", training__epochs=EPOCHS, **BY_STEP)
    assert_same_run(tmp_path / "w", expected, like)


@pytest.mark.parametrize("way", [{}, BY_STEP, IN_PIECES])
def test_stops_at_a_loss_that_is_not_finite(run, tmp_path, way):
    corpus = tiny_corpus()
    training = corpus.conversations("train")
    like = start(linear(), corpus)
    worst = list(like.batches(2))[1].conversation_ids[0, 0]
    extreme = dataclasses.replace(
        training[worst],
        features={m: x * np.float32(1e25) for m, x in training[worst].features.items()},
    )
    training = [extreme if i == worst else c for i, c in enumerate(training)]
    corpus = make_corpus({**{s: corpus.conversations(s) for s in corpus.splits}, "train": training}, corpus.card)
    message = (
        r"^loss term squares is not finite in step 2: .* the state before it is saved in .*; lower optimizer.learn"
    )
    for _ in range(2):  # The same command again meets the same end, and loses nothing.
        with pytest.raises(UserError, match=message):
            run(tmp_path / "w", corpus=corpus, data__normalization="none", **way)
        state, progress = newest(tmp_path / "w", like)
        assert (int(state.step), progress.epoch, progress.batch) == (1, 0, 1)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_stops_at_a_step_that_breaks_the_network(run, tmp_path):
    with pytest.raises(UserError, match=r"^the gradient or the parameter update is not finite in step 1: "):
        run(tmp_path / "w", optimizer__name="sgd", optimizer__learning_rate=3e38, optimizer__weight_decay=1e3)
    like = start(linear(optimizer__name="sgd"), tiny_corpus())
    state, _ = newest(tmp_path / "w", like)
    jax.tree.map(np.testing.assert_array_equal, state.params, jax.device_get(like.state.params))


class Acted(Exception):
    """A handler of the program was called."""


def act(*_):
    raise Acted


@pytest.fixture
def handler():
    """Sets handlers of signals for a test."""
    with contextlib.ExitStack() as stack:

        def set_handler(number, found):
            stack.callback(signal.signal, number, signal.signal(number, found))

        yield set_handler


SCHEDULERS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, *SCHEDULERS])
def test_the_first_signal_is_recorded_and_only_a_second_interrupt_acts(handler, number):
    handler(number, signal.SIG_DFL if number in SCHEDULERS else act)
    before = signal.getsignal(number)
    with catch_preemption() as preemption:
        assert preemption.received is None
        for other in (number, signal.SIGTERM, *SCHEDULERS):
            signal.raise_signal(other)
            assert preemption.received == number
    assert signal.getsignal(number) == before


def test_a_second_interrupt_acts(handler):
    handler(signal.SIGINT, act)
    with catch_preemption() as preemption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert preemption.received == signal.SIGTERM
        with pytest.raises(Acted):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(Acted):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SCHEDULERS)
def test_a_signal_that_the_program_waits_for_is_left_to_it(handler, number):
    handler(number, act)
    with catch_preemption() as preemption, pytest.raises(Acted):
        signal.raise_signal(number)
    assert preemption.received is None


# In processes of their own, through the command line, with LFVD.

STEPWISE = {"training.resident_megabytes": 0}


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    save_corpus(tiny_corpus(), folder)
    return folder


def call(command, status=0):
    """Runs a command; returns its lines on stdout and stderr."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


def arguments(corpus_folder, workdir, **changes):
    fields = [f"--config.{name}={value}" for name, value in (SETTINGS | {"model.dag_layers": 1} | changes).items()]
    return ["--config", "configs/lfvd_meld.py:tiny", "--corpus", str(corpus_folder), "--workdir", str(workdir), *fields]


def sabotage(number, point, *rest, status):
    return call([sys.executable, "tests/sabotage.py", number.name, json.dumps(point), "--", *rest], status)


@pytest.fixture(scope="module")
def undisturbed(corpus_folder, tmp_path_factory):
    return finished(corpus_folder, tmp_path_factory)


@pytest.fixture(scope="module")
def undisturbed_by_step(corpus_folder, tmp_path_factory):
    return finished(corpus_folder, tmp_path_factory, **STEPWISE)


def finished(corpus_folder, tmp_path_factory, **changes):
    workdir = tmp_path_factory.mktemp("undisturbed") / "w"
    call([sys.executable, "-m", "jmer.main", *arguments(corpus_folder, workdir, **changes)])
    return workdir, start(lfvd(), tiny_corpus())


def assert_same_results(workdir, expected, like):
    assert_same_run(workdir, expected, like)
    for split in ("train", "validation", "test"):
        name = Path("predictions") / f"{split}.csv"
        assert (workdir / name).read_bytes() == (expected / name).read_bytes()


SECOND_SAVE = f"{CHECKPOINT_FOLDER}/{2 * STEPS}.orbax-checkpoint-tmp"
KILLS = {
    "in mid-epoch": STEPS + 2,
    "before the first save": 1,
    "while a save writes": [["open", f"{SECOND_SAVE}/state"], ["open", f"{SECOND_SAVE}/state"]],
    "while a save renames its parts": [["os.rename", SECOND_SAVE], ["os.rename", SECOND_SAVE]],
    "at the commit of a save": [["os.rename", f"{CHECKPOINT_FOLDER}/{2 * STEPS}'"]],
    "while an old checkpoint is removed": [["shutil.rmtree", f"{CHECKPOINT_FOLDER}/"], *2 * [["os.remove", ""]]],
}


@pytest.mark.slow
@pytest.mark.parametrize("point", KILLS)
def test_killed(point, corpus_folder, undisturbed, tmp_path):
    command = arguments(corpus_folder, tmp_path / "w")
    sabotage(signal.SIGKILL, KILLS[point], *command, status=-signal.SIGKILL)
    call([sys.executable, "-m", "jmer.main", *command])
    assert_same_results(tmp_path / "w", *undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected", "changes", "saved", "batches"),
    [
        (signal.SIGTERM, "undisturbed_by_step", STEPWISE, f"step {STEPS + 2}", 2),
        (signal.SIGINT, "undisturbed", {}, "epoch 2", 0),
    ],
)
def test_asked_to_stop_in_mid_epoch(number, expected, changes, saved, batches, corpus_folder, tmp_path, request):
    expected = request.getfixturevalue(expected)
    command = arguments(corpus_folder, tmp_path / "w", **changes)
    out, err = sabotage(number, STEPS + 2, *command, status=128 + number)
    last = out.splitlines()[-1]
    saved_line, command = last.split("; the same command resumes: ")
    assert (saved_line, err) == (f"{number.name}: saved after {saved}", "")
    program, *rest = shlex.split(command)
    assert program == "python"
    out, _ = call([sys.executable, *rest])
    done = 2 - (batches > 0)
    assert resumes(tmp_path / "w", done, batches, STEPS) in out.splitlines()
    assert_same_results(tmp_path / "w", *expected)


@pytest.mark.slow
def test_a_finished_run_says_so(corpus_folder, undisturbed):
    workdir, _ = undisturbed
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    out, _ = call([sys.executable, "-m", "jmer.main", *arguments(corpus_folder, workdir)])
    assert f"this run is finished; its report, {workdir / 'report.md'}:\n\n{(workdir / 'report.md').read_text()}" in out
    for name in ("report.md", JSON_LINES_FILE):
        assert (workdir / name).read_bytes() == before[workdir / name]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line(corpus_folder, tmp_path):
    changes = {"optimizer.name": "sgd", "optimizer.learning_rate": 1e15}
    command = [sys.executable, "-m", "jmer.main", *arguments(corpus_folder, tmp_path / "w", **changes)]
    _, err = call(command, status=2)
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert " is not finite in step " in line
    state, _ = newest(tmp_path / "w", start(lfvd(optimizer__name="sgd"), tiny_corpus()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_a_truncated_checkpoint_is_one_line(corpus_folder, undisturbed, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(undisturbed[0], workdir)
    folder = workdir / CHECKPOINT_FOLDER / str(EPOCHS * STEPS)
    for path in (folder / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, err = call([sys.executable, "-m", "jmer.main", *arguments(corpus_folder, workdir)], status=2)
    (line,) = err.splitlines()
    assert line.startswith(f"error: checkpoint {folder} is damaged: remove that folder to ")
    shutil.rmtree(folder)
    call([sys.executable, "-m", "jmer.main", *arguments(corpus_folder, workdir)])
    assert_same_results(workdir, *undisturbed)
