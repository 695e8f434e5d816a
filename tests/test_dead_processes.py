"""When one of several processes dies in training, the others end soon, nothing saved is lost, and the run resumes."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ports import free_port
from tiny import tiny_corpus

from jmer.data.corpus import save_corpus
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TIMEOUT = 400  # seconds
SOON = 15
MAIN = ["-m", "jmer.main"]
EPOCHS = 4
AGAIN = "start all again with the same command"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    save_corpus(tiny_corpus(), folder)
    return folder


def run(programs, *rest):
    """Runs a process for each program; returns their exit statuses, errors, and seconds from the first end to each."""
    coordinator, ends = f"127.0.0.1:{free_port()}", {}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, *program, *map(str, rest)),
                *("--coordinator", coordinator, "--processes", str(len(programs)), "--process", str(number)),
            ],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, program in enumerate(programs)
    ]
    limit = time.monotonic() + TIMEOUT
    try:
        while len(ends) < len(processes):
            assert time.monotonic() < limit, ends
            time.sleep(0.01)
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    ends.setdefault(number, time.monotonic())
    finally:
        for process in processes:
            process.kill()
        # Without Gloo's messages.
        errors = ["".join(line for line in process.communicate()[1].splitlines(True)) for process in processes]
    first = min(ends.values())
    seconds = [round(ends[number] - first, 2) for number in range(len(processes))]
    return [process.returncode for process in processes], errors, seconds


def arguments(corpus, workdir):
    fields = [f"--config.training.{field}" for field in (f"epochs={EPOCHS}", "batch_size=5", "resident_megabytes=0")]
    return "--config", "concat_mlp_meld:tiny", "--corpus", corpus, "--workdir", workdir, *fields


def history(workdir):
    rows = read_json_lines(workdir / JSON_LINES_FILE)
    return [{name: value for name, value in row.items() if name != "utterances_per_second"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    """Number of processes -> history of a run of so many."""
    found = {}

    def get(count):
        if count not in found:
            workdir = tmp_path_factory.mktemp("undisturbed") / "w"
            statuses, errors, _ = run([MAIN] * count, *arguments(corpus, workdir))
            assert statuses == [0] * count, errors
            found[count] = history(workdir)
        return found[count]

    return get


def fault(name, point=4):
    return ["tests/sabotage.py", name, json.dumps(point), "--"]


KILLED = [(2, 1), (2, 0), (4, 2), (4, 0)]


@pytest.mark.parametrize(
    ("count", "victim", "name"),
    [*((*killed, "SIGKILL") for killed in KILLED), (2, 1, "MemoryError"), (2, 0, "UserError")],
)
def test_the_others_end_and_the_same_command_resumes(count, victim, name, corpus, undisturbed, tmp_path):
    programs = [fault(name) if number == victim else MAIN for number in range(count)]
    statuses, errors, seconds = run(programs, *arguments(corpus, tmp_path / "w"))
    status, why = (75, ", killed or unreachable") if name == "SIGKILL" else (2, r": .*injected.*")
    own = {"SIGKILL": -9}.get(name, status)
    assert statuses == [own if number == victim else status for number in range(count)], errors
    assert max(seconds) < SOON
    for number in set(range(count)) - {victim}:
        pattern = rf"error: another process ended \(process {victim} of {count}{why}\): {AGAIN}\n"
        assert re.fullmatch(pattern, errors[number]), errors[number]
    statuses, errors, _ = run([MAIN] * count, *arguments(corpus, tmp_path / "w"))
    assert statuses == [0] * count, errors
    assert history(tmp_path / "w") == undisturbed(count)


def test_a_defect_is_told_where_it_is(corpus, tmp_path):
    statuses, errors, _ = run([MAIN, fault("KeyError")], *arguments(corpus, tmp_path / "w"))
    assert statuses == [1, 1]
    assert "Traceback" in errors[1] and "Traceback" not in errors[0]
    assert errors[0].count("\n") == 1 and "(process 1 of 2: KeyError: 'injected')" in errors[0]


@pytest.mark.parametrize("place", [1, 3])
def test_what_one_process_refuses_before_training_ends_all(place, corpus, tmp_path):
    """Another experiment, before the processes compare anything; and another corpus, which they compare."""
    rest = arguments(corpus, tmp_path / "w")
    program = "import sys; from jmer.command import launch; from jmer.main import main\n"
    program += f"sys.argv[sys.argv.index({str(rest[place])!r})] = 'nowhere'; launch(main)"
    statuses, errors, seconds = run([MAIN, ["-c", program]], *rest)
    assert statuses == [2, 2] and max(seconds) < SOON
    for error in errors:
        assert "nowhere" in error and error.count("\n") == 1
    assert "process 1 of 2: " in errors[0]


def test_sigterm_before_training_ends_all(corpus, tmp_path):
    struck = fault("SIGTERM", [["open", str(corpus)]])
    statuses, errors, seconds = run([MAIN, struck], *arguments(corpus, tmp_path / "w"))
    assert statuses == [75, -15] and max(seconds) < SOON
    assert errors[0].startswith("error: another process ended (process 1 of 2, killed") and not errors[1]
