"""A convolution stops where a conversation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import normal

from jmer.layers import SegmentConvolution, Segments
from jmer.segments import one_per_row

IDS = np.array([[0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1]], np.int32)


def transcribed(kernel, x):
    """One conversation `[n, D]`: each position sees its neighbours, and zeros beyond both ends."""
    half = len(kernel) // 2
    late = np.pad(np.float64(x), ((half, half), (0, 0)))
    return sum(late[tap : tap + len(x)] @ np.float64(kernel[tap]) for tap in range(len(kernel)))


@pytest.mark.parametrize("width", [1, 3, 5, 9])
@pytest.mark.parametrize("count", [3, 1])
def test_each_conversation_is_convolved_by_itself(width, count):
    ids = IDS if count == 3 else np.zeros_like(IDS)
    segments = Segments(jnp.array(ids), 3) if count == 3 else one_per_row(*IDS.shape)
    x, kernel = normal(1, 2, 7, 4), normal(2, width, 4, 5)
    layer = SegmentConvolution(5, width, jax.nn.initializers.zeros)
    found = layer.apply({"params": {"kernel": kernel}}, x, segments=segments)
    for row, k in np.ndindex(2, count):
        own = ids[row] == k
        if own.any():
            np.testing.assert_allclose(found[row, own], transcribed(kernel, x[row, own]), rtol=1e-5, atol=1e-5)
