"""Windows, averages within a relation and relational convolution, edge by edge in float64."""

import jax
import numpy as np
import pytest
from reference import draw_parameters, float64, normal

from jmer.layers import RelationalConvolution, Segments, neighbour_window, relation_means

LENGTHS = (5, 3)
MASK = np.arange(5)[None] < np.array(LENGTHS)[:, None]
# The second row has a speaker beyond the number of them.
SPEAKERS = np.array([[0, 1, 0, 0, 1], [0, 1, 2, -1, -1]], np.int32)


def relation(kind, speakers, count, source, target):
    """The relation between a source and its target."""
    own, other = (min(speakers[i], count - 1) for i in (source, target))
    pair = int(speakers[source] == speakers[target]) if kind == "same_or_other" else count * own + other
    return 2 * pair + int(source >= target)


def matrices(p):
    if "kernels" in p:
        return p["kernels"]
    return [sum(c * v for c, v in zip(row, p["basis"], strict=True)) for row in p["coefficients"]]


def convolution(p, module, x, speakers, weights):
    """One conversation: x [n, D], speakers [n], weights [n, n]."""
    kernels, out = matrices(p), []
    for target in range(len(x)):
        total = x[target] @ p["root"] + p["bias"]
        for source in range(len(x)):
            kernel = kernels[relation(module.relations, speakers, module.num_speakers, source, target)]
            total = total + weights[target, source] * (x[source] @ kernel)
        out.append(total)
    return np.stack(out)


OPTIONS = [
    {},
    {"num_bases": 3},
    {"num_bases": 30},
    {"num_speakers": 3},
    {"num_speakers": 3, "num_bases": 4},
    {"relations": "same_or_other"},
    {"relations": "same_or_other", "num_bases": 2},
]


def named(options):
    return ",".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize("options", OPTIONS, ids=named)
def test_convolution_sums_over_edges(options):
    module, x, weights = RelationalConvolution(3, **options), normal(0, 2, 5, 4), normal(1, 2, 5, 5)
    p = draw_parameters(module, x, MASK, SPEAKERS, weights)
    found = module.apply({"params": p}, x, MASK, SPEAKERS, weights)
    for b, n in enumerate(LENGTHS):
        expected = convolution(float64(p), module, np.float64(x[b, :n]), SPEAKERS[b, :n], weights[b, :n, :n])
        np.testing.assert_allclose(found[b, :n], expected, rtol=1e-5, atol=1e-5)
    assert (np.asarray(found)[~MASK] == 0).all()


def test_without_a_matrix_for_each_relation_nothing_is_as_large_as_all_of_them():
    module, x, weights = RelationalConvolution(3, num_speakers=9, num_bases=4), normal(0, 2, 5, 4), normal(1, 2, 5, 5)
    p = draw_parameters(module, x, MASK, SPEAKERS, weights)
    program = jax.make_jaxpr(lambda p: module.apply({"params": p}, x, MASK, SPEAKERS, weights))(p)
    assert max(v.aval.size for e in program.eqns for v in e.outvars) < 2 * 9**2 * 4 * 3


@pytest.mark.parametrize(("past", "future"), [(1, 2), (0, 0), (-1, 1), (2, -1), (-1, -1), (9, 9)])
def test_a_window_ends_with_the_conversation(past, future):
    segments = Segments(np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]], np.int32), 2)
    found = np.asarray(neighbour_window(MASK, past, future, segments=segments))
    for b, i, j in np.ndindex(found.shape):
        near = (past < 0 or j >= i - past) and (future < 0 or j <= i + future)
        together = segments.ids[b, i] == segments.ids[b, j] and MASK[b, i] and MASK[b, j]
        assert found[b, i, j] == (near and together)


@pytest.mark.parametrize("kind", ["speakers", "same_or_other"])
def test_weights_of_a_relation_sum_to_one(kind):
    edges = np.asarray(neighbour_window(MASK, 2, 1))
    weights = np.asarray(relation_means(edges, SPEAKERS, 2, relations=kind))
    assert (weights[~edges] == 0).all()
    for b, target, source in zip(*np.nonzero(edges), strict=True):
        related = [relation(kind, SPEAKERS[b], 2, s, target) for s in np.nonzero(edges[b, target])[0]]
        share = 1 / related.count(relation(kind, SPEAKERS[b], 2, source, target))
        np.testing.assert_allclose(weights[b, target, source], share, rtol=1e-6)


def test_bases_start_as_in_the_library_of_dialoguegcn(key):
    x, weights = normal(0, 1, 5, 20), np.zeros((1, 5, 5), np.float32)
    module = RelationalConvolution(10, num_bases=30)
    p = jax.jit(module.init)(key(), x, MASK[:1], SPEAKERS[:1], weights)["params"]
    assert jax.tree.map(np.shape, p) == {
        "basis": (30, 20, 10),
        "coefficients": (8, 30),
        "root": (20, 10),
        "bias": (10,),
    }
    largest = {name: np.abs(leaf).max() * np.sqrt(30 * 20) for name, leaf in p.items()}
    assert all(0.6 < value <= 1 for value in largest.values())


def test_each_matrix_starts_by_itself(key):
    x, weights = normal(0, 1, 5, 20), np.zeros((1, 5, 5), np.float32)
    module = RelationalConvolution(10, kernel_init=jax.nn.initializers.glorot_uniform())
    kernels = jax.jit(module.init)(key(), x, MASK[:1], SPEAKERS[:1], weights)["params"]["kernels"]
    assert kernels.shape == (8, 20, 10)
    assert 0.95 * np.sqrt(6 / 30) < np.abs(kernels).max() <= np.sqrt(6 / 30)
    assert len({float(kernel[0, 0]) for kernel in kernels}) == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: neighbour_window(MASK, -2, 1), "past: expected at least 0, or -1 for all, got -2"),
        (
            lambda: relation_means(MASK[:, None], SPEAKERS, 2),
            r"edges: expected bool \[B, T, T\], got bool \[2, 1, 5\]",
        ),
        (
            lambda: RelationalConvolution(3, relations="gender").init(
                jax.random.key(0), normal(0, 2, 5, 4), MASK, SPEAKERS, normal(0, 2, 5, 5)
            ),
            "relations: expected one of speakers, same_or_other, got 'gender'",
        ),
    ],
)
def test_calls_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
