"""Training: state, step, its mapping over devices, checkpoints and the loop."""

from jmer.training.loop import Interrupted, train
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.results import evaluate
from jmer.training.state import State, create_state
from jmer.training.step import Metrics, train_step
from jmer.training.trained import TrainedRun, load_run

__all__ = [
    "Interrupted",
    "Metrics",
    "Parallel",
    "State",
    "TrainedRun",
    "create_state",
    "evaluate",
    "load_run",
    "make_optimizer",
    "make_parallel",
    "train",
    "train_step",
]
