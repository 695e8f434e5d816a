"""What a process prints, and what it tells the others, when an exception ends it."""

import pytest

from jmer.cli import processes
from jmer.cli.processes import _fail
from jmer.errors import UserError


class Connection:
    def fail(self, status, lines):
        raise SystemExit((status, *lines))


def ended_by(error, monkeypatch):
    slept = []
    monkeypatch.setattr(processes.time, "sleep", slept.append)
    with pytest.raises(SystemExit) as raised:
        _fail(error, Connection())
    return raised.value.code, slept


def test_a_lost_connection_waits_for_the_news_of_another_process(monkeypatch, capsys):
    cause = RuntimeError("UNKNOWN: Gloo all-gather failed:\n pair.cc:538] Read error: Connection reset by peer")
    wrapped = ValueError("no value")
    wrapped.__cause__ = cause
    for error in (cause, wrapped):
        (status, line), slept = ended_by(error, monkeypatch)
        assert status == 75 and slept == [5.0]
        assert line.startswith("the connection to another process broke (") and "\n" not in line
        assert line.endswith("): start all again with the same command")
    assert capsys.readouterr() == ("", "")


def test_an_error_of_its_own_is_told_at_once(monkeypatch, capsys):
    assert ended_by(UserError("no corpus", "more"), monkeypatch) == ((2, "no corpus", "more"), [])
    assert ended_by(MemoryError("x"), monkeypatch)[0][0] == 2
    assert ended_by(KeyboardInterrupt(), monkeypatch) == ((130, "interrupted"), [])
    assert capsys.readouterr().err == ""


def test_a_defect_shows_its_traceback(monkeypatch, capsys):
    assert ended_by(KeyError("name"), monkeypatch) == ((1, "KeyError: 'name'"), [])
    assert "KeyError: 'name'" in capsys.readouterr().err
