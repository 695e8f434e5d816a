"""Configurations: the fields that all runs have, their checks, and what a corpus fills in."""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jmer.batch import UNLABELLED
from jmer.data.attributes import any_attribute
from jmer.data.corpus import Card, Conversation, Corpus, any_labelled
from jmer.data.curriculum import make_curriculum
from jmer.data.speakers import APPEARANCE, INDICES, speaker_names
from jmer.errors import UserError
from jmer.json_values import from_json
from jmer.models.registry import get_spec
from jmer.precision import PRECISIONS
from jmer.selection import check_metric, configured_selection


class Field(NamedTuple):
    """A field of the configuration: its default and what it sets, in a few words."""

    default: Any
    doc: str


FIELDS = {
    "seed": Field(0, "random seed of initialization, batches and dropout"),
    "seeds": Field(1, "number of runs trained together, with seeds seed, seed + 1, ..., each in a folder of its own"),
    "selection": Field(
        "validation",
        "epoch that is evaluated: validation (best on the validation split), last, or test_oracle (best on the test "
        "split, only to compare with papers that select so)",
    ),
    "selection_metric": Field(
        "weighted_f1",
        "score by which an epoch is the best: accuracy, weighted_f1, macro_f1, unweighted_accuracy, "
        "micro_f1_without_majority, or precision_, recall_ or f1_ with the name of an emotion",
    ),
    "majority_emotion": Field(
        "",
        "emotion that the reports' micro F1 leaves out, as DailyDialog's measure leaves out its neutral utterances; "
        "empty = no micro F1",
    ),
    "data.path": Field("synthetic-meld", "folder of a converted corpus, or the name of a built-in synthetic one"),
    "data.normalization": Field(
        "standard",
        "standard: features scaled to mean 0 and standard deviation 1 over the training split; none: as they are; "
        "columns that are constant in training are zero with both",
    ),
    "data.clip": Field(
        0.0, "standard deviations to which normalised features are clipped, in every split; 0 = no clipping"
    ),
    "data.context": Field(
        "mask_unlabelled",
        "utterances without a label: mask_unlabelled keeps them as context of the others, drop_unlabelled removes them",
    ),
    "data.speaker_index": Field(
        "appearance",
        "numbers of the speakers: appearance (in each conversation by first appearance) or corpus (by name, for a "
        "corpus that names its speakers alike everywhere, e.g. by gender)",
    ),
    "data.speakers": Field(
        (), "names of the speakers by their numbers, with speaker_index=corpus; come from the corpus"
    ),
    "data.folds": Field(
        "",
        "folds for cross-validation, trained by one command: leave_one_session_out, leave_one_speaker_out, a number of "
        "folds, or corpus (those that the corpus declares); empty = the corpus' own splits",
    ),
    "data.fold": Field("", "name of the one fold to train; empty = all"),
    "data.holdout": Field(
        0.1,
        "fraction of the training utterances that a fold without a validation split holds out for validation; 0 = none",
    ),
    "data.holdout_by": Field(
        "conversation",
        "what is not divided there, and between a number of folds: conversation, speaker (all conversations that are "
        "connected by speakers) or session",
    ),
    "curriculum.measure": Field(
        "none",
        "conversations that epochs add, the easy ones first: none (all from the start), shift (those with the fewest "
        "emotion shifts, as MultiDAG does) or weighted_shift (shifts between emotions that are alike count more: "
        "improved curriculum learning)",
    ),
    "curriculum.buckets": Field(5, "parts of the training split, from easy to hard"),
    "curriculum.epochs_per_bucket": Field(1, "epochs after which the next bucket is added"),
    "curriculum.scale": Field(1.0, "weight of the emotions' similarity in what a shift counts with weighted_shift"),
    "curriculum.offset": Field(0.4, "what any shift counts at least with weighted_shift"),
    "curriculum.angles": Field(
        (),
        "places of emotions on the wheel of valence and arousal with weighted_shift: emotion=degrees or "
        "emotion=neutral, in place of the usual ones",
    ),
    "attributes.names": Field(
        (),
        "dimensional targets of the corpus that are learned besides the emotions, e.g. valence,arousal; all = all that "
        "it has; empty = none",
    ),
    "attributes.concordance_weight": Field(
        1.0, "weight in the loss of one minus the concordance correlation coefficient of each attribute"
    ),
    "attributes.preference_weight": Field(
        0.0, "weight in the loss of each attribute's listwise preference, in the manner of RankList"
    ),
    "attributes.preference": Field(
        "exact", "form of the listwise preference: exact, lse, listmle or ranknet (see jmer.losses.listwise_preference)"
    ),
    "attributes.lists": Field(
        "batch", "what the listwise preference orders: the utterances of a batch, or those of each conversation"
    ),
    "attributes.skips": Field(
        4, "how many places the utterances that the listwise preference compares are apart at most (exact, lse)"
    ),
    "attributes.skip_epochs": Field(
        5,
        "epochs after which the listwise preference compares utterances one place further apart, from neighbours on "
        "(exact, lse); 0 = up to skips from the start",
    ),
    "attributes.margin": Field(
        0.0,
        "smallest difference of labels, on their scale, that the listwise preference and the reports' pairwise "
        "accuracy take for an order; 0 = any",
    ),
    "attributes.scales": Field((), "lower and upper end of the scale of each attribute; come from the corpus"),
    "optimizer.name": Field(
        "adam_l2",
        "adam_l2 (Adam with L2 regularization, PyTorch's Adam), adamw (decoupled weight decay) or sgd (with L2 "
        "regularization)",
    ),
    "optimizer.learning_rate": Field(1e-4, "peak learning rate"),
    "optimizer.weight_decay": Field(0.0, "weight decay or L2 coefficient of all parameters, biases included"),
    "optimizer.epsilon": Field(1e-8, "what adam_l2 and adamw add to the root of the second moment"),
    "optimizer.amsgrad": Field(
        False, "True = adam_l2 and adamw divide by the largest second moment so far, as PyTorch's amsgrad does"
    ),
    "optimizer.clip_norm": Field(0.0, "maximum norm of the whole gradient; 0 = no clipping"),
    "optimizer.schedule": Field(
        "constant",
        "learning rate after warm-up: constant, linear or cosine decay to 0, or plateau (times plateau_factor whenever "
        "the cross-entropy on the validation split has not fallen for plateau_patience epochs)",
    ),
    "optimizer.plateau_factor": Field(0.1, "factor of the learning rate with schedule plateau"),
    "optimizer.plateau_patience": Field(
        10, "epochs without a lower loss with schedule plateau; 1 more than the patience of PyTorch's ReduceLROnPlateau"
    ),
    "optimizer.warmup_epochs": Field(0, "epochs over which the learning rate rises linearly from 0"),
    "modulation.method": Field(
        "none",
        "none, or classifier_guided (CGGM): the gradients of the encoders of modalities that improve fast are made "
        "smaller; for models that declare their encoders",
    ),
    "modulation.rho": Field(1.3, "factor of the encoders' gradients, besides their coefficients"),
    "modulation.balance": Field(
        0.2, "weight of the term that turns the last kernel to the classifiers of slow modalities; 0 = without it"
    ),
    "modulation.guard": Field(
        "clip",
        "clip (coefficients between 0 and 1, all equal in a step in which accuracies hardly change) or none (as "
        "published: of any size)",
    ),
    "modulation.accuracy_ema": Field(
        0.0, "share of the earlier accuracies in the mean that is compared from step to step; 0 = as published"
    ),
    "modulation.head": Field(
        "mlp", "the classifier of a modality, utterance by utterance: mlp (with a hidden layer) or linear"
    ),
    "modulation.learning_rate": Field(5e-4, "learning rate of these classifiers (Adam)"),
    "training.epochs": Field(60, "epochs to train"),
    "training.patience": Field(
        0,
        "early stopping: epochs without a better score (selection_metric on the split of selection) after which "
        "training ends, not counting those of an unfinished curriculum; 0 = all epochs are trained",
    ),
    "training.init_from": Field(
        "",
        "folder of another run, whose weights this one starts from where names and shapes fit (at the epoch it "
        "chose, or of one of its folders checkpoints/<step>); it must not have seen this corpus' test split; empty = "
        "random weights",
    ),
    "training.batch_size": Field(16, "conversations per batch"),
    "training.accumulation_steps": Field(
        1,
        "pieces of a batch's rows that each device computes one after the other, with the gradient of the whole batch "
        "but the memory of a piece; for models whose loss compares no rows with others; 1 = the batch at once",
    ),
    "training.rematerialize": Field(
        False,
        "True = only what the network's layers read is kept for the gradient, which computes the rest again: less "
        "memory, more time",
    ),
    "training.buckets": Field(3, "with frames, maximum number of padded lengths per epoch; each is compiled once"),
    "training.resident_megabytes": Field(
        1024,
        "maximum size of a training split that is kept on the device, where an epoch is one compiled call; with a "
        "larger one, and with 0, each step gets its batch from the host",
    ),
    "training.save_share": Field(
        0.1,
        "largest share of a run's time that saving checkpoints takes: where an epoch takes less time than saving it, "
        "only some are, besides the last, the best and that of a signal; a run that is killed trains the epochs since "
        "again, with the same bits; 1 = after every epoch",
    ),
    "training.grace_seconds": Field(
        10.0,
        "how long a signal that asks to end (SIGTERM, SIGUSR1, ...) waits at most before the run is saved: an epoch on "
        "the device that takes longer is computed in pieces, with the same bits; 0 = until the end of a step",
    ),
    "training.matmul_precision": Field(
        "default", "precision of matrix products: default, float32, tensorfloat32 or bfloat16"
    ),
    "training.parallel": Field(
        "auto", "mapping over devices: auto (pmap on one process, shard_map on several), jit, pmap or shard_map"
    ),
    "training.devices": Field(0, "number of this process's devices to use; 0 = all"),
}
"""`section.field` -> default and documentation of the fields that all models share."""

SECTIONS = dict.fromkeys(name.partition(".")[0] for name in FIELDS if "." in name)
"""The sections of `FIELDS`, in their order."""

PLATEAU = "plateau"
"""Value of `optimizer.schedule` that looks at the validation split."""

CLASS_WEIGHT_RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverse_freq": lambda inverse: inverse,
    "log_inverse_freq": np.log,
}
"""Value of `loss.class_weights` -> weights of the emotions, of the reciprocals of their shares."""

EVERY_ATTRIBUTE = "all"
"""Value of `attributes.names` that stands for all attributes of the corpus."""

OF_CORPUS = ("loss.class_weight_values", "attributes.scales")
"""`section.field` of numbers that a corpus fills in."""

LARGEST = {
    "seeds": 1_000,
    "curriculum.buckets": 100_000,
    "curriculum.epochs_per_bucket": 100_000,
    "training.epochs": 100_000,
    "training.batch_size": 1_000_000,
    "training.accumulation_steps": 1_000_000,
    "training.buckets": 1_000,
}
"""`section.field` -> its largest value: lists of that length, or arrays of that size, are made before training."""


LEAST = {
    "attributes.concordance_weight": 0,
    "attributes.preference_weight": 0,
    "attributes.margin": 0,
    "attributes.skips": 1,
    "attributes.skip_epochs": 0,
}
"""`section.field` -> its smallest value."""


def base_config(model: str) -> ConfigDict:
    """Returns the complete configuration of a model, locked; experiments change values and add no fields.

    It has the fields of `FIELDS`, and the sections `model` and `loss` with the fields of the model's classes
    (`jmer.field_docs` documents all of them).

    Raises:
      UserError: for an unknown model, or one whose defaults do not fit.
    """
    spec = get_spec(model)
    config = ConfigDict({**{section: {} for section in SECTIONS}, **spec.sections()})
    for name, field in FIELDS.items():
        section, _, last = name.rpartition(".")
        (config[section] if section else config)[last] = field.default
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


def config_from_json(model: str, fields: Mapping[str, Any]) -> ConfigDict:
    """Returns the configuration of a model that was written as JSON.

    Fields of the model and the loss that are missing have their defaults, as a model that was extended has them.

    Raises:
      ValueError: naming the first field that is missing, unknown, or of another type.
    """
    config = base_config(model)
    defaults = flatten(config)
    given = flatten(fields)
    for name in given.keys() - defaults.keys():
        raise ValueError(f"{name} is an unknown field")
    for name in FIELDS.keys() - given.keys():
        raise ValueError(f"{name} is missing")
    config.update_from_flattened_dict(
        {name: from_json(_kind(name, defaults[name]), value, name) for name, value in given.items()}
    )
    return config


def _kind(name: str, default: Any) -> Any:
    """Returns the type of a field, for `jmer.json_values.from_json`."""
    if not isinstance(default, tuple):
        return type(default)
    entry = type(default[0]) if default else float if name in OF_CORPUS else str
    return types.GenericAlias(tuple, (entry, ...))


def _updated(config: ConfigDict, values: Mapping[str, Any], what: str) -> ConfigDict:
    try:
        config.update_from_flattened_dict(values)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{what} cannot be applied: {' '.join(str(error).split())}") from error
    return config


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a configuration, or what JSON made of one, as `section.field` -> value."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= (
            flatten(value, f"{prefix}{name}.") if isinstance(value, ConfigDict | dict) else {f"{prefix}{name}": value}
        )
    return flat


def fit_to_corpus(config: ConfigDict, card: Card, training: Iterable[Conversation]) -> ConfigDict:
    """Fills in what a corpus fixes: emotions, modalities, class weights.

    Args:
      config: from an experiment's file.
      card: the corpus' card.
      training: conversations of the training split.

    Returns:
      A copy in which `model.num_classes`, `model.modalities` and `data.speakers` are set, the fields that follow from
      the names of the emotions (`ModelSpec.from_emotions`), and `loss.class_weight_values` where `loss.class_weights`
      names a rule (`CLASS_WEIGHT_RULES`).

    Raises:
      UserError: if the corpus lacks a modality that the configuration names, or has another number of emotions; if only
        one of the two has frames; if an emotion to be weighted never occurs, or the loss has no class weights; if the
        model needs to know more of an emotion than its name tells.
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
    training = list(training)
    config.loss.class_weight_values = _class_weights(config.loss.class_weights, card, training)
    config.data.speakers = _speakers(config, training)
    config.attributes.names = learned_attributes(config, card)
    config.attributes.scales = tuple(end for name in config.attributes.names for end in card.attributes[name])
    for name in config.attributes.names:
        if not any_attribute(training, name):
            raise UserError(f"attributes.names has {name}, but no training utterance has a value of it: leave it out")
    try:
        values = get_spec(config.model.name).from_emotions(flatten(config), card.emotions)
    except ValueError as error:
        raise UserError(f"corpus '{card.name}': {error}") from error
    return _updated(config, values, f"what model '{config.model.name}' derives from the emotions of '{card.name}'")


def learned_attributes(config: ConfigDict, card: Card) -> tuple[str, ...]:
    """Returns the attributes that a configuration learns of a corpus.

    Raises:
      UserError: if the corpus lacks one.
    """
    names = tuple(config.attributes.names)
    if names == (EVERY_ATTRIBUTE,):
        return tuple(card.attributes)
    for name in names:
        if name not in card.attributes:
            known = f"only {', '.join(card.attributes)}" if card.attributes else "none"
            raise UserError(
                f"attributes.names has {name}, but corpus '{card.name}' has {known}: name what it has, or convert it "
                "with --attributes"
            )
    if len(set(names)) < len(names):
        raise UserError(f"attributes.names is {', '.join(names)}: name each once")
    return names


def check_config(config: ConfigDict, corpus: Corpus) -> None:
    """Checks an experiment's configuration, and that a corpus has the splits and labels that it asks for.

    What the model and the optimizer refuse shows when they are built, before anything is written.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    check_values(config)
    if config.data.folds and not config.data.fold:
        raise UserError(
            f"data.folds={config.data.folds} takes a run for each fold: call jmer.train for all of them, or name one "
            "with data.fold"
        )
    if make_curriculum(config.curriculum, corpus.card.emotions) and corpus.card.frames:
        raise UserError(
            f"curriculum.measure={config.curriculum.measure} sorts conversations, but corpus '{corpus.card.name}' has "
            "frames and is trained one utterance at a time: set it to none"
        )
    check_metric(config, corpus.card.emotions, learned_attributes(config, corpus.card))
    schedule, selection = config.optimizer.schedule, configured_selection(config)
    needed = {f"selection={config.selection}": (selection.split, "selection=last")}
    if schedule == PLATEAU:
        needed |= {f"optimizer.schedule={schedule}": ("validation", "another schedule")}
    for field, (split, otherwise) in needed.items():
        if split is not None and not (split in corpus.splits and any_labelled(corpus.conversations(split))):
            raise UserError(
                f"{field} needs labels in split '{split}', but corpus '{corpus.card.name}' has none: convert it with "
                f"--holdout, or choose {otherwise}"
            )


def check_values(config: ConfigDict) -> None:
    """Checks what can be checked of a configuration without its corpus.

    Raises:
      UserError: naming the field, its value and the remedy.
    """
    plan, values, selection = config.training, flatten(config), configured_selection(config)
    for field, largest in LARGEST.items():
        if values[field] < 1:
            raise UserError(f"{field} is {values[field]}: give at least 1")
        if values[field] > largest:
            raise UserError(f"{field} is {values[field]}: give at most {largest:,}")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}: give a whole number from 0")
    spec = get_spec(config.model.name)
    defaults = spec.sections()
    for name, value in config.model.items():
        if type(value) is int and value < 1 <= defaults["model"][name] and name not in spec.may_be_zero:
            raise UserError(f"model.{name} is {value}: give at least 1")
    for name, value in config.loss.items():
        if type(value) is float and value < 0 <= defaults["loss"][name]:
            raise UserError(f"loss.{name} is {value}: give a number that is not negative")
    for field, least in LEAST.items():
        if values[field] < least:
            raise UserError(f"{field} is {values[field]}: give at least {least}")
    if plan.patience < 0:
        raise UserError(f"training.patience is {plan.patience}: give a number of epochs, or 0 for no early stopping")
    if plan.patience and selection.split is None:
        raise UserError(
            f"training.patience={plan.patience} waits for a better score, but selection={config.selection} has none: "
            "choose selection=validation, or set training.patience to 0"
        )
    if plan.resident_megabytes < 0:
        size = plan.resident_megabytes
        raise UserError(f"training.resident_megabytes is {size}: give a size, or 0 to train step by step")
    if not plan.grace_seconds >= 0:
        raise UserError(f"training.grace_seconds is {plan.grace_seconds}: give a time, or 0 to look after each step")
    if config.data.speaker_index not in INDICES:
        raise UserError(f"data.speaker_index is '{config.data.speaker_index}': choose one of {', '.join(INDICES)}")
    if not 0 < plan.save_share <= 1:
        raise UserError(f"training.save_share is {plan.save_share}: give a share above 0, at most 1 (every epoch)")
    if plan.matmul_precision not in PRECISIONS:
        raise UserError(
            f"training.matmul_precision is '{plan.matmul_precision}': choose one of {', '.join(PRECISIONS)}"
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


def _speakers(config: ConfigDict, training: Sequence[Conversation]) -> tuple[str, ...]:
    if config.data.speaker_index == APPEARANCE:
        return ()
    names, told_apart = speaker_names(training), config.model.get("speakers")
    if told_apart is not None and len(names) > told_apart:
        raise UserError(
            f"data.speaker_index is corpus, but the training split has {len(names)} names of speakers, and "
            f"model.speakers is {told_apart}: choose appearance, or raise model.speakers"
        )
    return names


def _class_weights(rule: str, card: Card, training: Iterable[Conversation]) -> tuple[float, ...]:
    if rule == "none":
        return ()
    if rule not in CLASS_WEIGHT_RULES:
        raise UserError(f"loss.class_weights is '{rule}': choose one of none, {', '.join(CLASS_WEIGHT_RULES)}")
    labels = np.concatenate([conversation.labels for conversation in training])
    counts = np.bincount(labels[labels != UNLABELLED], minlength=len(card.emotions))
    absent = [emotion for emotion, count in zip(card.emotions, counts, strict=True) if not count]
    if absent:
        raise UserError(f"loss.class_weights={rule}, but no training utterance is labelled {', '.join(absent)}")
    return tuple(CLASS_WEIGHT_RULES[rule](counts.sum() / counts).tolist())
