"""The models of the studies: those of jmer, with an experiment for each corpus, and experiments by name or file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jmer
from experiments.grid.cells import Row
from experiments.grid.corpora import whole_corpus
from jmer.errors import UserError
from jmer.experiment import experiment_files
from jmer.models import model_names


class Experiments(NamedTuple):
    """A model's experiments: the default, and those for corpora with a certain number of emotions."""

    default: str
    by_emotions: Mapping[int, str] = {}


MODELS = {
    "concat_mlp": Experiments("concat_mlp_iemocap", {7: "concat_mlp_meld"}),
    "dialoguernn": Experiments("dialoguernn_iemocap:all_modalities", {7: "dialoguernn_meld:all_modalities"}),
    "dialoguegcn": Experiments("dialoguegcn_iemocap:all_modalities", {7: "dialoguegcn_meld"}),
    "dialoguecrn": Experiments("dialoguecrn_iemocap:all_modalities", {7: "dialoguecrn_meld:all_modalities"}),
    "mmgcn": Experiments("mmgcn_iemocap", {7: "mmgcn_meld"}),
    "mmdfn": Experiments("mmdfn_iemocap", {7: "mmdfn_meld"}),
    "cogmen": Experiments("cogmen_iemocap", {4: "cogmen_iemocap4", 7: "cogmen_meld"}),
    "m3net": Experiments("m3net_iemocap", {7: "m3net_meld"}),
    "multiemo": Experiments("multiemo_iemocap", {7: "multiemo_meld"}),
    "graphsmile": Experiments("graphsmile_iemocap", {4: "graphsmile_iemocap4", 7: "graphsmile_meld"}),
    "lsdgnn": Experiments("lsdgnn_iemocap", {7: "lsdgnn_meld"}),
    "m2fnet_like": Experiments("m2fnet_like_iemocap", {7: "m2fnet_like_meld"}),
    "dagerc": Experiments("dagerc_iemocap", {7: "dagerc_meld"}),
    "multidag": Experiments("multidag_iemocap"),
    "sdt": Experiments("sdt_iemocap", {7: "sdt_meld"}),
    "lpgnet": Experiments("lpgnet_iemocap6", {4: "lpgnet_iemocap4"}),
    "lfvd": Experiments("lfvd_iemocap", {7: "lfvd_meld"}),
}


def model_row(model: str, corpus: str, *, name: str, variant: str, changes: Mapping[str, str]) -> Row:
    """Returns the row of a model on a corpus.

    Args:
      model: name in `MODELS`, or what `jmer.get_config` takes.
      corpus: what `--corpus` takes.
      name: of the row.
      variant: of the experiment, besides those after its colon; empty = none.
      changes: `section.field` -> text.
    """
    experiment = model
    if model in MODELS:
        experiments = MODELS[model]
        experiment = experiments.by_emotions.get(len(whole_corpus(corpus).card.emotions), experiments.default)
    path, _, variants = experiment.partition(":")
    variants = ",".join(filter(None, (variants, variant)))
    return Row(name, f"{path}:{variants}" if variants else path, corpus, changes)


def row_name(model: str) -> str:
    """Returns a model's name for tables and folders: its name in `MODELS`, else its file's stem and its variants."""
    if model in MODELS:
        return model
    path, _, variants = model.partition(":")
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "-".join(filter(None, (Path(path).stem, variants))))


def choose_models(flag: str, text: str) -> list[str]:
    """Splits a comma-separated choice of models.

    Args:
      flag: named in errors.
      text: names in `MODELS`, and names or paths of experiments with at most one variant each, `mine.py:small`.

    Raises:
      UserError: if there is no such model or experiment, or its file is invalid.
    """
    wanted = list(dict.fromkeys(text.split(",")))
    for model in wanted:
        if model in MODELS:
            continue
        name = model.partition(":")[0]
        if Path(name).suffix != ".py" and name not in (*experiment_files(), *model_names()):
            raise UserError(
                f"unknown name '{model}' in {flag}: choose from {', '.join(MODELS)}, or give the name or the path of "
                "an experiment"
            )
        jmer.get_config(model)
    return wanted
