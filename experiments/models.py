"""The models that studies run, and which experiment of `configs/` belongs to a corpus."""

from collections.abc import Mapping
from typing import NamedTuple

from experiments.runner import Row, sound_corpus


class Experiments(NamedTuple):
    """Files of `configs/`: for any corpus, and for one with a certain number of emotions."""

    any_corpus: str
    by_emotions: Mapping[int, str] = {}


MODELS = {
    "lpgnet": Experiments("configs/lpgnet_iemocap6.py", {4: "configs/lpgnet_iemocap4.py"}),
    "sdt": Experiments("configs/sdt_iemocap.py", {7: "configs/sdt_meld.py"}),
    "dagerc": Experiments("configs/dagerc_iemocap.py", {7: "configs/dagerc_meld.py"}),
    "multidag": Experiments("configs/multidag_iemocap.py"),
    "lfvd": Experiments("configs/lfvd_iemocap.py", {7: "configs/lfvd_meld.py"}),
}


def model_row(model: str, corpus: str, *, name: str, variant: str, changes: Mapping[str, str]) -> Row:
    """Returns a row that runs a model on a corpus.

    Args:
      model: name in `MODELS`.
      corpus: as `--corpus` takes it.
      name: of the row.
      variant: of the experiment, empty = none.
      changes: `section.field` -> text.
    """
    experiments = MODELS[model]
    experiment = experiments.by_emotions.get(len(sound_corpus(corpus).card.emotions), experiments.any_corpus)
    return Row(name, f"{experiment}:{variant}" if variant else experiment, corpus, changes)
