"""The GRU against PyTorch's formula, read forwards and backwards over padded conversations."""

import jax
import numpy as np
import pytest
import reference
from reference import draw_parameters, float64, normal

from jmer.layers.recurrent import BiGRU

LENGTHS = (5, 1, 3)
B, T, D = 3, 5, 4
MASK = np.arange(T)[None] < np.array(LENGTHS)[:, None]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_matches_a_loop_over_real_utterances(bidirectional):
    x = normal(3, B, T, D)
    gru = BiGRU(6, bidirectional)
    p = draw_parameters(gru, x, MASK)
    out = jax.jit(gru.apply)({"params": p}, x, MASK)
    assert out.shape == (B, T, 6)
    for b, length in enumerate(LENGTHS):
        expected = reference.bigru(float64(p), np.float64(x[b, :length]), bidirectional)
        np.testing.assert_allclose(out[b, :length], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(out[b, length:], np.zeros((T - length, 6)))


def test_padding_neither_is_read_nor_changes_a_state():
    x = normal(4, B, T, D)
    gru = BiGRU(6)
    apply = jax.jit(gru.apply)
    variables = {"params": draw_parameters(gru, x, MASK)}
    out = apply(variables, x, MASK)
    garbage = np.where(MASK[..., None], x, 1e4)
    np.testing.assert_array_equal(apply(variables, garbage, MASK), out)
    longer = apply(variables, np.pad(x, ((0, 0), (0, 3), (0, 0))), np.pad(MASK, ((0, 0), (0, 3))))
    np.testing.assert_allclose(longer, np.pad(out, ((0, 0), (0, 3), (0, 0))), rtol=1e-6, atol=1e-7)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="must be even, not 5"):
        BiGRU(5).init(jax.random.key(0), normal(0, B, T, D), MASK)
    assert BiGRU(5, bidirectional=False).init_with_output(jax.random.key(0), normal(0, B, T, D), MASK)[0].shape[-1] == 5
