"""The directed acyclic graph network of DAG-ERC (Shen et al., 2021), LFVD's Eq. 3."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_arrays, check_at_least_one, check_choice
from jmer.layers.dag_layers import Options, graph_for, states
from jmer.layers.dag_recurrence import Weights, links, scan_states
from jmer.layers.initializers import Dtype, Initializer, dense, layer_options, torch_uniform, with_fan_in
from jmer.layers.precision import at_least_float32
from jmer.layers.recurrent import RecurrentWeights, recurrent_weights
from jmer.segments import Segments, check_segments

OUTPUTS = ("concat_proj", "last")
KERNELS = ("auto", "pallas")


def predecessor_graph(
    speakers: jax.Array, mask: jax.Array, *, window: int = 1, segments: Segments | None = None
) -> tuple[jax.Array, jax.Array]:
    r"""Links each utterance to all utterances since its speaker's ω-th last one, that one included (DAG-ERC).

    .. math:: j \to i \iff j < i \;\text{and}\; |\{k : j < k < i,\; s_k = s_i\}| < \omega

    A speaker who has spoken less often before is linked to all earlier utterances of the conversation.

    Args:
      speakers: int `[B, T]`, numbered within a conversation: one number in two conversations is two people.
      mask: bool `[B, T]`, True where an utterance is real.
      window: ω, at least 1.
      segments: the conversations of packed rows; None = one per row.

    Returns:
      adjacency: bool `[B, T, T]`, True at `[b, i, j]` where utterance `i` is linked to its predecessor `j`.
      same_speaker: bool `[B, T, T]`, True where real utterances `i` and `j` of one conversation have one speaker.

    Raises:
      TypeError, ValueError: for a window below 1, or an argument of another kind or shape.

    Examples:
      >>> adjacency, _ = predecessor_graph(jnp.array([[0, 1, 0]]), jnp.ones((1, 3), bool))
      >>> print(adjacency[0].astype(int))
      [[0 0 0]
       [1 0 0]
       [1 1 0]]
    """
    check_arrays(speakers=(speakers, "int [B, T]"), mask=(mask, "bool [B, T]"))
    check_at_least_one(window=window)
    rows, length = mask.shape
    check_segments(segments, length, rows)
    real = mask[:, :, None] & mask[:, None, :]
    if segments is not None:
        real &= segments.same_segment()
    same_speaker = real & (speakers[:, :, None] == speakers[:, None, :])
    earlier = jnp.tri(length, k=-1, dtype=bool)[None]
    own = jnp.where(earlier, same_speaker, False).astype(jnp.int32)
    own_from_here = jnp.flip(jnp.cumsum(jnp.flip(own, -1), -1), -1)
    own_after_here = own_from_here - own
    return real & earlier & (own_after_here < window), same_speaker


class DAGLayer(nn.Module):
    r"""One layer of DAG-ERC, in which an utterance attends to the new states of its predecessors (Shen et al., 2021).

    For utterance i with predecessors :math:`\mathcal{N}_i`, layer l and the layer below, l - 1:

    .. math::
        \alpha_{ij} &= \mathrm{softmax}_{j \in \mathcal{N}_i}\left(W_\alpha [H_j^l \,\|\, H_i^{l-1}]\right) \\
        M_i &= \sum_{j \in \mathcal{N}_i} \alpha_{ij} W_{r_{ij}} H_j^l \\
        H_i^l &= \mathrm{GRU}_C(H_i^{l-1}, M_i) + \mathrm{GRU}_P(M_i, H_i^{l-1})

    where r tells whether both have one speaker. The derivative is written by hand, as that of `BiGRU`, whose docstring
    tells which derivatives need `custom_derivative=False`.

    Attributes:
      features: `H`, width of the input and of the output.
      negative_slope: of scores below zero; 1 = linear scores, as in DAG-ERC's code, where an utterance's own part
        cancels in the softmax; 0.01 = a LeakyReLU, in which that part counts.
      kernel_init, bias_init: initializers; the score has the fan-in 2H.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.
      custom_derivative: False = a scan that JAX differentiates itself, in any mode and order; it takes more memory,
        O(T²) for a conversation of T utterances.
      kernel: what a TPU runs: `auto` (the compiler's program) or `pallas` (one kernel forward and one back, which has
        not run on a TPU yet). Other platforms have the compiler's program.

    Examples:
      >>> layer, x = DAGLayer(features=8), jnp.ones((1, 3, 8))
      >>> graph = predecessor_graph(jnp.array([[0, 1, 0]]), jnp.ones((1, 3), bool))
      >>> layer.init_with_output(jax.random.key(0), x, *graph)[0].shape
      (1, 3, 8)
    """

    features: int
    negative_slope: float = 1.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True
    kernel: str = "auto"

    def setup(self):
        check_at_least_one(features=self.features)
        check_choice("kernel", self.kernel, KERNELS)
        width = self.features
        score_kernel, score_bias = (with_fan_in(init, 2 * width) for init in (self.kernel_init, self.bias_init))

        def parameter(name: str, init: Initializer, *shape: int) -> jax.Array:
            return self.param(name, init, shape, self.param_dtype)

        def gru(name: str) -> RecurrentWeights:
            return recurrent_weights(
                self,
                name,
                width,
                width,
                gates=3,
                kernel_init=self.kernel_init,
                recurrent_kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                param_dtype=self.param_dtype,
            )

        self.weights = Weights(
            query=parameter("score_query_kernel", score_kernel, width, 1)[:, 0],
            key=parameter("score_key_kernel", score_kernel, width, 1)[:, 0],
            score_bias=parameter("score_bias", score_bias),
            same=parameter("same_speaker_kernel", self.kernel_init, width, width),
            other=parameter("other_speaker_kernel", self.kernel_init, width, width),
            node=gru("node"),
            context=gru("context"),
        )

    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Runs the layer along conversations.

        Args:
          x: float `[B, T, H]`; values of utterances that are not real do not matter.
          adjacency: bool `[B, T, T]`, see `predecessor_graph`.
          same_speaker: bool `[B, T, T]`, see `predecessor_graph`. An utterance is real where it has the same speaker as
            itself.

        Returns:
          `[B, T, H]`, zero where an utterance is not real.

        Raises:
          TypeError, ValueError: for an argument of another kind or shape.
        """
        check_graph(x, adjacency, same_speaker, width=self.features)
        real = _real(same_speaker)
        in_time = jnp.moveaxis(jnp.where(real, x, 0), 1, 0)
        (out,) = _run([self], in_time, adjacency, same_speaker)
        return jnp.where(real, jnp.moveaxis(out, 0, 1), 0)


def _run(layers: Sequence[DAGLayer], x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> list[jax.Array]:
    """Returns each layer's states, `[T, B, H]`, given what is below the first; those of padding mean nothing."""
    leaves, structure = jax.tree.flatten([layer.weights for layer in layers])
    x, *leaves = promote_dtype(x, *leaves, dtype=layers[0].dtype)
    dtype, (x, *leaves) = x.dtype, map(at_least_float32, (x, *leaves))
    weights, slope = jax.tree.unflatten(structure, leaves), layers[0].negative_slope
    if layers[0].custom_derivative:
        options = Options(slope, layers[0].kernel == "pallas")
        found = states(options, weights, x, graph_for(len(layers), adjacency, same_speaker))
    else:
        found = scan_states(slope, weights, x, links(adjacency, same_speaker))
    return [of_layer.astype(dtype) for of_layer in found]


def _layers(module: "DAGLayers | DAGEncoder", width: int) -> list[DAGLayer]:
    """Creates the layers of a module in it."""
    options = layer_options(module)
    return [
        DAGLayer(
            width,
            module.negative_slope,
            custom_derivative=module.custom_derivative,
            kernel=module.kernel,
            name=f"layer_{i}",
            **options,
        )
        for i in range(module.num_layers)
    ]


class DAGLayers(nn.Module):
    """Layers of DAG-ERC, one on the other; on accelerators all of them advance together.

    Attributes:
      features: `H`, width of the input and of the output.
      num_layers: `L`, number of layers.
      negative_slope, custom_derivative, kernel: see `DAGLayer`.
      kernel_init, bias_init: initializers of all layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> layers, x = DAGLayers(features=8, num_layers=2), jnp.ones((1, 3, 8))
      >>> graph = predecessor_graph(jnp.array([[0, 1, 0]]), jnp.ones((1, 3), bool))
      >>> layers.init_with_output(jax.random.key(0), x, *graph)[0].shape
      (2, 1, 3, 8)
    """

    features: int
    num_layers: int
    negative_slope: float = 1.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Runs the layers along conversations.

        Args:
          x: float `[B, T, H]`; values of utterances that are not real do not matter.
          adjacency: bool `[B, T, T]`, see `predecessor_graph`.
          same_speaker: bool `[B, T, T]`, see `predecessor_graph`. An utterance is real where it has the same speaker as
            itself.

        Returns:
          Each layer's states, `[L, B, T, H]`, zero where an utterance is not real.

        Raises:
          TypeError, ValueError: for a size below 1, or an argument of another kind or shape.
        """
        check_choice("kernel", self.kernel, KERNELS)
        check_at_least_one(features=self.features, num_layers=self.num_layers)
        check_graph(x, adjacency, same_speaker, width=self.features)
        real = _real(same_speaker)
        in_time = jnp.moveaxis(jnp.where(real, x, 0), 1, 0)
        made = jnp.stack(_run(_layers(self, self.features), in_time, adjacency, same_speaker))
        return jnp.where(real[None], jnp.moveaxis(made, 1, 2), 0)


class DAGEncoder(nn.Module):
    r"""The graph network of DAG-ERC up to its classifier's first layer (LFVD's Eq. 3).

    .. math::
        H^0 = \mathrm{ReLU}(X W_0 + b_0), \quad H^l = \mathrm{DAGLayer}_l(H^{l-1}), \quad
        \mathrm{ReLU}\left([H^0 \,\|\, \dots \,\|\, H^L \,\|\, X]\, W + b\right)

    Attributes:
      features: width of the output.
      hidden_features: `H`, width of the layers.
      num_layers: `L`, number of layers.
      output: `concat_proj` (as above) or `last` (the last layer's states, which need `features` = `hidden_features`).
      negative_slope, custom_derivative, kernel: see `DAGLayer`.
      kernel_init, bias_init: initializers of all layers.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> encoder, x = DAGEncoder(features=16, hidden_features=8, num_layers=2), jnp.ones((1, 3, 4))
      >>> graph = predecessor_graph(jnp.array([[0, 1, 0]]), jnp.ones((1, 3), bool))
      >>> encoder.init_with_output(jax.random.key(0), x, *graph)[0].shape
      (1, 3, 16)
    """

    features: int
    hidden_features: int
    num_layers: int
    output: str = "concat_proj"
    negative_slope: float = 1.0
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    custom_derivative: bool = True
    kernel: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> jax.Array:
        """Encodes conversations along their speakers' graph.

        Args:
          x: float `[B, T, D]`; values of utterances that are not real do not matter.
          adjacency: bool `[B, T, T]`, see `predecessor_graph`.
          same_speaker: bool `[B, T, T]`, see `predecessor_graph`. An utterance is real where it has the same speaker as
            itself.

        Returns:
          `[B, T, features]`; values of utterances that are not real mean nothing.

        Raises:
          TypeError, ValueError: for an unknown `output`, `last` with two widths, a size below 1, or an argument of
            another kind or shape.
        """
        self._check(x, adjacency, same_speaker)
        options = layer_options(self)
        x = jnp.moveaxis(jnp.where(_real(same_speaker), x, 0), 1, 0)
        below = nn.relu(dense(self.hidden_features, x.shape[-1], name="input", **options)(x))
        layers = _layers(self, self.hidden_features)
        made = [below, *_run(layers, below, adjacency, same_speaker)]
        if self.output == "last":
            return jnp.moveaxis(made[-1], 0, 1)
        concatenated = jnp.concatenate([*made, x], axis=-1)
        out = nn.relu(dense(self.features, concatenated.shape[-1], name="output", **options)(concatenated))
        return jnp.moveaxis(out, 0, 1)

    def _check(self, x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array) -> None:
        check_choice("output", self.output, OUTPUTS)
        check_choice("kernel", self.kernel, KERNELS)
        check_at_least_one(features=self.features, hidden_features=self.hidden_features, num_layers=self.num_layers)
        if self.output == "last" and self.features != self.hidden_features:
            raise ValueError(
                f"features: expected hidden_features, {self.hidden_features}, for output 'last', got {self.features}"
            )
        check_graph(x, adjacency, same_speaker)


def _real(same_speaker: jax.Array) -> jax.Array:
    """Returns which utterances of a graph are real, bool `[B, T, 1]`."""
    return jnp.diagonal(same_speaker, axis1=1, axis2=2)[..., None]


def check_graph(x: jax.Array, adjacency: jax.Array, same_speaker: jax.Array, width: int | None = None) -> None:
    """Checks that a batch and its graph fit; `width` is that of the batch, None = any."""
    check_arrays(
        x=(x, f"float [B, T, {width or 'D'}]"),
        adjacency=(adjacency, "bool [B, T, T]"),
        same_speaker=(same_speaker, "bool [B, T, T]"),
    )
