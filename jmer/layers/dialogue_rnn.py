"""DialogueRNN's layer: a global state, a state of each party and an emotion, from utterance to utterance."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_choice, check_rate
from jmer.layers.dialogue_recurrence import (
    Concatenation,
    Inputs,
    Listening,
    Scales,
    Weights,
    padded_length,
    recurrence,
    scan_recurrence,
    turns,
)
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, torch_uniform, with_fan_in
from jmer.layers.recurrent import RecurrentWeights, recurrent_weights
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, check_segments, one_per_row

CONTEXT_ATTENTIONS = ("general", "general2", "simple", "dot", "concat")
CONCAT_WIDTH = 100
"""Width of the hidden layer that scores the history with `concat`."""


class DialogueRNNs(nn.Module):
    r"""DialogueRNN's recurrence (Majumder et al., 2019), one of its own for each of several inputs, all in one loop.

    With s the speaker of utterance t, the states g (global), q (of each party) and e (emotion) start at zero, and

    .. math::
        g_t &= \mathrm{GRU}_G(u_t \,\|\, q^s_{t-1},\; g_{t-1}) \\
        c_t &= \sum_{j < t} \mathrm{softmax}_j(\mathrm{score}(g_j, u_t))\; g_j \\
        q^s_t &= \mathrm{GRU}_P(u_t \,\|\, c_t,\; q^s_{t-1}) \\
        e_t &= \mathrm{GRU}_E(q^s_t,\; e_{t-1})

    The other parties keep their states, or with `listener` take :math:`\mathrm{GRU}_L(u_t \,\|\, q^s_t, q^p_{t-1})`.
    The backward direction reads each conversation from its last utterance to its first.

    The reverse-mode derivative is written by hand, which makes a step of training faster; see `BiGRU` for what JAX
    refuses then. `custom_derivative=False` computes the same values by a plain `jax.lax.scan`, as `listener` and
    `concat` always do; that keeps the whole history of every step for the way back.

    Attributes:
      d_g: width of the global state.
      d_p: width of a party's state.
      d_e: width of the emotion in one direction.
      context_attention: score of g by u: `general` (g · u W), `general2` (g · (u W + b)), `simple` (w · g, which does
        not see u), `dot` (g · u, needs inputs as wide as g) or `concat` (v · tanh((g ‖ u) W)).
      bidirectional: False = forward only.
      listener: whether the parties that listen are updated too.
      speakers: parties that `listener` tells apart; further ones share the last state. Without it there is no limit.
      dropout_rate: on g, q and e at every step; what is dropped is what is carried on.
      kernel_init: initializer of kernels that multiply inputs, and of the attention.
      recurrent_kernel_init: of the GRUs' state kernels.
      bias_init: of the biases.
      dtype: of the computation; None = that of the inputs and the parameters.
      param_dtype: of the parameters.
      custom_derivative: False = a scan that JAX differentiates itself, in any mode and order.

    Examples:
      >>> layer, x = DialogueRNNs(d_g=6, d_p=5, d_e=4), {"text": jnp.ones((2, 5, 8))}
      >>> speakers, mask = jnp.array([[0, 1, 0, 1, 1]] * 2), jnp.ones((2, 5), bool)
      >>> out, _ = layer.init_with_output(jax.random.key(0), x, speakers, mask)
      >>> out["text"].shape
      (2, 5, 8)
    """

    d_g: int
    d_p: int
    d_e: int
    context_attention: str = "general"
    bidirectional: bool = True
    listener: bool = False
    speakers: int = 2
    dropout_rate: float = 0.0
    kernel_init: Initializer = torch_uniform
    recurrent_kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, jax.Array],
        speakers: jax.Array,
        mask: jax.Array,
        *,
        segments: Segments | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Reads conversations.

        Args:
          features: modality -> float `[B, T, D_m]`; values where `mask` is False do not matter. The modality starts the
            names of its recurrence's parameters.
          speakers: int `[B, T]`, numbered within a conversation from 0 on.
          mask: bool `[B, T]`, True where an utterance is real.
          segments: the conversations of packed rows; None = one per row.
          train: whether dropout is on; needs the random stream `dropout` then.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          Modality -> the emotions of both directions side by side, `[B, T, 2 d_e]`; zero where `mask` is False.

        Raises:
          TypeError, ValueError: for an unknown attention, a width that does not fit, or an argument of another kind or
            shape.
        """
        self._check(features, speakers, mask, segments)
        length = mask.shape[1]
        ids = (one_per_row(*mask.shape) if segments is None else segments).ids
        late = padded_length(length) - length
        directions = {"forward": lambda x: x, "backward": lambda x: x[:, ::-1]}
        if not self.bidirectional:
            del directions["backward"]
        x = {m: _later(jnp.where(mask[..., None], x, 0), late) for m, x in features.items()}
        weights, inputs = zip(
            *(self._maps(f"{m}_{name}" if m else name, order(x[m])) for m in x for name, order in directions.items()),
            strict=True,
        )
        spoken = _later(speakers, late), _later(mask, late), _later(ids, late, mode="edge")
        in_order = [turns(*map(order, spoken)) for order in directions.values()]
        inputs = _stacked(inputs)
        scales = self._scales(inputs.query, train, row_ids)
        arguments = _stacked(weights), inputs, scales, _stacked(in_order * len(features))
        if self.custom_derivative and not self.listener and self.context_attention != "concat":
            emotions = recurrence(*arguments)
        else:
            emotions = scan_recurrence(*arguments, self.speakers if self.listener else 0)
        of_each = unstacked(emotions.reshape(len(x), len(directions), *emotions.shape[1:]))
        in_time = (
            [order(e) for order, e in zip(directions.values(), unstacked(both), strict=True)] for both in of_each
        )
        joined = {m: jnp.concatenate(both, axis=-1)[:, :length] for m, both in zip(x, in_time, strict=True)}
        return {m: jnp.where(mask[..., None], e, 0) for m, e in joined.items()}

    def _maps(self, name: str, x: jax.Array) -> tuple[Weights, Inputs]:
        """Returns one recurrence's weights, without the axis `G`, and the utterances' parts of its maps."""
        width = x.shape[-1]
        gru = {
            "global": self._gru(f"{name}_global", width + self.d_p, self.d_g),
            "party": self._gru(f"{name}_party", width + self.d_g, self.d_p),
            "emotion": self._gru(f"{name}_emotion", self.d_p, self.d_e),
        }
        if self.listener:
            gru["listener"] = self._gru(f"{name}_listener", width + self.d_p, self.d_p)
        attention = self._attention(f"{name}_attention", width)
        x, gru, attention = _promoted((x, gru, attention), self.dtype)
        of_global, of_party, of_emotion = gru["global"], gru["party"], gru["emotion"]
        kernels = {name: of.input_kernel[:width] for name, of in gru.items() if name != "emotion"}
        if self.context_attention in ("general", "general2"):
            kernels["query"] = attention["kernel"]
        elif self.context_attention == "concat":
            kernels["query"] = attention["kernel"][self.d_g :]
        ends = list(itertools.accumulate(kernel.shape[1] for kernel in kernels.values()))
        products = jnp.split(x @ jnp.concatenate(list(kernels.values()), axis=1), ends[:-1], axis=-1)
        of_utterance = dict(zip(kernels, products, strict=True))
        for part, of in gru.items():
            if part in of_utterance:
                of_utterance[part] += of.input_bias[None, None]
        if self.context_attention == "general2":
            of_utterance["query"] += attention["bias"][None, None]
        elif self.context_attention == "simple":
            of_utterance["query"] = jnp.broadcast_to(attention["kernel"].T[None], (*x.shape[:2], self.d_g))
        elif self.context_attention == "dot":
            of_utterance["query"] = x
        concatenation = listening = None
        if self.context_attention == "concat":
            concatenation = Concatenation(attention["kernel"][: self.d_g], attention["score"][:, 0])
        if self.listener:
            of_listeners = gru["listener"]
            listening = Listening(of_listeners.input_kernel[width:], of_listeners.state_kernel, of_listeners.state_bias)
        weights = Weights(
            party_kernel=jnp.concatenate([of_global.input_kernel[width:], of_party.state_kernel], axis=1),
            global_kernel=of_global.state_kernel,
            global_bias=of_global.state_bias,
            context_kernel=of_party.input_kernel[width:],
            party_bias=of_party.state_bias,
            spoken_kernel=of_emotion.input_kernel,
            spoken_bias=of_emotion.input_bias,
            emotion_kernel=of_emotion.state_kernel,
            emotion_bias=of_emotion.state_bias,
            concatenation=concatenation,
            listening=listening,
        )
        return weights, Inputs(
            of_utterance["global"], of_utterance["party"], of_utterance["query"], of_utterance.get("listener")
        )

    def _gru(self, name: str, width: int, hidden: int) -> RecurrentWeights:
        return recurrent_weights(
            self,
            name,
            width,
            hidden,
            gates=3,
            kernel_init=self.kernel_init,
            recurrent_kernel_init=self.recurrent_kernel_init,
            bias_init=self.bias_init,
            param_dtype=self.param_dtype,
        )

    def _attention(self, name: str, width: int) -> dict[str, jax.Array]:
        """Creates the parameters that score the history."""

        def parameter(suffix: str, init: Initializer, fan_in: int, *shape: int) -> jax.Array:
            return self.param(f"{name}_{suffix}", with_fan_in(init, fan_in), shape, self.param_dtype)

        if self.context_attention == "dot":
            return {}
        if self.context_attention == "simple":
            return {"kernel": parameter("kernel", self.kernel_init, self.d_g, self.d_g, 1)}
        if self.context_attention == "concat":
            both = self.d_g + width
            return {
                "kernel": parameter("kernel", self.kernel_init, both, both, CONCAT_WIDTH),
                "score": parameter("score", self.kernel_init, CONCAT_WIDTH, CONCAT_WIDTH, 1),
            }
        made = {"kernel": parameter("kernel", self.kernel_init, width, width, self.d_g)}
        if self.context_attention == "general2":
            made["bias"] = parameter("bias", self.bias_init, width, self.d_g)
        return made

    def _scales(self, like: jax.Array, train: bool, row_ids: jax.Array | None) -> Scales | None:
        """Draws the dropout of all steps, for states like `[G, B, T, _]`."""
        if not train or not self.dropout_rate:
            return None
        groups, rows, length, _ = like.shape

        def drawn(*shape: int) -> jax.Array:
            # Rows are first where dropout is drawn.
            ones = jnp.ones((rows, groups, length, *shape), like.dtype)
            return jnp.swapaxes(ConversationDropout(self.dropout_rate)(ones, train=True, row_ids=row_ids), 0, 1)

        listeners = drawn(self.speakers, self.d_p) if self.listener else None
        return Scales(drawn(self.d_g), drawn(self.d_p), drawn(self.d_e), listeners)

    def _check(
        self, features: Mapping[str, jax.Array], speakers: jax.Array, mask: jax.Array, segments: Segments | None
    ) -> None:
        check_choice("context_attention", self.context_attention, CONTEXT_ATTENTIONS)
        check_at_least_one(d_g=self.d_g, d_p=self.d_p, d_e=self.d_e, speakers=self.speakers)
        check_rate("dropout_rate", self.dropout_rate)
        check_arrays(
            mask=(mask, "bool [B, T]"),
            speakers=(speakers, "int [B, T]"),
            features=(features, "modality -> float [B, T, _]"),
        )
        check_segments(segments, mask.shape[1], mask.shape[0])
        for x in features.values():
            if self.context_attention == "dot" and x.shape[-1] != self.d_g:
                raise ValueError(
                    f"context_attention: dot needs features as wide as d_g, {self.d_g}, but they are {x.shape[-1]} wide"
                )


def _later(x: jax.Array, count: int, **options: Any) -> jax.Array:
    """Appends `count` steps."""
    return jnp.pad(x, ((0, 0), (0, count), *((0, 0),) * (x.ndim - 2)), **options)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _promoted(tree: Any, dtype: Dtype | None) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, promote_dtype(*leaves, dtype=dtype))
