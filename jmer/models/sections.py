"""Between a model's classes and its sections of a configuration: fields that are written once, in the classes."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

# Where an experiment names a rule for class weights, a corpus gives the weights.
_CLASS_WEIGHTS = {"class_weights": "none", "class_weight_values": ()}


def model_section(name: str, module: type, *, derived: Collection[str] = ()) -> dict[str, Any]:
    """Returns the section `model`: its name, and the fields of the Linen module `module` with their defaults.

    Args:
      name: as `jmer.models.registry.MODELS` has it.
      module: its class.
      derived: fields that follow from others.

    Returns:
      Field -> default; `num_classes` is 0, which stands for the corpus' emotions.
    """
    return {"name": name} | _fields(module, ("parent", "name", *derived)) | {"num_classes": 0}


def loss_section(loss: type, *, derived: Collection[str] = ()) -> dict[str, Any]:
    """Returns the section `loss`: the fields of the dataclass `loss`, its class weights as a rule and its values."""
    return _fields(loss, derived) | _CLASS_WEIGHTS


def module_fields(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the module is constructed with, given its whole section."""
    return {field: value for field, value in section.items() if field != "name"}


def loss_fields(section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the loss is constructed with, given its whole section."""
    fields = {field: value for field, value in section.items() if field not in _CLASS_WEIGHTS}
    return fields | {"class_weights": tuple(section["class_weight_values"])}


def _fields(described: type, without: Collection[str]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(described) if field.name not in without}
