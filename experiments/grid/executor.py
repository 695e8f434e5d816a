"""Runs a grid: one run per row and seed (a cell), each in a folder of its own.

A cell is trained by `jmer.train`, and its record has the `python -m jmer.main` command that repeats it. Its output goes
to a log file beside its folder.

Several processes can run one grid at the same time, on several machines if they share the folder: a cell belongs to the
process that holds the lock of its folder. The other processes continue with the next cell, and read the result later.
"""

import contextlib
import datetime
import functools
import itertools
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

import jmer
from experiments.grid.cells import Cell, Outcome, Result, Row, result_of, run_folder
from experiments.grid.corpora import configured_corpus, whole_corpus
from experiments.grid.processes import Died, in_processes
from jmer.command import show
from jmer.config import check_config, fit_to_corpus
from jmer.errors import UserError
from jmer.process import set_up_process
from jmer.runs import RunInUse, check_run, is_in_use, is_reported, lock
from jmer.runs.directory import CONFIG_FILE
from jmer.training.sweep import common_fields

# Seconds between two looks at cells that other processes are running.
POLLING_INTERVAL = 1.0


def run_grid(
    rows: Sequence[Row],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int = 1,
    vectorize: int = 1,
    log: Callable[[str], None],
) -> list[Outcome]:
    """Trains and scores every cell; finished runs are only read, interrupted ones resume.

    Cells that another process is running come last and are waited for: a finished one is read, and one that its process
    left unfinished resumes here.

    Args:
      rows: unique in corpus and name.
      seeds: of each row.
      out: parent of all folders.
      jobs: number of worker processes; 1 = everything in this process.
      vectorize: maximum number of cells that one program trains; these may differ in seed, weights of loss terms,
        learning rate and weight decay only.
      log: called with each line of progress.

    Returns:
      The results and failures of each row; a cell that fails does not stop the others.

    Raises:
      UserError: before anything runs, if a row, a corpus or `out` is invalid, or a folder belongs to another run.
      KeyboardInterrupt: after SIGINT, when the runs have been saved.
    """
    cells = _cells(rows, seeds, out)
    failures = {cell: plan for cell in cells if isinstance(plan := _plan(cell), str)}
    todo = [cell for cell in cells if cell not in failures and not _is_finished(cell)]
    done = len(cells) - len(failures) - len(todo)
    parallel = f", {jobs} in parallel" if jobs > 1 else ""
    log(f"{len(cells)} runs in {out}: {done} already finished, {len(todo)} to do{parallel}")
    for cell, reason in failures.items():
        log(f"{cell.title}: FAILED: {reason}")
    started = time.monotonic()
    with contextlib.closing(_execute(todo, jobs, vectorize, log)) as executed:
        for count, (cell, error) in enumerate(executed, 1):
            left = datetime.timedelta(seconds=round((time.monotonic() - started) / count * (len(todo) - count)))
            if error is not None:
                failures[cell] = error
            status = (
                f"FAILED: {failures[cell]}" if cell in failures else _summary(result_of(jmer.load_run(cell.folder)))
            )
            log(f"[{count:{len(str(len(todo)))}}/{len(todo)}] {cell.title}: {status}; ETA {left}")
    return [
        Outcome(
            row,
            {
                cell.seed: result_of(jmer.load_run(cell.folder))
                for cell in cells
                if cell.row is row and cell not in failures
            },
            {cell.seed: failures[cell] for cell in cells if cell.row is row and cell in failures},
        )
        for row in rows
    ]


def execute_group(cells: Sequence[Cell]) -> dict[int, str | None]:
    """Trains cells in one program, in this process, and scores them; those it does not finish are trained one by one.

    Returns:
      Position of a cell -> error message in one line, or None. Cells that another process is running are left out.

    Raises:
      KeyboardInterrupt: after SIGINT or SIGTERM, when the runs have been saved.
    """
    errors: dict[int, str | None] = {}
    with contextlib.ExitStack() as locks:
        todo = []
        for position, cell in enumerate(cells):
            try:
                locks.enter_context(lock(cell.folder))
                if _is_finished(cell):  # by another process, since this one last looked
                    errors[position] = None
                else:
                    todo.append(position)
            except RunInUse:
                continue
            except UserError as error:
                errors[position] = str(error)
        if len(todo) > 1:
            _train_vectorized([cells[position] for position in todo])
        for position in todo:
            errors[position] = None if _is_finished(cells[position]) else execute_cell(cells[position])
    return errors


def execute_cell(cell: Cell) -> str | None:
    """Trains and scores a cell in this process, resuming its run; its output goes to a log file.

    Returns:
      The error message in one line, or None.

    Raises:
      KeyboardInterrupt: after SIGINT or SIGTERM, when the run has been saved.
    """
    with _output_in_log(cell) as path:
        set_up_process()
        try:
            jmer.train(
                cell.config,
                whole_corpus(cell.row.corpus),
                cell.folder,
                command=lambda config, folder: cell.command,
                experiment=cell.row.experiment,
            )
        except jmer.Interrupted as stop:
            show(str(stop))
            raise KeyboardInterrupt from stop
        except UserError as error:
            return str(error)
        except Exception as error:  # any other failure of one run must not stop the others
            traceback.print_exc()
            reason = " ".join(str(error).split())
            return f"{type(error).__name__}: {reason[:200]} (see {path})"
        finally:
            # The next cell compiles other programs; these stay in the persistent cache.
            jax.clear_caches()
    return None


def _cells(rows: Sequence[Row], seeds: Sequence[int], out: Path) -> list[Cell]:
    """Returns the cells seed by seed, so that at any time all rows have about as many finished runs."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a folder: choose another --out")
    if (out / CONFIG_FILE).exists():
        raise UserError(f"{out} is the folder of a single run: choose another --out")
    cells = [Cell(row, seed, run_folder(out, row, seed)) for seed in seeds for row in rows]
    taken: dict[Path, Cell] = {}
    for cell in cells:
        if other := taken.get(cell.folder):
            raise UserError(
                f"{other.row.experiment} on {other.row.corpus} and {cell.row.experiment} on {cell.row.corpus} would "
                f"share the folder {cell.folder}: rename an experiment or a corpus"
            )
        taken[cell.folder] = cell
    return cells


@functools.cache
def _plan(cell: Cell) -> ConfigDict | str:
    """Returns a cell's configuration fitted to its corpus, or why the corpus does not fit."""
    corpus = configured_corpus(cell.config)
    config = cell.config
    check_config(config, corpus)
    try:
        return fit_to_corpus(config, corpus.card, corpus.conversations("train"))
    except UserError as error:
        return str(error)


def _is_finished(cell: Cell) -> bool:
    if not (cell.folder / CONFIG_FILE).exists():
        return False
    config = _plan(cell)
    try:
        check_run(cell.folder, config, configured_corpus(cell.config).identity)
    except UserError as error:
        raise UserError(str(error).replace("another workdir", "another --out")) from error
    return is_reported(cell.folder, config)


def _train_vectorized(cells: Sequence[Cell]) -> None:
    configs, folders = [cell.config for cell in cells], [cell.folder for cell in cells]
    corpus, commands = whole_corpus(cells[0].row.corpus), [cell.command for cell in cells]
    with _output_in_log(cells[0]):
        set_up_process()
        try:
            jmer.train_many(configs, corpus, folders, commands=commands, experiment=cells[0].row.experiment)
        except jmer.Interrupted as stop:
            show(str(stop))
            raise KeyboardInterrupt from stop
        except Exception:  # trained one by one, each cell reports its own error
            traceback.print_exc()
        finally:
            jax.clear_caches()


@contextlib.contextmanager
def _output_in_log(cell: Cell) -> Iterator[Path]:
    """Redirects stdout and stderr to the log file beside a cell's folder, and yields its path."""
    path = cell.folder.with_suffix(".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield path


def _groups(cells: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    """Groups up to `size` cells that one program can train; the seeds of a row are adjacent."""
    if size == 1:
        return [(cell,) for cell in cells]
    alike: dict[str, dict[Row, list[Cell]]] = {}
    for cell in cells:
        alike.setdefault(repr(common_fields(_plan(cell))), {}).setdefault(cell.row, []).append(cell)
    groups = []
    for rows in alike.values():
        ordered = list(itertools.chain.from_iterable(rows.values()))
        groups += [tuple(ordered[first : first + size]) for first in range(0, len(ordered), size)]
    return groups


def _execute(
    cells: Sequence[Cell], jobs: int, vectorize: int, log: Callable[[str], None]
) -> Generator[tuple[Cell, str | None]]:
    """Executes cells; yields each with its error message, or None, as soon as it is finished."""
    remaining, available = list(cells), cells
    while remaining:
        groups = _groups(available, vectorize)
        if jobs == 1:
            results = ((group, execute_group(group)) for group in groups)
        else:
            results = in_processes(execute_group, groups, jobs)
        with contextlib.closing(results):
            for group, errors in results:
                if isinstance(errors, Died):
                    errors = dict.fromkeys(range(len(group)), errors.reason)
                for position, error in errors.items():
                    remaining.remove(group[position])
                    yield group[position], error
        if remaining:
            available = _wait_for_any(remaining, log)


def _wait_for_any(cells: Sequence[Cell], log: Callable[[str], None]) -> list[Cell]:
    """Waits until other processes have released at least one of the cells, and returns the released ones."""
    waiting = False
    while not (free := [cell for cell in cells if not is_in_use(cell.folder)]):
        if not waiting:
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            log(f"waiting for another process that is running {cells[0].title}{more}")
            waiting = True
        time.sleep(POLLING_INTERVAL)
    return free


def _summary(result: Result) -> str:
    score = 100 * result.scores["validation"].weighted_f1
    return f"validation W-F1 {score:.2f} % in epoch {result.epoch} of {result.epochs}"
