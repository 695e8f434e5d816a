"""Attention within and across modalities, all paths at once (LPGNet's local-parallel interaction, steps 2 and 3)."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jmer.layers.attention import attention_weights
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import kernel_and_bias
from jmer.layers.pooling import mean_pool
from jmer.layers.stacking import unstacked
from jmer.segments import Segments

Path = tuple[str, str]

FOUR_PATHS: tuple[Path, ...] = (("text", "text"), ("audio", "audio"), ("audio", "text"), ("text", "audio"))
PROJECTIONS = ("per_path", "shared", "identity")


class FourWayParallelAttention(nn.Module):
    """Masked dot-product attention from source to target modalities, computed as one batched attention.

    On a path (source, target) the target's positions ask and the source's answer: with X the features,
    C = softmax(X_target W_Q (X_source W_K)ᵀ / √d) X_source W_V over the source's real positions, with d the width of
    a head. By default there are the four paths of LPGNet: within text, within audio, audio to text and text to audio.

    Attributes:
      num_heads: number of attention heads; divides the width.
      projections: `per_path` has W_Q, W_K, W_V for every path, `shared` for every modality, `identity` has none.
      bias: whether these projections have biases.
      output_projection: True = a linear layer with bias after each path's attention.
      dropout_rate: rate, on the attention weights.
      paths: the (source, target) pairs.
      pool_queries: True = a conversation asks but once, with the mean of its target positions' queries; O(T) instead
        of O(T²).
      initialization: of each matrix and bias on its own, see `jmer.layers.initializers`.
    """

    num_heads: int = 1
    projections: str = "per_path"
    bias: bool = False
    output_projection: bool = False
    dropout_rate: float = 0.0
    paths: tuple[Path, ...] = FOUR_PATHS
    pool_queries: bool = False
    initialization: str = "torch_uniform"

    @nn.compact
    def __call__(
        self,
        features: Mapping[str, jax.Array],
        masks: Mapping[str, jax.Array],
        *,
        segments: Segments | None = None,
        train: bool = False,
        row_ids: jax.Array | None = None,
    ) -> dict[Path, jax.Array]:
        """Returns the context of every path, on the target's positions.

        Args:
          features: modality -> float32 `[..., T_m, D]`; lengths may differ between modalities, the width may not.
          masks: modality -> bool `[..., T_m]`, True = real; what stands elsewhere does not matter.
          segments: the conversations of each row, which see nothing of each other; features are `[B, T, D]`. None = one
            in each row.
          train: whether dropout is on; features are then `[B, ..., T_m, D]`, and the random stream `dropout` is needed.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          (source, target) -> float32 `[..., T_target, D]`, or `[..., K, D]` with `pool_queries`; zero where the target
          is padding, and (up to the output projection's bias) where the source has no real position.

        Raises:
          ValueError: for unknown projections, a path with a missing modality, or heads that do not divide the width.
        """
        names = sorted({m for path in self.paths for m in path})
        self._check(names, features)
        lengths = {m: features[m].shape[-2] for m in names}
        # Shorter modalities are padded to the longest, so that all paths are one product.
        longest = max(lengths.values())
        x = jnp.stack([_pad(jnp.where(masks[m][..., None], features[m], 0), longest, axis=-2) for m in names])
        mask = jnp.stack([_pad(masks[m], longest, axis=-1) for m in names])
        sources, targets = ([names.index(path[end]) for path in self.paths] for end in (0, 1))
        asking, asked = x, mask
        if self.pool_queries:
            asking, asked = _pooled(x, mask, segments)
        query = self._project(asking, targets, "query")
        key, value = self._project(x, sources, "key"), self._project(x, sources, "value")
        query, key, value = map(self._split_heads, (query, key, value))
        pairs = _pairs(segments, pooled=self.pool_queries)
        weights = attention_weights(query, key, _chosen(mask, sources), pair_mask=pairs)
        if train and self.dropout_rate:
            # Paths go behind rows, which dropout is keyed by, and back.
            weights = jnp.moveaxis(weights, 0, 1)
            weights = ConversationDropout(self.dropout_rate)(weights, train=train, row_ids=row_ids)
            weights = jnp.moveaxis(weights, 1, 0)
        context = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        context = context.reshape(*context.shape[:-2], -1)
        if self.output_projection:
            context = self._linear(context, "output", bias=True)
        context = jnp.where(_chosen(asked, targets)[..., None], context, 0)
        contexts = zip(self.paths, unstacked(context), strict=True)
        return {path: x[..., : lengths[path[1]], :] for path, x in contexts}

    def _project(self, x: jax.Array, chosen: Sequence[int], name: str) -> jax.Array:
        """From `[M, ..., T, D]` per modality to `[P, ..., T, D]` per path."""
        if self.projections == "per_path":
            return self._linear(_chosen(x, chosen), name, self.bias)
        return _chosen(self._linear(x, name, self.bias) if self.projections == "shared" else x, chosen)

    def _linear(self, x: jax.Array, name: str, bias: bool) -> jax.Array:
        """Applies to each entry of the first axis a linear layer of its own."""
        stack, width = x.shape[0], x.shape[-1]
        kernel_init, bias_init = kernel_and_bias(self.initialization, width)
        kernel = self.param(name, _each(kernel_init), (stack, width, width))
        product = jnp.einsum("p...d,pde->p...e", x, kernel)
        if not bias:
            return product
        offset = self.param(f"{name}_bias", bias_init, (stack, width))
        return product + offset.reshape(stack, *(1,) * (x.ndim - 2), width)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def _check(self, names: list[str], features: Mapping[str, jax.Array]) -> None:
        if self.projections not in PROJECTIONS:
            raise ValueError(f"unknown projections '{self.projections}'; choose one of {', '.join(PROJECTIONS)}")
        if missing := [m for m in names if m not in features]:
            raise ValueError(f"a path needs {', '.join(missing)}, but the features are of {', '.join(features)}")
        widths = {m: features[m].shape[-1] for m in names}
        if len(set(widths.values())) > 1:
            raise ValueError(f"all modalities must have one width, but they have {widths}")
        if widths[names[0]] % self.num_heads:
            raise ValueError(
                f"num_heads must divide the width, but {self.num_heads} does not divide {widths[names[0]]}"
            )


def _pooled(x: jax.Array, mask: jax.Array, segments: Segments | None) -> tuple[jax.Array, jax.Array]:
    """From `[M, ..., T, D]` to each conversation's mean `[M, ..., K, D]`, and which have any position `[M, ..., K]`."""
    if segments is None:
        return mean_pool(x, mask)[..., None, :], mask.any(-1, keepdims=True)
    return jax.vmap(segments.mean)(x, mask), jax.vmap(segments.any)(mask)


def _pairs(segments: Segments | None, *, pooled: bool) -> jax.Array | None:
    """Returns which positions a query may see, on all paths alike: bool `[1, B, T or K, T]`, or None for all."""
    if segments is None or segments.count == 1:
        return None
    return (segments.membership() if pooled else segments.together())[None]


def _chosen(x: jax.Array, entries: Sequence[int]) -> jax.Array:
    """Returns some entries of the first axis; the derivative adds up what each of them got, and scatters nothing."""
    all_entries = unstacked(x)
    return jnp.stack([all_entries[i] for i in entries])


def _pad(x: jax.Array, length: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, widths)


def _each(init: Callable) -> Callable:
    """The initializer that draws each matrix of a stack on its own: the stack is no part of the fan-in."""

    def stack(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.vmap(lambda k: init(k, shape[1:]))(jax.random.split(key, shape[0]))

    return stack
