"""A run's directory has one owner, also where locks do not reach other machines, and the dead leave it."""

import contextlib
import dataclasses
import errno
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jmer.errors import UserError
from jmer.runs.directory import LOCK_FILE, RunInUse, is_in_use, lock
from jmer.training import ownership
from jmer.training.ownership import OWNER_FILE, Owner, check_owned, owned

ELSEWHERE = Owner("0123", "another boot", "node7", 4711)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Refreshes and watches a hundred times as often."""
    for name in ("REFRESH_SECONDS", "STALE_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(ownership, name, getattr(ownership, name) / 100)
    monkeypatch.setattr(ownership, "_seen", {})


@pytest.fixture
def no_locks(monkeypatch):
    """The file system has no locks."""

    def fail(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("filelock.FileLock.acquire", fail)


@contextlib.contextmanager
def work(folder):
    """Works in a directory as training does."""
    with lock(folder), owned(folder):
        yield


def record(folder, owner):
    folder.mkdir(exist_ok=True)
    (folder / OWNER_FILE).write_text(json.dumps(dataclasses.asdict(owner)))


def recorded(folder):
    return json.loads((folder / OWNER_FILE).read_text())


def warnings(caplog):
    return [record.getMessage() for record in caplog.records]


class Living:
    """Refreshes the file of an owner on another machine within the block."""

    def __init__(self, folder, owner=ELSEWHERE):
        self.folder, self.owner, self.ended = folder, owner, threading.Event()

    def __enter__(self):
        record(self.folder, self.owner)
        arguments = self.folder.resolve() / OWNER_FILE, self.owner, self.ended
        self.thread = threading.Thread(target=ownership._refresh, args=arguments)
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def test_the_owner_is_refreshed_and_leaves_nothing(tmp_path):
    with work(tmp_path):
        first = recorded(tmp_path)
        assert first["process"] == os.getpid()
        with lock(tmp_path):
            pass
        ended = threading.Event()
        for _ in range(200):
            if recorded(tmp_path) != first:
                break
            ended.wait(0.01)
        assert recorded(tmp_path) == first | {"refreshed": recorded(tmp_path)["refreshed"]}
        assert recorded(tmp_path)["refreshed"] > 0
        check_owned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_living_owner_on_another_machine_keeps_this_one_out(tmp_path, caplog):
    with Living(tmp_path):
        assert is_in_use(tmp_path)
        line = (
            f"^process 4711 on node7 works in {tmp_path}: wait until it has ended, stop it, or choose another workdir$"
        )
        with pytest.raises(RunInUse, match=line), lock(tmp_path):
            pytest.fail("two were in")
    assert recorded(tmp_path)["token"] == ELSEWHERE.token
    assert [line.partition(" works in")[0] for line in warnings(caplog)] == ["warning: process 4711 on node7"]


def test_a_dead_owner_on_another_machine_is_followed(tmp_path, caplog):
    record(tmp_path, ELSEWHERE)
    with work(tmp_path):
        assert recorded(tmp_path)["token"] != ELSEWHERE.token
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]
    assert warnings(caplog)[1] == f"warning: {ELSEWHERE} shows no sign of life in {tmp_path}, which is taken over"


def test_whoever_does_not_wait_finds_out_in_time(tmp_path):
    record(tmp_path, ELSEWHERE)
    assert is_in_use(tmp_path)
    pause = threading.Event()
    pause.wait(1.5 * ownership.STALE_SECONDS)
    assert not is_in_use(tmp_path)


def test_an_owner_that_ends_while_another_machine_waits(tmp_path):
    record(tmp_path, ELSEWHERE)
    with ThreadPoolExecutor(1) as other:
        found = other.submit(lambda: ownership.find_owner(tmp_path, locked=True, wait=True))
        (tmp_path / OWNER_FILE).unlink()
        assert found.result() is None


def test_an_owner_that_died_on_this_machine_is_followed_at_once(tmp_path, caplog):
    record(tmp_path, dataclasses.replace(ELSEWHERE, machine=ownership._machine()))
    with lock(tmp_path):
        pass
    assert not caplog.records


def test_without_locks_the_owner_of_this_machine_is_watched_too(tmp_path, no_locks):
    with Living(tmp_path, dataclasses.replace(ELSEWHERE, machine=ownership._machine())):
        assert is_in_use(tmp_path)
        with pytest.raises(RunInUse, match=r"^process 4711 on node7 works in"), lock(tmp_path):
            pytest.fail("two were in")
    with work(tmp_path), lock(tmp_path):
        assert recorded(tmp_path)["process"] == os.getpid()


def test_an_owner_that_lost_the_directory_ends_and_leaves_it_alone(tmp_path):
    with work(tmp_path):
        record(tmp_path, ELSEWHERE)
        threading.Event().wait(3 * ownership.REFRESH_SECONDS)
        line = rf"^process 4711 on node7 has taken over {tmp_path}, since this process had stopped for a while"
        with pytest.raises(UserError, match=line):
            check_owned(tmp_path)
    assert recorded(tmp_path) == dataclasses.asdict(ELSEWHERE)


def test_a_directory_that_vanishes_is_not_made_again(tmp_path):
    run, away = tmp_path / "run", tmp_path / "away"
    with work(run):
        run.rename(away)
        threading.Event().wait(3 * ownership.REFRESH_SECONDS)
        assert not run.exists()
        for there in (False, True):
            if there:
                run.mkdir()
            with pytest.raises(UserError, match=rf"^{run} is gone, or another folder than that in which"):
                check_owned(run)
        run.rmdir()
        away.rename(run)
        threading.Event().wait(3 * ownership.REFRESH_SECONDS)
        assert recorded(run)["refreshed"] > 2
    assert [path.name for path in run.iterdir()] == [LOCK_FILE]


@pytest.mark.parametrize("content", [b"half", b"{}", b"\xff"])
def test_a_damaged_file_of_an_owner_is_one_of_a_stranger(tmp_path, content, caplog):
    (tmp_path / OWNER_FILE).write_bytes(content)
    assert is_in_use(tmp_path)
    with work(tmp_path):
        pass
    assert warnings(caplog)[0].startswith("warning: process 0 on an unknown machine works in ")
    assert not Path(tmp_path / OWNER_FILE).exists()
