"""A trained run as its folder holds it: the model and the variables of its chosen epoch."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jmer.data.corpus import Card
from jmer.data.normalization import Standardization
from jmer.errors import UserError
from jmer.models import Model, build_model
from jmer.training.checkpoint import Checkpoints, Position
from jmer.training.folder import CHECKPOINT_FOLDER, read_config, read_facts
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.state import State, create_state


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a run ended with.

    Attributes:
      config: complete, fitted to the corpus of training.
      card: that corpus' card.
      model: the network and its loss.
      state: at the chosen epoch.
      statistics: the normalisation of features that the model was trained with.
      position: of the chosen epoch.
      epochs: how many were trained.
    """

    config: ConfigDict
    card: Card
    model: Model
    state: State
    statistics: Mapping[str, Standardization]
    position: Position
    epochs: int

    @property
    def variables(self) -> dict:
        """What `model.module.apply` takes."""
        return self.state.variables


def load_run(workdir: Path, *, config: ConfigDict | None = None, parallel: Parallel | None = None) -> TrainedRun:
    """Reads the epoch that a run's `selection` chooses.

    Args:
      workdir: the run's folder.
      config: what `jmer.training.folder.check_use` accepts; None = as the run was trained.
      parallel: the devices to read it to; None = one, whatever it was trained on.

    Raises:
      UserError: if there is no run, or it has no finished epoch yet.
    """
    config, card = config or read_config(workdir), read_facts(workdir).card
    parallel = parallel or make_parallel("jit")
    widths = {m: card.widths[m] for m in config.model.modalities}
    optimizer = make_optimizer(config.optimizer, steps=[1] * config.training.epochs)
    model = build_model(config)
    template = jax.eval_shape(lambda: create_state(model, optimizer, widths, config.seed, frames=card.frames))
    statistics = {m: Standardization(*np.zeros((2, width), np.float32)) for m, width in widths.items()}
    with Checkpoints(workdir / CHECKPOINT_FOLDER, clean=False) as checkpoints:
        if checkpoints.newest is None:
            raise UserError(f"{workdir} has no checkpoint yet: train it with --mode train")
        chosen = checkpoints.newest if config.selection == "last" else checkpoints.best
        if chosen is None:
            raise UserError(f"no epoch of {workdir} is finished yet: go on training it with --mode train")
        restored = checkpoints.restore(chosen, template, statistics, parallel.state_sharding)
        epochs = checkpoints.position(checkpoints.newest).epoch
    if restored.position.batch:
        raise UserError(f"{workdir} stopped in the middle of an epoch: go on training it with --mode train")
    return TrainedRun(config, card, model, restored.state, restored.statistics, restored.position, epochs)
