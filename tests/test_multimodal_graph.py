"""The multimodal graph and its convolutions against a dense matrix of all edges, and their laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_reference import layers, normalized, weights_of
from reference import draw_parameters, float64, normal

from jmer.layers import DeepGraphConvolution, MultimodalGraph, Segments, angle_graph

B, M, T, D = 2, 3, 6, 4
# The first row holds conversations of two and three utterances and padding, some of whose utterances lack a modality.
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
SEGMENTS = Segments(np.array([[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], np.int32), 2)


@functools.cache
def present():
    there = np.random.default_rng(0).random((B, M, T)) < 0.8
    there[0, 1, :2] = False
    return there & MASK[:, None]


@functools.cache
def nodes():
    return normal(1, B, M, T, D)


def conversations():
    """(row, first, after the last) of each conversation."""
    return ((0, 0, 2), (0, 2, 6), (1, 0, 6))


def nodes_of(x, row, start, stop):
    """The nodes of a conversation: (modality, utterance) -> vector."""
    return {(m, i): x[row, m, i] for m in range(M) for i in range(start, stop) if present()[row, m, i]}


@pytest.mark.parametrize("cross_weight", [1.0, 0.3, 0.0])
def test_propagates_as_the_dense_matrix_of_each_conversation(cross_weight):
    x = np.where(present()[..., None], normal(2, B, M, T, D), 0)
    dirty = np.where(present()[..., None], nodes(), np.float32(np.nan))
    graph = angle_graph(dirty, present(), cross_weight=cross_weight, segments=SEGMENTS)
    found = graph.propagate(x)
    assert (graph.across[:, np.arange(M), np.arange(M)] == 0).all()
    np.testing.assert_array_equal(found[~present()], 0)
    for place in conversations():
        chosen = nodes_of(np.float64(nodes()), *place)
        dense = normalized(weights_of(chosen, cross_weight))
        expected = dense @ np.stack([x[place[0], m, i] for m, i in chosen])
        got = np.stack([found[place[0], m, i] for m, i in chosen])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_square_roots_of_the_degrees_are_a_fixed_point():
    roots = np.zeros((B, M, T, 1), np.float32)
    for place in conversations():
        chosen = nodes_of(np.float64(nodes()), *place)
        for (m, i), degree in zip(chosen, weights_of(chosen).sum(1), strict=True):
            roots[place[0], m, i] = np.sqrt(degree)
    found = angle_graph(nodes(), present(), segments=SEGMENTS).propagate(roots)
    np.testing.assert_allclose(found, roots, rtol=1e-5, atol=1e-6)


def test_the_graph_depends_on_directions_alone():
    one, other = (angle_graph(scale * nodes(), present()) for scale in (1.0, 7.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), one, other)


def test_utterances_may_stand_in_any_order():
    order = np.random.default_rng(3).permutation(T)
    layer, x = DeepGraphConvolution(3, recurrence="lstm"), normal(4, B, M, T, D)
    graph = angle_graph(nodes(), present())
    variables = {"params": draw_parameters(layer, x, graph)}
    moved = angle_graph(nodes()[:, :, order], present()[:, :, order])
    found = layer.apply(variables, x[:, :, order], moved)
    np.testing.assert_allclose(found, layer.apply(variables, x, graph)[:, :, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("same", ["equal vectors", "opposite vectors", "zero vectors", "no node"])
def test_the_derivative_is_finite_everywhere(same):
    x, there = np.array(nodes()), np.ones((B, M, T), bool)
    if same == "no node":
        there[:] = False
    x[:, :, 1] = {"equal vectors": 1, "opposite vectors": -1}.get(same, 0) * x[:, :, 0]
    x[:, 1] = x[:, 0]

    def total(x):
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(angle_graph(x, there)))

    value, gradient = jax.jit(jax.value_and_grad(total))(x)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if same == "zero vectors":
        right_angle = angle_graph(x, there).within[0, 0, 1]
        assert (right_angle > 0).all()
        np.testing.assert_array_equal(gradient[:, :, 1], 0)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
@pytest.mark.parametrize(("alpha", "lamda"), [(0.1, 0.5), (0.2, 2.0)])
def test_layers_match_the_equations(recurrence, alpha, lamda):
    layer = DeepGraphConvolution(3, alpha, lamda, recurrence)
    graph = angle_graph(nodes(), present(), segments=SEGMENTS)
    x = normal(5, B, M, T, D)
    p = draw_parameters(layer, x, graph)
    assert p["kernels"].shape == (3, 2 * D, D)
    found = jax.jit(layer.apply)({"params": p}, x, graph)
    for place in conversations():
        chosen = nodes_of(np.float64(nodes()), *place)
        h0 = np.float64([x[place[0], m, i] for m, i in chosen])
        edges = normalized(weights_of(chosen))
        expected = layers(float64(p), h0, edges, alpha=alpha, lamda=lamda, recurrence=recurrence)
        got = np.stack([found[place[0], m, i] for m, i in chosen])
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_no_layers_give_the_input():
    x, graph = normal(6, B, M, T, D), angle_graph(nodes(), present())
    found, variables = DeepGraphConvolution(0).init_with_output(jax.random.key(0), x, graph)
    np.testing.assert_array_equal(found, x)
    assert not any(leaf.size for leaf in jax.tree.leaves(variables))


def test_dropout_falls_on_the_input_and_on_each_layer(key):
    graph, x, rate = angle_graph(nodes(), np.ones((B, M, T), bool)), np.ones((B, M, T, 64), np.float32), 0.25
    variables = DeepGraphConvolution(0).init(jax.random.key(0), x, graph)
    apply = functools.partial(DeepGraphConvolution(0, dropout_rate=rate).apply, variables, x, graph, train=True)
    dropped = np.asarray(apply(rngs={"dropout": key()}))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)} and 0.2 < (dropped == 0).mean() < 0.3
    # Identity kernels and no share of the input: what a layer gives is what it is given, propagated and dropped.
    layer = DeepGraphConvolution(1, alpha=0.0, lamda=np.e - 1, dropout_rate=rate)
    kernels = np.concatenate([np.eye(64), np.zeros((64, 64))]).astype(np.float32)[None]
    out = layer.apply({"params": {"kernels": kernels}}, x, graph, train=True, rngs={"dropout": key()})
    assert 0.2 < (np.asarray(out) == 0).mean() < 0.3
    again = layer.apply(
        {"params": {"kernels": kernels}},
        x[1:],
        MultimodalGraph(graph.within[1:], graph.across[1:]),
        train=True,
        row_ids=jnp.array([1]),
        rngs={"dropout": jax.random.fold_in(jax.random.key(0), 1)},
    )
    np.testing.assert_allclose(again, out[1:], rtol=1e-6)


@pytest.mark.parametrize("recurrence", ["none", "lstm"])
def test_the_derivative_under_dropout_is_that_of_a_scan(recurrence, key):
    """Of an unsymmetrical graph, whose edges' derivative counts too."""
    x, streams = normal(8, B, M, T, D), {"dropout": key()}
    graph = MultimodalGraph(normal(9, B, M, T, T), normal(10, B, M, M, T))

    def gradient(custom_derivative):
        layer = DeepGraphConvolution(3, recurrence=recurrence, dropout_rate=0.4, custom_derivative=custom_derivative)
        p = draw_parameters(layer, x, graph)

        def total(p, x, graph):
            return jnp.square(layer.apply({"params": p}, x, graph, train=True, rngs=streams)).sum()

        return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(p, x, graph)

    found, expected = gradient(True), gradient(False)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected))


def test_initial_values_are_those_of_the_published_code():
    x, graph = normal(7, B, M, T, 16), angle_graph(nodes(), present())
    p = DeepGraphConvolution(8, recurrence="lstm").init(jax.random.key(0), x, graph)["params"]
    for leaf in jax.tree.leaves(p):
        assert 0.23 < np.abs(leaf).max() <= 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: angle_graph(nodes(), present()[:, :2]), r"present: expected bool \[2, 3, 6\], got bool \[2, 2, 6\]"),
        (lambda: angle_graph(nodes(), present(), cross_weight=-1), "cross_weight: expected a number of at least 0"),
        (lambda: angle_graph(nodes(), present(), segments=Segments(np.zeros((2, 5), np.int32), 1)), "segments.ids"),
        (lambda: angle_graph(nodes(), present()).propagate(nodes()[:, :2]), r"x: expected float \[2, 3, 6, G\]"),
        (lambda: convolve(nodes()[:, :, :5], num_layers=1), r"x: expected float \[2, 3, 6, G\]"),
        (lambda: convolve(nodes(), num_layers=-1), "num_layers: expected a number of at least 0, got -1"),
        (lambda: convolve(nodes(), num_layers=1, lamda=0.0), "lamda: expected a number above 0, got 0.0"),
        (
            lambda: convolve(nodes(), num_layers=1, recurrence="gru"),
            "recurrence: expected one of none, lstm",
        ),
        (lambda: convolve(nodes(), num_layers=1, dropout_rate=1.0), r"dropout_rate: expected a number in \[0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def convolve(x, **options):
    return DeepGraphConvolution(**options).init(jax.random.key(0), x, angle_graph(nodes(), present()))
