"""Initial values of parameters: PyTorch's, which the papers inherit, or Flax's.

Layers take `kernel_init` and `bias_init` as those of Flax do. PyTorch draws a bias from a range that depends on the
layer's fan-in, which the shape of a bias does not tell: layers pass it on (`with_fan_in`) to an initializer that asks
for it, and use any other as it is.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import initializers

Initializer = Callable[..., jax.Array]
Dtype = Any


@dataclasses.dataclass(frozen=True)
class FanInUniform:
    r"""The uniform distribution in which PyTorch's `nn.Linear`, `nn.Conv1d` and `nn.GRU` start their parameters.

    .. math:: U\left(-1 / \sqrt{n}, 1 / \sqrt{n}\right), \quad n = \text{fan-in}

    Attributes:
      fan_in: None = that of a kernel with inputs along all axes but the last.

    Examples:
      >>> kernel = FanInUniform()(jax.random.key(0), (100, 16))
      >>> bias = FanInUniform(fan_in=100)(jax.random.key(1), (16,))
      >>> bool(jnp.abs(kernel).max() <= 0.1), bool(jnp.abs(bias).max() <= 0.1)
      (True, True)
    """

    fan_in: int | None = None

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        """Draws a parameter.

        Raises:
          ValueError: if neither the shape nor `fan_in` tells the fan-in.
        """
        if self.fan_in is None and len(shape) < 2:
            raise ValueError(f"shape: expected that of a kernel, or a fan_in, got {list(shape)}")
        bound = (self.fan_in or math.prod(shape[:-1])) ** -0.5
        return initializers.uniform(2 * bound)(key, shape, dtype) - bound


torch_uniform = FanInUniform()
"""PyTorch's default for kernels and biases."""


def with_fan_in(init: Initializer, fan_in: int) -> Initializer:
    """Returns the initializer for a parameter of a layer with that fan-in; only `torch_uniform` depends on it."""
    return FanInUniform(fan_in) if init == torch_uniform else init


def each(init: Initializer) -> Initializer:
    """Returns the initializer that draws each matrix of a stack by itself: the stack is not part of the fan-in."""

    def stack(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.vmap(lambda k: init(k, shape[1:], dtype))(jax.random.split(key, shape[0]))

    return stack


class Initializers(TypedDict):
    """Initializers of a layer, under the names of its arguments."""

    kernel_init: Initializer
    bias_init: Initializer


SCHEMES: dict[str, Initializers] = {
    "torch_uniform": {"kernel_init": torch_uniform, "bias_init": torch_uniform},
    "lecun_normal": {"kernel_init": initializers.lecun_normal(), "bias_init": initializers.zeros},
}
"""Initializers by the name that configurations give them: PyTorch's (both uniform) and Flax's (zero biases)."""


class LayerOptions(Initializers):
    """What layers hand on to the layers inside them."""

    dtype: Dtype | None
    param_dtype: Dtype


def layer_options(module: Any) -> LayerOptions:
    """Returns a module's initializers and dtypes, for the layers inside it."""
    return LayerOptions(
        kernel_init=module.kernel_init,
        bias_init=module.bias_init,
        dtype=module.dtype,
        param_dtype=module.param_dtype,
    )


def dense(
    features: int,
    fan_in: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = torch_uniform,
    bias_init: Initializer = torch_uniform,
    dtype: Dtype | None = None,
    param_dtype: Dtype = jnp.float32,
    name: str | None = None,
) -> nn.Dense:
    """Returns a linear layer from `fan_in` to `features`; its bias may start in a range that depends on the fan-in."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=with_fan_in(bias_init, fan_in),
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )
