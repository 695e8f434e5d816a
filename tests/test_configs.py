"""Every experiment and every variant trains: two steps on a tiny corpus, through the whole of training."""

import numpy as np
import pytest
from tiny import tiny_corpus, train

from jmer.config import base_config, flatten, with_variants
from jmer.data.synthetic import Size, generate
from jmer.errors import UserError
from jmer.experiment import experiment_files, get_config
from jmer.modalities import MODALITIES
from jmer.models import CrossEntropyLoss, FocalClassificationLoss, FocalMeanLoss, get_spec, model_names
from jmer.training.metric_writers import JSON_LINES_FILE, read_json_lines

CONFIGS = {name: str(path) for name, path in experiment_files().items()}
MODELS = {name: get_config(path).model.name for name, path in CONFIGS.items()}
CHOICES = [(name, variant) for name, model in MODELS.items() for variant in get_spec(model).variants]
ONE_OF_EACH = {model: name for name, model in reversed(MODELS.items())}.values()
TRAINED = [(name, variant) for name, variant in CHOICES if name in ONE_OF_EACH and variant != "tiny"]


def corpus_for(config):
    if config.model.get("mode") == "frame":
        return generate(config.data.path, sizes=dict.fromkeys(("train", "validation", "test"), Size(3, 12, 5)))
    return tiny_corpus()


def expected_terms(config):
    """The loss terms that a configuration asks for."""
    loss, modalities = config.loss, config.model.modalities or MODALITIES
    several = modalities if len(modalities) > 1 else ()
    if get_spec(config.model.name).loss in (CrossEntropyLoss, FocalClassificationLoss, FocalMeanLoss):
        return {"classification"}
    if config.model.name == "lsdgnn":
        return {"classification", "difference"} if loss.beta else {"classification"}
    if config.model.name == "graphsmile":
        return {name for name in ("emotion", "sentiment", "shift") if loss[f"lambda_{name}"]}
    if config.model.name == "multiemo":
        named = ("correlation", "contrast", "classification")
        return {n for n in named if loss[f"lambda_{n}"] and (several or n != "correlation")}
    if config.model.name == "lfvd":
        wanted = {"self": loss.gamma_self and several, "full": loss.gamma_full, "distillation": loss.gamma_distillation}
        return {"classification"} | {name for name, present in wanted.items() if present}
    return {"task"} | {f"{kind}_{m}" for kind in ("hard", "soft") for m in several if loss[f"gamma_{kind}"]}


def train_two_steps(config, workdir):
    """Trains for an epoch of two steps; returns the means of its loss terms."""
    config.training.update(epochs=1, batch_size=6, parallel="jit")
    assert train(config, corpus_for(config), workdir)
    (row,) = read_json_lines(workdir / JSON_LINES_FILE)
    assert row["step"] == 2
    losses = {name: value for name, value in row.items() if name.startswith("train/loss")}
    assert all(value is not None and np.isfinite(value) for value in losses.values())
    assert 0 <= row["validation/weighted_f1"] <= 1
    return {name.removeprefix("train/loss_") for name in losses if name != "train/loss"}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_experiment_trains(name, tmp_path):
    config = get_config(f"{CONFIGS[name]}:tiny")
    assert train_two_steps(config, tmp_path / "w") == expected_terms(config)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), TRAINED)
def test_every_variant_trains(name, variant, tmp_path):
    config = get_config(f"{CONFIGS[name]}:{variant},tiny")
    if "dag_layers" in config.model:
        config.model.dag_layers = 1
    assert train_two_steps(config, tmp_path / "w") == expected_terms(config)


@pytest.mark.parametrize(("name", "variant"), CHOICES)
def test_a_variant_changes_what_it_names_and_nothing_else(name, variant):
    base, changed = flatten(get_config(CONFIGS[name])), flatten(get_config(f"{CONFIGS[name]}:{variant}"))
    named = get_spec(base["model.name"]).variants[variant]
    assert changed == base | named


@pytest.mark.parametrize("model", model_names())
def test_every_variant_changes_an_experiment(model):
    experiments = [flatten(get_config(path)) for path in CONFIGS.values()]
    for variant, named in get_spec(model).variants.items():
        assert any(base != base | named for base in experiments if base["model.name"] == model), variant


def test_variants_join_and_later_ones_win():
    base = base_config("lfvd")
    both = with_variants(base, "fusion_add,tiny,fusion_cat")
    assert (both.model.fusion, both.model.d_x) == ("cat", 16)
    assert flatten(with_variants(base, "")) == flatten(base)
    assert base.model.fusion == "cmvd"
    with pytest.raises(
        UserError, match=r"^no variant 'huge' of this experiment: choose from tiny, plain_features, text, "
    ):
        with_variants(base, "huge")
