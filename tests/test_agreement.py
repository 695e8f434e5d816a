"""An error of one process is an error of all of them."""

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from jmer.errors import UserError
from jmer.training.agreement import agree


def agree_as(process, errors, monkeypatch):
    """Returns what `agree` raises on a process, where the processes have these errors."""
    sent = [b"" if error is None else str(error).encode() for error in errors]

    def gather(own):
        rows = [np.int32(len(text)) for text in sent]
        if own.ndim:
            rows = [np.frombuffer(text.ljust(own.size, b"\0"), np.uint8) for text in sent]
        assert np.array_equal(rows[process], own)
        return np.stack(rows)

    monkeypatch.setattr(jax, "process_count", lambda: len(errors))
    monkeypatch.setattr(multihost_utils, "process_allgather", gather)
    try:
        agree(errors[process])
    except UserError as error:
        return error
    return None


def test_one_process_raises_its_own_error():
    agree(None)
    error = UserError("no folder")
    with pytest.raises(UserError) as raised:
        agree(error)
    assert raised.value is error


def test_without_an_error_nothing_is_raised(monkeypatch):
    assert [agree_as(process, [None, None, None], monkeypatch) for process in range(3)] == [None] * 3


def test_the_error_of_one_process_is_raised_on_all(monkeypatch):
    errors = [None, UserError("kann é nicht lesen", "second line"), UserError("other"), None]
    raised = [agree_as(process, errors, monkeypatch) for process in range(4)]
    assert raised[1:3] == errors[1:3]
    for error in (raised[0], raised[3]):
        assert error.args == ("process 1 of 4: kann é nicht lesen", "second line")
