"""How parameters start: PyTorch's way, which the papers inherit, or Flax's."""

from collections.abc import Callable

from flax import linen as nn
from jax.nn import initializers

SCHEMES = ("torch_uniform", "lecun_normal")

torch_uniform = initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the kernel of PyTorch's `nn.Linear` and `nn.Conv1d`."""


def torch_uniform_bias(fan_in: int) -> Callable:
    """Returns the initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's for a bias of a layer with that fan-in."""
    bound = fan_in**-0.5
    unit = initializers.uniform(2 * bound)
    return lambda key, shape, dtype=float: unit(key, shape, dtype) - bound


def kernel_and_bias(scheme: str, fan: int) -> tuple[Callable, Callable]:
    """Returns the initializers of a kernel and its bias.

    Args:
      scheme: `torch_uniform` (both U(±1/sqrt(fan))) or `lecun_normal` (Flax's: truncated normal, zero bias).
      fan: the width that sets the bound: a linear layer's input width, a GRU's hidden width.

    Raises:
      ValueError: for another scheme.
    """
    if scheme == "torch_uniform":
        return torch_uniform_bias(fan), torch_uniform_bias(fan)
    if scheme == "lecun_normal":
        return initializers.lecun_normal(), initializers.zeros
    raise ValueError(f"initialization must be one of {', '.join(SCHEMES)}, not '{scheme}'")


def dense(features: int, fan_in: int, *, use_bias: bool = True, scheme: str = "torch_uniform", name=None) -> nn.Dense:
    """Returns a linear layer from `fan_in` to `features` that starts as `scheme` says."""
    kernel, bias = kernel_and_bias(scheme, fan_in)
    return nn.Dense(features, use_bias=use_bias, kernel_init=kernel, bias_init=bias, name=name)
