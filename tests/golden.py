"""Numbers of the published codes: what a file in `golden/` holds, as jmer's model, variables and batch.

A file is recognised by what it holds, not by its name; sizes are read from its arrays. `golden_models/` has an adapter
for each model: which files are its own, what their settings are in jmer's configuration, and where each parameter goes.
"""

import dataclasses
import functools
import importlib
import os
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import golden_models
import jax
import numpy as np

from jmer.batch import Batch
from jmer.modalities import MODALITIES
from jmer.models import Model, get_spec

GOLDEN = Path(__file__).with_name("golden")


@dataclasses.dataclass(frozen=True)
class Golden:
    """A file with the numbers of a published code, whichever of the two layouts it has.

    Attributes:
      arrays: everything in it, under its own names.
      params: name -> parameter, without what marks it as one.
      features: modality -> `[B, T, D_m]`.
      logits: `[N, C]`, of the real utterances, row by row.
      gradients: loss -> name of a parameter -> derivative of the loss.
    """

    arrays: Mapping[str, np.ndarray]
    params: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    logits: np.ndarray
    gradients: Mapping[str, Mapping[str, np.ndarray]]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def setting(self, name: str) -> Any:
        """Returns a scalar of the file as a Python value."""
        return self.arrays[name].item()

    def count(self, *prefixes: str) -> int:
        """Returns how many numbers follow one of these prefixes in the names of parameters: layers, as a rule."""
        found = [name.removeprefix(prefix) for prefix in prefixes for name in self.params if name.startswith(prefix)]
        return len({name[: len(name) - len(name.lstrip("0123456789"))] for name in found})


@dataclasses.dataclass(frozen=True)
class Adapter:
    """How a model of jmer reads the files of its published code.

    Attributes:
      model: its name.
      recognises: whether a file is one of this model.
      sections: of a file -> fields of the sections `model` and `loss` that differ from the defaults. Emotions and
        modalities follow from the file; class weights are `class_weight_values` of the section `loss`.
      parameters: name -> parameter -> jmer's parameters. JAX differentiates it, so that gradients need no adapter.
      statistics: the same for jmer's running statistics of a batch.
      losses: further loss in the file -> the fields of the section `loss` by which it differs from the first.
      outputs: the network's output, the means of the loss' terms and the batch -> name in the file -> value, scalars
        or values of utterances `[B, T, ...]`.
      tolerance: of a file -> relative and absolute, in float64, to which it is exact itself.
    """

    model: str
    recognises: Callable[[Golden], bool]
    sections: Callable[[Golden], tuple[dict[str, Any], dict[str, Any]]]
    parameters: Callable[[Mapping[str, Any]], dict[str, Any]]
    statistics: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda params: {}
    losses: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    outputs: Callable[[Any, Mapping[str, Any], Batch], Mapping[str, Any]] = lambda output, terms, batch: {}
    tolerance: Callable[[Golden], float] = lambda golden: 1e-10


def from_golden(path: str | Path) -> tuple[Model, dict[str, Any], Batch, dict[str, np.ndarray]]:
    """Returns the model, its variables, the batch and all arrays of a file with the numbers of a published code.

    Raises:
      ValueError: for a file of a model that has no adapter.
    """
    golden = read_golden(path)
    adapter = adapter_of(golden)
    return build(golden, adapter), variables_of(golden.params, adapter), batch_of(golden), dict(golden.arrays)


def read_golden(path: str | Path) -> Golden:
    """Reads a file of either layout: names with slashes and logits per row, or with underscores and real ones alone."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    slashes = any(name.startswith("features/") for name in arrays)
    mark = "/" if slashes else "_"
    features = {
        m: arrays[f"features/{m}" if slashes else m] for m in MODALITIES if f"features/{m}" in arrays or m in arrays
    }
    params = {name.removeprefix(f"param{mark}"): x for name, x in arrays.items() if name.startswith(f"param{mark}")}
    if not params:
        raise ValueError(f"{path} has no parameters of a model")
    gradients: dict[str, dict[str, np.ndarray]] = {}
    for name, x in arrays.items():
        if name.startswith("grad"):
            kind, _, parameter = name.partition(mark) if slashes else ("grad", "", name.removeprefix("grad_"))
            gradients.setdefault(kind.removeprefix("grad_") if kind != "grad" else "loss", {})[parameter] = x
    logits = arrays["logits"]
    return Golden(arrays, params, features, logits[arrays["mask"]] if logits.ndim == 3 else logits, gradients)


def folders() -> list[Path]:
    """Returns the folders with files: this one, and that with more files of the same layouts to be checked alike."""
    return [GOLDEN, *map(Path, filter(None, [os.environ.get("JMER_GOLDEN_FILES")]))]


@functools.cache
def adapters() -> tuple[Adapter, ...]:
    """Returns the adapters of all models."""
    names = [module.name for module in pkgutil.iter_modules(golden_models.__path__)]
    return tuple(importlib.import_module(f"golden_models.{name}").ADAPTER for name in names)


def adapter_of(golden: Golden) -> Adapter:
    """Returns the one adapter that recognises a file.

    Raises:
      ValueError: if none does, or several do.
    """
    found = [adapter for adapter in adapters() if adapter.recognises(golden)]
    if len(found) != 1:
        raise ValueError(f"one model should recognise the file, not {[adapter.model for adapter in found]}")
    return found[0]


def build(golden: Golden, adapter: Adapter, **loss_fields: Any) -> Model:
    """Returns a file's model; `loss_fields` change its loss."""
    spec = get_spec(adapter.model)
    sections = spec.sections()
    model, loss = adapter.sections(golden)
    model = {"num_classes": golden.logits.shape[-1], "modalities": tuple(golden.features)} | model
    loss = loss | loss_fields
    for section, fields in (("model", model), ("loss", loss)):
        assert fields.keys() <= sections[section].keys(), f"no {section}.{fields.keys() - sections[section].keys()}"
    return spec.build(sections["model"] | model, sections["loss"] | loss)


def variables_of(params: Mapping[str, Any], adapter: Adapter) -> dict[str, Any]:
    """Returns jmer's variables with the values of a file's parameters."""
    statistics = adapter.statistics(params)
    return {"params": adapter.parameters(params)} | ({"batch_stats": statistics} if statistics else {})


def batch_of(golden: Golden) -> Batch:
    """Returns a file's batch, one conversation per row."""
    mask = golden["mask"].astype(bool)
    return Batch(
        features=dict(golden.features),
        mask=mask,
        labels=golden["labels"].astype(np.int32),
        speakers=golden["speakers"].astype(np.int32),
        available=dict.fromkeys(golden.features, mask),
    )


def recurrent(params: Mapping[str, Any], prefix: str, name: str) -> dict[str, Any]:
    """Returns the parameters of one recurrent cell, from `prefix/kernel` and so on, under jmer's names for them."""
    of_jmer = {
        "input_kernel": "kernel",
        "input_bias": "bias",
        "state_kernel": "recurrent_kernel",
        "state_bias": "recurrent_bias",
    }
    return {f"{name}_{ours}": params[f"{prefix}/{theirs}"] for ours, theirs in of_jmer.items()}


def stacked_recurrent(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the parameters of a `StackedRNN` from `prefix/layer{i}/{direction}/kernel` and so on."""
    tree: dict[str, Any] = {}
    for i in range(len({name.split("/")[1] for name in params if name.startswith(f"{prefix}/layer")})):
        for direction in ("forward", "backward"):
            tree |= recurrent(params, f"{prefix}/layer{i}/{direction}", f"layer_{i}_{direction}")
    return tree


def with_prefix(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns the parameters whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): x for name, x in params.items() if name.startswith(prefix)}


def linear(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns kernel and bias of a linear map; `prefix` ends in the layout's separator."""
    return {name: params[f"{prefix}{name}"] for name in ("kernel", "bias") if f"{prefix}{name}" in params}


def in_precision(tree: Any, dtype: Any) -> Any:
    """Returns a tree with its floating-point arrays in another precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, tree)
