"""A run's directory: one process or thread at a time works there, and what lies there is read or refused."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny import tiny_corpus

import jmer
from jmer.command import exit_status
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.evaluation import report
from jmer.main import main
from jmer.runs.directory import (
    CONFIG_FILE,
    FORMAT,
    LOCK_FILE,
    RUN_FILE,
    RunInUse,
    is_in_use,
    lock,
    read_facts,
    read_json,
    write_json,
)

EXPERIMENT = str(Path(__file__).parent / "linear_experiment.py")
HOLDER = """
import sys
import filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("in", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def another_process():
    """Starts a process that works in a directory until it is killed."""
    processes = []

    def start(folder):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", HOLDER, str(folder / LOCK_FILE)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "in\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of a trained run, and the command line that made it."""
    folder = tmp_path_factory.mktemp("trained")
    save_corpus(tiny_corpus(), folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        for plot in ("plot_confusion", "plot_learning_curves"):
            patch.setattr(report, plot, lambda *_, **__: None)
        arguments = ["--config", EXPERIMENT, "--corpus", str(folder / "corpus")]
        assert exit_status(main, [*arguments, "--workdir", str(folder / "run")]) == 0
        yield folder / "run", arguments


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(capfd, *arguments):
    """Runs the command, which must fail, and returns its line on stderr."""
    capfd.readouterr()
    assert exit_status(main, list(map(str, arguments))) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_a_process_may_enter_twice_and_leaves_when_it_is_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lock(tmp_path / "run"), lock(Path("run")):
        assert not is_in_use(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]


def test_another_process_keeps_this_one_out_until_it_dies(tmp_path, another_process):
    process = another_process(tmp_path / "run")
    assert is_in_use(tmp_path / "run")
    refused = pytest.raises(RunInUse, match=f"^another process or thread works in {tmp_path / 'run'}: wait until")
    with refused, lock(tmp_path / "run"):
        pytest.fail("two were in")
    process.kill()
    process.wait()
    assert not is_in_use(tmp_path / "run")


def test_another_thread_is_kept_out_until_this_one_leaves(tmp_path):
    def enter():
        with lock(tmp_path / "run"):
            return "in"

    with ThreadPoolExecutor(1) as other:
        with lock(tmp_path / "run"):
            assert other.submit(is_in_use, tmp_path / "run").result()
            with pytest.raises(RunInUse, match=f"^another process or thread works in {tmp_path / 'run'}: wait until"):
                other.submit(enter).result()
        assert other.submit(enter).result() == "in"
        assert not is_in_use(tmp_path / "run")


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(UserError, match=rf"^cannot write {tmp_path}/file/run \(Not a directory\): choose another")
    with refused, lock(tmp_path / "file" / "run"):
        pytest.fail("it was made")


@pytest.mark.parametrize("fields", [(), ("--config.seeds=3",)])
def test_training_where_another_process_trains_is_refused(trained, another_process, tmp_path, capfd, fields):
    folder = tmp_path / "w"
    busy = folder / "seed1" if fields else folder
    another_process(busy)
    line = refusal(capfd, *trained[1], *fields, "--workdir", folder)
    assert line == (
        f"error: another process or thread works in {busy}: wait until it has ended, stop it, or choose another workdir"
    )
    assert [path.name for path in busy.iterdir()] == [LOCK_FILE]


def test_a_finished_run_is_left_alone_while_another_process_works_there(trained, another_process, capfd):
    folder, arguments = trained
    another_process(folder)
    before = contents(folder)
    assert "another process or thread works in" in refusal(capfd, *arguments, "--workdir", folder)
    assert contents(folder) == before


def test_reading_a_run_leaves_what_another_process_is_saving(trained):
    folder, _ = trained
    saving = folder / "checkpoints" / "999.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    saving.mkdir(parents=True)
    (saving / "manifest.ocdbt").write_bytes(b"half")
    assert jmer.load_run(folder).epochs == 7
    assert (saving / "manifest.ocdbt").read_bytes() == b"half"


def changed(trained, tmp_path, name, change):
    """Returns a copy of the trained run's directory in which a JSON file was changed."""
    folder = shutil.copytree(trained[0], tmp_path / "run")
    fields = read_json(folder / name)
    change(fields)
    write_json(folder / name, fields)
    return folder


@pytest.mark.parametrize("written", [None, 1, FORMAT - 1, FORMAT + 1])
def test_a_run_of_another_format_is_refused_and_left_alone(trained, tmp_path, capfd, written):
    def change(fields):
        del fields["format"]
        fields |= {} if written is None else {"format": written}

    folder = changed(trained, tmp_path, RUN_FILE, change)
    before = contents(folder)
    message = (
        f"{folder} was written by another version of jmer, whose runs cannot be read (run.json has format {written}, "
        f"this version reads {FORMAT}): train it again in another workdir"
    )
    for use in (read_facts, jmer.load_run):
        with pytest.raises(UserError) as refused:
            use(folder)
        assert str(refused.value) == message
    assert refusal(capfd, *trained[1], "--workdir", folder) == f"error: {message}"
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("experiment", "remedy"), [("", "--config and the experiment's file"), ("mine.py", "--config mine.py")]
)
def test_a_run_of_an_unknown_model_is_refused(trained, tmp_path, capfd, experiment, remedy):
    folder = changed(trained, tmp_path, CONFIG_FILE, lambda fields: fields["model"].update(name="vanished"))
    write_json(folder / RUN_FILE, read_json(folder / RUN_FILE) | {"experiment": experiment})
    message = (
        f"{folder} was trained with model 'vanished', which is not registered: import the file that registers it, or "
        f"add {remedy}"
    )
    with pytest.raises(UserError) as refused:
        jmer.load_run(folder)
    assert str(refused.value) == message
    assert refusal(capfd, "--mode", "evaluate", "--workdir", folder) == f"error: {message}"
