"""The precision of matrix products: what an accelerator trades for speed."""

import contextlib

import jax

PRECISIONS = {
    "default": None,
    "float32": "float32",
    "tensorfloat32": "tensorfloat32",
    # JAX's "bfloat16" is what a TPU does by default, and TensorFloat-32 on a GPU; this is bfloat16 on both.
    "bfloat16": "BF16_BF16_F32",
}
"""Value of `training.matmul_precision` -> JAX's name for it. Sums are float32 in each."""


def matmul_precision(name: str) -> contextlib.AbstractContextManager:
    """Returns the context in which programs have to be traced to compute their products so.

    Parameters, sums, normalizations and softmaxes stay float32, as do the similarities of contrastive losses, which ask
    for the highest precision themselves. A CPU always computes in float32.

    Args:
      name: of `PRECISIONS`; `default` is what JAX takes the device to be for.
    """
    wanted = PRECISIONS[name]
    return contextlib.nullcontext() if wanted is None else jax.default_matmul_precision(wanted)
