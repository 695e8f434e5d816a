"""Processes that train together have one configuration, one corpus and one directory, or all of them refuse it."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import linear_config, tiny_corpus

from jmer.data import make_corpus
from jmer.errors import UserError
from jmer.runs import processes
from jmer.runs.processes import check_same_request, check_shared
from jmer.training import agreement

COUNT = 3


@pytest.fixture
def everywhere(monkeypatch):
    """Returns a function that calls another one as each of several processes; returns their errors."""
    own, barrier, sent = threading.local(), threading.Barrier(COUNT, timeout=60), [""] * COUNT

    def gather_texts(text):
        sent[own.process] = text
        barrier.wait()
        found = list(sent)
        barrier.wait()
        return found

    def as_process(process, call):
        own.process = process
        try:
            call(process)
        except UserError as error:
            return str(error)
        return None

    monkeypatch.setattr(jax, "process_count", lambda: COUNT)
    monkeypatch.setattr(jax, "process_index", lambda: own.process)
    for module in (agreement, processes):
        monkeypatch.setattr(module, "gather_texts", gather_texts)
    monkeypatch.setattr(processes, "VISIBLE_SECONDS", 1.0)

    def run(call):
        with ThreadPoolExecutor(COUNT) as threads:
            return list(threads.map(as_process, range(COUNT), [call] * COUNT))

    return run


def fitted(**changes):
    return linear_config(model__modalities=("text",), **changes)


def test_the_same_request_everywhere(everywhere):
    places = ["/mnt/a", "/mnt/b", "corpus"]
    identity = tiny_corpus().identity
    assert everywhere(lambda i: check_same_request(fitted(data__path=places[i]), identity)) == [None] * COUNT


def test_a_process_with_another_configuration_is_named(everywhere):
    identity = tiny_corpus().identity
    found = everywhere(lambda i: check_same_request(fitted(optimizer__learning_rate=[0.1, 0.1, 0.2][i]), identity))
    line = (
        "process 2 has another configuration than process 0: optimizer.learning_rate is 0.2 there and 0.1 in process 0"
    )
    assert found == [f"{line}; start all processes with the same command"] * COUNT


@pytest.fixture
def changed():
    """Returns a function that returns the identity of the corpus, where a modality has other features."""
    corpus = tiny_corpus()
    splits = {split: corpus.conversations(split) for split in corpus.splits}
    first, *rest = splits["train"]

    def identity(modality):
        features = {m: x * np.float32(1 + (m == modality)) for m, x in first.features.items()}
        other = dataclasses.replace(first, features=features)
        return make_corpus(splits | {"train": [other, *rest]}, corpus.card).identity

    return identity


def test_a_process_with_another_corpus_is_named(everywhere, changed):
    identities = [changed(None), changed("text"), changed(None)]
    found = everywhere(lambda i: check_same_request(fitted(), identities[i]))
    line = "process 1 has another corpus than process 0: the text features of train differ; give all processes the same"
    assert found == [f"{line} one"] * COUNT


def test_what_the_model_does_not_read_may_differ(everywhere, changed):
    identities = [changed(None), changed("audio"), changed("visual")]
    assert everywhere(lambda i: check_same_request(fitted(), identities[i])) == [None] * COUNT


def test_a_shared_directory_is_left_as_it_was(everywhere, tmp_path):
    assert everywhere(lambda i: check_shared(tmp_path)) == [None] * COUNT
    assert not list(tmp_path.iterdir())


def of_process(process, line):
    """The line on each process where one of them has an error."""
    return [line if i == process else f"process {process} of {COUNT}: {line}" for i in range(COUNT)]


@pytest.mark.parametrize("there", [True, False])
def test_a_directory_that_is_not_shared_is_refused_everywhere(everywhere, tmp_path, there):
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    if there:
        other.mkdir()
    found = everywhere(lambda i: check_shared(other if i == 2 else own))
    line = (
        f"{other} is not the folder that process 0 has there: choose a workdir on a file system that all machines share"
    )
    assert found == of_process(2, line)
    assert not list(own.iterdir())


@pytest.mark.parametrize("process", [0, 1])
def test_a_directory_that_one_process_cannot_write_is_refused_everywhere(everywhere, tmp_path, monkeypatch, process):
    make = Path.mkdir

    def refuse(path, *arguments, **options):
        if jax.process_index() == process:
            raise PermissionError(13, "Permission denied")
        return make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    found = everywhere(lambda i: check_shared(tmp_path))
    line = f"cannot write {tmp_path} (Permission denied): get permission to write there or choose a workdir that all"
    assert found == of_process(process, f"{line} processes can write")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_one_process_cannot_read_is_refused_everywhere(everywhere, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(processes.os, "listdir", refuse)
    found = everywhere(lambda i: check_shared(tmp_path))
    line = f"cannot read {tmp_path} (Permission denied): choose a workdir that all processes can read and write"
    assert found == [f"process 1 of {COUNT}: {line}", line, line]
