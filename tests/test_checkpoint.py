"""What is saved comes back bit for bit on any devices, and what cannot be read is one line."""

import asyncio
import errno
import functools
import gc
import json
import logging
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import linear_model

from jmer.data.normalization import Standardization
from jmer.errors import UserError
from jmer.training import create_train_state
from jmer.training.active_run import CHECKPOINT_FOLDER, ActiveRun
from jmer.training.checkpointing import Checkpoints
from jmer.training.parallel import make_parallel
from jmer.training.progress import Progress

NORMALIZATION = {
    "text": Standardization(
        np.array([0.1, -2, 3], np.float32),
        np.array([1, np.inf, 1e-3], np.float32),
        *np.array([[-9, -2, 2.9], [9, -2, 3.1]], np.float32),
        np.float32(5),
    )
}
PROGRESS = Progress(
    epoch=3, batch=2, loss=1 / 3, terms={"squares": [0.1, 7.0]}, confusion=[[1, 0], [2, 3]], seconds=0.7
)

# Of a network so wide that Orbax gives an array a file of its own, which it does not check.
WIDE = 500


@functools.cache
def state(step=0, width=3):
    """A state after some steps, whose every array depends on their number."""
    made = create_train_state(linear_model(), optax.adam(0.1), {"text": width}, seed=step)
    moved = jax.tree.map(lambda x: x + step, (made.params, made.opt_state))
    return made.replace(step=jnp.asarray(step, jnp.int32), params=moved[0], opt_state=moved[1])


def raw(tree):
    """Replaces the random key, which NumPy cannot hold, by its numbers."""
    return jax.device_get(tree.replace(rng=jax.random.key_data(tree.rng)))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, raw(one), raw(other))


def save(checkpoints, step, score=None, width=3):
    checkpoints.save(state(step, width), NORMALIZATION, PROGRESS, score)


def restore(folder, step, like=None, parallel=None):
    sharding = (parallel or make_parallel("jit")).state_sharding
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(step, like or state(), NORMALIZATION, sharding)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_comes_back_on_any_number_of_devices(tmp_path, devices):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 5)
    for backend in ("pmap", "shard_map"):
        parallel = make_parallel(backend, devices)
        found = restore(tmp_path, 5, parallel=parallel)
        assert_same(found.state, state(5))
        assert found.state.rng.dtype == state().rng.dtype
        assert found.progress == PROGRESS
        jax.tree.map(np.testing.assert_array_equal, found.normalization, NORMALIZATION)
        for leaf in jax.tree.leaves(found.state):
            assert leaf.sharding == parallel.state_sharding
            assert len(leaf.devices()) == devices


def test_comes_back_from_eight_devices_on_one(tmp_path):
    spread = make_parallel("shard_map", 8).replicate(state(5))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(spread, NORMALIZATION, PROGRESS, None)
    found = restore(tmp_path, 5)
    assert_same(found.state, state(5))
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(found.state))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.5, 0.3, 0.2], 2),
        ([0.1, 0.2, 0.3, 0.4], 4),
        ([0.4, 0.3, 0.2, 0.1], 1),
        ([0.1, float("nan"), float("inf"), None], 1),
        ([float("nan"), 0.0, -0.1, float("-inf")], 2),
        ([None, float("nan")], None),
    ],
    ids=str,
)
def test_keeps_the_newest_and_the_best(tmp_path, scores, best):
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.newest, checkpoints.best) == (None, None)
        for step, score in enumerate(scores, 1):
            save(checkpoints, step, score)
            assert checkpoints.newest == step
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.newest, checkpoints.best) == (len(scores), best)
        assert checkpoints.progress(len(scores)) == PROGRESS
    kept = {int(path.name) for path in tmp_path.iterdir()}
    assert kept == {len(scores), best} - {None}
    for step in kept:
        assert_same(restore(tmp_path, step).state, state(step))


def test_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 0.5)
        checkpoints.save(state(1), NORMALIZATION, Progress(), 0.9)
        assert checkpoints.progress(1) == PROGRESS


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell what a descriptor is of")
def test_a_checkpoint_is_on_the_disk_when_it_is_saved(tmp_path, flushed):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 0.9)
        made = {path for path in (tmp_path / "1").rglob("*")}
        assert made and made <= set(flushed)


def test_leftovers_of_a_killed_save_go(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    leftover = tmp_path / "2.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    leftover.mkdir(parents=True)
    (leftover / "manifest.ocdbt").write_bytes(b"half")
    (tmp_path / "2.orbax-checkpoint-tmp" / "metrics").mkdir()
    (tmp_path / "2.orbax-checkpoint-tmp" / "metrics" / "metrics").write_bytes(b"half")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest == 1
        save(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["2"]
    assert_same(restore(tmp_path, 2).state, state(2))


def test_refuses_another_network(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    here = (
        r"params/Dense_0/kernel is \(3, 4\) there and \(5, 4\) here; use its own configuration and corpus, or another"
    )
    with pytest.raises(UserError, match=rf"^checkpoint {tmp_path}/1 holds another network: {here} workdir$"):
        restore(tmp_path, 1, like=state(width=5))
    deeper = state().replace(params=state().params | {"Dense_1": {"bias": jnp.zeros(2)}})
    with pytest.raises(UserError, match=r"network: params/Dense_1/bias is absent there and \(2,\) here; use its own"):
        restore(tmp_path, 1, like=deeper)


def in_a_process(call):
    # Of its own: Orbax leaves open the other reads where one fails, and pytest would report them.
    script = f"import test_checkpoint; test_checkpoint.{call}"
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, check=True, timeout=600)


def test_a_file_that_was_cut_is_one_line_or_harmless(tmp_path):
    in_a_process(f"cut_each_file({str(tmp_path)!r})")


@pytest.mark.parametrize("places", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_one_line_or_harmless(tmp_path, places):
    in_a_process(f"flip_bits({str(tmp_path)!r}, {places})")


def cut_each_file(folder):
    refused = set()
    for path in saved_files(folder):
        content = path.read_bytes()
        if not is_harmless(folder, path, content[: len(content) // 2]):
            refused.add(path.name)
    assert refused >= {"metrics", "metadata", "_METADATA", "manifest.ocdbt"}


def flip_bits(folder, places):
    """Flips a bit in each file of a checkpoint after another; half of the places are in its largest files."""
    rng, files = np.random.default_rng(0), saved_files(folder)
    files.sort(key=lambda path: path.stat().st_size)
    refused = 0
    for number in range(places):
        path = files[number // 2 % len(files)] if number % 2 else files[-1 - number // 2 % 3]
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        refused += not is_harmless(folder, path, bytes(content))
    assert refused > places / 3


def saved_files(folder):
    with Checkpoints(folder) as checkpoints:
        save(checkpoints, 1, 0.5, WIDE)
        save(checkpoints, 2, 0.4, WIDE)
    return sorted(path for path in (Path(folder) / "1").rglob("*") if path.is_file())


def is_harmless(folder, path, content):
    """Whether a checkpoint with other contents of a file is the same; if not, that must be one line."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        found = restore(folder, 1, like=state(0, WIDE))
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.best == 1
    except UserError as error:
        assert str(error) == f"checkpoint {folder}/1 is damaged: remove that folder to resume from {folder}/2"
        return False
    finally:
        path.write_bytes(before)
    assert_same(found.state, state(1, WIDE))
    assert found.progress == PROGRESS
    jax.tree.map(np.testing.assert_array_equal, found.normalization, NORMALIZATION)
    return True


# As TensorStore puts them.
FULL = (
    'RESOURCE_EXHAUSTED: Error writing "rng/0" in OCDBT database: Failed to write 240 bytes to file 22: No space '
    "left on device [os_error_code='28']\n" + "In an event loop\n" * 99
)
FORBIDDEN = "PERMISSION_DENIED: Error opening /x: Permission denied [os_error_code='13']"


@pytest.mark.parametrize(
    ("place", "error", "line"),
    [
        ("os.mkdir", OSError(28, "No space left on device"), "No space left on device): free the disk"),
        ("os.mkdir", OSError(errno.EROFS, "?"), "Read-only file system): have the file system mounted for writing"),
        ("os.mkdir", OSError(errno.EDQUOT, "?"), "Disk quota exceeded): delete files of yours, have the quota raised"),
        ("os.mkdir", OSError(errno.ESTALE, "?"), "Stale file handle): wait until the file system is there again"),
        ("manager", ValueError(FULL), "No space left on device): free the disk"),
        ("manager", ValueError(FORBIDDEN), "Permission denied): get permission to write there"),
    ],
    ids=["full", "read-only", "quota", "stale", "full for TensorStore", "forbidden to TensorStore"],
)
def test_a_disk_that_cannot_be_written_is_one_line_and_loses_nothing(tmp_path, monkeypatch, place, error, line):
    def fail(*_, **__):
        raise error

    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        with monkeypatch.context() as patch:
            if place == "manager":
                patch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
            else:
                patch.setattr("pathlib.Path.mkdir", fail)
                patch.setattr(place, fail)
            with pytest.raises(
                UserError, match=f"^cannot save to {tmp_path} .{re.escape(line)} or choose another workdir$"
            ):
                save(checkpoints, 2)
    assert_same(restore(tmp_path, 1).state, state(1))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.newest == 1
        save(checkpoints, 2)
    assert_same(restore(tmp_path, 2).state, state(2))


def test_a_checkpoint_that_is_gone_is_missed(tmp_path):
    with Checkpoints(tmp_path / "own") as checkpoints:
        checkpoints.check_newest()
        save(checkpoints, 1)
        checkpoints.check_newest()
        (tmp_path / "own").rename(tmp_path / "away")
        line = f"checkpoint {tmp_path}/own/1 was saved and is gone: put the folder back, and the same command resumes"
        with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
            checkpoints.check_newest()
        (tmp_path / "away").rename(tmp_path / "own")
        checkpoints.check_newest()


def test_an_error_in_saving_that_is_not_of_the_disk_is_not_taken_for_one(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("of another kind")

    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr("orbax.checkpoint.CheckpointManager.save", fail)
        with pytest.raises(ValueError, match="of another kind"):
            save(checkpoints, 1)


MISREAD = 'DATA_LOSS: Error opening "zarr" driver: Error decoding local file "/x/state/manifest.ocdbt"'


def test_the_end_of_another_process_is_not_taken_for_damage(tmp_path, monkeypatch):
    with Checkpoints(tmp_path / "c") as checkpoints:
        save(checkpoints, 1)

        def fail(*_, **__):
            raise jax.errors.JaxRuntimeError("Gloo all-reduce failed: Connection reset by peer")

        monkeypatch.setattr(checkpoints._manager, "restore", fail)
        with pytest.raises(jax.errors.JaxRuntimeError, match="reset by peer"):
            checkpoints.restore(1, state(), {}, make_parallel("jit").state_sharding)


@pytest.mark.parametrize(
    ("message", "appears"),
    [(FULL, False), (FORBIDDEN, False), (MISREAD, False), ("Error opening the door", True), ("HTTP: 404", True)],
    ids=["full", "forbidden", "misread", "of something else", "of another library"],
)
def test_what_asyncio_reports_late_is_not_of_checkpoints(tmp_path, caplog, message, appears):
    with Checkpoints(tmp_path):
        pass
    loop = asyncio.new_event_loop()
    loop.create_future().set_exception(ValueError(message))
    loop.close()
    gc.collect()
    assert [record.name for record in caplog.records] == ["asyncio"] * appears


def test_orbax_logs_no_error_of_its_own_and_others_do(tmp_path, caplog):
    for _ in range(2):
        with Checkpoints(tmp_path) as checkpoints:
            save(checkpoints, 1)
    # Programs that other tests have run may have raised the levels.
    for name in ("absl", "asyncio"):
        caplog.set_level(logging.WARNING, logger=name)
    described = tmp_path / "1" / "_CHECKPOINT_METADATA"
    described.write_bytes(described.read_bytes()[:-9])
    restore(tmp_path, 1)
    assert not caplog.records
    for name in ("absl", "asyncio"):
        logging.getLogger(name).error("of another library")
    assert [record.name for record in caplog.records] == ["absl", "asyncio"]


def test_a_damaged_description_is_one_line(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
    described = tmp_path / "1" / "_CHECKPOINT_METADATA"
    fields = json.loads(described.read_text())
    described.write_text(json.dumps(fields | {"hnit_timestamp_nsecs": 1, "custom_metadata": {"a": 1}}))
    line = f"{tmp_path} is damaged (a _CHECKPOINT_METADATA in it): put a copy back, or train again in another workdir"
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        Checkpoints(tmp_path)


def test_checkpoints_are_closed_where_the_metrics_cannot_be(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Checkpoints, "close", lambda self: closed.append(self.folder))

    def fail():
        raise UserError("no space")

    with pytest.raises(UserError, match=r"^no space$"), ActiveRun(None, tmp_path, None) as run:
        run._writer = types.SimpleNamespace(close=fail)
    assert closed == [tmp_path / CHECKPOINT_FOLDER]
