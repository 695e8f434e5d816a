"""Runs the rows of a table: one run per row and seed (a cell), each in a folder of its own under one folder.

A cell is what `python -m jmer.main --config ... --workdir OUT/<corpus>/<row>/seed0` does: the same checks, compile
cache, resumption and results, and anyone can repeat it by hand. Its `main` is called, not started as a program: a
process then pays once for its imports, hands a mistake back as an exception, and ends with the one that started it.
What it prints goes to a log file beside the run's folder.

Several processes, on several machines if they share the folder, can run the same rows at the same time: a cell belongs
to the process that works in its folder. The others go on with the next one, and read what it has left when it is done.
"""

import contextlib
import dataclasses
import datetime
import functools
import itertools
import statistics
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.processes import Died, in_processes
from jmer.config import fit_to_corpus
from jmer.data.corpus import Corpus, any_labelled
from jmer.data.load import load_corpus
from jmer.data.validation import require_sound
from jmer.errors import UserError
from jmer.experiment import change_fields, load_experiment
from jmer.main import FIELD, command_line
from jmer.main import main as train_and_score
from jmer.process import set_up_process
from jmer.training.folder import (
    COMPUTATION,
    CONFIG_FILE,
    SCORES_FILE,
    FolderInUse,
    check_same,
    is_in_use,
    read_config,
    read_facts,
    read_json,
    working_in,
)
from jmer.training.log import JSON_LINES_FILE, read_json_lines
from jmer.training.loop import Interrupted, check
from jmer.training.results import is_reported
from jmer.training.together import train_together
from jmer.training.variations import common_fields

LAST_EPOCHS = 5
# How often to look whether another process has left a cell.
SECONDS_BETWEEN_LOOKS = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """What is run once per seed.

    Attributes:
      name: unique among the rows of a corpus; names a folder.
      experiment: as `--config` takes it, `configs/x.py:variants`.
      corpus: as `--corpus` takes it.
      overrides: `section.field` -> text, as `--config.section.field=text` takes it.
    """

    name: str
    experiment: str
    corpus: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def config(self) -> ConfigDict:
        """The configuration with seed 0. Raises UserError if the experiment or a field is at fault."""
        return change_fields(load_experiment(self.experiment), {**self.overrides, "data.path": self.corpus})


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run left.

    Attributes:
      scores: split -> what `scores.json` has on it, fractions.
      selection: how the epoch was chosen.
      epoch: the epoch that was chosen, of `epochs`.
      last_epochs: mean weighted F1 on the validation split over the last five epochs, which chooses nothing.
      parameters: number of trained parameters.
      speed: utterances per second in training, the median over epochs (the first one compiles).
      devices: what it ran on.
    """

    scores: Mapping[str, Mapping[str, Any]]
    selection: str
    epoch: int
    epochs: int
    last_epochs: float
    parameters: int
    speed: float
    devices: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a row: seed -> result, and seed -> what went wrong."""

    row: Row
    results: Mapping[int, Result]
    failures: Mapping[int, str]

    def scores(self, name: str, split: str = "validation") -> dict[int, float]:
        """Returns seed -> a score of the chosen epoch on a split; empty if the split was not scored."""
        return {seed: r.scores[split][name] for seed, r in self.results.items() if split in r.scores}


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A row with one seed, and the folder of its run."""

    row: Row
    seed: int
    folder: Path

    @property
    def title(self) -> str:
        """Names it on the console."""
        return f"{corpus_name(self.row.corpus)} {self.row.name} seed {self.seed}"

    @property
    def config(self) -> ConfigDict:
        """The configuration of its run. Raises UserError if the experiment or a field is at fault."""
        config = self.row.config
        config.seed = self.seed
        return config

    @property
    def arguments(self) -> list[str]:
        """The command line of `jmer.main`."""
        fields = {**self.row.overrides, "seed": self.seed}
        return [
            *("--config", self.row.experiment, "--corpus", self.row.corpus, "--workdir", str(self.folder)),
            *(f"{FIELD}{name}={value}" for name, value in fields.items()),
        ]


def run(
    rows: Sequence[Row],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int = 1,
    together: int = 1,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Brings every cell to its end: runs that are finished are only read, interrupted ones go on.

    Cells in which another process works come last, and are waited for: what it finishes is read, and where it stops or
    dies, its run goes on here.

    Args:
      rows: what to run.
      seeds: of each row.
      out: parent of all folders.
      jobs: how many processes at the same time; 1 = one thing after the other in this one.
      together: how many cells one program trains at most: those that differ by seed, weights of loss terms, learning
        rate and weight decay alone.
      say: prints a line.

    Returns:
      Of each row, its results and its failures: a cell that fails does not stop the others.

    Raises:
      UserError: before anything runs, if a row, a corpus or `out` is at fault, or a folder there is another run's.
      KeyboardInterrupt: after Ctrl-C, when the runs have been saved.
    """
    cells = _cells(rows, seeds, out)
    failures = {cell: plan for cell in cells if isinstance(plan := _plan(cell), str)}
    todo = [cell for cell in cells if cell not in failures and not _is_finished(cell)]
    done = len(cells) - len(failures) - len(todo)
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    say(f"{len(cells)} runs in {out}: {done} finished before, {len(todo)} to do{at_once}")
    for cell, reason in failures.items():
        say(f"{cell.title}: FAILED: {reason}")
    started = time.monotonic()
    with contextlib.closing(_executed(todo, jobs, together, say)) as executed:
        for count, (cell, problem) in enumerate(executed, 1):
            left = datetime.timedelta(seconds=round((time.monotonic() - started) / count * (len(todo) - count)))
            if problem is not None:
                failures[cell] = problem
            news = f"FAILED: {failures[cell]}" if cell in failures else _news(read_result(cell.folder))
            say(f"[{count:{len(str(len(todo)))}}/{len(todo)}] {cell.title}: {news}; ETA {left}")
    return [
        Outcome(
            row,
            {cell.seed: read_result(cell.folder) for cell in cells if cell.row is row and cell not in failures},
            {cell.seed: failures[cell] for cell in cells if cell.row is row and cell in failures},
        )
        for row in rows
    ]


def execute_together(cells: Sequence[Cell]) -> dict[int, str | None]:
    """Trains cells in one program, in this process, and scores them; what it does not bring to its end goes alone.

    Returns:
      Position of a cell -> what went wrong, in one line, or None. A cell in which another process works is left out.

    Raises:
      KeyboardInterrupt: after SIGINT or SIGTERM, when the runs have been saved.
    """
    problems: dict[int, str | None] = {}
    with contextlib.ExitStack() as ours:
        todo = []
        for position, cell in enumerate(cells):
            try:
                ours.enter_context(working_in(cell.folder))
                if _is_finished(cell):  # by another process, since the last look
                    problems[position] = None
                else:
                    todo.append(position)
            except FolderInUse:
                continue
            except UserError as error:
                problems[position] = str(error)
        if len(todo) > 1:
            _train_together([cells[position] for position in todo])
        for position in todo:
            problems[position] = execute(cells[position])
    return problems


@functools.cache
def sound_corpus(path: str) -> Corpus:
    """Loads a corpus once. Raises UserError if it cannot be trained on, or has no labelled validation split."""
    corpus = load_corpus(path)
    require_sound(corpus, for_training=True)
    if "validation" not in corpus.splits or not any_labelled(corpus.conversations("validation")):
        raise UserError(f"corpus '{corpus.card.name}' has no labelled validation split: convert it with --holdout")
    return corpus


def corpus_name(path: str) -> str:
    """Returns what a corpus' folder is called."""
    return Path(path).resolve().name


def run_folder(out: Path, row: Row, seed: int) -> Path:
    """Returns the folder of a row's run under the folder of all runs."""
    return out / corpus_name(row.corpus) / row.name / f"seed{seed}"


def read_result(folder: Path) -> Result:
    """Reads what a finished run left. Raises UserError if a file of it is missing or damaged."""
    chosen, facts = read_json(folder / SCORES_FILE), read_facts(folder)
    history = read_json_lines(folder / JSON_LINES_FILE)
    return Result(
        scores=chosen["splits"],
        selection=chosen["selection"],
        epoch=chosen["epoch"],
        epochs=chosen["epochs"],
        last_epochs=statistics.fmean(row["validation/weighted_f1"] for row in history[-LAST_EPOCHS:]),
        parameters=facts.parameters,
        speed=statistics.median(row["utterances_per_second"] for row in history),
        devices=facts.versions["devices"],
    )


def execute(cell: Cell) -> str | None:
    """Trains and scores a cell in this process, from wherever its run stands; its output goes to a log file.

    Returns:
      What went wrong, in one line, or None.

    Raises:
      KeyboardInterrupt: after SIGINT or SIGTERM, when the run has been saved.
    """
    with _output_in_log(cell) as log:
        try:
            status = train_and_score(cell.arguments)
        except UserError as error:
            return str(error)
        except Exception as error:  # whatever else breaks one run is no reason to give up the others
            traceback.print_exc()
            reason = " ".join(str(error).split())
            return f"{type(error).__name__}: {reason[:200]} (see {log})"
        finally:
            # A next cell's programs are others; on disk they stay.
            jax.clear_caches()
    if status:
        raise KeyboardInterrupt
    return None


def _cells(rows: Sequence[Row], seeds: Sequence[int], out: Path) -> list[Cell]:
    """Lays out the folders, seed by seed, so that at any time all rows have about as many runs."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a folder: name another --out")
    if (out / CONFIG_FILE).exists():
        raise UserError(f"{out} is the folder of a single run: name another --out")
    cells = [Cell(row, seed, run_folder(out, row, seed)) for seed in seeds for row in rows]
    taken: dict[Path, Cell] = {}
    for cell in cells:
        if other := taken.get(cell.folder):
            raise UserError(f"{cell.folder} would be that of {other.row.corpus} and {cell.row.corpus}: rename a corpus")
        taken[cell.folder] = cell
    return cells


@functools.cache
def _plan(cell: Cell) -> ConfigDict | str:
    """Returns the configuration that a cell's run will have, or why the corpus does not fit it."""
    corpus = sound_corpus(cell.row.corpus)
    config = cell.config
    check(config, corpus)
    try:
        return fit_to_corpus(config, corpus.card, corpus.conversations("train"))
    except UserError as error:
        return str(error)


def _is_finished(cell: Cell) -> bool:
    if not (cell.folder / CONFIG_FILE).exists():
        return False
    config = _plan(cell)
    try:
        check_same(cell.folder, read_config(cell.folder), config, ignore=COMPUTATION)
    except UserError as error:
        raise UserError(str(error).replace("--workdir", "--out")) from error
    if read_facts(cell.folder).card != sound_corpus(cell.row.corpus).card:
        raise UserError(f"{cell.folder} was trained on another version of {cell.row.corpus}: name another --out")
    return is_reported(cell.folder, config.training.epochs)


def _train_together(cells: Sequence[Cell]) -> None:
    configs = [cell.config for cell in cells]
    commands = [command_line(cell.arguments) for cell in cells]
    folders = [cell.folder for cell in cells]
    with _output_in_log(cells[0]):
        set_up_process()
        try:
            train_together(configs, sound_corpus(cells[0].row.corpus), folders, commands=commands, say=print)
        except Interrupted as stop:
            raise KeyboardInterrupt from stop
        except Exception:  # whatever it is: alone each cell says what is wrong with it, if anything is
            traceback.print_exc()
        finally:
            jax.clear_caches()


@contextlib.contextmanager
def _output_in_log(cell: Cell) -> Iterator[Path]:
    """Sends what is printed to the log file beside a cell's folder, whose path it gives."""
    log = cell.folder.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield log


def _groups(cells: Sequence[Cell], size: int) -> list[tuple[Cell, ...]]:
    """Puts cells together that one program can train, up to `size` of them; the seeds of a row stay together."""
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


def _executed(
    cells: Sequence[Cell], jobs: int, together: int, say: Callable[[str], None]
) -> Generator[tuple[Cell, str | None]]:
    """Executes cells; gives each with what went wrong, or None, as soon as it is there."""
    left, trying = list(cells), cells
    while left:
        groups = _groups(trying, together)
        if jobs == 1:
            results = ((group, execute_together(group)) for group in groups)
        else:
            results = in_processes(execute_together, groups, jobs)
        with contextlib.closing(results):
            for group, problems in results:
                if isinstance(problems, Died):
                    problems = dict.fromkeys(range(len(group)), problems.reason)
                for position, problem in problems.items():
                    left.remove(group[position])
                    yield group[position], problem
        if left:
            trying = _wait_for_one(left, say)


def _wait_for_one(cells: Sequence[Cell], say: Callable[[str], None]) -> list[Cell]:
    """Waits until other processes have left one of the cells, and returns those that are free."""
    waiting = False
    while not (free := [cell for cell in cells if not is_in_use(cell.folder)]):
        if not waiting:
            more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
            say(f"waiting for another process, which works on {cells[0].title}{more}")
            waiting = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return free


def _news(result: Result) -> str:
    score = 100 * result.scores["validation"]["weighted_f1"]
    return f"validation W-F1 {score:.2f} % in epoch {result.epoch} of {result.epochs}"
