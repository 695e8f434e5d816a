"""The graph network of DAG-ERC: hand-drawn graphs, a loop over utterances, and gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from reference import draw_parameters, float64, normal
from tiny import tiny_step

from jmer.layers import dag, dag_kernel, dag_layers, dag_recurrence
from jmer.layers.dag import DAGEncoder, DAGLayer, DAGLayers, predecessor_graph
from jmer.segments import Segments

EVERY_PLATFORM = True
SPEAKERS = ([0, 1, 0, 0, 1, 2], [0], [0, 1, 1, 0])
LENGTHS = [len(s) for s in SPEAKERS]
B, T = len(SPEAKERS), max(LENGTHS)
MASK = np.arange(T)[None] < np.array(LENGTHS)[:, None]
PADDED = np.array([s + [-1] * (T - len(s)) for s in SPEAKERS], np.int32)

# Walked back by hand: the speaker's ω-th last utterance is the last one linked.
EDGES = {
    1: ([[], [0], [0, 1], [2], [1, 2, 3], [0, 1, 2, 3, 4]], [[]], [[], [0], [1], [0, 1, 2]]),
    2: ([[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]], [[]], [[], [0], [0, 1], [0, 1, 2]]),
    3: ([[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]], [[]], [[], [0], [0, 1], [0, 1, 2]]),
}


@pytest.mark.parametrize("window", EDGES)
def test_graphs_of_hand_written_speaker_lists(window):
    adjacency, same = predecessor_graph(jnp.array(PADDED), jnp.array(MASK), window=window)
    expected = np.zeros((B, T, T), bool)
    for b, edges in enumerate(EDGES[window]):
        for i, linked in enumerate(edges):
            expected[b, i, linked] = True
    np.testing.assert_array_equal(adjacency, expected)
    for b, speakers in enumerate(SPEAKERS):
        assert reference.predecessors(speakers, window) == [list(linked) for linked in EDGES[window][b]]
        for i, j in np.ndindex(T, T):
            real = i < LENGTHS[b] and j < LENGTHS[b]
            assert same[b, i, j] == (real and speakers[i] == speakers[j])


def test_long_conversations_link_as_walking_back_does():
    speakers = np.random.default_rng(0).integers(0, 4, 40)
    for window in (1, 2, 3):
        adjacency, _ = predecessor_graph(jnp.array(speakers)[None], jnp.ones((1, 40), bool), window=window)
        assert [list(np.flatnonzero(row)) for row in adjacency[0]] == reference.predecessors(speakers, window)


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match="window: expected at least 1, got 0"):
        predecessor_graph(jnp.array(PADDED), jnp.array(MASK), window=0)


def graph(window=1):
    return predecessor_graph(jnp.array(PADDED), jnp.array(MASK), window=window)


# Entries per piece of the CPU's programs.
PIECES = {"default": 16, "pairs": 2}


@pytest.fixture(params=[*PIECES, "accelerator", "kernel"])
def program(request, monkeypatch, accelerator_programs):
    """Computes in another way, which must change no number."""
    if request.param in PIECES:
        monkeypatch.setattr(dag_recurrence, "PIECE", PIECES[request.param])
    elif request.param == "accelerator":
        accelerator_programs()
    else:
        accelerator_programs("tpu")
        monkeypatch.setattr(dag, "Options", lambda slope, _: dag_layers.Options(slope, kernel=True))
        monkeypatch.setattr(dag_kernel, "INTERPRET", True)


def programs(*chosen, slow=()):
    """Parametrizes a test by programs, `slow` ones of them only with --slow."""
    return pytest.mark.parametrize(
        "program", [*chosen, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)], indirect=True
    )


ALL = programs("default", "accelerator", slow=["kernel"])
ALL_SLOWLY = programs("default", slow=["accelerator", "kernel"])


@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("window", [1, 2])
@ALL
def test_a_layer_matches_a_loop_over_utterances(slope, window, program):
    x = normal(1, B, T, 4)
    layer = DAGLayer(4, slope)
    p = draw_parameters(layer, x, *graph())
    out = jax.jit(layer.apply)({"params": p}, x, *graph(window))
    for b, speakers in enumerate(SPEAKERS):
        expected = reference.dag_layer(float64(p), np.float64(x[b, : LENGTHS[b]]), speakers, window, slope)
        np.testing.assert_allclose(out[b, : LENGTHS[b]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("output", "width"), [("concat_proj", 5), ("last", 4)])
@ALL
def test_the_encoder_matches_a_loop_over_utterances(output, width, program):
    x = normal(2, B, T, 3)
    encoder = DAGEncoder(width, 4, 2, output)
    p = draw_parameters(encoder, x, *graph())
    out = jax.jit(encoder.apply)({"params": p}, x, *graph())
    assert out.shape == (B, T, width)
    for b, speakers in enumerate(SPEAKERS):
        expected = reference.dag_encoder(float64(p), np.float64(x[b, : LENGTHS[b]]), speakers, layers=2, output=output)
        np.testing.assert_allclose(out[b, : LENGTHS[b]], expected, rtol=1e-5, atol=1e-6)


@ALL
def test_layers_together_match_a_loop_over_utterances(program):
    x = normal(2, B, T, 4)
    layers = DAGLayers(4, 2, 0.01)
    p = draw_parameters(layers, x, *graph())
    states = jax.jit(layers.apply)({"params": p}, x, *graph())
    assert states.shape == (2, B, T, 4)
    below = x
    for of_layer, name in zip(states, ("layer_0", "layer_1"), strict=True):
        for b, speakers in enumerate(SPEAKERS):
            expected = reference.dag_layer(float64(p[name]), np.float64(below[b, : LENGTHS[b]]), speakers, 1, 0.01)
            np.testing.assert_allclose(of_layer[b, : LENGTHS[b]], expected, rtol=1e-5, atol=1e-6)
            assert not of_layer[b, LENGTHS[b] :].any()
        below = of_layer


@pytest.mark.parametrize("slope", [1.0, 0.01])
@programs("default", "accelerator", slow=["pairs", "kernel"])
def test_gradients_are_those_of_finite_differences(slope, program):
    """Every parameter and every input, in float64; the objective weighs all real outputs unequally."""
    width, chosen = 3, [0, 2]
    weights = np.random.default_rng(3).normal(size=(B, T, width)) * MASK[..., None]
    layer = DAGLayer(width, slope)
    x = normal(4, B, T, width)
    p = float64(draw_parameters(layer, x, *graph()))
    x = np.float64(x)

    def objective(p, x):
        outputs = [reference.dag_layer(p, x[b, : LENGTHS[b]], SPEAKERS[b], slope=slope) for b in chosen]
        return sum((weights[b, : LENGTHS[b]] * out).sum() for b, out in zip(chosen, outputs, strict=True))

    with jax.enable_x64(True):
        adjacency, same = graph()

        def ours(p, x):
            out = layer.apply({"params": p}, x, adjacency, same)
            return sum((weights[b] * out[b]).sum() for b in chosen)

        value, gradients = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(p, x)
        np.testing.assert_allclose(value, objective(p, x), rtol=1e-12)

    step = 1e-5
    for name, values in [*p.items(), ("x", x)]:
        expected = np.zeros(np.shape(values))
        for position in np.ndindex(*expected.shape):
            shifted = []
            for sign in (1, -1):
                moved = np.array(values)
                moved[position] += sign * step
                shifted.append(objective(p, moved) if name == "x" else objective({**p, name: moved}, x))
            expected[position] = (shifted[0] - shifted[1]) / (2 * step)
        found = gradients[1] if name == "x" else gradients[0][name]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8, err_msg=name)


def many_conversations():
    """Twenty conversations, one of one utterance, one of none; links reach beyond two pieces."""
    rng = np.random.default_rng(11)
    lengths = np.array([40, 1, 0, *rng.integers(1, 40, 17)])
    mask = np.arange(40)[None] < lengths[:, None]
    speakers = np.where(mask, rng.choice(3, mask.shape, p=(0.6, 0.38, 0.02)), -1).astype(np.int32)
    # The rare speaker's second utterance is linked to all since the first.
    speakers[0] = [2, *rng.integers(0, 2, 38), 2]
    return lengths, mask, speakers


@programs(*PIECES, "accelerator", slow=["kernel"])
def test_links_may_reach_beyond_a_piece(program):
    lengths, mask, speakers = many_conversations()
    x = normal(12, *mask.shape, 3)
    layer = DAGLayer(3)
    adjacency, same = predecessor_graph(jnp.array(speakers), jnp.array(mask))
    p = draw_parameters(layer, x, adjacency, same)
    out = jax.jit(layer.apply)({"params": p}, x, adjacency, same)
    for b, length in enumerate(lengths):
        if length:
            expected = reference.dag_layer(float64(p), np.float64(x[b, :length]), speakers[b, :length], 1, 1.0)
            np.testing.assert_allclose(out[b, :length], expected, rtol=1e-5, atol=1e-5)
        assert not out[b, length:].any()


@pytest.mark.parametrize(
    ("layers", "slope"), [(1, 0.01), (3, 0.01), *(pytest.param(n, 1.0, marks=pytest.mark.slow) for n in (1, 3))]
)
def test_the_program_of_accelerators_is_that_of_a_scan(layers, slope, accelerator_programs):
    _, mask, speakers = many_conversations()
    expected, found = both(mask, speakers, layers, slope, accelerator_programs)
    same(found, expected)


@pytest.mark.parametrize(
    ("layers", "slope"), [(2, 0.01), *(pytest.param(n, 1.0, marks=pytest.mark.slow) for n in (1, 3))]
)
def test_the_kernel_is_a_scan(layers, slope, accelerator_programs, monkeypatch):
    monkeypatch.setattr(dag_kernel, "INTERPRET", True)
    expected, found = both(MASK, PADDED, layers, slope, lambda: accelerator_programs("tpu"), kernel="pallas")
    same(found, expected)


def test_a_kernel_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="kernel: expected one of auto, pallas, got 'triton'"):
        DAGEncoder(4, 4, 1, kernel="triton").init(jax.random.key(0), normal(0, B, T, 3), *graph())


def both(mask, speakers, layers, slope, choose, **options):
    """Returns outputs and gradients of an encoder by a scan, and by the program that `choose` chooses."""
    x, weights = normal(13, *mask.shape, 4), normal(14, *mask.shape, 4)
    links = predecessor_graph(jnp.array(speakers), jnp.array(mask))
    p = draw_parameters(DAGEncoder(4, 4, layers), x, *links)

    def gradients(**options):
        encoder = DAGEncoder(4, 4, layers, negative_slope=slope, **options)

        def objective(p, x):
            out = jnp.where(mask[..., None], encoder.apply({"params": p}, x, *links), 0)
            return (out * weights).sum(), out

        return jax.jit(jax.grad(objective, (0, 1), has_aux=True))(p, x)

    expected = gradients(custom_derivative=False)
    choose()
    return expected, gradients(**options)


def same(found, expected):
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found[0], expected[0])


def lowered(step, platform, *arguments):
    """Returns the program of `step` for a platform, of which there need be no device."""
    return jax.jit(step).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def on_two_devices(step):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",))
    one, rows = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("batch")
    return jax.shard_map(step, mesh=mesh, in_specs=(one, rows), out_specs=one, check_vma=False)


MAPPINGS = {
    "one": (lambda step: step, (B, T, 3)),
    "vmap": (lambda step: jax.vmap(step, (None, 0)), (2, B, T, 3)),
    "shard_map": (on_two_devices, (2 * B, T, 3)),
}


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_program_is_for_the_platform_that_it_is_compiled_for(platform, mapping):
    """From a process that has nothing but CPUs: one loop there and back for all layers, or one for each layer."""
    encoder, (mapped, shape) = DAGEncoder(5, 4, 3), MAPPINGS[mapping]
    p = draw_parameters(encoder, normal(5, B, T, 3), *graph())

    def step(p, x):
        return jax.grad(lambda p: encoder.apply({"params": p}, x, *graph()).sum())(p)

    loops = lowered(mapped(step), platform, p, normal(5, *shape)).count("stablehlo.while")
    assert loops == (6 if platform == "cpu" else 2)


@pytest.mark.parametrize("model", ["dagerc", "lsdgnn", pytest.param("lfvd", marks=pytest.mark.slow)])
def test_a_model_may_run_the_kernels_on_a_tpu(model):
    """One forward and one back; none on other platforms."""

    def kernels(platform, dag_kernel):
        step, state, batch = tiny_step(model, dag_kernel=dag_kernel)
        return lowered(step, platform, state, batch).count("@tpu_custom_call")

    assert kernels("tpu", "pallas") == 2
    assert kernels("tpu", "auto") == kernels("cpu", "pallas") == 0


# The conversations of `SPEAKERS` again, two in the first row; the speakers of each are numbered from 0.
ROWS = ([0, 1], [2])


def packed(values):
    """Brings values per conversation, `[B, T, ...]`, into `ROWS`; padding is zero."""
    values = np.asarray(values)
    out = np.zeros((len(ROWS), T + 2, *values.shape[2:]), values.dtype)
    for row, members in zip(out, ROWS, strict=True):
        together = np.concatenate([values[b, : LENGTHS[b]] for b in members])
        row[: len(together)] = together
    return out


def unpacked(values):
    """Undoes `packed`."""
    out = np.zeros((B, T, *values.shape[2:]), values.dtype)
    for row, members in zip(values, ROWS, strict=True):
        ends = np.cumsum([LENGTHS[b] for b in members])
        for b, end in zip(members, ends, strict=True):
            out[b, : LENGTHS[b]] = row[end - LENGTHS[b] : end]
    return out


SEGMENTS = Segments(jnp.array([[0] * 6 + [1] * 2, [0] * 8]), 2)


def packed_graph(window=1):
    return predecessor_graph(jnp.array(packed(PADDED)), jnp.array(packed(MASK)), window=window, segments=SEGMENTS)


@pytest.mark.parametrize("window", EDGES)
def test_graphs_of_rows_with_several_conversations(window):
    adjacency, same = packed_graph(window)
    expected = np.zeros((len(ROWS), T + 2, T + 2), bool)
    expected_same = np.zeros_like(expected)
    for row, members in enumerate(ROWS):
        first = 0
        for b in members:
            for i, linked in enumerate(EDGES[window][b]):
                expected[row, first + i, [first + j for j in linked]] = True
                expected_same[row, first + i, first : first + LENGTHS[b]] = np.array(SPEAKERS[b]) == SPEAKERS[b][i]
            first += LENGTHS[b]
    np.testing.assert_array_equal(adjacency, expected)
    np.testing.assert_array_equal(same, expected_same)


@pytest.mark.parametrize("slope", [1.0, 0.01])
@ALL_SLOWLY
def test_conversations_of_one_row_are_independent(slope, program):
    """Outputs and gradients are those of the conversations in rows of their own."""
    encoder, x = DAGEncoder(5, 4, 2, negative_slope=slope), normal(17, B, T, 3)
    weights = normal(18, B, T, 5) * MASK[..., None]
    p = draw_parameters(encoder, x, *graph())

    def step(weights, graph):
        def objective(p, x):
            out = encoder.apply({"params": p}, x, *graph)
            return (out * weights).sum(), out

        return jax.jit(jax.grad(objective, (0, 1), has_aux=True))

    (p_bar, x_bar), out = step(weights, graph())(p, x)
    (p_bar_packed, x_bar_packed), out_packed = step(packed(weights), packed_graph())(p, packed(x))
    np.testing.assert_allclose(unpacked(out_packed), np.where(MASK[..., None], out, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(unpacked(x_bar_packed), np.where(MASK[..., None], x_bar, 0), rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), p_bar_packed, p_bar)


def small_model():
    x = normal(5, B, T, 3)
    encoder = DAGEncoder(5, 4, 1)
    return encoder, draw_parameters(encoder, x, *graph()), x


@ALL_SLOWLY
def test_no_output_depends_on_later_utterances(program):
    x = normal(6, B, T, 3)
    layer = DAGLayer(3)
    p = draw_parameters(layer, x, *graph())
    jacobian = jax.jit(jax.jacrev(lambda x: layer.apply({"params": p}, x, *graph()).sum(-1)))(x)
    reached = np.abs(jacobian).max(-1)
    for b, c in np.ndindex(B, B):
        for i, j in np.ndindex(LENGTHS[b], T):
            if b != c or j > i:
                assert reached[b, i, c, j] == 0
    assert (reached[0, range(1, T), 0, range(T - 1)] > 1e-4).all()


@pytest.mark.parametrize(("slope", "silent"), [(1.0, True), (0.01, False)])
@ALL_SLOWLY
def test_linear_scores_give_their_query_part_and_bias_no_gradient(slope, silent, program):
    layer = DAGLayer(3, slope)
    x = normal(7, B, T, 3)
    p = draw_parameters(layer, x, *graph(), spread=1.0)
    gradients = jax.jit(jax.grad(lambda p: (layer.apply({"params": p}, x, *graph()) ** 2).sum()))(p)
    for name in ("score_query_kernel", "score_bias"):
        largest = np.abs(gradients[name]).max()
        assert largest < 1e-5 if silent else largest > 1e-3
    assert np.abs(gradients["score_key_kernel"]).max() > 1e-3


@ALL_SLOWLY
def test_padding_changes_nothing(program):
    encoder, p, x = small_model()

    def objective(p, x, mask, adjacency, same):
        return jnp.sum(jnp.where(mask[..., None], encoder.apply({"params": p}, x, adjacency, same), 0) ** 2)

    step = jax.jit(jax.value_and_grad(objective))
    here = step(p, x, MASK, *graph())
    widths = ((0, 0), (0, 3))
    speakers, mask = np.pad(PADDED, widths, constant_values=-1), np.pad(MASK, widths)
    garbage = np.where(mask[..., None], np.pad(x, (*widths, (0, 0))), 100).astype(np.float32)
    there = step(p, garbage, mask, *predecessor_graph(jnp.array(speakers), jnp.array(mask)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), there, here)


@ALL
def test_the_same_under_vmap(program):
    """Two parameter sets at once on one graph, forwards and backwards."""
    encoder, _, x = small_model()
    sets = [draw_parameters(encoder, x, *graph(), seed=seed) for seed in (7, 8)]
    together = jax.tree.map(lambda *leaves: np.stack(leaves), *sets)
    xs = np.stack([x, normal(9, *x.shape)])
    adjacency, same = graph()
    step = jax.value_and_grad(lambda p, x: (encoder.apply({"params": p}, x, adjacency, same)[MASK] ** 2).sum(), (0, 1))
    mapped = jax.jit(jax.vmap(step))(together, xs)
    one = jax.jit(step)
    for i in (0, 1):
        alone = one(sets[i], xs[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5), mapped, alone)


@ALL_SLOWLY
def test_the_same_under_vmap_over_graphs(program):
    """Batches of different lengths at once, as seeds that train together have them."""
    encoder, p, _ = small_model()
    _, mask, speakers = many_conversations()
    masks, all_speakers = np.stack([mask[:10], mask[10:]]), np.stack([speakers[:10], speakers[10:]])
    xs = normal(16, *masks.shape, 3)

    def step(x, mask, speakers):
        def objective(p):
            out = encoder.apply({"params": p}, x, *predecessor_graph(speakers, mask))
            return jnp.where(mask[..., None], out, 0).sum()

        return jax.value_and_grad(objective)(p)

    mapped, one = jax.jit(jax.vmap(step))(xs, masks, all_speakers), jax.jit(step)
    for i in (0, 1):
        alone = one(xs[i], masks[i], all_speakers[i])
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4), mapped, alone)


def test_impossible_outputs_are_refused():
    x = normal(0, B, T, 3)
    with pytest.raises(ValueError, match="output: expected one of concat_proj, last, got 'first'"):
        DAGEncoder(4, 4, 1, "first").init(jax.random.key(0), x, *graph())
    with pytest.raises(ValueError, match="features: expected hidden_features, 4, for output 'last', got 5"):
        DAGEncoder(5, 4, 1, "last").init(jax.random.key(0), x, *graph())
