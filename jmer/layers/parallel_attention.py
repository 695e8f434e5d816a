"""Attention within and across modalities, all paths at once (LPGNet's local-parallel interaction, steps 2 and 3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jmer.checks import check_array, check_choice, check_divides, check_mapping, check_modalities, check_rate
from jmer.layers.attention import attention_weights
from jmer.layers.dropout import ConversationDropout
from jmer.layers.initializers import Dtype, Initializer, each, torch_uniform, with_fan_in
from jmer.layers.pooling import mean_pool
from jmer.layers.stacking import unstacked
from jmer.segments import Segments, check_segments

Path = tuple[str, str]

FOUR_PATHS: tuple[Path, ...] = (("text", "text"), ("audio", "audio"), ("audio", "text"), ("text", "audio"))
PROJECTIONS = ("per_path", "shared", "identity")


class FourWayParallelAttention(nn.Module):
    r"""Masked dot-product attention from source to target modalities, all paths as one batched attention (LPGNet).

    On a path from source s to target m the target's positions are the queries:

    .. math:: C_{s \to m} = \mathrm{softmax}\left(\frac{X_m W_Q (X_s W_K)^\top}{\sqrt{d}}\right) X_s W_V

    over the source's real positions, with d the width of a head. The default paths are LPGNet's four: within text,
    within audio, audio to text and text to audio.

    Attributes:
      num_heads: number of attention heads; divides the width.
      projections: `per_path` has W_Q, W_K, W_V for every path, `shared` for every modality, `identity` has none.
      qkv_bias: whether these projections have biases.
      output_projection: True = a linear layer with bias after each path's attention.
      dropout_rate: on the attention weights.
      paths: the (source, target) pairs.
      pool_queries: True = one query per conversation, the mean of its target positions; O(T) instead of O(T²).
      kernel_init, bias_init: initializers of each matrix and bias by itself.
      dtype: of the computation; None = that of the input and the parameters.
      param_dtype: of the parameters.

    Examples:
      >>> features = {"text": jnp.ones((2, 5, 8)), "audio": jnp.ones((2, 7, 8))}
      >>> masks = {"text": jnp.ones((2, 5), bool), "audio": jnp.ones((2, 7), bool)}
      >>> contexts, _ = FourWayParallelAttention(num_heads=2).init_with_output(jax.random.key(0), features, masks)
      >>> contexts["audio", "text"].shape
      (2, 5, 8)
    """

    num_heads: int = 1
    projections: str = "per_path"
    qkv_bias: bool = False
    output_projection: bool = False
    dropout_rate: float = 0.0
    paths: tuple[Path, ...] = FOUR_PATHS
    pool_queries: bool = False
    kernel_init: Initializer = torch_uniform
    bias_init: Initializer = torch_uniform
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

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
          features: modality -> float `[..., T_m, D]`; lengths may differ between modalities, the width may not.
            Modalities without a path are not used.
          masks: modality -> bool `[..., T_m]`, True = real; values elsewhere do not matter.
          segments: the conversations of packed rows, between which there is no attention; features are `[B, T, D]`.
            None = one per row.
          train: whether dropout is on; features are then `[B, ..., T_m, D]`, and the random stream `dropout` is needed.
          row_ids: int32 `[B]`, see `ConversationDropout`.

        Returns:
          (source, target) -> `[..., T_target, D]`, or `[..., K, D]` with `pool_queries`; zero where the target is
          padding, and (up to the output projection's bias) where the source has no real position.

        Raises:
          TypeError, ValueError: for unknown projections, a path with a missing modality, heads that do not divide the
            width, or an argument of another kind or shape.
        """
        names = sorted({m for path in self.paths for m in path})
        self._check(names, features, masks, segments)
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
        weights = attention_weights(query, key, _selected(mask, sources), pair_mask=pairs)
        if train and self.dropout_rate:
            # Paths go behind rows, which dropout is keyed by, and back.
            weights = jnp.moveaxis(weights, 0, 1)
            weights = ConversationDropout(self.dropout_rate)(weights, train=train, row_ids=row_ids)
            weights = jnp.moveaxis(weights, 1, 0)
        context = jnp.einsum("...hqk,...khd->...qhd", weights, value)
        context = context.reshape(*context.shape[:-2], -1)
        if self.output_projection:
            context = self._linear(context, "output", use_bias=True)
        context = jnp.where(_selected(asked, targets)[..., None], context, 0)
        contexts = zip(self.paths, unstacked(context), strict=True)
        return {path: x[..., : lengths[path[1]], :] for path, x in contexts}

    def _project(self, x: jax.Array, selection: Sequence[int], name: str) -> jax.Array:
        """From `[M, ..., T, D]` per modality to `[P, ..., T, D]` per path."""
        if self.projections == "per_path":
            return self._linear(_selected(x, selection), name, self.qkv_bias)
        if self.projections == "shared":
            return _selected(self._linear(x, name, self.qkv_bias), selection)
        return _selected(promote_dtype(x, dtype=self.dtype)[0], selection)

    def _linear(self, x: jax.Array, name: str, use_bias: bool) -> jax.Array:
        """Applies to each entry of the first axis a linear layer of its own."""
        stack, width = x.shape[0], x.shape[-1]
        kernel = self.param(name, each(self.kernel_init), (stack, width, width), self.param_dtype)
        if not use_bias:
            x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
            return jnp.einsum("p...d,pde->p...e", x, kernel)
        bias = self.param(f"{name}_bias", with_fan_in(self.bias_init, width), (stack, width), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return jnp.einsum("p...d,pde->p...e", x, kernel) + bias.reshape(stack, *(1,) * (x.ndim - 2), width)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.num_heads, -1)

    def _check(self, names: list[str], features: Mapping, masks: Mapping, segments: Segments | None) -> None:
        check_choice("projections", self.projections, PROJECTIONS)
        check_rate("dropout_rate", self.dropout_rate)
        sizes: dict[str, Any] = {}
        check_mapping("features", features, "float [..., T, D]")
        check_mapping("masks", masks, "bool [..., T]")
        check_modalities("features", features, names)
        check_modalities("masks", masks, names)
        for m in names:
            sizes.pop("T", None)
            check_array(f"features[{m!r}]", features[m], "float [..., T, D]", sizes)
            check_array(f"masks[{m!r}]", masks[m], "bool [..., T]", sizes)
            check_segments(segments, sizes["T"])
        check_divides("num_heads", self.num_heads, sizes["D"])


def _pooled(x: jax.Array, mask: jax.Array, segments: Segments | None) -> tuple[jax.Array, jax.Array]:
    """From `[M, ..., T, D]` to each conversation's mean `[M, ..., K, D]`, and which have any position `[M, ..., K]`."""
    if segments is None:
        return mean_pool(x, mask)[..., None, :], mask.any(-1, keepdims=True)
    return jax.vmap(segments.mean)(x, mask), jax.vmap(segments.any)(mask)


def _pairs(segments: Segments | None, *, pooled: bool) -> jax.Array | None:
    """Returns the positions to which a query may attend, on all paths: bool `[1, B, T or K, T]`, or None for all."""
    if segments is None or segments.count == 1:
        return None
    return (segments.membership() if pooled else segments.same_segment())[None]


def _selected(x: jax.Array, entries: Sequence[int]) -> jax.Array:
    """Returns some entries of the first axis; the derivative adds up those of one entry, and scatters nothing."""
    all_entries = unstacked(x)
    return jnp.stack([all_entries[i] for i in entries])


def _pad(x: jax.Array, length: int, axis: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, length - x.shape[axis])
    return jnp.pad(x, widths)
