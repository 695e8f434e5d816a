"""Writers of a run's metrics: a JSON Lines file and TensorBoard scalars.

Values are flat, and named the same everywhere: `train/loss` is the loss, `train/loss_<term>` one of its terms,
`train/weighted_f1`, `validation/weighted_f1` and so on are scores, as fractions.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jmer.errors import UserError
from jmer.files import atomically, flush_to_disk, not_written
from jmer.json_values import from_json

JSON_LINES_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def read_json_lines(path: str | Path) -> list[dict]:
    """Reads a file of metrics; a last line that was cut off by a kill is left out.

    Raises:
      UserError: if any other line is damaged.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_checked(json.loads(line)))
        except (ValueError, RecursionError) as error:
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                break
            reason = " ".join(str(error).split())
            raise UserError(
                f"{path}, line {number}, is not a line of metrics ({reason}): repair it or remove the file"
            ) from error
    return rows


def _checked(row: Any) -> dict[str, Any]:
    """Returns a line of metrics. Raises ValueError if it is JSON, but none."""
    found = from_json(dict[str, float | None], row)
    from_json(int, found.get("step"), "step")
    return found


class JsonLines:
    """Appends `{"step": step, name: value, ...}` lines to a file; NaN and infinities become null, as JSON has neither.

    Write a step's line before its checkpoint, so that every step up to a checkpoint has its line.
    """

    def __init__(self, path: str | Path, resumed_step: int):
        """Opens the file of a run that resumes after step `resumed_step` (0 = from the start); later lines are removed.

        Raises:
          UserError: if the existing file is damaged or cannot be written.
        """
        self.path = Path(path)
        kept = [row for row in read_json_lines(self.path) if row["step"] <= resumed_step] if self.path.exists() else []
        with atomically(self.path) as temporary:
            temporary.write_text("".join(_json_line(row) for row in kept), encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line, which is on the disk then."""
        row = {"step": step} | {name: _finite_or_none(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_json_line(row))
        flush_to_disk(self.path)


class TensorBoard:
    """Appends scalars to a TensorBoard event file; after a resume TensorBoard hides the steps that are redone."""

    def __init__(self, folder: str | Path, resumed_step: int):
        """Starts a new event file in `folder` for a run that resumes after step `resumed_step` (0 = from the start)."""
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


class MetricWriter:
    """Writes each step to `metrics.jsonl` and to TensorBoard files in the run's directory; use it in a `with` block."""

    def __init__(self, folder: str | Path, resumed_step: int):
        """Opens the files of a run that resumes after step `resumed_step` (0 = from the start).

        Raises:
          UserError: if the existing file is damaged or cannot be written.
        """
        self._folder = Path(folder)
        with self._writing():
            self._lines = JsonLines(self._folder / JSON_LINES_FILE, resumed_step)
            self._tensorboard = TensorBoard(self._folder / TENSORBOARD_FOLDER, resumed_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values (numbers, or scalar arrays) of one step. Raises UserError if they cannot be written."""
        with self._writing():
            self._lines.write(step, values)
            self._tensorboard.write(step, values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise not_written(f"cannot write metrics to {self._folder}", error, "choose another workdir") from error

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files. Raises UserError if what is left cannot be written."""
        with self._writing():
            self._tensorboard.close()


def _finite_or_none(value: Any) -> int | float | None:
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _json_line(row: Mapping) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
