"""Models by name, as configurations name them: those of jmer, and those that users register."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jmer.errors import UserError
from jmer.models import (
    cogmen,
    concat_mlp,
    dagerc,
    dialoguecrn,
    dialoguegcn,
    dialoguernn,
    graphsmile,
    lfvd,
    lpgnet,
    lsdgnn,
    m2fnet_like,
    m3net,
    mmdfn,
    mmgcn,
    multiemo,
    sdt,
)
from jmer.models.attributes import make_heads
from jmer.models.contract import check_spec
from jmer.models.spec import Model, ModelSpec

BUILT_IN = (
    lfvd,
    lpgnet,
    dagerc,
    sdt,
    concat_mlp,
    dialoguernn,
    m3net,
    lsdgnn,
    mmgcn,
    mmdfn,
    graphsmile,
    dialoguegcn,
    cogmen,
    dialoguecrn,
    m2fnet_like,
    multiemo,
)

_SPECS: dict[str, ModelSpec] = {module.SPEC.name: module.SPEC for module in BUILT_IN}


def register_model(spec: ModelSpec) -> ModelSpec:
    """Makes a model known by its name, so that configurations, the command line and studies can use it.

    A file that is executed again replaces the model that it registered before.

    Args:
      spec: what the model declares.

    Returns:
      `spec`.

    Raises:
      UserError: if the model does not keep the contract (`ModelSpec`), or another model has the name.
    """
    check_spec(spec)
    known = _SPECS.get(spec.name)
    if known is not None and _origin(known) != _origin(spec):
        raise UserError(f"model '{spec.name}' is registered already, by {_origin(known)[0]}: choose another name")
    _SPECS[spec.name] = spec
    return spec


def model_names() -> tuple[str, ...]:
    """Returns the names of all models."""
    return tuple(_SPECS)


def get_spec(name: str) -> ModelSpec:
    """Returns what a model declares.

    Raises:
      UserError: for an unknown model.
    """
    if name not in _SPECS:
        raise UserError(
            f"no model '{name}', only {', '.join(_SPECS)}; a model of your own must be registered first: import the "
            "file that calls jmer.register_model, or name it with --config"
        )
    return _SPECS[name]


def build_model(config: Mapping[str, Any]) -> Model:
    """Builds the model that a configuration describes.

    Args:
      config: has the sections `model`, `loss` and `attributes`, fitted to a corpus (`jmer.config.fit_to_corpus`).

    Raises:
      UserError: for an unknown model, a value that the model refuses, or a configuration that fits no corpus yet.
    """
    model = config["model"]
    if not model["num_classes"] or not model["modalities"]:
        raise UserError("model.num_classes or model.modalities is not set: jmer.config.fit_to_corpus sets both")
    try:
        return get_spec(model["name"]).build(model, config["loss"], make_heads(config["attributes"]))
    except ValueError as error:
        raise UserError(f"invalid configuration: {error}") from error


def _origin(spec: ModelSpec) -> tuple[str, str]:
    """Returns the file and the name of a model's module, which stay the same when the file is executed again."""
    name = spec.module.__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    # A notebook has no file.
    return str(Path(file).resolve()) if file else name, spec.module.__qualname__
