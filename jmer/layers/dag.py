"""The directed acyclic graph network of DAG-ERC (Shen et al., 2021), LFVD's Eq. 3."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.dag_recurrence import Links, Weights, links, recurrence
from jmer.layers.initializers import dense, kernel_and_bias
from jmer.layers.recurrent import gru_weights
from jmer.segments import Segments


def predecessor_graph(
    speakers: jax.Array, mask: jax.Array, *, window: int = 1, segments: Segments | None = None
) -> tuple[jax.Array, jax.Array]:
    """Links each utterance to what was said since its speaker's `window`-th last utterance, that one included.

    Where the speaker has spoken less often before, all earlier utterances of the conversation are linked (DAG-ERC;
    ω = window).

    Args:
      speakers: int32 `[B, T]`, numbered within a conversation: one number in two conversations is two people.
      mask: bool `[B, T]`, True where an utterance is real; padding must come last.
      window: ω, at least 1.
      segments: the conversations of each row, None = one per row.

    Returns:
      adjacency: bool `[B, T, T]`, True at `[b, i, j]` where `j < i` is linked to `i`.
      same_speaker: bool `[B, T, T]`, True where real utterances `i` and `j` of one conversation have one speaker.

    Raises:
      ValueError: if `window` is below 1.
    """
    if window < 1:
        raise ValueError(f"the graph's window must be at least 1, not {window}")
    real = mask[:, :, None] & mask[:, None, :]
    if segments is not None:
        real &= segments.together()
    same_speaker = real & (speakers[:, :, None] == speakers[:, None, :])
    earlier = jnp.tri(speakers.shape[1], k=-1, dtype=bool)[None]
    own = jnp.where(earlier, same_speaker, False).astype(jnp.int32)
    own_from_here = jnp.flip(jnp.cumsum(jnp.flip(own, -1), -1), -1)
    own_after_here = own_from_here - own
    return real & earlier & (own_after_here < window), same_speaker


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

    def setup(self):
        width, scheme = self.width, self.initialization
        score_kernel, score_bias = kernel_and_bias(scheme, 2 * width)
        relation_kernel, _ = kernel_and_bias(scheme, width)
        self.weights = Weights(
            query=self.param("score_query_kernel", score_kernel, (width, 1))[:, 0],
            key=self.param("score_key_kernel", score_kernel, (width, 1))[:, 0],
            score_bias=self.param("score_bias", score_bias, ()),
            same=self.param("same_speaker_kernel", relation_kernel, (width, width)),
            other=self.param("other_speaker_kernel", relation_kernel, (width, width)),
            node=gru_weights(self, "node", width, width, scheme),
            context=gru_weights(self, "context", width, width, scheme),
        )

    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Maps `x` `[B, T, H]` along `adjacency` and `same_speaker` (bool `[B, T, T]`) to `[B, T, H]`.

        An utterance is real where it has the same speaker as itself; elsewhere the result is zero.
        """
        out = jnp.moveaxis(self.in_time(jnp.moveaxis(x, 1, 0), links(adjacency, same_speaker)), 0, 1)
        return jnp.where(jnp.diagonal(same_speaker, axis1=1, axis2=2)[..., None], out, 0)

    def in_time(self, x: jax.Array, graph: Links) -> jax.Array:
        """Maps `x` `[T, B, H]` along `graph` to `[T, B, H]`; what it gives for padding means nothing."""
        return recurrence(self.slope, self.weights, x, graph)


class DAGEncoder(nn.Module):
    """Encodes conversations along their speakers' graph (LFVD Eq. 3; DAG-ERC up to its classifier's first layer).

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
        x = jnp.moveaxis(x, 1, 0)
        read = nn.relu(dense(self.hidden, x.shape[-1], scheme=scheme, name="input")(x))
        graph, states = links(adjacency, same_speaker), [read]
        for layer in range(self.layers):
            layer = DAGLayer(self.hidden, self.slope, scheme, name=f"layer_{layer}")
            states.append(layer.in_time(states[-1], graph))
        if self.output == "last":
            return jnp.moveaxis(states[-1], 0, 1)
        together = jnp.concatenate([*states, x], axis=-1)
        return jnp.moveaxis(
            nn.relu(dense(self.width, together.shape[-1], scheme=scheme, name="output")(together)), 0, 1
        )
