"""Checkpoints through Orbax: the newest, to resume from, and the best, to report."""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jmer.data.normalization import Standardization
from jmer.errors import UserError
from jmer.training.initial_weights import named_arrays
from jmer.training.progress import Progress
from jmer.training.train_state import TrainState

SCORE = "score"
PROGRESS = "progress"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint's contents."""

    state: TrainState
    normalization: dict[str, Standardization]
    progress: Progress


class Checkpoints:
    """The checkpoints of one run; use it in a `with` block.

    A save that is killed leaves the earlier checkpoints as they were. Two are kept: the newest, and the one with the
    best score; a checkpoint without a finite score never is the best.
    """

    def __init__(self, folder: str | Path, *, clean: bool = True):
        """Opens a run's checkpoints.

        Args:
          folder: made if it is not there.
          clean: whether to remove what killed saves have left; False = another process may be saving there now.

        Raises:
          UserError: if the folder cannot be written, or a score in it is damaged.
        """
        self.folder = Path(folder).absolute()
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
            raise UserError(f"cannot use {self.folder} ({error.strerror or error}): choose another workdir") from error
        except ValueError as error:
            raise UserError(
                f"a score in {self.folder}/*/metrics is damaged: remove the numbered folder that holds it, to resume "
                "from another one"
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

    def progress(self, step: int) -> Progress:
        """Returns the progress of the run at a checkpoint. Raises UserError if it is damaged."""
        with self._reading(step):
            found = self._manager.restore(step, args=ocp.args.Composite(progress=ocp.args.JsonRestore()))
            return Progress(**found["progress"])

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
        metrics = {SCORE: float(score)} if score is not None and math.isfinite(score) else None
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            normalization=ocp.args.StandardSave(dict(normalization)),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        )
        try:
            self._manager.save(step, args=items, metrics=metrics, force=True)
            self._manager.wait_until_finished()
        except OSError as error:
            raise UserError(f"cannot save to {self.folder} ({error.strerror or error}): free the disk") from error

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
            progress=ocp.args.JsonRestore(),
        )
        with self._reading(step):
            self._compare(step, state)
            found = self._manager.restore(step, args=items)
            return Restored(found["state"], jax.device_get(found["normalization"]), Progress(**found["progress"]))

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turns any error in reading into one line; Orbax raises many types, some with messages of several pages."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # Reads that Orbax leaves unfinished would be logged at exit, after that line.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            raise _damaged(self.folder / str(step)) from error

    def _compare(self, step: int, state: TrainState) -> None:
        """Raises UserError, naming the first parameter that differs, if a checkpoint holds another network."""
        saved = _shapes(self._manager.item_metadata(step)["state"])
        wanted = _shapes(state)
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                there, here = saved.get(name, "absent"), wanted.get(name, "absent")
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
    newest = folder / str(max(steps))
    try:
        return Progress(**json.loads((newest / PROGRESS / "metadata").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(newest) from error


def _damaged(checkpoint: Path) -> UserError:
    return UserError(f"checkpoint {checkpoint} is damaged: remove that folder to resume from an earlier one")


def _shapes(state: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter, by its path; `state` may be a TrainState or Orbax's description of one."""
    return {name: tuple(leaf.shape) for name, leaf in named_arrays(state).items() if name.startswith("params/")}
