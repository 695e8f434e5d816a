"""The contract between a model and the rest of jmer: what a model declares, and what is built from it."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.batch import Batch
from jmer.models.attributes import HEADS, AttributeHeads, WithAttributes, applied
from jmer.models.encoders import COLLECTION, Encoders
from jmer.models.rematerialization import rematerialized_layers

# An experiment names a rule for class weights; the training corpus gives their values.
DTYPES = ("float32", "bfloat16")
"""Values of `model.dtype`, the default first."""
CLASS_WEIGHTS = {"class_weights": "none", "class_weight_values": ()}


class LossTerm(NamedTuple):
    """One term of a loss, summed over this device's utterances.

    Attributes:
      weight: of the term in the loss.
      total: sum over utterances, float32 `[]`.
      divisor: what `total` is divided by, after both are summed over devices: a number of utterances, as a rule.
    """

    weight: float | jax.Array
    total: jax.Array
    divisor: jax.Array


def is_off(weight: float | jax.Array) -> bool:
    """Returns whether a loss weight is the number 0, so that its term need not be computed.

    An array is never off: in a sweep over loss weights it may be traced.
    """
    return isinstance(weight, int | float) and weight == 0


def _none(module: nn.Module) -> Encoders | None:
    return None


def _nothing(output: Any, batch: Batch) -> Mapping[str, jax.Array]:
    return {}


@dataclasses.dataclass(frozen=True)
class Summaries:
    """Values per utterance that predictions and reports show of a model, besides probabilities.

    Attributes:
      fusion_weights: `(output, batch)` -> {modality: float32 `[B, T]`}.
      attention: `(output, batch)` -> {name: float32 `[B, T]`}, the attention that something pays to each utterance.
      call_options: keyword arguments of the network's call that `attention` needs.
    """

    fusion_weights: Callable[[Any, Batch], Mapping[str, jax.Array]] = _nothing
    attention: Callable[[Any, Batch], Mapping[str, jax.Array]] = _nothing
    call_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelSpec:
    """What jmer needs to know of a model; `jmer.register_model` checks it.

    The configuration of a model follows from its classes: the section `model` has the fields of `module` with their
    defaults, the section `loss` those of `loss`. A default is a bool, int, float, str or tuple.

    Attributes:
      name: what configurations call the model (`model.name`).
      module: Linen module. `module.apply(variables, batch, train=...)` returns an output with the attribute `logits`,
        float32 `[B, T, C]`; for heads of attributes, such as valence, the logits are what a layer of the module gives,
        and the heads read what that layer reads, `[B, T, D]`. It has the field `num_classes`, and `modalities` if it
        can read different ones. A module with running statistics of a batch also takes `axis_name`: the mapped axis
        whose devices hold the rest of the batch, or None.
      loss: a dataclass whose instances are called, or a function: `loss(output, batch, axis=None)` returns
        `{term: (weight, sum, count)}` over this device's utterances; `axis` may be left out if no term needs it. The
        loss is the sum over terms of weight · sum / count, with sums and counts added over devices first. Pieces of a
        batch can be computed one by one (`training.accumulation_steps`) if no term asks `axis` for other rows, the
        counts depend on the batch alone, and the module has no running statistics.
      variants: name -> `section.field` -> value: ablations and other settings that a colon selects (`mine:small`).
      defaults: `section.field` -> value, where the base configuration is to differ from the classes and from jmer.
      derived: `(model, loss)`, the two sections -> values of those fields of `module` and of `loss` that follow from
        the sections and are no part of them.
      derived_model_fields, derived_loss_fields: their names.
      from_emotions: `(fields, emotions)`, `section.field` -> value of the configuration and the names of the corpus'
        emotions in the order of their labels -> values of those fields that follow from the names, which
        `jmer.config.fit_to_corpus` sets. A ValueError names the emotion from which none follows, and the remedy.
      may_be_zero: whole-numbered fields of `module` that may be 0 though their defaults are more, or below it if the
        module's `check` allows that.
      loss_weights: fields of `loss` that do nothing but weigh a term. Runs that differ by them alone can be trained in
        one program; `loss` then sees arrays there (see `is_off`).
      rng_streams: random streams that the module draws from in training.
      packing: whether the module keeps the conversations of a row apart (`batch.segments`). If not, each row has one.
      frames_when: fields of the section `model` and the values with which the module reads sequences of frames; None =
        it never does.
      handles_missing: whether the module treats utterances without a modality (`batch.available`) as lacking it, so
        that it can predict a corpus that has fewer modalities than the one it was trained on.
      summaries: what predictions and reports show of it.
      bfloat16: whether the module may compute in bfloat16 (`model.dtype`): given parameters and features of that type,
        its normalisations, softmaxes and loops are in float32 all the same, as those of jmer's layers are.
      encoders: the module -> its modalities' encoders, which it exposes (`expose_encodings`), for training that treats
        them apart (`modulation.method`); None = it has none, or mixes features first.
    """

    name: str
    module: type[nn.Module]
    loss: Any
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    derived: Callable[[Mapping, Mapping], tuple[dict[str, Any], dict[str, Any]]] = lambda model, loss: ({}, {})
    derived_model_fields: Sequence[str] = ()
    derived_loss_fields: Sequence[str] = ()
    from_emotions: Callable[[Mapping[str, Any], Sequence[str]], Mapping[str, Any]] = lambda fields, emotions: {}
    may_be_zero: Sequence[str] = ()
    loss_weights: Sequence[str] = ()
    rng_streams: Sequence[str] = ("dropout",)
    packing: bool = False
    frames_when: Mapping[str, Any] | None = None
    handles_missing: bool = False
    summaries: Summaries = Summaries()
    bfloat16: bool = False
    encoders: Callable[[Any], Encoders | None] = _none

    @property
    def loss_is_configured(self) -> bool:
        """Whether the loss has fields: a dataclass does, a function does not."""
        return isinstance(self.loss, type) and dataclasses.is_dataclass(self.loss)

    @property
    def weights_classes(self) -> bool:
        """Whether the loss takes class weights."""
        return self.loss_is_configured and "class_weights" in {f.name for f in dataclasses.fields(self.loss)}

    def sections(self) -> dict[str, dict[str, Any]]:
        """Returns the sections `model` and `loss` of the model's base configuration.

        `num_classes` 0 stands for the corpus' emotions, empty `modalities` for all that the corpus has.
        """
        model = {"name": self.name, "modalities": ()} | self.field_defaults(self.module) | {"num_classes": 0}
        if self.bfloat16:
            model |= {"dtype": DTYPES[0]}
        loss = (self.field_defaults(self.loss) if self.loss_is_configured else {}) | CLASS_WEIGHTS
        return {"model": model, "loss": loss}

    def field_defaults(self, described: Any) -> dict[str, Any]:
        """Returns the configurable fields of the model's module or loss with their defaults."""
        derived = self.derived_model_fields if described is self.module else self.derived_loss_fields
        hidden = {"parent", "name", *derived}
        return {f.name: f.default for f in dataclasses.fields(described) if f.init and f.name not in hidden}

    def reads_frames(self, model: Mapping[str, Any]) -> bool:
        """Returns whether the module, as the section `model` configures it, reads sequences of frames."""
        return self.frames_when is not None and all(model[name] == value for name, value in self.frames_when.items())

    def build(
        self, model: Mapping[str, Any], loss: Mapping[str, Any], attributes: AttributeHeads | None = None
    ) -> "Model":
        """Builds the model from its two sections, complete and fitted to a corpus, and from heads for attributes.

        Raises:
          ValueError: if the module or the loss refuses a value.
        """
        dtype = model.get("dtype", DTYPES[0])
        if dtype not in DTYPES:
            raise ValueError(f"model.dtype must be one of {', '.join(DTYPES)}, not {dtype}")
        more_model, more_loss = self.derived(model, loss)
        module = self.module(**_declared(self.module, model), **more_model)
        if hasattr(module, "check"):
            module.check()
        if not self.loss_is_configured:
            return Model(self, module, self.loss, attributes, dtype)
        weights = {"class_weights": tuple(loss["class_weight_values"])}
        weighed = self.loss(**_declared(self.loss, {**loss, **weights}), **more_loss)
        return Model(self, module, weighed, attributes, dtype)


def _declared(described: Any, section: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a section that are fields of a class."""
    names = {f.name for f in dataclasses.fields(described)} - {"name", "parent"}
    return {name: value for name, value in section.items() if name in names}


@dataclasses.dataclass(frozen=True)
class Model:
    """A network and its loss.

    Attributes:
      spec: what the model declares.
      module: the network.
      loss: see `ModelSpec.loss`.
      attributes: heads for attributes, whose parameters lie beside those of the network; None = none.
      dtype: of `DTYPES`, what the network computes in. Parameters, model state, outputs and gradients are float32.
    """

    spec: ModelSpec
    module: nn.Module
    loss: Any
    attributes: AttributeHeads | None = None
    dtype: str = "float32"

    def __hash__(self) -> int:
        # A loss may be a dataclass that cannot be hashed.
        return hash((id(self.spec), self.module))

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Any]:
        """Returns the network's initial variables: `params`, and its model state if it has one.

        Args:
          rng: random key.
          batch: of any rows, whose shapes alone matter.

        Raises:
          ValueError: if there are heads for attributes, and no layer of the network gives its logits.
        """
        if self.attributes is None:
            return dict(self.module.init({"params": rng}, batch, train=False))
        _, variables, representation = applied(
            lambda: self.module.init_with_output({"params": rng}, batch, train=False)
        )
        heads = self.attributes.init(jax.random.fold_in(rng, 1), self._checked(representation))
        return {**variables, "params": {**variables["params"], HEADS: heads}}

    def apply(self, variables: Mapping[str, Any], batch: Batch, **options: Any) -> Any:
        """Returns the network's output, with heads for attributes as `WithAttributes`.

        Args:
          variables: of the network and the heads.
          batch: see `jmer.batch.Batch`.
          **options: of the network's call, such as `train`.
        """
        return self._apply(variables, batch, mutable=[], **options)[0]

    def network(self, variables: Mapping[str, Any], batch: Batch, **options: Any) -> Any:
        """Returns what `module.apply` does, computed in `dtype`; see `apply`."""
        return self._in_float32(self.module.apply(*self._in_dtype(variables, batch), **options))

    def _in_dtype(self, variables: Mapping[str, Any], batch: Batch) -> tuple[Mapping[str, Any], Batch]:
        """Returns the parameters and features that the network reads; its layers compute in their type."""
        if self.dtype == DTYPES[0]:
            return variables, batch
        params, features = (_converted(tree, self.dtype) for tree in (variables["params"], dict(batch.features)))
        return {**variables, "params": params}, dataclasses.replace(batch, features=features)

    def _in_float32(self, tree: Any) -> Any:
        return tree if self.dtype == DTYPES[0] else _converted(tree, DTYPES[0])

    def _apply(self, variables: Mapping[str, Any], batch: Batch, **options: Any) -> tuple[Any, Any]:
        """Returns the output and what is mutable of the variables."""

        def call() -> tuple[Any, Any]:
            result: Any = self.module.apply(*self._in_dtype(variables, batch), **options)
            return result

        if self.attributes is None:
            return self._in_float32(call())
        output, state, representation = self._in_float32(applied(call))
        values = self.attributes.apply(variables["params"][HEADS], self._checked(representation))
        return WithAttributes(output, values), state

    def _checked(self, representation: jax.Array | None) -> jax.Array:
        if representation is None:
            raise ValueError(
                f"model {self.spec.name} has no layer that gives its logits as they are, which heads for attributes "
                "need: leave attributes.names empty"
            )
        return representation

    def apply_in_training(
        self,
        params: Any,
        model_state: Mapping,
        batch: Batch,
        rng: jax.Array,
        axis_name: str | None = None,
        *,
        expose: bool = False,
        rematerialize: bool = False,
    ) -> tuple[Any, dict]:
        """Returns the output (see `apply`) with dropout on, and its model state after the step.

        Args:
          params: parameters.
          model_state: the network's other variables (running statistics), empty if it has none.
          batch: this device's rows.
          rng: random key of the step, the same on every device.
          axis_name: mapped axis whose devices hold the rest of the batch; None = unmapped.
          expose: whether the model state also has what the network exposes, see `jmer.models.encoders`.
          rematerialize: whether the gradient computes the layers again, see `jmer.models.rematerialization`.
        """
        options: dict[str, Any] = {"axis_name": axis_name} if model_state else {}
        with rematerialized_layers() if rematerialize else contextlib.nullcontext():
            return self._apply(
                {"params": params, **model_state},
                batch,
                train=True,
                **options,
                rngs={name: jax.random.fold_in(rng, i) for i, name in enumerate(self.spec.rng_streams)},
                mutable=[*model_state, *([COLLECTION] if expose else ())],
            )

    def scheduled(self, steps: Sequence[int]) -> "Model":
        """Returns the model for a training whose epochs have these numbers of steps, on which its loss may depend."""
        if self.attributes is None:
            return self
        return dataclasses.replace(self, attributes=self.attributes.scheduled(steps))

    def loss_terms(
        self,
        output: Any,
        batch: Batch,
        axis: str | None = None,
        weights: Mapping[str, jax.Array] | None = None,
        step: jax.Array | None = None,
    ) -> dict[str, LossTerm]:
        """Returns the terms of the loss, those of the attributes after those of the network.

        Args:
          output: see `apply`.
          batch: what it was computed of.
          axis: mapped axis whose devices hold the rest of the batch; None = unmapped.
          weights: values in place of those of the loss' weights, see `ModelSpec.loss_weights`; None = its own.
          step: of training, int `[]`; None = after it.
        """
        loss = dataclasses.replace(self.loss, **weights) if weights else self.loss
        options = {"axis": axis} if takes(self.loss, "axis") else {}
        if self.attributes is None:
            terms = dict(loss(output, batch, **options))
        else:
            terms = loss(output.network, batch, **options) | self.attributes.terms(output.values, batch, axis, step)
        return {name: LossTerm(*term) for name, term in terms.items()}


def _converted(tree: Any, dtype: str) -> Any:
    """Returns arrays with floats of this type in place of those that have another."""

    def convert(x: Any) -> Any:
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, tree)


@functools.cache
def takes(function: Callable, argument: str) -> bool:
    """Returns whether a function has an argument of this name."""
    parameters = inspect.signature(function).parameters
    return argument in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
