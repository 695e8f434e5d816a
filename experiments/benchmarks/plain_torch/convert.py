"""Conversion from JAX to PyTorch: arrays and the parameters of layers."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch
from torch import nn


def to_torch(tree: Any) -> Any:
    """Returns a pytree, such as a `jmer.batch.Batch`, with tensors in place of arrays, with the same dtypes."""
    return jax.tree.map(lambda x: torch.from_numpy(np.array(x)), tree)


def one_of(params: Any, i: int) -> Any:
    """Returns the parameters of the i-th of several layers that jmer stacks in one array each."""
    return jax.tree.map(lambda leaf: leaf[i], params)


def load_linear(layer: nn.Linear, params: Mapping[str, Any]) -> None:
    """Copies a Linen `Dense` (`kernel` `[D, E]`, `bias` `[E]` if it has one) into a linear layer."""
    set_parameter(layer.weight, np.asarray(params["kernel"]).T)
    if layer.bias is not None:
        set_parameter(layer.bias, params["bias"])


def load_norm(layer: nn.LayerNorm | nn.BatchNorm1d, params: Mapping[str, Any]) -> None:
    """Copies the `scale` and `bias`, `[D]` each, of a layer norm or a batch norm."""
    set_parameter(layer.weight, params["scale"])
    set_parameter(layer.bias, params["bias"])


def load_norm_statistics(layer: nn.BatchNorm1d, statistics: Mapping[str, Any]) -> None:
    """Copies the running statistics of a `jmer.layers.MaskedBatchNorm`."""
    set_parameter(layer.running_mean, statistics["mean"])
    set_parameter(layer.running_var, statistics["var"])


def set_parameter(parameter: nn.Parameter, value: Any) -> None:
    """Overwrites a parameter with an array of its shape.

    Raises:
      ValueError: for another shape.
    """
    value = torch.from_numpy(np.array(value))
    if value.shape != parameter.shape:
        raise ValueError(f"the parameter has shape {tuple(parameter.shape)}, the array {tuple(value.shape)}")
    with torch.no_grad():
        parameter.copy_(value)


def load_gru(layer: nn.RNNBase | nn.RNNCellBase, params: Mapping[str, Any], name: str, suffix: str = "") -> None:
    """Copies the GRU or LSTM `name` of a module's parameters (`recurrent_weights`) into a cell or a direction.

    Args:
      layer: a cell, or an `nn.GRU` of one layer.
      params: `{name}_input_kernel` `[D, 3H]`, `{name}_input_bias` `[3H]`, and `state` for `input` `[H, 3H]`, `[3H]`.
      name: see `params`.
      suffix: ending of the names in `layer`: none for a cell, `_l0` forward, `_l0_reverse` backward.
    """
    for source, target in (("input", "ih"), ("state", "hh")):
        set_parameter(getattr(layer, f"weight_{target}{suffix}"), np.asarray(params[f"{name}_{source}_kernel"]).T)
        set_parameter(getattr(layer, f"bias_{target}{suffix}"), params[f"{name}_{source}_bias"])


def load_stacked(layer: nn.GRU | nn.LSTM, params: Mapping[str, Any]) -> None:
    """Copies a `jmer.layers.recurrent.StackedRNN` into PyTorch's layers."""
    for i in range(layer.num_layers):
        for direction, suffix in (("forward", ""), ("backward", "_reverse")):
            load_gru(layer, params, f"layer_{i}_{direction}", f"_l{i}{suffix}")


def load_attention(layer: nn.MultiheadAttention, params: Mapping[str, Any]) -> None:
    """Copies a `jmer.layers.transformer.MultiHeadAttention`."""
    projections = [params[name] for name in ("query", "key", "value")]
    set_parameter(layer.in_proj_weight, np.concatenate([np.transpose(p["kernel"]) for p in projections]))
    set_parameter(layer.in_proj_bias, np.concatenate([p["bias"] for p in projections]))
    load_linear(layer.out_proj, params["output"])


def load_encoder_layer(layer: nn.TransformerEncoderLayer, params: Mapping[str, Any]) -> None:
    """Copies a `jmer.layers.transformer.TransformerEncoderLayer`."""
    attention, feed_forward = params["self_attention"], params["feed_forward"]
    load_attention(layer.self_attn, attention["attention"])
    load_norm(layer.norm1, attention["norm"])
    load_linear(layer.linear1, feed_forward["inner"])
    load_linear(layer.linear2, feed_forward["outer"])
    load_norm(layer.norm2, feed_forward["norm"])
