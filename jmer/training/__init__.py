"""Training: train state, step, epoch, their mapping over devices, checkpoints and the loop."""

from jmer.training.epoch import train_epoch
from jmer.training.loop import train
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.preemption import Interrupted
from jmer.training.step import Metrics, train_step
from jmer.training.train_state import TrainState, create_train_state

__all__ = [
    "Interrupted",
    "Metrics",
    "Parallel",
    "TrainState",
    "create_train_state",
    "make_optimizer",
    "make_parallel",
    "train",
    "train_epoch",
    "train_step",
]
