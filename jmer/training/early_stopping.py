"""Early stopping: a run ends when its metric has not improved for `training.patience` epochs.

What a run has reached is part of its progress, so that a run which was interrupted stops where it would have stopped.
"""

from ml_collections import ConfigDict

from jmer.data.curriculum import first_complete_epoch
from jmer.selection import configured_selection
from jmer.training.progress import Progress


def is_stopped(progress: Progress, config: ConfigDict) -> bool:
    """Returns whether early stopping has ended a run before its last epoch.

    Epochs in which a curriculum still lacks some conversations do not count: more data may give better scores.
    """
    plan = config.training
    waited = progress.epoch - max(progress.best_epoch, first_complete_epoch(config.curriculum))
    return 0 < plan.patience <= waited and progress.epoch < plan.epochs


def is_finished(progress: Progress, config: ConfigDict) -> bool:
    """Returns whether a run has nothing left to train."""
    return progress.epoch >= config.training.epochs or is_stopped(progress, config)


def stopping_reason(config: ConfigDict, epoch: int) -> str:
    """Returns why a run was stopped after an epoch, counted from 1, in a few words."""
    selection, plan = configured_selection(config), config.training
    return (
        f"stopped after epoch {epoch} of {plan.epochs}: no better {selection.split} {selection.title} for "
        f"{plan.patience} epoch{'' if plan.patience == 1 else 's'}"
    )
