"""Runs that start from the weights of another run (`training.init_from`): where these come from, and their record."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jmer.errors import UserError
from jmer.files import local_path
from jmer.models import Model, build_model
from jmer.models.contract import example_batch
from jmer.pipeline import Pipeline
from jmer.runs.directory import read_as, seed_folders, write_json
from jmer.runs.run import Run, load_single_run
from jmer.training.active_run import CHECKPOINT_FOLDER
from jmer.training.initial_weights import InitialWeights, named_arrays, take_weights
from jmer.training.parallel import Parallel, make_parallel

INITIAL_WEIGHTS_FILE = "initial_weights.json"


class Start(NamedTuple):
    """What runs start from.

    Attributes:
      arrays: name -> array that a run takes, see `jmer.training.initial_weights.named_arrays`.
      record: what was taken from where.
    """

    arrays: Mapping[str, np.ndarray]
    record: InitialWeights


def find_start(
    configs: Sequence[ConfigDict], workdirs: Sequence[Path], pipeline: Pipeline, model: Model
) -> Start | None:
    """Finds the weights that runs start from.

    A run that has a checkpoint does not need them any more: they may be gone, and are compared with its record only if
    they are given by another path, which is then put back in its configuration.

    Args:
      configs: of the runs; `training.init_from` is the same in all.
      workdirs: the runs' directories.
      pipeline, model: of the first run.

    Returns:
      None if no run needs them.

    Raises:
      UserError: if there is no such run, nothing of it fits, or a run was started from other weights.
    """
    folder = configs[0].training.init_from
    records = [read_record(workdir) if is_begun(workdir) else None for workdir in workdirs]
    recorded = [record for record in records if record]
    if not folder or (all(map(is_begun, workdirs)) and all(record.source == folder for record in recorded)):
        return None
    start = _start(folder, pipeline, model)
    for config, workdir, record in zip(configs, workdirs, records, strict=True):
        if record and record.fingerprint != start.record.fingerprint:
            raise UserError(
                f"{workdir} was started from other weights (digest {record.fingerprint}) than {folder} has "
                f"({start.record.fingerprint}): choose another workdir"
            )
        if record:
            config.training.init_from = record.source
    return None if all(map(is_begun, workdirs)) else start


def is_begun(workdir: Path) -> bool:
    """Returns whether a run has a checkpoint."""
    return any(path.name.isdigit() for path in (workdir / CHECKPOINT_FOLDER).glob("*"))


def write_record(workdir: Path, start: Start) -> None:
    """Writes what a run has taken into its directory."""
    write_json(workdir / INITIAL_WEIGHTS_FILE, dataclasses.asdict(start.record))


def read_record(workdir: Path) -> InitialWeights | None:
    """Returns what a run has taken; None if it was not started from the weights of another one."""
    path = workdir / INITIAL_WEIGHTS_FILE
    return read_as(InitialWeights, path) if path.exists() else None


def _start(folder: str, pipeline: Pipeline, model: Model) -> Start:
    training = pipeline.config.training
    run = _source(local_path(folder), make_parallel(training.parallel, training.devices))
    source = {name: np.asarray(x) for name, x in named_arrays(jax.device_get(run.variables)).items()}
    record = take_weights(
        _shapes(model, pipeline),
        source,
        of_emotions=emotion_arrays(model, pipeline),
        same_emotions=run.card.emotions == pipeline.card.emotions,
        folder=folder,
        epoch=run.epoch,
    )
    if not record.taken:
        raise UserError(
            f"training.init_from={folder}: none of its {len(source)} arrays has the name and the shape of one of model "
            f"{model.spec.name} here: start from a run of the same model, with the same widths"
        )
    return Start({array.name: source[array.name] for array in record.taken}, record)


def emotion_arrays(model: Model, pipeline: Pipeline) -> set[str]:
    """Returns the names of a network's arrays that have another shape for another number of emotions."""
    wider = pipeline.config.copy_and_resolve_references()
    wider.model.num_classes += 1
    wider.loss.class_weight_values = ()
    others = _shapes(build_model(wider), pipeline)
    return {name for name, x in _shapes(model, pipeline).items() if others[name].shape != x.shape}


def _source(folder: Path, mapping: Parallel) -> Run:
    """Returns a run at the epoch that it chose or, given the folder of a checkpoint, at that one."""
    if seeds := seed_folders(folder):
        raise UserError(f"training.init_from={folder} holds the runs of several seeds: name one of them ({seeds[0]})")
    if folder.name.isdigit() and folder.parent.name == CHECKPOINT_FOLDER:
        if not folder.is_dir():
            raise UserError(f"training.init_from={folder} does not exist: the run keeps its best and newest checkpoint")
        return load_single_run(folder.parent.parent, mapping=mapping, step=int(folder.name))
    return load_single_run(folder, mapping=mapping)


def _shapes(model: Model, pipeline: Pipeline) -> dict[str, Any]:
    batch = example_batch(pipeline.widths, frames=pipeline.card.frames)
    return named_arrays(jax.eval_shape(model.init, jax.random.key(0), batch))
