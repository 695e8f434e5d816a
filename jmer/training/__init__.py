"""Training: state, step, its mapping over devices, checkpoints and the loop."""

from jmer.training.loop import Interrupted, train
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.results import evaluate
from jmer.training.state import State, create_state
from jmer.training.step import Metrics, train_step

__all__ = [
    "Interrupted",
    "Metrics",
    "Parallel",
    "State",
    "create_state",
    "evaluate",
    "make_optimizer",
    "make_parallel",
    "train",
    "train_step",
]
