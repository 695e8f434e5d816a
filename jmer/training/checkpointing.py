"""Checkpoints through Orbax: the newest, to resume from, and the best, to report.

Orbax stores arrays without check sums, so that a flipped bit would give other numbers without a word. Each checkpoint
therefore holds digests of its score, of its progress and of its arrays, which are compared with what is read.
"""

import dataclasses
import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jmer.data.normalization import Standardization
from jmer.digests import digest_arrays, sealed, unsealed
from jmer.errors import UserError
from jmer.files import flush_to_disk, not_written, reason_code
from jmer.json_values import from_json
from jmer.training.initial_weights import named_arrays
from jmer.training.parallel import is_main_process
from jmer.training.progress import Progress
from jmer.training.train_state import TrainState

SCORE = "score"
PROGRESS = "progress"
Shapes = dict[str, list[int]]

_ORBAX = Path(ocp.__file__).parent
# Errors as TensorStore puts them, and tasks of Orbax.
_OF_ORBAX = re.compile(rf"\b[A-Z_]+: Error (open|read|writ)ing |{re.escape(str(_ORBAX))}")


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint's contents."""

    state: TrainState
    normalization: dict[str, Standardization]
    progress: Progress


class Checkpoints:
    """The checkpoints of one run; use it in a `with` block.

    A save that is killed leaves the earlier checkpoints as they were; one that has ended outlives a failure of the
    machine. Two are kept: the newest, and the one with the
    best score; a checkpoint without a finite score never is the best.
    """

    def __init__(self, folder: str | Path, *, clean: bool = True):
        """Opens a run's checkpoints.

        Args:
          folder: made if it is not there.
          clean: whether to remove what killed saves have left; False = another process may be saving there now.

        Raises:
          UserError: if the folder cannot be written, or a score or a description in it is damaged.
        """
        self.folder = Path(folder).absolute()
        _tell_errors_once()
        self._check_scores()
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(1),
                preservation_policy.BestN(
                    get_metric_fn=lambda metrics: metrics[SCORE], n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                # Named here, or a manager that has saved nothing yet could not describe what others saved.
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "normalization": ocp.StandardCheckpointHandler(),
                    PROGRESS: ocp.JsonCheckpointHandler(),
                },
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy,
                    best_fn=lambda metrics: metrics[SCORE],
                    # The step donates its state; a save in the background could read what is already overwritten.
                    enable_async_checkpointing=False,
                    cleanup_tmp_directories=clean,
                ),
            )
        except OSError as error:
            raise not_written(f"cannot use {self.folder}", error, "choose another workdir") from error
        # Of keys and values in the files that describe the checkpoints, which Orbax reads as it opens them.
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.folder} is damaged (a _CHECKPOINT_METADATA in it): put a copy back, or train again in another "
                "workdir"
            ) from error

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the use of the checkpoints."""
        self._manager.close()

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint, None without any."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the checkpoint with the best score, None without any."""
        return self._manager.best_step()

    def check_newest(self) -> None:
        """Raises UserError if the newest checkpoint is not there any more: the best one would be gone with it."""
        if self.newest is not None and not (self.folder / str(self.newest)).is_dir():
            raise UserError(
                f"checkpoint {self.folder / str(self.newest)} was saved and is gone: put the folder back, and the same "
                "command resumes"
            )

    def progress(self, step: int) -> Progress:
        """Returns the progress of the run at a checkpoint. Raises UserError if it is damaged."""
        return _Record.read(self.folder / str(step)).progress

    def save(
        self, state: TrainState, normalization: Mapping[str, Standardization], progress: Progress, score: float | None
    ) -> None:
        """Saves a state under the number of its step; does nothing if that step is saved already.

        Args:
          state: what to save.
          normalization: of the features.
          progress: of the run at this state.
          score: higher is better; None or a number that is not finite = never the best.

        Raises:
          UserError: if the folder cannot be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        metrics = sealed({SCORE: float(score)}) if score is not None and math.isfinite(score) else None
        record = _Record(progress, _digest(state, normalization), _shapes(state))
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            normalization=ocp.args.StandardSave(dict(normalization)),
            progress=ocp.args.JsonSave(sealed(dataclasses.asdict(record))),
        )
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
            self._manager.wait_until_finished()
            # Orbax leaves the files that describe a checkpoint in the system's memory.
            if is_main_process():
                flush_to_disk(self.folder / str(step))
        except Exception as error:
            if not isinstance(error, OSError) and reason_code(error) is None:
                raise
            raise not_written(f"cannot save to {self.folder}", error, "choose another workdir") from error

    def restore(
        self, step: int, state: Any, normalization: Mapping[str, Standardization], sharding: jax.sharding.Sharding
    ) -> Restored:
        """Reads a checkpoint onto any number of devices.

        Args:
          step: its number.
          state, normalization: anything with the shapes that are expected.
          sharding: where the arrays go.

        Raises:
          UserError: if the checkpoint is damaged or has other shapes.
        """

        def template(tree):
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(template(state)),
            normalization=ocp.args.StandardRestore(template(dict(normalization))),
        )
        record = _Record.read(self.folder / str(step))
        self._compare(step, record.shapes, _shapes(state))
        # Orbax raises many types, some with messages of several pages.
        try:
            found = self._manager.restore(step, args=items)
            if _digest(found["state"], found["normalization"]) != record.arrays:
                raise ValueError("the arrays are not those that were saved")
        except jax.errors.JaxRuntimeError:  # of a device or of another process, not of the checkpoint
            raise
        except Exception as error:
            raise _damaged(self.folder / str(step)) from error
        return Restored(found["state"], jax.device_get(found["normalization"]), record.progress)

    def _check_scores(self) -> None:
        """Raises UserError if a checkpoint's score is not what was saved: another one might be taken for the best."""
        for path in self.folder.glob("*/metrics/metrics"):
            if not path.parent.parent.name.isdigit():  # what a killed save has left
                continue
            try:
                unsealed(json.loads(path.read_bytes()))
            except FileNotFoundError:  # the process that saves there has removed it
                continue
            except ValueError as error:
                raise _damaged(path.parent.parent) from error

    def _compare(self, step: int, saved: Shapes, wanted: Shapes) -> None:
        """Raises UserError, naming the first parameter that differs, if a checkpoint holds another network."""
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                there, here = (tuple(x[name]) if name in x else "absent" for x in (saved, wanted))
                raise UserError(
                    f"checkpoint {self.folder / str(step)} holds another network: {name} is {there} there and {here} "
                    "here; use its own configuration and corpus, or another workdir"
                )


def newest_progress(folder: Path) -> Progress:
    """Returns the progress of a run at its newest checkpoint, or at its start without any.

    Orbax is left out: it waits for all processes, and this is for one of them to ask.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    if not steps:
        return Progress()
    return _Record.read(folder / str(max(steps))).progress


def _tell_errors_once() -> None:
    """Keeps quiet what Orbax logs of an error that is raised as one line, and other messages of these loggers not."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_of_orbax)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a message is none of Orbax's warnings or errors, and none of asyncio's on what Orbax did not wait for.

    When one array cannot be read or written, asyncio reports the others whenever Python collects them.
    """
    if record.name == "asyncio":
        return not _OF_ORBAX.search(record.getMessage())
    return record.levelno < logging.WARNING or not Path(record.pathname).is_relative_to(_ORBAX)


@dataclasses.dataclass(frozen=True)
class _Record:
    """What a checkpoint holds besides its arrays, as JSON.

    Attributes:
      progress: of the run.
      arrays: digest of the state and the normalization.
      shapes: of the parameters.
    """

    progress: Progress
    arrays: str
    shapes: Shapes

    @classmethod
    def read(cls, checkpoint: Path) -> "_Record":
        """Reads the record of a checkpoint, without Orbax. Raises UserError if it is damaged."""
        try:
            fields = unsealed(json.loads((checkpoint / PROGRESS / "metadata").read_bytes()))
            return from_json(cls, fields)
        except (OSError, ValueError) as error:
            raise _damaged(checkpoint) from error


def _damaged(checkpoint: Path) -> UserError:
    others = [path for path in checkpoint.parent.glob("*") if path.name.isdigit() and path.name != checkpoint.name]
    newest = max(others, key=lambda path: int(path.name), default=None)
    rest = f"resume from {newest}" if newest else "train from the start, or put a copy back"
    return UserError(f"checkpoint {checkpoint} is damaged: remove that folder to {rest}")


def _digest(state: Any, normalization: Mapping[str, Standardization]) -> str:
    """Returns the digest of all arrays of a checkpoint, wherever they are."""

    def numbers(x: Any) -> Any:
        return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    tree = jax.tree.map(numbers, {"state": state, "normalization": dict(normalization)})
    return digest_arrays(named_arrays(jax.device_get(tree)))


def _shapes(state: TrainState) -> Shapes:
    """Returns the shape of every parameter, by its path."""
    return {f"params/{name}": list(leaf.shape) for name, leaf in named_arrays(state.params).items()}
