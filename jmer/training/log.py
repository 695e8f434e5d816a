"""Logs of a run: one JSON object per line, TensorBoard scalars, and a line on the console.

Values are flat, and named the same everywhere: `train/loss` is the loss, `train/loss_<term>` one of its terms,
`train/weighted_f1`, `validation/weighted_f1` and so on are scores, as fractions.
"""

import datetime
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from jmer.errors import UserError
from jmer.files import atomically

JSON_LINES_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
CONSOLE_COLUMNS = 120


def read_json_lines(path: str | Path) -> list[dict]:
    """Reads a log; a last line that a kill tore in two is left out.

    Raises:
      UserError: if any other line is damaged.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"]  # A line that is JSON but no step is as damaged as one that isn't JSON.
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, is no log line: repair it or remove the file") from error
        else:
            rows.append(row)
    return rows


class JsonLines:
    """Appends `{"step": step, name: value, ...}` lines to a file; NaN and infinities become null, as JSON has neither.

    Write a step's line before its checkpoint, so that every step up to a checkpoint has its line.
    """

    def __init__(self, path: str | Path, resumed_step: int):
        """Opens the log of a run that goes on after step `resumed_step` (0 = from the start); later lines go.

        Raises:
          UserError: if the existing log is damaged or cannot be written.
        """
        self.path = Path(path)
        kept = [row for row in read_json_lines(self.path) if row["step"] <= resumed_step] if self.path.exists() else []
        with atomically(self.path) as temporary:
            temporary.write_text("".join(_json_line(row) for row in kept), encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line and hands it to the operating system, so that a killed run keeps it."""
        row = {"step": step} | {name: _finite_or_none(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_json_line(row))


class TensorBoard:
    """Appends scalars to an event file that TensorBoard shows; after a resume it hides the steps that are redone."""

    def __init__(self, folder: str | Path, resumed_step: int):
        """Starts a new event file in `folder` for a run that goes on after step `resumed_step` (0 = from the start)."""
        # Imported here because it pulls in PyTorch where that is installed. Its SummaryWriter hands events to another
        # thread and loses them when the run is killed, whatever was flushed; the writer below it does not.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        Path(folder).mkdir(parents=True, exist_ok=True)
        # The file's name has a resolution of one second: with the step in it, a quick restart overwrites nothing valid.
        self._writer = EventsWriter(str(Path(folder) / "events"), f".{resumed_step}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=resumed_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends the values as scalars of this step."""
        summary = self._summary(
            value=[self._summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        )
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class Log:
    """Writes each step to `metrics.jsonl` and to TensorBoard files in the run's folder; use it in a `with` block."""

    def __init__(self, folder: str | Path, resumed_step: int):
        """Opens the logs of a run that goes on after step `resumed_step` (0 = from the start).

        Raises:
          UserError: if the existing log is damaged or cannot be written.
        """
        self._lines = JsonLines(Path(folder) / JSON_LINES_FILE, resumed_step)
        self._tensorboard = TensorBoard(Path(folder) / TENSORBOARD_FOLDER, resumed_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values (numbers, or scalar arrays) of one step."""
        self._lines.write(step, values)
        self._tensorboard.write(step, values)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        self._tensorboard.close()


def progress_line(epoch: int, epochs: int, values: Mapping[str, float], *, seconds_left: float) -> str:
    """Returns one console line on an epoch, within 120 columns where the loss terms' names leave room.

    Args:
      epoch: the epoch just done, counted from 1.
      epochs: how many there will be.
      values: named as in the log, with `utterances_per_second`. `train/loss` and its terms, `train/weighted_f1` and
        `validation/weighted_f1` are shown as far as they are there.
      seconds_left: until the last epoch is done.
    """
    scores = {split: values.get(f"{split}/weighted_f1") for split in ("train", "validation")}
    shown = " ".join(f"{split} {100 * score:.2f}" for split, score in scores.items() if score is not None)
    rest = datetime.timedelta(seconds=round(seconds_left))
    lines = [
        "  ".join(
            part
            for part in (
                f"epoch {epoch:{len(str(epochs))}}/{epochs}",
                _loss(values, digits),
                f"W-F1 {shown}" if shown else "",
                f"{values['utterances_per_second']:.0f} utterances/s",
                f"ETA {rest}",
            )
            if part
        )
        for digits in (5, 4, 3)
    ]
    return next((line for line in lines if len(line) <= CONSOLE_COLUMNS), lines[-1])


def _loss(values: Mapping[str, float], digits: int) -> str:
    total, prefix = values.get("train/loss"), "train/loss_"
    if total is None:
        return ""
    terms = ", ".join(
        f"{name.removeprefix(prefix)} {value:.{digits}g}" for name, value in values.items() if name.startswith(prefix)
    )
    return f"loss {total:.{digits}g}" + (f" ({terms})" if terms else "")


def _finite_or_none(value) -> int | float | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _json_line(row: Mapping) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
