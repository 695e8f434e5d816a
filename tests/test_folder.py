"""A run's folder belongs to one process at a time, for as long as that lives, and who comes second leaves it alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_corpus

from jmer.command import exit_status
from jmer.data.corpus import save_corpus
from jmer.errors import UserError
from jmer.evaluation import report
from jmer.main import main
from jmer.runs.directory import LOCK_FILE, RunInUse, is_in_use, lock
from jmer.training import load_run

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
    """Starts a process that works in a folder until it is killed."""
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
    """The folder of a trained run, and the command line that made it."""
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
    """Runs the command, which must fail, and returns what it says."""
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
    refused = pytest.raises(RunInUse, match=f"^another process works in {tmp_path / 'run'}: wait until")
    with refused, lock(tmp_path / "run"):
        pytest.fail("two were in")
    process.kill()
    process.wait()
    assert not is_in_use(tmp_path / "run")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(UserError, match=rf"^cannot write {tmp_path}/file/run \(Not a directory\): name another")
    with refused, lock(tmp_path / "file" / "run"):
        pytest.fail("it was made")


@pytest.mark.parametrize("fields", [(), ("--config.seeds=3",)])
def test_training_where_another_process_trains_is_refused(trained, another_process, tmp_path, capfd, fields):
    folder = tmp_path / "w"
    busy = folder / "seed1" if fields else folder
    another_process(busy)
    line = refusal(capfd, *trained[1], *fields, "--workdir", folder)
    assert line == (
        f"error: another process works in {busy}: wait until it has ended, stop it, or name another --workdir"
    )
    assert [path.name for path in busy.iterdir()] == [LOCK_FILE]


def test_a_finished_run_is_left_alone_while_another_process_works_there(trained, another_process, capfd):
    folder, arguments = trained
    another_process(folder)
    before = contents(folder)
    assert "another process works in" in refusal(capfd, *arguments, "--workdir", folder)
    assert contents(folder) == before


def test_reading_a_run_leaves_what_another_process_is_saving(trained):
    folder, _ = trained
    saving = folder / "checkpoints" / "999.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp"
    saving.mkdir(parents=True)
    (saving / "manifest.ocdbt").write_bytes(b"half")
    assert load_run(folder).epochs == 7
    assert (saving / "manifest.ocdbt").read_bytes() == b"half"
