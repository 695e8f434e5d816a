"""The encoder of BERT and RoBERTa (Devlin et al. 2019, Liu et al. 2019) in JAX, in float32 on every device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jmer.extract.bert_folder import Architecture, Block, Dense, Norm, Weights
from jmer.layers.attention import masked_attention
from jmer.precision import matmul_precision

SHORTEST = 16
TOKENS = 128
"""Tokens that a program computes at least: enough to keep a device's units busy with the matrices it reads."""


def padded_length(count: int) -> int:
    """Returns the length to which an input of `count` tokens is padded: a power of 2.

    It depends on nothing else, so that the numbers of an input do not depend on what it is computed with.
    """
    return max(SHORTEST, 1 << (count - 1).bit_length())


def batch_size(length: int) -> int:
    """Returns how many inputs of a padded length are computed at once, always."""
    return max(1, TOKENS // length)


def hidden_states(
    weights: Weights, architecture: Architecture, ids: np.ndarray, types: np.ndarray, counts: np.ndarray
) -> list[jax.Array]:
    """Returns the hidden states `[B, L, D]` before the first block and after each.

    Each block is a call of one compiled program, so that a network compiles as fast as one of its blocks.

    Args:
      weights: of the blocks to compute, in float32.
      architecture: of the network.
      ids: int32 `[B, L]`, word pieces; what they are from `counts` on does not matter.
      types: int32 `[B, L]`, token types.
      counts: int32 `[B]`, tokens that are real, at least 1.
    """
    with matmul_precision("float32"):
        states = [_embed(weights._replace(stack=()), ids, types, architecture=architecture)]
        for block in weights.stack:
            states.append(_compute(block, states[-1], counts, architecture=architecture))
    return states


@functools.partial(jax.jit, static_argnames="architecture")
def _embed(weights: Weights, ids: jax.Array, types: jax.Array, *, architecture: Architecture) -> jax.Array:
    places = architecture.first_position + jnp.arange(ids.shape[1])
    # Padding may reach beyond the last position.
    positions = weights.positions[jnp.minimum(places, architecture.positions - 1)]
    return _normalize(weights.norm, weights.words[ids] + weights.types[types] + positions[None], architecture.epsilon)


@functools.partial(jax.jit, static_argnames="architecture")
def _compute(block: Block, x: jax.Array, counts: jax.Array, *, architecture: Architecture) -> jax.Array:
    """Returns what a block makes of hidden states `[B, L, D]`."""
    batch, length, size = x.shape
    heads = (batch, length, architecture.heads, size // architecture.heads)
    query, key, value = (part.reshape(heads) for part in jnp.split(_dense(block.attention, x), 3, -1))
    real = jnp.arange(length)[None] < counts[:, None]
    attended = masked_attention(query, key, value, real).reshape(x.shape)
    x = _normalize(block.attention_norm, x + _dense(block.attention_output, attended), architecture.epsilon)
    inner = _activate(_dense(block.inner, x), architecture.activation)
    return _normalize(block.output_norm, x + _dense(block.output, inner), architecture.epsilon)


def _dense(parameters: Dense, x: jax.Array) -> jax.Array:
    return x @ parameters.kernel + parameters.bias[None, None]


def _normalize(parameters: Norm, x: jax.Array, epsilon: float) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return centred / deviation * parameters.scale[None, None] + parameters.bias[None, None]


def _activate(x: jax.Array, activation: str) -> jax.Array:
    return jax.nn.relu(x) if activation == "relu" else jax.nn.gelu(x, approximate=activation != "gelu")
