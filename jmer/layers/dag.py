"""The directed acyclic graph network of DAG-ERC (Shen et al., 2021), LFVD's Eq. 3."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.initializers import dense, kernel_and_bias
from jmer.layers.recurrent import gru_update, gru_weights


def predecessor_graph(speakers: jax.Array, mask: jax.Array, *, window: int = 1) -> tuple[jax.Array, jax.Array]:
    """Links each utterance to what was said since its speaker's `window`-th last utterance, that one included.

    Where the speaker has spoken less often before, all earlier utterances are linked (DAG-ERC; ω = window).

    Args:
      speakers: int32 `[B, T]`.
      mask: bool `[B, T]`, True where an utterance is real; padding must come last.
      window: ω, at least 1.

    Returns:
      adjacency: bool `[B, T, T]`, True at `[b, i, j]` where `j < i` is linked to `i`.
      same_speaker: bool `[B, T, T]`, True where real utterances `i` and `j` have one speaker.

    Raises:
      ValueError: if `window` is below 1.
    """
    if window < 1:
        raise ValueError(f"the graph's window must be at least 1, not {window}")
    real = mask[:, :, None] & mask[:, None, :]
    same_speaker = real & (speakers[:, :, None] == speakers[:, None, :])
    earlier = jnp.tri(speakers.shape[1], k=-1, dtype=bool)[None]
    own = jnp.where(earlier, same_speaker, False).astype(jnp.int32)
    own_from_here = jnp.flip(jnp.cumsum(jnp.flip(own, -1), -1), -1)
    own_after_here = own_from_here - own
    return real & earlier & (own_after_here < window), same_speaker


class _Weights(NamedTuple):
    """What a layer's recurrence multiplies with.

    key `[H]` scores a predecessor; relation `[2H, H]` transforms the sums over predecessors of the same and of other
    speakers; message `[H, 6H]` and message_bias `[6H]` map the message into both GRUs.
    """

    key: jax.Array
    relation: jax.Array
    message: jax.Array
    message_bias: jax.Array


class _Hoisted(NamedTuple):
    """What each utterance brings along from the layer below, computed for all of them at once.

    query `[T, B]`, state `[T, B, H]`, node_input and context_state `[T, B, 3H]`.
    """

    query: jax.Array
    state: jax.Array
    node_input: jax.Array
    context_state: jax.Array


class _Graph(NamedTuple):
    """Links of each utterance to its predecessors, and which of these its own speaker said: bool `[T, B, T]` each."""

    adjacency: jax.Array
    same_speaker: jax.Array


def _attend(slope: float, graph: _Graph, query: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns each predecessor's weight, `[B, 2, T]`: among those of the same speaker, and among the others.

    `keys` `[B, T]` need to be right at the predecessors of this step's utterances only.
    """
    score = nn.leaky_relu(query[:, None] + keys, slope)
    attention = jax.nn.softmax(score, where=graph.adjacency)
    same = jnp.where(graph.same_speaker, attention, 0)
    return jnp.stack([same, attention - same], axis=1)


def _combine(hoisted: _Hoisted, message: jax.Array, from_message: jax.Array) -> jax.Array:
    """Returns `GRU_C(H, M) + GRU_P(M, H)`, `[B, H]`."""
    as_state, as_input = jnp.split(from_message, 2, axis=-1)
    node = gru_update(hoisted.node_input, as_state, message)
    context = gru_update(as_input, hoisted.context_state, hoisted.state)
    return node + context


def _forward(slope: float, weights: _Weights, hoisted: _Hoisted, graph: _Graph):
    steps, batch, width = hoisted.state.shape

    def step(carry, inputs):
        nodes, keys = carry
        t, hoisted, graph = inputs
        attention = _attend(slope, graph, hoisted.query, keys)
        sums = jnp.einsum("bsj,bjh->bsh", attention, nodes).reshape(batch, -1)
        message = sums @ weights.relation
        node = _combine(hoisted, message, message @ weights.message + weights.message_bias[None])
        nodes = jax.lax.dynamic_update_index_in_dim(nodes, node, t, 1)
        keys = jax.lax.dynamic_update_index_in_dim(keys, node @ weights.key, t, 1)
        return (nodes, keys), (sums, message)

    empty = jnp.zeros((batch, steps, width), hoisted.state.dtype)
    (nodes, keys), history = jax.lax.scan(step, (empty, empty[..., 0]), (jnp.arange(steps), hoisted, graph))
    return nodes, keys, history


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(slope: float, weights: _Weights, hoisted: _Hoisted, graph: _Graph) -> jax.Array:
    """Runs one layer over the utterances in order, `[B, T, H]`."""
    return _forward(slope, weights, hoisted, graph)[0]


def _recurrence_forward(slope, weights, hoisted, graph):
    nodes, keys, history = _forward(slope, weights, hoisted, graph)
    return nodes, (weights, hoisted, graph, nodes, keys, history)


def _recurrence_backward(slope, saved, nodes_bar):
    """Walks back in time; the weights' gradients are one product each over all utterances afterwards.

    Plain reverse mode would save the growing buffer of nodes at every utterance and add up weight-sized gradients
    inside the loop. Predecessors come earlier, so the finished buffer serves every step.
    """
    weights, hoisted, graph, nodes, keys, (sums, messages) = saved
    # Laid out once for products that would otherwise run along the memory's slow direction at every step.
    nodes_across, relation_back, message_back = jax.lax.optimization_barrier(
        (jnp.swapaxes(nodes, 1, 2), weights.relation.T, weights.message.T)
    )

    def step(carry, inputs):
        nodes_bar, keys_bar = carry
        t, hoisted, graph, message = inputs
        key_bar = jax.lax.dynamic_index_in_dim(keys_bar, t, 1, keepdims=False)
        node_bar = jax.lax.dynamic_index_in_dim(nodes_bar, t, 1, keepdims=False)
        node_bar = node_bar + key_bar[:, None] * weights.key[None]
        from_message = message @ weights.message + weights.message_bias[None]
        _, combine_vjp = jax.vjp(_combine, hoisted, message, from_message)
        hoisted_bar, message_bar, from_message_bar = combine_vjp(node_bar)
        message_bar = message_bar + from_message_bar @ message_back
        sums_bar = (message_bar @ relation_back).reshape(message.shape[0], 2, -1)
        attention, attend_vjp = jax.vjp(functools.partial(_attend, slope, graph), hoisted.query, keys)
        query_bar, earlier_keys_bar = attend_vjp(jnp.einsum("bsh,bhj->bsj", sums_bar, nodes_across))
        nodes_bar = nodes_bar + jnp.einsum("bsj,bsh->bjh", attention, sums_bar)
        carry = nodes_bar, keys_bar + earlier_keys_bar
        return carry, (hoisted_bar._replace(query=query_bar), message_bar, from_message_bar)

    inputs = (jnp.arange(nodes.shape[1]), hoisted, graph, messages)
    (_, keys_bar), (hoisted_bar, messages_bar, from_messages_bar) = jax.lax.scan(
        step, (nodes_bar, jnp.zeros_like(keys)), inputs, reverse=True
    )
    weights_bar = _Weights(
        key=jnp.einsum("bt,bth->h", keys_bar, nodes),
        relation=jnp.einsum("tbi,tbo->io", sums, messages_bar),
        message=jnp.einsum("tbi,tbo->io", messages, from_messages_bar),
        message_bias=from_messages_bar.sum((0, 1)),
    )
    return weights_bar, hoisted_bar, None


_recurrence.defvjp(_recurrence_forward, _recurrence_backward)


class DAGLayer(nn.Module):
    """One layer of DAG-ERC: each utterance hears its predecessors' new states (Shen et al., 2021).

    Attributes:
      width: `H`, also the width of the input.
      slope: slope of the scores below zero; 1 = linear scores, as in DAG-ERC's code, where an utterance's own part
        cancels in the softmax; 0.01 makes a LeakyReLU of it, in which that part counts.
      initialization: see `jmer.layers.initializers`.
    """

    width: int
    slope: float = 1.0
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Maps `x` `[B, T, H]` along `adjacency` and `same_speaker` (bool `[B, T, T]`) to `[B, T, H]`."""
        width, scheme = self.width, self.initialization
        score_kernel, score_bias = kernel_and_bias(scheme, 2 * width)
        relation_kernel, _ = kernel_and_bias(scheme, width)
        query = self.param("score_query_kernel", score_kernel, (width, 1))[:, 0]
        key = self.param("score_key_kernel", score_kernel, (width, 1))[:, 0]
        bias = self.param("score_bias", score_bias, ())
        same = self.param("same_speaker_kernel", relation_kernel, (width, width))
        other = self.param("other_speaker_kernel", relation_kernel, (width, width))
        node = gru_weights(self, "node", width, width, scheme)
        context = gru_weights(self, "context", width, width, scheme)

        def for_all(kernel, offset):
            return jnp.einsum("bti,io->tbo", x, kernel) + offset[None, None]

        hoisted = _Hoisted(
            query=jnp.einsum("bti,i->tb", x, query) + bias,
            state=jnp.moveaxis(x, 1, 0),
            node_input=for_all(node.input_kernel, node.input_bias),
            context_state=for_all(context.state_kernel, context.state_bias),
        )
        weights = _Weights(
            key=key,
            relation=jnp.concatenate([same, other]),
            message=jnp.concatenate([node.state_kernel, context.input_kernel], -1),
            message_bias=jnp.concatenate([node.state_bias, context.input_bias]),
        )
        graph = _Graph(jnp.moveaxis(adjacency, 1, 0), jnp.moveaxis(same_speaker, 1, 0))
        return _recurrence(self.slope, weights, hoisted, graph)


class DAGEncoder(nn.Module):
    """Encodes a conversation along its speakers' graph (LFVD Eq. 3; DAG-ERC up to its classifier's first layer).

    Attributes:
      width: width of the output.
      hidden: `H`, width of the layers.
      layers: number of layers.
      output: `concat_proj` (a ReLU layer over the states of all layers and the input) or `last` (the last layer, which
        needs `width` = `hidden`).
      slope: see `DAGLayer`.
      initialization: see `jmer.layers.initializers`.
    """

    width: int
    hidden: int
    layers: int
    output: str = "concat_proj"
    slope: float = 1.0
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Maps `x` `[B, T, D]` along `adjacency` and `same_speaker` (bool `[B, T, T]`) to `[B, T, width]`.

        Raises:
          ValueError: for an unknown `output`, or `last` with two widths.
        """
        if self.output not in ("concat_proj", "last"):
            raise ValueError(f"dag_output must be concat_proj or last, not '{self.output}'")
        if self.output == "last" and self.width != self.hidden:
            raise ValueError(f"dag_output last needs equal widths, not {self.hidden} inside and {self.width} outside")
        scheme = self.initialization
        states = [nn.relu(dense(self.hidden, x.shape[-1], scheme=scheme, name="input")(x))]
        for layer in range(self.layers):
            layer = DAGLayer(self.hidden, self.slope, scheme, name=f"layer_{layer}")
            states.append(layer(states[-1], adjacency, same_speaker))
        if self.output == "last":
            return states[-1]
        together = jnp.concatenate([*states, x], axis=-1)
        return nn.relu(dense(self.width, together.shape[-1], scheme=scheme, name="output")(together))
