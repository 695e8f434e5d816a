"""Configurations: what every run has, and what a corpus fills in."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jmer.batch import UNLABELLED
from jmer.data.corpus import Card, Conversation, Corpus, any_labelled
from jmer.errors import UserError
from jmer.models.registry import get_spec
from jmer.precision import PRECISIONS
from jmer.selection import get_selection


def base_config(model: str) -> ConfigDict:
    """Returns the complete configuration of a model, locked; experiments change values and add no fields.

    Sections: `data`, `model` and `loss` (see the model's classes), `optimizer` (see `jmer.training.optimizer`) and
    `training`.

    Raises:
      UserError: for an unknown model, or one whose defaults do not fit.
    """
    spec = get_spec(model)
    config = ConfigDict(
        {
            "seed": 0,
            # How many runs, with seeds seed, seed + 1 and so on, are trained together, each in a folder of its own.
            "seeds": 1,
            # Which epoch is reported: validation (best weighted F1), last, or test_oracle (best on the test split, only
            # to compare with papers that do so).
            "selection": "validation",
            "data": {
                # A folder that `jmer.data.convert` wrote, or a built-in synthetic corpus.
                "path": "synthetic-meld",
                # standard: each feature to mean 0 and deviation 1 over the training split; none: as it is.
                "normalization": "standard",
                # What utterances without a label are: mask_unlabelled, context for the others, or drop_unlabelled, not
                # there.
                "context": "mask_unlabelled",
            },
            **spec.sections(),
            "optimizer": {
                "name": "adam_l2",
                "learning_rate": 1e-4,
                "weight_decay": 0.0,
                "clip_norm": 0.0,
                "schedule": "constant",
                "warmup_epochs": 0,
            },
            "training": {
                "epochs": 60,
                "batch_size": 16,
                # Buckets of conversations, from easy to hard, of which each epoch adds one (see
                # jmer.data.curriculum); 0 = every epoch has all.
                "curriculum": 0,
                # With frames, padded lengths per epoch at most; each is compiled once.
                "buckets": 3,
                # A training split up to this size (without frames) stays on the device, and an epoch is one call;
                # otherwise, and with 0, each step gets its batch from the host.
                "resident_megabytes": 1024,
                # Of matrix products: default, float32, tensorfloat32 or bfloat16 (see jmer.training.precision).
                "matmul_precision": "default",
                # auto: pmap on one process, shard_map on several.
                "parallel": "auto",
                # 0 = all devices of this process.
                "devices": 0,
            },
        }
    )
    return _updated(config.lock(), spec.defaults, f"the defaults of model '{model}'")


def with_variants(config: ConfigDict, names: str) -> ConfigDict:
    """Returns a copy of an experiment with some of its model's variants applied, one after the other.

    Args:
      config: the experiment's configuration.
      names: variants joined by commas, e.g. `without_cear,tiny`; empty = none.

    Raises:
      UserError: for an unknown variant, or one that does not fit the configuration.
    """
    config, variants = config.copy_and_resolve_references(), get_spec(config.model.name).variants
    for name in filter(None, names.split(",")):
        if name not in variants:
            raise UserError(f"no variant '{name}' of this experiment: choose from {', '.join(variants)}")
        config = _updated(config, variants[name], f"variant '{name}' of model '{config.model.name}'")
    return config


def _updated(config: ConfigDict, values: Mapping[str, Any], what: str) -> ConfigDict:
    try:
        config.update_from_flattened_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be applied: {' '.join(str(error).split())}") from error
    return config


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns a configuration as `section.field` -> value."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {f"{prefix}{name}": value}
    return flat


def fit_to_corpus(config: ConfigDict, card: Card, training: Iterable[Conversation]) -> ConfigDict:
    """Fills in what a corpus fixes: emotions, modalities, class weights.

    Args:
      config: from an experiment's file.
      card: the corpus' card.
      training: conversations of the training split.

    Returns:
      A copy in which `model.num_classes` and `model.modalities` are set, and `loss.class_weight_values` where
      `loss.class_weights` is `inverse_freq`: the reciprocals of the emotions' shares of labelled training utterances.

    Raises:
      UserError: if a number is out of range, the configuration names a modality or a number of emotions that the corpus
        has not, one of them has frames and the other has not, or an emotion to be weighted never occurs.
    """
    _check_mode(config, card)
    config = config.copy_and_resolve_references()
    wanted = tuple(config.model.modalities) or card.modalities
    lacking = [modality for modality in wanted if modality not in card.modalities]
    if lacking:
        raise UserError(
            f"model.modalities has {', '.join(lacking)}, but corpus '{card.name}' has only "
            f"{', '.join(card.modalities)}: choose among these (--config.model.modalities={','.join(card.modalities)})"
        )
    if config.model.num_classes not in (0, len(card.emotions)):
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but corpus '{card.name}' has {len(card.emotions)}: "
            "leave it 0"
        )
    if config.loss.class_weights != "none" and not get_spec(config.model.name).weights_classes:
        raise UserError(
            f"loss.class_weights is '{config.loss.class_weights}', but the loss of model {config.model.name} has no "
            "class weights: choose none"
        )
    config.model.modalities = wanted
    config.model.num_classes = len(card.emotions)
    config.loss.class_weight_values = _class_weights(config.loss.class_weights, card, training)
    return config


def check_config(config: ConfigDict, corpus: Corpus) -> None:
    """Checks an experiment's configuration, and that a corpus has the splits and labels that it asks for.

    What the model and the optimizer refuse shows when they are built, before anything is written.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    plan = config.training
    for field, value in {
        "seeds": config.seeds,
        "training.epochs": plan.epochs,
        "training.batch_size": plan.batch_size,
        "training.buckets": plan.buckets,
    }.items():
        if value < 1:
            raise UserError(f"{field} is {value}: give at least 1")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}: give a whole number from 0")
    defaults = get_spec(config.model.name).sections()
    for name, value in config.model.items():
        if type(value) is int and value < 1 <= defaults["model"][name]:
            raise UserError(f"model.{name} is {value}: give at least 1")
    for name, value in config.loss.items():
        if type(value) is float and value < 0 <= defaults["loss"][name]:
            raise UserError(f"loss.{name} is {value}: give a number that is not negative")
    if plan.resident_megabytes < 0:
        size = plan.resident_megabytes
        raise UserError(f"training.resident_megabytes is {size}: give a size, or 0 to train step by step")
    if plan.curriculum < 0:
        raise UserError(f"training.curriculum is {plan.curriculum}: give a number of buckets, or 0 for none")
    if plan.curriculum and corpus.card.frames:
        raise UserError(
            f"training.curriculum sorts conversations, but corpus '{corpus.card.name}' has frames and is trained one "
            "utterance at a time: set it to 0"
        )
    if plan.matmul_precision not in PRECISIONS:
        raise UserError(
            f"training.matmul_precision is '{plan.matmul_precision}': choose one of {', '.join(PRECISIONS)}"
        )
    split = get_selection(config.selection).split
    if split is not None and not (split in corpus.splits and any_labelled(corpus.conversations(split))):
        raise UserError(
            f"selection={config.selection} needs labels in split '{split}', but corpus '{corpus.card.name}' has none: "
            "convert it with --holdout, or choose selection=last"
        )


def _check_mode(config: ConfigDict, card: Card) -> None:
    spec = get_spec(config.model.name)
    takes_frames = spec.reads_frames(config.model)
    options = ", ".join(f"model.{name}={value}" for name, value in (spec.frames_when or {}).items())
    if card.frames and not takes_frames:
        remedy = f"set {options}" if options else "choose a model that reads frames"
        raise UserError(
            f"corpus '{card.name}' has frames, but model {config.model.name} takes one vector per utterance: {remedy}, "
            "or use a corpus of utterance features"
        )
    if takes_frames and not card.frames:
        raise UserError(
            f"{options} reads frames, but corpus '{card.name}' has one vector per utterance: change it, or make a "
            "corpus with frames (`python -m jmer.data.convert frames --help`)"
        )


def _class_weights(rule: str, card: Card, training: Iterable[Conversation]) -> tuple[float, ...]:
    if rule == "none":
        return ()
    if rule != "inverse_freq":
        raise UserError(f"loss.class_weights is '{rule}': choose none or inverse_freq")
    labels = np.concatenate([conversation.labels for conversation in training])
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(card.emotions))
    absent = [emotion for emotion, count in zip(card.emotions, counts, strict=True) if not count]
    if absent:
        raise UserError(f"loss.class_weights=inverse_freq, but no training utterance is labelled {', '.join(absent)}")
    return tuple((counts.sum() / counts).tolist())
