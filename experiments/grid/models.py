"""The models of the studies, and the experiment of `configs/` for each corpus."""

from collections.abc import Mapping
from typing import NamedTuple

from experiments.grid.cells import Row
from experiments.grid.corpora import training_corpus


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
      model: name in `MODELS`.
      corpus: what `--corpus` takes.
      name: of the row.
      variant: of the experiment, empty = none.
      changes: `section.field` -> text.
    """
    experiments = MODELS[model]
    experiment = experiments.by_emotions.get(len(training_corpus(corpus).card.emotions), experiments.default)
    return Row(name, f"{experiment}:{variant}" if variant else experiment, corpus, changes)
