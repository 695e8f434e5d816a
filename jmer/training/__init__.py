"""Training: state, step, its mapping over devices, checkpoints and the loop."""

from jmer.training.epoch import Plan, make_plan, train_epoch
from jmer.training.loop import Interrupted, train
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import Parallel, make_parallel
from jmer.training.precision import matmul_precision
from jmer.training.results import evaluate
from jmer.training.seeds import summarize, train_seeds
from jmer.training.state import State, create_state
from jmer.training.step import Metrics, train_step
from jmer.training.together import train_together
from jmer.training.trained import TrainedRun, load_run

__all__ = [
    "Interrupted",
    "Metrics",
    "Parallel",
    "Plan",
    "State",
    "TrainedRun",
    "create_state",
    "evaluate",
    "load_run",
    "make_optimizer",
    "make_parallel",
    "make_plan",
    "matmul_precision",
    "summarize",
    "train",
    "train_epoch",
    "train_seeds",
    "train_step",
    "train_together",
]
