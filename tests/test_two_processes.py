"""Processes with eight devices in all train as one with eight does; they stop, resume and refuse together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port
from tiny import tiny_corpus

from jmer.data.corpus import save_corpus
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TIMEOUT = 400  # seconds
EPOCHS = 2
MAIN = ["-m", "jmer.main"]


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    save_corpus(tiny_corpus(), folder)
    return folder


def arguments(corpus_folder, workdir):
    fields = {"model.dag_layers": 1, "training.batch_size": 5, "training.epochs": EPOCHS}
    changes = [f"--config.{name}={value}" for name, value in fields.items()]
    return [
        "--config",
        "configs/lfvd_meld.py:tiny",
        "--corpus",
        str(corpus_folder),
        "--workdir",
        str(workdir),
        *changes,
    ]


def environment(devices):
    return os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def together(programs, rest, own=None):
    """Runs a process for each program, with its part of eight devices; returns their exit statuses and outputs.

    Args:
      programs: of the processes.
      rest: arguments of all of them.
      own: number of a process -> arguments of its own.
    """
    coordinator, count, processes = f"127.0.0.1:{free_port()}", len(programs), []
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    try:
        for number, program in enumerate(programs):
            cluster = ["--coordinator", coordinator, "--processes", str(count), "--process", str(number)]
            command = [sys.executable, *program, *rest, *(own or {}).get(number, ()), *cluster]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment(8 // count), **options))
        outputs = [process.communicate(timeout=TIMEOUT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def assert_same_log(workdir, expected):
    rows, others = (read_json_lines(folder / JSON_LINES_FILE) for folder in (workdir, expected))
    for row, other in zip(rows, others, strict=True):
        del row["utterances_per_second"], other["utterances_per_second"]
        assert row == pytest.approx(other, rel=1e-5)


@pytest.fixture(scope="module")
def one_process(corpus_folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "w"
    command = [sys.executable, *MAIN, *arguments(corpus_folder, workdir)]
    done = subprocess.run(command, cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pmap on 8 x cpu" in done.stdout
    return workdir


def test_trains_as_one_process_with_as_many_devices(corpus_folder, one_process, tmp_path):
    statuses, outputs = together([MAIN, MAIN], arguments(corpus_folder, tmp_path / "w"))
    assert statuses == [0, 0], "\n".join(outputs)
    assert "shard_map on 8 x cpu" in outputs[0]
    assert "epoch" not in outputs[1]
    assert_same_log(tmp_path / "w", one_process)
    for name in ("report.md", "predictions/test.csv"):
        assert (tmp_path / "w" / name).exists()


def struck(number, steps):
    """A program that gets a signal after so many steps."""
    return ["tests/sabotage.py", number.name, json.dumps(steps), "--"]


@pytest.mark.parametrize(
    ("number", "steps", "change", "resumed"),
    [
        (signal.SIGTERM, 1, "resident_megabytes", "0 of 2 epochs and 1 of 3 steps"),
        (signal.SIGUSR1, 5, "grace_seconds", "1 of 2 epochs and 2 of 3 steps"),
    ],
    ids=["steps", "pieces of an epoch on the device"],
)
def test_a_signal_to_one_process_stops_both_at_the_same_step(
    number, steps, change, resumed, corpus_folder, one_process, tmp_path
):
    rest = [*arguments(corpus_folder, tmp_path / "w"), f"--config.training.{change}=0"]
    statuses, outputs = together([MAIN, struck(number, steps)], rest)
    assert statuses == [128 + number] * 2, "\n".join(outputs)
    assert f"{number.name}: saved after step {steps}; the same command resumes" in outputs[0]
    statuses, outputs = together([MAIN, MAIN], rest)
    assert statuses == [0, 0], "\n".join(outputs)
    assert f"resumes after {resumed}" in outputs[0]
    assert_same_log(tmp_path / "w", one_process)


def test_a_folder_that_is_not_shared_is_one_line_on_both(corpus_folder, tmp_path):
    rest = arguments(corpus_folder, tmp_path / "w")
    statuses, outputs = together([MAIN, MAIN], rest, own={1: ["--workdir", str(tmp_path / "other")]})
    line = (
        f"{tmp_path / 'other'} is not the folder that process 0 has there: choose a workdir on a file system that all"
    )
    assert statuses == [2, 2], "\n".join(outputs)
    assert outputs[0].splitlines()[-1].startswith(f"error: process 1 of 2: {line}")
    assert outputs[1].splitlines()[-1].startswith(f"error: {line}")
    assert not any("Traceback" in output for output in outputs)


def test_a_process_may_compile_for_longer_than_the_others_wait_for_it(corpus_folder, tmp_path):
    """Collective operations of a CPU wait 30 seconds for the others."""
    rest = ["--config", "configs/concat_mlp_meld.py:tiny", "--corpus", str(corpus_folder)]
    rest += ["--workdir", str(tmp_path / "w"), "--config.training.epochs=1"]
    statuses, outputs = together([MAIN, ["tests/slow_compiler.py", "35"]], rest)
    assert statuses == [0, 0], "\n".join(outputs)
