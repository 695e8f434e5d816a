"""Classifier-guided gradient modulation (CGGM, NeurIPS 2024), for any model that declares its encoders.

A classifier watches the encoder of each modality. The faster it improves, the smaller the gradient of that encoder is
made, so that no modality leaves the others behind; a balance term turns the network's last kernel to the classifiers of
those that lag.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jmer.batch import Batch
from jmer.errors import UserError
from jmer.models import Encoders, Model
from jmer.models.classification import classification_term
from jmer.models.contract import encoder_widths
from jmer.models.modality_heads import HEADS, ModalityHeads

METHODS = ("none", "classifier_guided")
GUARDS = ("clip", "none")
# Sums of improvements that are closer to 0 carry no information.
SMALLEST_SUM = 1e-6
TINY = 1e-12


def coefficients(accuracies: jax.Array, previous: jax.Array, *, guard: str = "clip") -> jax.Array:
    r"""Returns the coefficient of each modality, whose sum is one less than the number of modalities.

    .. math:: \delta_i = a_i - a_i', \quad s = 10^{-8} + \sum_j \delta_j, \quad B_i = (s - \delta_i) / s

    Args:
      accuracies: `[m]`, a.
      previous: `[m]`, a', those of the step before.
      guard: `clip` limits them to [0, 1], and makes all equal where s is nearly 0; `none`, as published, lets them have
        any size and sign.
    """
    improvements = accuracies - previous
    total = improvements.sum() + 1e-8
    if guard == "none":
        return (total - improvements) / total
    is_small, count = jnp.abs(total) < SMALLEST_SUM, len(accuracies)
    found = jnp.clip((total - improvements) / jnp.where(is_small, 1.0, total), 0.0, 1.0)
    return jnp.where(is_small, (count - 1) / count, found)


def balance(kernel: jax.Array, head_kernels: Sequence[jax.Array], weights: jax.Array) -> jax.Array:
    r"""Returns the balance term of the last kernel, lowest where it points as the classifiers of lagging modalities do.

    .. math:: \frac{1}{m} \sum_i \left(|B_i| - B_i \cos(V_i, W)\right)

    Args:
      kernel: `[d, C]`, W.
      head_kernels: m of `[d, C]`, V.
      weights: `[m]`, B.
    """

    def cosine(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.sum(one * other) / (length(one) * length(other))

    def length(x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.maximum(jnp.sum(x * x), TINY))

    cosines = jnp.stack([cosine(head, kernel) for head in head_kernels])
    return jnp.mean(jnp.abs(weights) - weights * cosines)


@struct.dataclass
class ModulationState:
    """What the modulation carries from step to step.

    Attributes:
      accuracies: `[m]`, of the classifiers.
      pending: `[d, C]`, the balance term's gradient, which the next step adds; an empty dict without that term.
      heads: the classifiers' parameters.
      opt_state: of their optimizer.
    """

    accuracies: jax.Array
    pending: Any
    heads: Any
    opt_state: Any


class HeadResult(NamedTuple):
    """A classifier's sums over the labelled utterances that have its modality."""

    loss: jax.Array
    correct: jax.Array
    labelled: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Modulation:
    """The modulation of one network.

    Attributes:
      encoders: of the network.
      widths: modality -> width of its encoding.
      heads: the classifiers.
      rho: factor of all coefficients.
      balance_weight: λ, of the balance term; 0 = without it.
      guard: see `coefficients`.
      accuracy_ema: share of the earlier accuracies in those that are compared.
      optimizer: of the classifiers.
      note: line that is printed before training; empty = none.
    """

    encoders: Encoders
    widths: Mapping[str, int]
    heads: ModalityHeads
    rho: float
    balance_weight: float
    guard: str
    accuracy_ema: float
    optimizer: optax.GradientTransformation
    note: str = ""

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order of the coefficients."""
        return tuple(self.encoders.own)

    def init(self, rng: jax.Array, params: Any) -> ModulationState:
        """Returns the first state.

        Args:
          rng: random key of the classifiers.
          params: of the network.
        """
        heads = self.heads.init(rng, {m: jnp.zeros((1, 1, width)) for m, width in self.widths.items()})["params"]
        pending: Any = jnp.zeros_like(self._kernel(params)) if self.balance_weight else {}
        return ModulationState(jnp.zeros(len(self.modalities)), pending, heads, self.optimizer.init(heads))

    def results(self, heads: Any, encodings: Mapping[str, jax.Array], batch: Batch) -> dict[str, HeadResult]:
        """Returns what the classifiers make of this device's rows, by modality."""
        logits: Any = self.heads.apply({"params": heads}, {m: encodings[m] for m in self.modalities})
        found = {}
        for modality in self.modalities:
            where = batch.available[modality] & batch.mask
            loss, count = classification_term(logits[modality], batch.labels, where)
            right = (logits[modality].argmax(-1) == batch.labels) & where
            found[modality] = HeadResult(loss, jnp.sum(right).astype(jnp.float32), count)
        return found

    def modulate(
        self,
        state: ModulationState,
        params: Any,
        gradients: Any,
        head_gradients: Any,
        results: Mapping[str, HeadResult],
    ) -> tuple[Any, ModulationState]:
        """Returns the network's modulated gradient, and the state after the step.

        Args:
          state: before the step.
          params: of the network, before the step.
          gradients: of the network's loss.
          head_gradients: of the classifiers' losses.
          results: of the classifiers; like both gradients, over all devices.
        """
        counts = jnp.stack([results[m].labelled for m in self.modalities])
        correct = jnp.stack([results[m].correct for m in self.modalities])
        now = jnp.where(counts > 0, correct / jnp.where(counts > 0, counts, 1), state.accuracies)
        accuracies = self.accuracy_ema * state.accuracies + (1 - self.accuracy_ema) * now
        weights = coefficients(accuracies, state.accuracies, guard=self.guard)
        pending = state.pending
        if self.balance_weight:
            kernels = [state.heads[f"{m}_output"]["kernel"] for m in self.modalities]
            pending = jax.grad(balance)(self._kernel(params), kernels, weights)
        gradients = jax.tree_util.tree_map_with_path(
            lambda path, x: self._modulated(_name(path), x, self.rho * weights, state.pending), gradients
        )
        updates, opt_state = self.optimizer.update(head_gradients, state.opt_state, state.heads)
        return gradients, ModulationState(accuracies, pending, optax.apply_updates(state.heads, updates), opt_state)

    def _modulated(self, name: str, gradient: jax.Array, factors: jax.Array, pending: Any) -> jax.Array:
        if self.balance_weight and name == self.encoders.kernel:
            gradient = gradient + self.balance_weight * pending
        if self.encoders.is_stacked(name):
            return gradient * factors.reshape(-1, *[1] * (gradient.ndim - 1))
        owner = self.encoders.owner(name)
        return gradient * factors[self.modalities.index(owner)] if owner else gradient

    def _kernel(self, params: Any) -> jax.Array:
        for part in self.encoders.kernel.split("/"):
            params = params[part]
        return params


def make_modulation(config: Mapping[str, Any], model: Model, widths: Mapping[str, int]) -> Modulation | None:
    """Returns the modulation that a configuration asks for, None for none.

    Args:
      config: the section `modulation`.
      model: the network and its loss.
      widths: modality -> feature width.

    Raises:
      UserError: naming the field, for a value that does not exist, or a model that cannot be modulated.
    """
    for field, choices in (("method", METHODS), ("guard", GUARDS), ("head", HEADS)):
        if config[field] not in choices:
            raise UserError(f"modulation.{field} is '{config[field]}': choose one of {', '.join(choices)}")
    for field in ("rho", "balance", "learning_rate"):
        if not config[field] >= 0:
            raise UserError(f"modulation.{field} is {config[field]}: give a number that is not negative")
    if not 0 <= config["accuracy_ema"] < 1:
        raise UserError(f"modulation.accuracy_ema is {config['accuracy_ema']}: give a number from 0 that is below 1")
    if config["method"] == "none":
        return None
    encoders = model.spec.encoders(model.module)
    if encoders is None:
        raise UserError(
            f"modulation.method={config['method']} needs an encoder for each modality, which model "
            f"{model.spec.name} does not declare with these settings (ModelSpec.encoders): set it to none"
        )
    if len(encoders.own) < 2:
        raise UserError(
            f"modulation.method={config['method']} weighs modalities against each other, but model.modalities is "
            f"{', '.join(encoders.own)}: set it to none"
        )
    encodings, inputs = encoder_widths(model, tuple(widths.items()))
    # Kernels of other shapes have no angle between them.
    differing = {m: width for m, width in encodings.items() if width != inputs}
    note = (
        f"modulation: without the balance term, since the classifier reads {inputs} numbers and encodings have "
        f"{', '.join(f'{width} ({m})' for m, width in differing.items())}"
    )
    return Modulation(
        encoders=encoders,
        widths=encodings,
        heads=ModalityHeads(model.module.num_classes, config["head"]),
        rho=config["rho"],
        balance_weight=0.0 if differing else config["balance"],
        guard=config["guard"],
        accuracy_ema=config["accuracy_ema"],
        optimizer=optax.adam(config["learning_rate"]),
        note=note if differing and config["balance"] else "",
    )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
