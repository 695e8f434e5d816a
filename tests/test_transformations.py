"""Every public layer and loss under jit, vmap, grad and scan, and derivatives of any mode and order."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from public_layers import FUNCTIONS, LAYERS, MASK, B, D, T, angles, both, by_modality, call, graph
from reference import draw_parameters, normal

from jmer import layers, losses


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def total(out):
    """A scalar to which every entry contributes differently."""
    return sum(jnp.sum(jnp.sin(leaf + i)) for i, leaf in enumerate(jax.tree.leaves(out)))


def test_every_public_name_is_covered():
    assert LAYERS.keys() | FUNCTIONS.keys() == {*layers.__all__, *losses.__all__}


@pytest.mark.parametrize("name", [*LAYERS, *FUNCTIONS])
def test_transformations_compose(name):
    """One program holds the call, its gradients, the call of three batches by vmap, and of the same three by scan."""
    apply, p = call(name)
    xs = normal(1, 3, B, T, D)

    def objective(p, x):
        out = apply(p, x)
        return total(out), out

    step = jax.value_and_grad(objective, (0, 1), has_aux=True)

    @jax.jit
    def transformed(p, xs):
        scanned = jax.lax.scan(lambda carry, x: (carry, step(carry, x)), p, xs)[1]
        return jax.vmap(step, (None, 0))(p, xs), scanned

    mapped, scanned = transformed(p, xs)
    close(scanned, mapped)
    (value, out), gradients = mapped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, out, gradients)))
    plain = jax.jit(apply)(p, xs[1])
    close(jax.tree.map(lambda leaf: leaf[1], out), plain)
    assert any(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradients))


WRITTEN_BY_HAND = {
    "BiGRU": lambda **options: (layers.BiGRU(4, **options), lambda x: (x, MASK)),
    "ModalityBiGRUs": lambda **options: (layers.ModalityBiGRUs(4, **options), lambda x: (both(x), MASK)),
    "StackedRNN": lambda **options: (layers.StackedRNN(4, cell="lstm", **options), lambda x: (x, MASK)),
    "DAGEncoder": lambda **options: (layers.DAGEncoder(3, 4, 1, **options), lambda x: (x, *graph())),
    "DAGLayer": lambda **options: (layers.DAGLayer(D, 0.01, **options), lambda x: (x, *graph())),
    "DeepGraphConvolution": lambda **options: (
        layers.DeepGraphConvolution(2, recurrence="lstm", **options),
        lambda x: (by_modality(x), angles(x)),
    ),
}


def real(leaf):
    """Returns where `[B, ..., T, D]` is real."""
    return MASK.reshape(B, *(1,) * (leaf.ndim - 3), T, 1)


def objectives(name):
    """Returns the objective of a vector `[n]` with the custom derivative, that of a scan, and a vector, in float64."""
    layer, arguments = WRITTEN_BY_HAND[name]()
    x = np.float64(normal(2, B, T, D))
    p = jax.tree.map(np.float64, draw_parameters(layer, *arguments(normal(2, B, T, D))))
    flat, unravel = jax.flatten_util.ravel_pytree((p, x))

    def objective(vector, *, custom_derivative):
        p, x = unravel(vector)
        layer, _ = WRITTEN_BY_HAND[name](custom_derivative=custom_derivative)
        out = layer.apply({"params": p}, *arguments(x))
        return total(jax.tree.map(lambda leaf: jnp.where(real(leaf), leaf, 0), out))

    return *(functools.partial(objective, custom_derivative=custom) for custom in (True, False)), flat


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_a_scan_has_derivatives_of_any_mode_and_order(name):
    """First ones are the custom derivative's, second ones its differences; it has these forward over reverse, too."""
    with jax.enable_x64(True):
        custom, scan, at = objectives(name)
        direction = np.random.default_rng(3).normal(size=at.shape)
        gradient = jax.jit(jax.value_and_grad(custom))

        @jax.jit
        def derivatives(at):
            slope = jax.jvp(scan, (at,), (direction,))[1]
            forward_over_reverse = jax.jvp(jax.grad(scan), (at,), (direction,))[1]
            reverse_over_reverse = jax.grad(lambda at: jax.grad(scan)(at) @ direction)(at)
            return jax.value_and_grad(scan)(at), slope, forward_over_reverse, reverse_over_reverse

        (value, first), slope, *second = derivatives(at)
        second.append(jax.jit(lambda at: jax.jvp(jax.grad(custom), (at,), (direction,))[1])(at))
        expected_value, expected = gradient(at)
        np.testing.assert_allclose(value, expected_value, rtol=1e-12)
        np.testing.assert_allclose(first, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(slope, expected @ direction, rtol=1e-9)
        step = 1e-5
        ahead, behind = (gradient(at + sign * step * direction)[1] for sign in (1, -1))
        for found in second:
            np.testing.assert_allclose(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", WRITTEN_BY_HAND)
def test_a_custom_derivative_refuses_what_it_does_not_have(name):
    custom, _, at = objectives(name)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(custom, (at,), (at,))
    if name == "DeepGraphConvolution":
        # Its derivative is a scan, which has one of its own.
        return
    with pytest.raises(ValueError, match="Linearization failed"):
        jax.grad(lambda at: jax.grad(custom)(at).sum())(at)
