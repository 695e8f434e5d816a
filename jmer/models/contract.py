"""Checks that a model keeps the contract of `jmer.models.spec`, each with an error that names what is missing."""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.errors import UserError
from jmer.models.encoders import COLLECTION, Encoders, exposed_encodings
from jmer.models.spec import CLASS_WEIGHTS, Model, ModelSpec, Summaries, takes

CONFIGURABLE = (bool, int, float, str, tuple)


def check_spec(spec: ModelSpec) -> None:
    """Checks what can be known of a model before it is built.

    Raises:
      UserError: naming the first attribute or field that breaks the contract.
    """
    if not isinstance(spec, ModelSpec):
        raise UserError(f"register_model takes a jmer.ModelSpec, not {type(spec).__name__}")
    if not (isinstance(spec.name, str) and re.fullmatch(r"\w[\w-]*", spec.name)):
        raise UserError(f"a model's name must be letters, digits, '_' and '-', not {spec.name!r}")
    if not (isinstance(spec.module, type) and issubclass(spec.module, nn.Module)):
        given = spec.module
        name = given.__name__ if isinstance(given, type) else f"an instance of {type(given).__name__}"
        raise _broken(spec, f"module must be a subclass of flax.linen.Module, not {name}")
    if "num_classes" not in {f.name for f in dataclasses.fields(spec.module)}:
        raise _broken(spec, f"{spec.module.__name__} has no field num_classes, the number of logits: add it")
    for argument in ("batch", "train"):
        if not takes(spec.module.__call__, argument):
            raise _broken(
                spec, f"{spec.module.__name__}.__call__ has no argument '{argument}': (self, batch, *, train)"
            )
    if not callable(spec.loss):
        raise _broken(spec, f"loss must be a dataclass with __call__, or a function, not {spec.loss!r}")
    # `hasattr` would find the `__call__` of every class, which makes instances.
    if isinstance(spec.loss, type) and not (
        spec.loss_is_configured and any("__call__" in vars(base) for base in spec.loss.__mro__)
    ):
        raise _broken(spec, f"{spec.loss.__name__} must be a dataclass whose instances can be called")
    _check_fields(spec)
    _check_loss_weights(spec)
    _check_overrides(spec)
    if not isinstance(spec.summaries, Summaries):
        raise _broken(spec, f"summaries must be jmer.models.Summaries, not {type(spec.summaries).__name__}")
    if not all(isinstance(name, str) for name in spec.rng_streams) or isinstance(spec.rng_streams, str):
        raise _broken(spec, f"rng_streams must be a tuple of names, not {spec.rng_streams!r}")


def _check_fields(spec: ModelSpec) -> None:
    described = [("model", spec.module)] + ([("loss", spec.loss)] if spec.loss_is_configured else [])
    for section, cls in described:
        for name, default in spec.field_defaults(cls).items():
            if name == "num_classes" or name in CLASS_WEIGHTS:
                continue
            if default is dataclasses.MISSING:
                raise _broken(spec, f"field {name} of {cls.__name__} has no default, which {section}.{name} needs")
            if not isinstance(default, CONFIGURABLE):
                kinds = ", ".join(kind.__name__ for kind in CONFIGURABLE)
                raise _broken(spec, f"the default of {cls.__name__}.{name} must be one of {kinds}, not {default!r}")


def _check_loss_weights(spec: ModelSpec) -> None:
    fields = spec.field_defaults(spec.loss) if spec.loss_is_configured else {}
    for name in spec.loss_weights:
        if type(fields.get(name)) is not float:
            floats = [field for field, value in fields.items() if type(value) is float]
            raise _broken(spec, f"loss_weights has '{name}', which is no float field of the loss: {floats}")


def _check_overrides(spec: ModelSpec) -> None:
    """Checks that what the model declares names fields of its own sections; others are checked when applied."""
    sections = spec.sections()
    known = {f"{section}.{name}" for section, fields in sections.items() for name in fields}
    frames_when = {f"model.{name}": value for name, value in (spec.frames_when or {}).items()}
    may_be_zero = {f"model.{name}": 0 for name in spec.may_be_zero}
    variants = {f"variant '{name}'": values for name, values in spec.variants.items()}
    named = {"defaults": spec.defaults, **variants, "frames_when": frames_when, "may_be_zero": may_be_zero}
    for where, values in named.items():
        if not isinstance(values, Mapping):
            raise _broken(spec, f"{where} must map 'section.field' to a value, not {values!r}")
        for name in values:
            if name.startswith(("model.", "loss.")) and name not in known:
                fields = ", ".join(sections[name.partition(".")[0]])
                raise _broken(spec, f"{where} names {name}, but the section has only {fields}")


@functools.cache
def check_model(model: Model, widths: tuple[tuple[str, int], ...], frames: bool) -> None:
    """Checks a model that was built, by its shapes alone: nothing is computed.

    Args:
      model: the network and its loss.
      widths: (modality, feature width) pairs.
      frames: whether utterances are sequences of frames.

    Raises:
      UserError: naming what breaks the contract.
    """
    spec, batch = model.spec, example_batch(dict(widths), frames=frames)
    with_heads, model = model, dataclasses.replace(model, attributes=None)
    call = f"{type(model.module).__name__}.__call__"
    try:
        variables = dict(jax.eval_shape(model.init, jax.random.key(0), batch))
    except ValueError as error:
        raise UserError(f"invalid configuration: {error}") from error
    if "params" not in variables:
        raise _broken(spec, f"{type(model.module).__name__} has no parameters to train")
    params = variables.pop("params")
    if variables and not takes(type(model.module).__call__, "axis_name"):
        kinds = ", ".join(variables)
        raise _broken(
            spec, f"{call} keeps {kinds}, but has no argument 'axis_name', the mapped axis to compute them over"
        )
    try:
        output, _ = jax.eval_shape(
            lambda p, s: model.apply_in_training(p, s, batch, jax.random.key(0)), params, variables
        )
    except flax.errors.InvalidRngError as error:
        streams = ", ".join(spec.rng_streams) or "none"
        raise _broken(
            spec, f"it draws from a random stream beside rng_streams ({streams}): {_first_line(error)}"
        ) from error
    logits, classes = getattr(output, "logits", None), model.module.num_classes
    if logits is None:
        raise _broken(spec, f"{call} must return an output with the attribute 'logits', not {type(output).__name__}")
    expected = (*batch.mask.shape, classes)
    if getattr(logits, "shape", None) != expected:
        raise _broken(spec, f"logits must have the shape [B, T, C] {expected}, not {getattr(logits, 'shape', logits)}")
    _check_encoders(model, params, variables, batch)
    _check_terms(model, output, batch)
    _check_summaries(model, params, variables, batch)
    if with_heads.attributes is not None:
        _check_heads(with_heads, len(with_heads.attributes.names), batch)


@functools.cache
def encoder_widths(model: Model, widths: tuple[tuple[str, int], ...]) -> tuple[dict[str, int], int]:
    """Returns the width of each modality's encoding, and the number of inputs of a network's last linear map.

    Args:
      model: declares encoders with its settings, and was checked.
      widths: (modality, feature width) pairs.
    """
    encoders, batch = model.spec.encoders(model.module), example_batch(dict(widths))
    assert encoders is not None
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), batch))
    params = variables.pop("params")
    found = _exposed(model, params, variables, batch)
    return {m: found[m].shape[-1] for m in encoders.own}, _by_path(params)[encoders.kernel].shape[0]


def _by_path(params: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _exposed(model: Model, params: Any, model_state: Mapping, batch: Batch) -> dict[str, Any]:
    """Returns the shapes of what a network exposes in training."""
    _, found = jax.eval_shape(
        lambda p, s: model.apply_in_training(p, s, batch, jax.random.key(0), expose=True), params, model_state
    )
    return exposed_encodings(found.get(COLLECTION, {}))


def _check_encoders(model: Model, params: Any, model_state: Mapping, batch: Batch) -> None:
    spec, encoders = model.spec, model.spec.encoders(model.module)
    if encoders is None:
        return
    if not isinstance(encoders, Encoders):
        raise _broken(spec, f"encoders must return jmer.models.Encoders or None, not {type(encoders).__name__}")
    modalities = getattr(model.module, "modalities", tuple(encoders.own))
    if set(encoders.own) != set(modalities):
        raise _broken(spec, f"encoders name {', '.join(encoders.own)}, but the module has {', '.join(modalities)}")
    exposed = _exposed(model, params, model_state, batch)
    for modality in encoders.own:
        shape = getattr(exposed.get(modality), "shape", None)
        if shape is None or len(shape) != 3 or shape[:2] != batch.mask.shape:
            raise _broken(
                spec, f"the module must give expose_encodings the encoding of {modality}, [B, T, d], not {shape}"
            )
    paths = _by_path(params)
    kernel: tuple[int, ...] = getattr(paths.get(encoders.kernel), "shape", ())
    if len(kernel) != 2 or kernel[-1] != model.module.num_classes:
        raise _broken(spec, f"encoders.kernel '{encoders.kernel}' is no kernel [d, C] of the network")
    owners = {encoders.owner(path) for path in paths}
    for path, leaf in paths.items():
        if encoders.is_stacked(path):
            owners |= set(encoders.own)
            if leaf.shape[:1] != (len(encoders.own),):
                raise _broken(spec, f"encoders.stacked has {path}, whose leading axis is not that of the modalities")
    if lacking := [m for m in encoders.own if m not in owners]:
        raise _broken(spec, f"no parameter is that of the encoder of {', '.join(lacking)}: {encoders.own[lacking[0]]}")


def _check_terms(model: Model, output: Any, batch: Batch) -> None:
    loss = getattr(model.loss, "__name__", type(model.loss).__name__)
    options = {"axis": None} if takes(model.loss, "axis") else {}
    terms = jax.eval_shape(lambda output: _as_arrays(model.loss(output, batch, **options)), output)
    if not isinstance(terms, Mapping) or not terms:
        raise _broken(model.spec, f"{loss} must return {{term: (weight, sum, count)}}, not {terms!r}")
    for name, term in terms.items():
        if not isinstance(term, Sequence) or len(term) != 3:
            raise _broken(
                model.spec, f"term '{name}' of {loss} must be (weight, sum, count); it lacks its count or weight"
            )
        if any(part.shape for part in term):
            shapes = ", ".join(str(part.shape) for part in term)
            raise _broken(model.spec, f"term '{name}' of {loss} must be three scalars, but their shapes are {shapes}")


def _check_heads(model: Model, count: int, batch: Batch) -> None:
    def values(rng: jax.Array) -> jax.Array:
        return model.apply(model.init(rng, batch), batch, train=False).values

    try:
        found = jax.eval_shape(values, jax.random.key(0)).shape
    except ValueError as error:
        raise UserError(f"invalid configuration: {error}") from error
    if found != (*batch.mask.shape, count):
        raise _broken(
            model.spec,
            f"what the layer that gives the logits reads must have the shape [B, T, D], but heads for attributes give "
            f"{found} of it",
        )


def _as_arrays(terms: Any) -> Any:
    """Makes arrays of plain numbers, so that `jax.eval_shape` takes them; leaves what is no mapping of tuples alone."""
    return jax.tree.map(jnp.asarray, terms)


def _check_summaries(model: Model, params: Any, model_state: Mapping, batch: Batch) -> None:
    summaries = model.spec.summaries

    def summarize(params, model_state):
        variables = {"params": params, **model_state}
        output = model.module.apply(variables, batch, train=False, **summaries.call_options)
        named = {"fusion_weights": summaries.fusion_weights, "attention": summaries.attention}
        return {kind: dict(function(output, batch)) for kind, function in named.items()}

    try:
        shapes = jax.eval_shape(summarize, params, model_state)
    except flax.errors.InvalidRngError as error:
        call = f"{type(model.module).__name__}.__call__"
        raise _broken(model.spec, f"{call} draws random numbers where train is False: {_first_line(error)}") from error
    for kind, values in shapes.items():
        for name, value in values.items():
            if value.shape != batch.mask.shape:
                raise _broken(
                    model.spec, f"summaries.{kind} must have the shape [B, T], but '{name}' has {value.shape}"
                )


def example_batch(widths: Mapping[str, int], *, frames: bool = False) -> Batch:
    """Returns a batch of one utterance, with which a network is initialised.

    Args:
      widths: modality -> feature width.
      frames: whether the utterance is a sequence of frames, of one frame.
    """
    positions = (1, 1, 1) if frames else (1, 1)
    return Batch(
        features={m: jnp.zeros((*positions, width)) for m, width in widths.items()},
        mask=jnp.ones((1, 1), bool),
        labels=jnp.zeros((1, 1), jnp.int32),
        speakers=jnp.zeros((1, 1), jnp.int32),
        available=dict.fromkeys(widths, jnp.ones((1, 1), bool)),
        frames=dict.fromkeys(widths, jnp.ones(positions, bool)) if frames else None,
    )


def _broken(spec: ModelSpec, what: str) -> UserError:
    return UserError(f"model '{spec.name}': {what}")


def _first_line(error: Exception) -> str:
    """Returns what Flax says, without the name of the outermost module (None) and without the address of its manual."""
    return str(error).partition("\n")[0].partition(" (https")[0].removeprefix("None ")
