"""jmer: multimodal emotion recognition in conversation, in JAX.

    import jmer

    run = jmer.train("lfvd_iemocap:tiny", "synthetic-iemocap6", "runs/a")
    table = run.predict("synthetic-iemocap6", split="test")

Names are imported when they are first used, so that `import jmer` costs nothing, and one layer costs one layer.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ imports
    from jmer import config, data, evaluation, layers, losses, models, runs, training
    from jmer.api import load_run, train, train_many
    from jmer.batch import Batch
    from jmer.data import load_corpus
    from jmer.errors import UserError
    from jmer.experiment import get_config
    from jmer.models import ModelSpec, Summaries, register_model
    from jmer.runs import CrossValidation, Run, RunGroup
    from jmer.training.preemption import Interrupted

__version__ = "0.2.0"

# Name -> the module that has it.
_NAMES = {
    "Batch": "jmer.batch",
    "CrossValidation": "jmer.runs",
    "Interrupted": "jmer.training.preemption",
    "ModelSpec": "jmer.models",
    "Run": "jmer.runs",
    "RunGroup": "jmer.runs",
    "Summaries": "jmer.models",
    "UserError": "jmer.errors",
    "get_config": "jmer.experiment",
    "load_corpus": "jmer.data",
    "load_run": "jmer.api",
    "register_model": "jmer.models",
    "train": "jmer.api",
    "train_many": "jmer.api",
}

__all__ = [
    "Batch",
    "CrossValidation",
    "Interrupted",
    "ModelSpec",
    "Run",
    "RunGroup",
    "Summaries",
    "UserError",
    "config",
    "data",
    "evaluation",
    "get_config",
    "layers",
    "load_corpus",
    "load_run",
    "losses",
    "models",
    "register_model",
    "runs",
    "train",
    "train_many",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"jmer.{name}")
    raise AttributeError(f"module 'jmer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
