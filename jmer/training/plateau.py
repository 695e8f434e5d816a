"""The schedule `plateau`: a learning rate that is lowered when the loss on the validation split does not fall."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jmer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plateau:
    """What the schedule has seen of a run; part of its progress, so that a resumed run equals an uninterrupted one.

    Attributes:
      lowest: the lowest loss of an epoch; None = there was none.
      waited: epochs since it fell, or since the rate was lowered.
      reductions: how often the rate was lowered.
    """

    lowest: float | None = None
    waited: int = 0
    reductions: int = 0

    def after(self, loss: float, config: Mapping[str, Any]) -> "Plateau":
        """Returns what is known after one more epoch.

        Args:
          loss: of the epoch, on the validation split.
          config: the section `optimizer`.
        """
        if math.isfinite(loss) and (self.lowest is None or loss < self.lowest):
            return dataclasses.replace(self, lowest=loss, waited=0)
        if self.waited + 1 < config["plateau_patience"]:
            return dataclasses.replace(self, waited=self.waited + 1)
        return dataclasses.replace(self, waited=0, reductions=self.reductions + 1)


def rates(config: Mapping[str, Any], plateau: Plateau) -> dict[str, float]:
    """Returns the learning rate and the weight decay of a run's next step, before warm-up.

    Args:
      config: the section `optimizer`.
      plateau: of the run; without the schedule, as it was at the start.
    """
    rate = config["learning_rate"] * config["plateau_factor"] ** plateau.reductions
    return {"learning_rate": rate, "weight_decay": config["weight_decay"]}


def check_plateau(config: Mapping[str, Any]) -> None:
    """Raises UserError if a field of the section `optimizer` that the schedule reads is out of range."""
    if config["plateau_patience"] < 1:
        raise UserError(f"optimizer.plateau_patience is {config['plateau_patience']}: give at least 1")
    if not 0 < config["plateau_factor"] < 1:
        raise UserError(f"optimizer.plateau_factor is {config['plateau_factor']}: give a number between 0 and 1")
