"""The models that studies run, and which experiment of `configs/` belongs to a corpus."""

from collections.abc import Mapping
from typing import NamedTuple

from experiments.runner import Row, sound_corpus


class Experiments(NamedTuple):
    """Files of `configs/`: for any corpus, and for one with four emotions, if another."""

    any_corpus: str
    four_emotions: str | None = None


MODELS = {
    "lpgnet": Experiments("configs/lpgnet_iemocap6.py", "configs/lpgnet_iemocap4.py"),
    "sdt": Experiments("configs/sdt_iemocap.py"),
    "dagerc": Experiments("configs/dagerc_iemocap.py"),
    "multidag": Experiments("configs/multidag_iemocap.py"),
    "lfvd": Experiments("configs/lfvd_iemocap.py"),
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
    four = len(sound_corpus(corpus).card.emotions) == 4
    experiment = experiments.four_emotions if four and experiments.four_emotions else experiments.any_corpus
    return Row(name, f"{experiment}:{variant}" if variant else experiment, corpus, changes)
