"""Models by name, as configurations name them."""

from collections.abc import Mapping

from jmer.errors import UserError
from jmer.models import dagerc, lfvd, lpgnet, sdt
from jmer.models.model import Model

MODELS = {"lfvd": lfvd, "lpgnet": lpgnet, "dagerc": dagerc, "sdt": sdt}


def create(config: Mapping) -> Model:
    """Builds the model that a configuration describes.

    Args:
      config: has the sections `model` (with the model's `name`) and `loss`, both as the model's `defaults` lays them
        out and with the corpus' emotions and modalities filled in (`jmer.config.fit_to_corpus`).

    Raises:
      UserError: for an unknown model, a switch that has no such value, or a configuration that fits no corpus yet.
    """
    if not config["model"]["num_classes"] or not config["model"]["modalities"]:
        raise UserError(
            "model.num_classes or model.modalities is not set: let jmer.config.fit_to_corpus take both from a corpus"
        )
    try:
        return _module(config["model"]["name"]).create(config["model"], config["loss"])
    except ValueError as error:
        raise UserError(f"the configuration is at fault: {error}") from error


def defaults(name: str) -> dict[str, dict]:
    """Returns the default sections `model` and `loss` of a model's configuration.

    Raises:
      UserError: for an unknown model.
    """
    return _module(name).defaults()


def _module(name: str):
    if name not in MODELS:
        raise UserError(f"no model '{name}': model.name must be one of {', '.join(MODELS)}")
    return MODELS[name]
