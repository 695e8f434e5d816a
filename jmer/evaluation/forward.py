"""The forward pass of a network over batches, compiled once for each shape, and its results by example."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jmer.batch import Batch
from jmer.data.batching import locate
from jmer.data.corpus import Conversation
from jmer.evaluation.spread import Spread
from jmer.models import Model


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model predicts for `k` examples of `n_i` utterances, without padding and in their order.

    Attributes:
      probabilities: `k` arrays float32 `[n_i, C]`.
      weights: modality -> `k` arrays float32 `[n_i]`, the modality's weight in the fusion; empty for a model that
        declares none.
      attention: name -> `k` arrays float32 `[n_i]`, the attention paid to each utterance; empty for a model that
        declares none.
      spread: how the members of an ensemble differ; None = a single model predicts.
      attributes: name -> `k` arrays float32 `[n_i]`, on the scale of the labels; empty for a model that learned none.
    """

    probabilities: Sequence[np.ndarray]
    weights: Mapping[str, Sequence[np.ndarray]]
    attention: Mapping[str, Sequence[np.ndarray]]
    spread: Spread | None = None
    attributes: Mapping[str, Sequence[np.ndarray]] = dataclasses.field(default_factory=dict)


class DeviceMapping(Hashable, Protocol):
    """Maps a function of a batch over devices, see `jmer.training.parallel`."""

    @property
    def row_multiple(self) -> int:
        """The rows of a batch must be a multiple of this."""

    def forward(self, forward: Callable[[Any, Batch], Any]) -> Callable[[Any, Batch], Any]:
        """Returns `(variables, batch)` -> host arrays."""


@dataclasses.dataclass(frozen=True)
class OneDevice:
    """Runs a function of a batch on JAX's default device."""

    row_multiple: int = 1

    def forward(self, forward: Callable[[Any, Batch], Any]) -> Callable[[Any, Batch], Any]:
        """Returns `(variables, batch)` -> host arrays."""
        compiled = jax.jit(forward)
        return lambda variables, batch: jax.device_get(compiled(variables, batch))


ONE_DEVICE = OneDevice()


class Passed(NamedTuple):
    """What a forward pass gives: probabilities `[B, T, C]`, and name -> `[B, T]`, see `Predictions`."""

    probabilities: Any
    weights: Mapping[str, Any]
    attention: Mapping[str, Any]
    attributes: Mapping[str, Any]


def forward_pass(model: Model) -> Callable[[Any, Batch], Passed]:
    """Returns the function from variables and a batch to what the model predicts."""
    summaries = model.spec.summaries

    def forward(variables: Any, batch: Batch) -> Passed:
        output: Any = model.apply(variables, batch, train=False, **summaries.call_options)
        probabilities, attributes = jax.nn.softmax(output.logits), {}
        if model.attributes is not None:
            output, attributes = output.network, model.attributes.on_scales(output.values)
        weights, attention = summaries.fusion_weights(output, batch), summaries.attention(output, batch)
        return Passed(probabilities, dict(weights), dict(attention), attributes)

    return forward


@functools.lru_cache(maxsize=64)
def compiled_forward_pass(model: Model, mapping: DeviceMapping) -> Callable[[Any, Batch], Passed]:
    """Returns the model's forward pass, compiled once for each shape of a batch in the life of the process."""
    return mapping.forward(forward_pass(model))


@functools.lru_cache(maxsize=64)
def compiled_output(model: Model) -> Callable[[Any, Batch], Any]:
    """Returns `(variables, batch)` -> the network's whole output, compiled once for each shape."""
    return jax.jit(functools.partial(model.network, train=False))


def unpack_predictions(outputs: Iterable[tuple[Any, Passed]], examples: Sequence[Conversation]) -> Predictions:
    """Returns the predictions of examples.

    Args:
      outputs: of each batch its `conversation_ids` and what `forward_pass` gave, NumPy arrays.
      examples: those that the ids number.
    """
    rows = unpack(outputs, examples)
    return Predictions(
        [row.probabilities for row in rows],
        _by_name([row.weights for row in rows]),
        _by_name([row.attention for row in rows]),
        attributes=_by_name([row.attributes for row in rows]),
    )


def rejoined(predictions: Predictions, lengths: Iterable[int]) -> Predictions:
    """Returns predictions of other examples with the same utterances, such as conversations after their parts.

    Args:
      predictions: of `k` examples.
      lengths: the number of utterances of each of the other examples, which follow one another in the same order.
    """
    ends = np.cumsum(list(lengths))[:-1]

    def cut(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return np.split(np.concatenate(arrays), ends)

    spread = predictions.spread
    return Predictions(
        cut(predictions.probabilities),
        {modality: cut(arrays) for modality, arrays in predictions.weights.items()},
        {name: cut(arrays) for name, arrays in predictions.attention.items()},
        Spread(cut(spread.deviations), cut(spread.agreement)) if spread else None,
        {name: cut(arrays) for name, arrays in predictions.attributes.items()},
    )


def unpack(outputs: Iterable[tuple[Any, Any]], examples: Sequence[Conversation]) -> list[Any]:
    """Takes batches apart into examples, in the order of the examples and without padding.

    Args:
      outputs: of each batch its `conversation_ids`, and a pytree of NumPy arrays `[B, T, ...]`.
      examples: `k` examples of `n_i` utterances, which the ids number.

    Returns:
      `k` pytrees of arrays `[n_i, ...]`.
    """
    found: dict[int, Any] = {}
    for conversation_ids, output in outputs:
        for position, row, _, real in locate(conversation_ids, examples):
            found[position] = jax.tree.map(lambda x, own=(row, real): x[own], output)
    return [found[position] for position in range(len(examples))]


def _by_name(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
