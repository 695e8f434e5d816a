"""A grid trains every cell once, whatever is interrupted or fails meanwhile, and reads what its runs wrote."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny import tiny_corpus

import jmer
from experiments.grid import executor
from experiments.grid.cells import Row
from experiments.grid.executor import run_grid
from jmer.command import exit_status
from jmer.data import make_corpus
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.main import main as train_and_score
from jmer.runs.directory import RunInUse, lock, read_config, read_facts, read_json, write_json
from jmer.training.metric_writers import read_json_lines

TESTS = Path(__file__).parent
EXPERIMENT = str(TESTS / "linear_experiment.py")


pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpora") / "talks"
    save_corpus(tiny_corpus(), path)
    return str(path)


def files(folder):
    """Returns name -> (bytes, time of change) of all files in a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def log(folder):
    """Returns a run's log without what a clock measured."""
    rows = read_json_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "utterances_per_second"} for row in rows]


def rows_on(corpus):
    return [Row("plain", EXPERIMENT, corpus), Row("dry", EXPERIMENT, corpus, {"model.dropout_rate": "0"})]


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """The folder of a grid of two rows with one seed, and its log."""
    out, lines = tmp_path_factory.mktemp("finished"), []
    run_grid(rows_on(corpus), [3], out, log=lines.append)
    return out, lines


def test_cells_run_and_are_read_as_written(corpus, finished):
    out, lines = finished
    assert lines[0] == f"2 runs in {out}: 0 already finished, 2 to do"
    assert [line.split(":")[0] for line in lines[1:]] == ["[1/2] talks plain seed 3", "[2/2] talks dry seed 3"]
    assert all("validation W-F1" in line and "; ETA 0:" in line for line in lines[1:])
    rows = rows_on(corpus)
    outcomes = run_grid(rows, [3], out, log=print)
    assert [outcome.row for outcome in outcomes] == rows
    for outcome, dropout in zip(outcomes, (0.2, 0.0), strict=True):
        assert list(outcome.results) == [3] and not outcome.failures
        result, folder = outcome.results[3], out / "talks" / outcome.row.name / "seed3"
        config, saved = read_config(folder), json.loads((folder / "scores.json").read_text())
        assert (config.seed, config.model.dropout_rate, config.data.path) == (3, dropout, corpus)
        scores = {split: dataclasses.asdict(scores) for split, scores in result.scores.items()}
        assert json.loads(json.dumps(scores)) == saved["splits"]
        assert (result.selection.name, result.epoch, result.epochs) == ("validation", saved["epoch"], 7)
        assert result.parameters == read_facts(folder).parameters == 4 * 6 + 4
        history = read_json_lines(folder / "metrics.jsonl")
        last = sum(row["validation/weighted_f1"] for row in history[2:7]) / 5
        assert result.last_epochs == pytest.approx(last, abs=1e-12)
        assert result.utterances_per_second == sorted(row["utterances_per_second"] for row in history)[3]
        assert outcome.scores("accuracy", "test") == {3: saved["splits"]["test"]["accuracy"]}
        assert outcome.scores("weighted_f1") == {3: saved["splits"]["validation"]["weighted_f1"]}


def test_finished_runs_are_not_touched(corpus, finished):
    out, lines = finished[0], []
    before = files(out)
    run_grid(rows_on(corpus), [3], out, log=lines.append)
    assert lines == [f"2 runs in {out}: 2 already finished, 0 to do"]
    assert files(out) == before


def test_a_cell_is_the_command_that_its_record_names(finished, tmp_path):
    folder = finished[0] / "talks" / "dry" / "seed3"
    command = read_facts(folder).command.split()
    assert command[:3] == ["python", "-m", "jmer.main"]
    by_hand = [word.replace(str(folder), str(tmp_path / "by_hand")) for word in command[3:]]
    assert exit_status(train_and_score, by_hand) == 0
    assert log(tmp_path / "by_hand") == log(folder)
    assert (tmp_path / "by_hand" / "scores.json").read_bytes() == (folder / "scores.json").read_bytes()
    assert "report: " in folder.with_suffix(".log").read_text()


def test_a_failing_cell_is_reported_and_stops_no_other(corpus, tmp_path):
    rows = [
        Row("exploding", EXPERIMENT, corpus, {"optimizer.learning_rate": "1e30"}),
        Row("plain", EXPERIMENT, corpus),
        Row("smelling", EXPERIMENT, corpus, {"model.modalities": "text,smell"}),
    ]
    lines = []
    exploding, plain, smelling = run_grid(rows, [0], tmp_path, log=lines.append)
    assert not exploding.results and "squares is not finite in step " in exploding.failures[0]
    assert not smelling.results and "model.modalities has smell" in smelling.failures[0]
    assert list(plain.results) == [0] and not plain.failures
    assert [("FAILED" in line) for line in lines] == [False, True, True, False]
    assert all("\n" not in line for line in lines)


def test_a_cell_that_breaks_leaves_its_traceback_in_the_log(corpus, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no\nway")

    monkeypatch.setattr(jmer, "train", broken)
    (outcome,) = run_grid([Row("a", EXPERIMENT, corpus)], [0], tmp_path, log=print)
    path = tmp_path / "talks" / "a" / "seed0.log"
    assert outcome.failures == {0: f"ZeroDivisionError: no way (see {path})"}
    assert "Traceback" in path.read_text()


def test_ctrl_c_stops_after_saving(corpus, tmp_path, monkeypatch):
    def interrupted(config, corpus, workdir, **_):
        calls.append(workdir)
        raise jmer.Interrupted(signal.SIGINT, "SIGINT: saved")

    calls = []
    monkeypatch.setattr(jmer, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_grid([Row("a", EXPERIMENT, corpus)], range(3), tmp_path, log=print)
    assert len(calls) == 1


def test_mistakes_are_found_before_anything_runs(corpus, finished, tmp_path, monkeypatch):
    row = Row("dry", EXPERIMENT, corpus)

    def refused(rows, out, match):
        with pytest.raises(UserError, match=match) as error:
            run_grid(rows, [3], out, log=print)
        assert "\n" not in str(error.value)

    monkeypatch.setattr(jmer, "train", lambda *_, **__: pytest.fail("something ran"))
    refused([row], finished[0], r"model\.dropout_rate is 0\.0 there and 0\.2 here; choose another --out")
    longer = Row("plain", EXPERIMENT, corpus, {"training.epochs": "9"})
    refused([longer], finished[0], r"training\.epochs is 7 there and 9 here; choose another --out")
    refused([row], finished[0] / "talks" / "dry" / "seed3", "is the folder of a single run: choose another --out")
    (tmp_path / "file").touch()
    refused([row], tmp_path / "file", "is a file, not a folder: choose another --out")
    refused(
        [row, Row("dry", EXPERIMENT, corpus)],
        tmp_path / "new",
        r"would share the folder .*: rename an experiment or a corpus",
    )
    refused([Row("a", EXPERIMENT, "nowhere")], tmp_path / "new", "no corpus 'nowhere'")
    refused([Row("a", EXPERIMENT, corpus, {"model.width": "9"})], tmp_path / "new", "unknown field 'model.width'")
    refused([Row("a", EXPERIMENT, corpus, {"training.epochs": "0"})], tmp_path / "new", "training.epochs is 0")
    made = tiny_corpus()
    save_corpus(make_corpus({"train": made.conversations("train")}, made.card), tmp_path / "c")
    refused([Row("a", EXPERIMENT, str(tmp_path / "c"))], tmp_path / "new", "no labelled validation split")
    assert not (tmp_path / "new").exists()


def test_a_run_on_another_version_of_the_corpus_is_refused(corpus, finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "out")
    facts = out / "talks" / "dry" / "seed3" / "run.json"
    fields = read_json(facts)
    fields["corpus"]["splits"]["train"]["digests"]["labels"] = "others"
    write_json(facts, fields)
    message = (
        r"dry/seed3 was trained on another version of corpus '.*': the labels of train differ; choose another --out"
    )
    with pytest.raises(UserError, match=message):
        run_grid(rows_on(corpus), [3], out, log=print)


# In processes of their own.

LONG = 30

PROGRAM = """
import json
import sys
from pathlib import Path
from experiments.grid.cells import Row
from experiments.grid.cli import launch
from experiments.grid.executor import run_grid

def main(arguments):
    experiment, corpus, out, *numbers = arguments
    epochs, seeds, jobs, vectorize = map(int, numbers)
    overrides = {"training.epochs": str(epochs)}
    rows = [Row(name, experiment, corpus, overrides) for name in "ab"]
    log = lambda line: print(line, flush=True)
    outcomes = run_grid(rows, range(seeds), Path(out), jobs=jobs, vectorize=vectorize, log=log)
    print(json.dumps([outcome.scores("weighted_f1") for outcome in outcomes]))
    return int(any(outcome.failures for outcome in outcomes))

sys.exit(launch("a.study", main, sys.argv[1:]))
"""


def started(corpus, out, *, seeds=1, jobs=1, vectorize=1):
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, EXPERIMENT, corpus, *map(str, (out, LONG, seeds, jobs, vectorize))],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def epochs_of(folder):
    return len(read_json_lines(folder / "metrics.jsonl")) if (folder / "metrics.jsonl").exists() else 0


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def long_rows(corpus):
    return [Row(name, EXPERIMENT, corpus, {"training.epochs": str(LONG)}) for name in "ab"]


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    run_grid(long_rows(corpus), [0], out, log=print)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_resumes_after_a_signal_with_the_same_bits(corpus, undisturbed, tmp_path, number, jobs):
    process = started(corpus, tmp_path, jobs=jobs)
    runs = [tmp_path / "talks" / name / "seed0" for name in "ab"]
    wait_until(lambda: all(epochs_of(folder) >= 2 for folder in runs[:jobs]))
    workers = children(process.pid)
    if number == signal.SIGINT:
        # As a terminal does, to all that are in its group.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, workers)), 10)
    assert not (runs[0] / "scores.json").exists()
    if number != signal.SIGKILL:
        assert (process.returncode, errors) == (130, "")
        last = output.splitlines()[-1]
        assert last.startswith("interrupted, all runs are saved; resume with: python -m a.study ")
        assert all(": saved after " in folder.with_suffix(".log").read_text() for folder in runs[:jobs])
    outcomes = run_grid(long_rows(corpus), [0], tmp_path, log=print)
    assert not any(outcome.failures for outcome in outcomes)
    assert ": resumes after " in runs[0].with_suffix(".log").read_text()
    for folder in runs:
        expected = undisturbed / folder.relative_to(tmp_path)
        assert log(folder) == log(expected)
        assert (folder / "scores.json").read_bytes() == (expected / "scores.json").read_bytes()


@pytest.mark.slow
def test_a_killed_process_fails_its_cell_alone(corpus, tmp_path):
    process = started(corpus, tmp_path / "out", jobs=2)
    runs = [tmp_path / "out" / "talks" / name / "seed0" for name in "ab"]
    wait_until(lambda: all(epochs_of(folder) >= 2 for folder in runs))
    # The order in which processes were started is that of the rows.
    os.kill(min(child for child in children(process.pid) if b"spawn_main" in command_line(child)), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in errors
    assert output.count("FAILED: the process was killed by SIGKILL: perhaps there is too little memory") == 1
    assert [(folder / "scores.json").exists() for folder in runs] == [False, True]


def command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_vectorized_cells_equal_cells_trained_one_by_one(corpus, tmp_path, jobs):
    rows = [
        Row("plain", EXPERIMENT, corpus),
        Row("fast", EXPERIMENT, corpus, {"optimizer.learning_rate": "0.03"}),
        Row("dry", EXPERIMENT, corpus, {"model.dropout_rate": "0"}),
    ]
    lines = []
    outcomes = run_grid(rows, [0, 1], tmp_path / "vectorized", vectorize=3, jobs=jobs, log=lines.append)
    run_grid(rows, [0, 1], tmp_path / "alone", log=print)
    for outcome in outcomes:
        assert set(outcome.results) == {0, 1} and not outcome.failures
        for seed in (0, 1):
            folders = [tmp_path / way / "talks" / outcome.row.name / f"seed{seed}" for way in ("vectorized", "alone")]
            for row, other in zip(*map(log, folders), strict=True):
                assert row == pytest.approx(other, rel=1e-4)
            assert read_config(folders[0]) == read_config(folders[1])
            assert set(files(folders[0])) >= {"report.md", "scores.json", "predictions/test.csv"}
    assert sum("validation W-F1" in line for line in lines) == 6
    # Three and one that differ by seed and rate; two that differ by seed.
    logs = [path.read_text() for path in sorted((tmp_path / "vectorized").rglob("*.log"))]
    assert sorted(line.split(" ")[0] for text in logs for line in text.splitlines() if " runs together " in line) == [
        "2",
        "3",
    ]


def test_cells_that_a_vectorized_program_does_not_finish_are_trained_alone(corpus, tmp_path):
    rows = [
        Row("exploding", EXPERIMENT, corpus, {"optimizer.learning_rate": "1e30"}),
        Row("plain", EXPERIMENT, corpus),
    ]
    exploding, plain = run_grid(rows, [0], tmp_path, vectorize=2, log=print)
    assert not exploding.results and "squares is not finite in step " in exploding.failures[0]
    assert list(plain.results) == [0] and not plain.failures


# Two processes on one folder.


@pytest.fixture
def elsewhere(monkeypatch):
    """Stands for another process: a thread holds the lock of a folder until `leave` is set, and then does something."""
    monkeypatch.setattr(executor, "POLLING_INTERVAL", 0.01)
    threads = []

    def start(folder, before_leaving=lambda: None):
        inside, leave = threading.Event(), threading.Event()

        def work():
            with lock(folder):
                inside.set()
                leave.wait(60)
                before_leaving()

        thread = threading.Thread(target=work)
        threads.append((thread, leave))
        thread.start()
        assert inside.wait(10)
        return leave

    yield start
    for thread, leave in threads:
        leave.set()
        thread.join()


def place(finished, folder):
    """Copies a finished run to a folder."""
    shutil.copytree(finished[0] / folder.relative_to(folder.parents[2]), folder, dirs_exist_ok=True)


def recorder(leave, lines):
    """Returns a `log` that records lines, and lets the other process leave when the grid waits for it."""

    def record(line):
        lines.append(line)
        if line.startswith("waiting"):
            leave.set()

    return record


@pytest.mark.parametrize("vectorize", [1, 2])
def test_what_another_process_finishes_is_read(corpus, finished, elsewhere, tmp_path, monkeypatch, vectorize):
    busy = tmp_path / "talks" / "plain" / "seed3"
    leave = elsewhere(busy, before_leaving=lambda: place(finished, busy))
    ran, lines = [], []

    def train(config, corpus, workdir, **_):
        ran.append(workdir)
        place(finished, workdir)

    monkeypatch.setattr(jmer, "train", train)
    # Rows that would be vectorized, were it not for the other process.
    rows = [Row("plain", EXPERIMENT, corpus), Row("dry", EXPERIMENT, corpus, {"model.dropout_rate": "0"})]
    outcomes = run_grid(rows, [3], tmp_path, vectorize=vectorize, log=recorder(leave, lines))
    assert ran == [tmp_path / "talks" / "dry" / "seed3"]
    assert [line.split(":")[0] for line in lines[1:]] == [
        "[1/2] talks dry seed 3",
        "waiting for another process that is running talks plain seed 3",
        "[2/2] talks plain seed 3",
    ]
    expected = run_grid(rows_on(corpus), [3], finished[0], log=print)
    assert [outcome.results for outcome in outcomes] == [outcome.results for outcome in expected]


def test_what_another_process_leaves_unfinished_resumes_here(corpus, finished, elsewhere, tmp_path, monkeypatch):
    folders = [tmp_path / "talks" / name / "seed3" for name in ("plain", "dry")]
    leave, never = elsewhere(folders[0]), elsewhere(folders[1], before_leaving=lambda: place(finished, folders[1]))
    ran, lines = [], []

    def train(config, corpus, workdir, **_):
        with lock(folders[0]):
            ran.append(workdir)
        place(finished, folders[0])
        never.set()

    monkeypatch.setattr(jmer, "train", train)
    outcomes = run_grid(rows_on(corpus), [3], tmp_path, log=recorder(leave, lines))
    assert len(ran) == 1 and all(len(outcome.results) == 1 for outcome in outcomes)
    assert lines[1] == "waiting for another process that is running talks plain seed 3 and 1 more"


def test_a_cell_is_locked_while_it_runs_and_free_afterwards(corpus, tmp_path, monkeypatch):
    folder, seen = tmp_path / "talks" / "plain" / "seed3", []

    def look():
        try:
            with lock(folder):
                seen.append("free")
        except RunInUse:
            seen.append("locked")

    def train(*_, **__):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        raise UserError("it went wrong")

    monkeypatch.setattr(jmer, "train", train)
    (outcome,) = run_grid([Row("plain", EXPERIMENT, corpus)], [3], tmp_path, log=print)
    look()
    assert seen == ["locked", "free"] and outcome.failures == {3: "it went wrong"}


def test_a_cell_that_another_process_trained_with_another_configuration_fails(corpus, finished, elsewhere, tmp_path):
    busy = tmp_path / "talks" / "plain" / "seed3"
    leave = elsewhere(busy, before_leaving=lambda: place(finished, busy))
    row = Row("plain", EXPERIMENT, corpus, {"training.epochs": "9"})
    (outcome,) = run_grid([row], [3], tmp_path, log=recorder(leave, []))
    assert "training.epochs is 7 there and 9 here; choose another --out" in outcome.failures[3]


def times_trained(folder):
    """How often training began in a folder: each time opens a file of events."""
    return len(list((folder / "tensorboard").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "vectorize"), [(1, 1), (2, 1), (1, 2)])
def test_two_processes_share_the_work(corpus, undisturbed, tmp_path, jobs, vectorize):
    processes = [started(corpus, tmp_path, seeds=2, jobs=jobs, vectorize=vectorize) for _ in range(2)]
    told = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert [errors for _, errors in told] == ["", ""]
    one, other = (output.splitlines() for output, _ in told)
    assert one[-1] == other[-1] and all(len(scores) == 2 for scores in json.loads(one[-1]))
    assert sum("validation W-F1" in line for line in one) == 4 == sum("validation W-F1" in line for line in other)
    for name in "ab":
        for seed in range(2):
            folder = tmp_path / "talks" / name / f"seed{seed}"
            assert times_trained(folder) == 1
            assert [row["step"] for row in read_json_lines(folder / "metrics.jsonl")] == [3 * n for n in range(1, 31)]
            logs = [path.read_text() for path in tmp_path.rglob("*.log")]
            assert sum(text.count(f"report: {folder}/") for text in logs) == 1
        if vectorize == 1:
            first = Path("talks") / name / "seed0"
            assert log(tmp_path / first) == log(undisturbed / first)


@pytest.mark.slow
def test_a_process_takes_over_from_one_that_is_killed(corpus, undisturbed, tmp_path):
    runs = [tmp_path / "talks" / name / "seed0" for name in "ab"]
    victim = started(corpus, tmp_path)
    wait_until(lambda: epochs_of(runs[0]) >= 2)
    victim.send_signal(signal.SIGSTOP)
    survivor = started(corpus, tmp_path)
    lines = [survivor.stdout.readline() for _ in range(3)]
    assert lines[2] == "waiting for another process that is running talks a seed 0\n", lines
    assert lines[1].startswith("[1/2] talks b seed 0: validation W-F1")
    victim.kill()
    victim.communicate()
    _, errors = survivor.communicate(timeout=120)
    assert (survivor.returncode, errors) == (0, "")
    assert [times_trained(folder) for folder in runs] == [2, 1]
    for folder in runs:
        expected = undisturbed / folder.relative_to(tmp_path)
        assert log(folder) == log(expected)
        assert (folder / "scores.json").read_bytes() == (expected / "scores.json").read_bytes()
