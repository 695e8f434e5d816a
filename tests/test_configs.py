"""Every experiment and every variant trains: two steps on a tiny corpus, through the whole of training."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_corpus

from jmer import ablations
from jmer.config import base_config, flatten
from jmer.errors import UserError
from jmer.experiment import load_experiment
from jmer.training.log import JSON_LINES_FILE, read_json_lines
from jmer.training.loop import train

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
LFVD_CONFIGS = [path for path in CONFIGS if path.stem.startswith("lfvd")]
DISTILLED = {"task", "hard_text", "hard_audio", "soft_text", "soft_audio"}
TERMS = {
    "lfvd": {"classification", "self", "full", "distillation"},
    "dagerc": {"classification"},
    "lpgnet": DISTILLED,
    "sdt": DISTILLED | {"hard_visual", "soft_visual"},
}


def train_two_steps(config, workdir):
    """Trains for an epoch of two steps; returns the means of its loss terms."""
    config.training.update(epochs=1, batch_size=6, buckets=1, parallel="jit")
    assert train(config, tiny_corpus(), workdir, command="train", say=lambda line: None)
    (row,) = read_json_lines(workdir / JSON_LINES_FILE)
    assert row["step"] == 2
    losses = {name: value for name, value in row.items() if name.startswith("train/loss")}
    assert all(value is not None and np.isfinite(value) for value in losses.values())
    assert 0 <= row["validation/weighted_f1"] <= 1
    return {name.removeprefix("train/loss_") for name in losses if name != "train/loss"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_experiment_trains(path, tmp_path):
    config = load_experiment(f"{path}:tiny")
    assert train_two_steps(config, tmp_path / "w") == TERMS[config.model.name]


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in ablations.LFVD if name != "tiny"])
def test_every_variant_of_lfvd_trains(variant, tmp_path):
    config = load_experiment(f"{LFVD_CONFIGS[0]}:tiny,{variant}")
    config.model.dag_layers = 1
    loss, one_modality = config.loss, len(config.model.modalities) == 1
    expected = {"self": loss.gamma_self and not one_modality, "full": loss.gamma_full}
    expected |= {"classification": True, "distillation": loss.gamma_distillation}
    assert train_two_steps(config, tmp_path / "w") == {name for name, present in expected.items() if present}


@pytest.mark.parametrize("path", LFVD_CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("variant", ablations.LFVD)
def test_a_variant_changes_what_it_names_and_nothing_else(path, variant):
    base, changed = flatten(load_experiment(str(path))), flatten(load_experiment(f"{path}:{variant}"))
    differing = {name: value for name, value in changed.items() if base[name] != value}
    assert differing
    assert ablations.LFVD[variant].items() >= differing.items()
    assert all(changed[name] == value for name, value in ablations.LFVD[variant].items())


def test_variants_join_and_later_ones_win():
    base = base_config("lfvd")
    both = ablations.with_variants(base, "fusion_add,tiny,fusion_cat", ablations.LFVD)
    assert (both.model.fusion, both.model.d_x) == ("cat", ablations.TINY["model.d_x"])
    assert flatten(ablations.with_variants(base, "", ablations.LFVD)) == flatten(base)
    assert base.model.fusion == "cmvd"
    with pytest.raises(
        UserError, match=r"^no variant 'huge' of this experiment: choose from tiny, plain_features, text, "
    ):
        ablations.with_variants(base, "huge", ablations.LFVD)
