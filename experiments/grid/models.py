"""The models of the studies: those of jmer, with an experiment of `configs/` for each corpus, and experiment files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from experiments.grid.cells import Row
from experiments.grid.corpora import training_corpus
from jmer.errors import UserError


class Experiments(NamedTuple):
    """A model's files of `configs/`: the default, and those for corpora with a certain number of emotions."""

    default: str
    by_emotions: Mapping[int, str] = {}


MODELS = {
    "lpgnet": Experiments("configs/lpgnet_iemocap6.py", {4: "configs/lpgnet_iemocap4.py"}),
    "sdt": Experiments("configs/sdt_iemocap.py", {7: "configs/sdt_meld.py"}),
    "dagerc": Experiments("configs/dagerc_iemocap.py", {7: "configs/dagerc_meld.py"}),
    "multidag": Experiments("configs/multidag_iemocap.py"),
    "lfvd": Experiments("configs/lfvd_iemocap.py", {7: "configs/lfvd_meld.py"}),
}


def model_row(model: str, corpus: str, *, name: str, variant: str, changes: Mapping[str, str]) -> Row:
    """Returns the row of a model on a corpus.

    Args:
      model: name in `MODELS`, or what `--config` takes.
      corpus: what `--corpus` takes.
      name: of the row.
      variant: of an experiment of `MODELS`, empty = none; other experiments have theirs after a colon.
      changes: `section.field` -> text.
    """
    if model not in MODELS:
        return Row(name, model, corpus, changes)
    experiments = MODELS[model]
    experiment = experiments.by_emotions.get(len(training_corpus(corpus).card.emotions), experiments.default)
    return Row(name, f"{experiment}:{variant}" if variant else experiment, corpus, changes)


def row_name(model: str) -> str:
    """Returns a model's name for tables and folders; that of an experiment's file is its stem and its variants."""
    if model in MODELS:
        return model
    path, _, variants = model.partition(":")
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(filter(None, (Path(path).stem, variants))))


def choose_models(flag: str, text: str) -> list[str]:
    """Splits a comma-separated choice of models.

    Args:
      flag: named in errors.
      text: names in `MODELS`, and paths of experiment files with at most one variant each, `mine.py:small`.

    Raises:
      UserError: for anything else.
    """
    wanted = list(dict.fromkeys(text.split(",")))
    for model in wanted:
        if model not in MODELS and Path(model.partition(":")[0]).suffix != ".py":
            raise UserError(
                f"unknown name '{model}' in {flag}: choose from {', '.join(MODELS)}, or give the path of an "
                "experiment's file"
            )
    return wanted
