"""The GRU against PyTorch's formula, read forwards and backwards over each conversation."""

import jax
import numpy as np
import pytest
import reference
from reference import draw_parameters, float64, normal

from jmer.layers.recurrent import BiGRU, ModalityBiGRUs
from jmer.segments import Segments

EVERY_PLATFORM = True
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


# Conversations of 2, 1 and 3 utterances in the first row, of 4 in the second, and padding after both.
PACKED = ((2, 1, 3), (4,))
PACKED_MASK = np.arange(8)[None] < np.array([6, 4])[:, None]
SEGMENTS = Segments(np.array([[0, 0, 1, 2, 2, 2, 2, 2], [0] * 8], np.int32), 3)


def apart(values):
    """Brings the conversations of `PACKED` into rows of their own, `[4, 4, ...]`, and their mask."""
    out, mask, row = np.zeros((4, 4, *values.shape[2:]), values.dtype), np.zeros((4, 4), bool), 0
    for together, lengths in zip(values, PACKED, strict=True):
        for length, end in zip(lengths, np.cumsum(lengths), strict=True):
            out[row, :length], mask[row, :length] = together[end - length : end], True
            row += 1
    return out, mask


@pytest.mark.parametrize("bidirectional", [True, False])
def test_conversations_of_one_row_are_independent(bidirectional):
    """Outputs and gradients are those of the conversations in rows of their own."""
    x, weights = normal(5, 2, 8, D), normal(6, 2, 8, 6)
    gru = BiGRU(6, bidirectional)
    p = draw_parameters(gru, x, PACKED_MASK)

    def step(weights, mask, segments=None):
        def objective(p, x):
            out = gru.apply({"params": p}, x, mask, segments=segments)
            return (out * weights).sum(), out

        return jax.jit(jax.grad(objective, (0, 1), has_aux=True))

    (p_bar, x_bar), out = step(weights, PACKED_MASK, SEGMENTS)(p, x)
    alone, mask = apart(x)
    (p_bar_alone, x_bar_alone), out_alone = step(apart(weights)[0], mask)(p, alone)
    np.testing.assert_allclose(apart(np.asarray(out))[0], out_alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(apart(np.asarray(x_bar))[0], x_bar_alone, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), p_bar, p_bar_alone)
    np.testing.assert_array_equal(np.asarray(out)[~PACKED_MASK], 0)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_gradients_are_those_of_finite_differences(bidirectional):
    """Of each parameter and of the input, in float64, along a random direction."""
    gru, x, weights = BiGRU(4, bidirectional), np.float64(normal(8, 2, 8, 3)), normal(9, 2, 8, 4)
    p = float64(draw_parameters(gru, x, PACKED_MASK))
    (rows, mask), (row_weights, _) = apart(x), apart(weights)

    def objective(p, rows):
        read = (reference.bigru(p, row[real], bidirectional) for row, real in zip(rows, mask, strict=True))
        return sum((w[real] * out).sum() for w, real, out in zip(row_weights, mask, read, strict=True))

    with jax.enable_x64(True):
        ours = jax.jit(
            jax.value_and_grad(
                lambda p, x: (gru.apply({"params": p}, x, PACKED_MASK, segments=SEGMENTS) * weights).sum(), (0, 1)
            )
        )
        value, (p_bar, x_bar) = jax.device_get(ours(p, x))
    np.testing.assert_allclose(value, objective(p, rows), rtol=1e-12)
    rng, step = np.random.default_rng(10), 1e-5
    directions = {name: rng.normal(size=leaf.shape) for name, leaf in p.items()}
    for name, direction in directions.items():
        ahead, behind = (objective({**p, name: p[name] + sign * step * direction}, rows) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        np.testing.assert_allclose((p_bar[name] * direction).sum(), slope, rtol=1e-6, err_msg=name)
    direction = rng.normal(size=rows.shape) * mask[..., None]
    slope = (objective(p, rows + step * direction) - objective(p, rows - step * direction)) / (2 * step)
    np.testing.assert_allclose((apart(x_bar)[0] * direction).sum(), slope, rtol=1e-6)
    np.testing.assert_array_equal(x_bar[~PACKED_MASK], 0)


def test_several_at_once_are_those_one_by_one():
    """Two parameter sets, as seeds that train together have them, forwards and backwards."""
    gru, xs = BiGRU(6), normal(11, 2, 2, 8, D)
    sets = [draw_parameters(gru, xs[0], PACKED_MASK, seed=seed) for seed in (1, 2)]
    step = jax.value_and_grad(
        lambda p, x: (gru.apply({"params": p}, x, PACKED_MASK, segments=SEGMENTS) ** 2).sum(), (0, 1)
    )
    mapped, one = jax.jit(jax.vmap(step))(jax.tree.map(lambda *leaves: np.stack(leaves), *sets), xs), jax.jit(step)
    for i in (0, 1):
        alone = one(sets[i], xs[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), mapped, alone)


def test_modalities_are_read_as_each_alone():
    widths = {"text": 4, "audio": 3}
    features = {m: normal(7, 2, 8, width) for m, width in widths.items()}
    grus = ModalityBiGRUs(6)
    p = draw_parameters(grus, features, PACKED_MASK)
    out = jax.jit(grus.apply)({"params": p}, features, PACKED_MASK, segments=SEGMENTS)
    for m, x in features.items():
        own = {name.removeprefix(f"{m}_"): leaf for name, leaf in p.items() if name.startswith(m)}
        alone = BiGRU(6).apply({"params": own}, x, PACKED_MASK, segments=SEGMENTS)
        np.testing.assert_allclose(out[m], alone, rtol=1e-5, atol=1e-6)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="features: expected a multiple of 2, got 5"):
        BiGRU(5).init(jax.random.key(0), normal(0, B, T, D), MASK)
    assert BiGRU(5, bidirectional=False).init_with_output(jax.random.key(0), normal(0, B, T, D), MASK)[0].shape[-1] == 5


@pytest.mark.parametrize("options", [{}, {"bidirectional": False}, {"custom_derivative": False}], ids=str)
def test_states_skip_a_gap_in_the_mask(options):
    """Outputs and gradients are those of the real utterances alone."""
    mask = np.array([[True, False, True, True, False, False, True, False]])
    x, weights, gru = normal(12, 1, 8, D), normal(13, 1, 8, 6), BiGRU(6, **options)
    p = draw_parameters(gru, x, mask)

    def step(mask):
        def objective(p, x, weights):
            out = gru.apply({"params": p}, x, mask)
            return (out * weights).sum(), out

        return jax.jit(jax.grad(objective, (0, 1), has_aux=True))

    gap = np.where(mask[..., None], x, np.float32(np.nan))
    (p_bar, x_bar), out = step(mask)(p, gap, weights)
    (p_bar_alone, x_bar_alone), alone = step(np.ones((1, 4), bool))(p, x[:, mask[0]], weights[:, mask[0]])
    np.testing.assert_allclose(out[:, mask[0]], alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x_bar[:, mask[0]], x_bar_alone, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), p_bar, p_bar_alone)
    np.testing.assert_array_equal(out[~mask], 0)
    np.testing.assert_array_equal(x_bar[~mask], 0)


def test_the_program_of_accelerators_is_that_of_a_scan(accelerator_programs):
    """It keeps no gates for the way back."""
    x, weights = normal(12, B, T, D), normal(13, B, T, 6)
    p = draw_parameters(BiGRU(6), x, MASK)

    def step(**options):
        def objective(p, x):
            out = BiGRU(6, **options).apply({"params": p}, x, MASK)
            return (out * weights).sum(), out

        return jax.jit(jax.grad(objective, (0, 1), has_aux=True))(p, x)

    expected = step(custom_derivative=False)
    accelerator_programs()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), step(), expected)
