"""jmer: multimodal emotion recognition in conversation, in JAX.

    import jmer

    run = jmer.train("lfvd_iemocap:tiny", "synthetic-iemocap6", "runs/a")
    table = run.predict("synthetic-iemocap6", split="test")

Names are imported when they are first used, so that `import jmer` costs nothing, and one layer costs one layer.
"""

import importlib

__version__ = "0.2.0"

# Name -> the module that has it.
_NAMES = {
    "Batch": "jmer.batch",
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
_MODULES = ("config", "data", "evaluation", "layers", "losses", "models", "runs", "training")

__all__ = [*sorted(_NAMES), *_MODULES]


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jmer.{name}")
    raise AttributeError(f"module 'jmer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
