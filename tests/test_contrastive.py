"""The contrastive losses against loops over Eqs. 10-11 of LFVD in float64, their laws, and one device against eight."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer.losses.contrastive import cross_modal_contrastive, supervised_contrastive

MODALITIES = ("text", "audio", "visual")
CROSS_DENOMINATORS = ("negatives", "all")
SUPERVISED_DENOMINATORS = ("negatives", "negatives_plus_self", "all_but_self")
N, D = 12, 5


def features(seed, n=N, d=D, modalities=MODALITIES):
    rng = np.random.default_rng(seed)
    return {m: rng.normal(size=(n, d)).astype(np.float32) for m in modalities}


def masks(seed, n=N, p=0.7):
    rng = np.random.default_rng(seed)
    return {m: rng.random(n) < p for m in MODALITIES}


def emotions(seed, n=N, classes=3):
    return np.random.default_rng(seed).integers(-1, classes, n).astype(np.int32)


def everything(n=N):
    return dict.fromkeys(MODALITIES, np.ones(n, bool))


def spoil(where, x):
    return {m: np.where(where[m][:, None], x[m], np.nan).astype(np.float32) for m in x}


def cosine(u, v):
    u, v = np.float64(u), np.float64(v)
    return u @ v / math.sqrt((u @ u) * (v @ v))


def reference_cross_modal(x, present, temperature=0.5, denominator="negatives", groups=None):
    n = len(next(iter(x.values())))
    values = np.zeros(n)
    for first, second in itertools.permutations(x, 2):
        rows = [i for i in range(n) if present[first][i] and present[second][i]]
        for i in rows:
            group = [j for j in rows if groups is None or groups[i] == groups[j]]
            if group == [i]:
                continue
            positive = math.exp(cosine(x[first][i], x[second][i]) / temperature)
            below = sum(
                math.exp(cosine(x[first][i], x[second][j]) / temperature)
                for j in group
                if j != i or denominator == "all"
            )
            values[i] -= math.log(positive / below)
    return values


def reference_supervised(x, labels, present, temperature=0.5, denominator="negatives"):
    values = np.zeros(len(labels))
    for m in x:
        rows = [i for i in range(len(labels)) if present[m][i] and labels[i] >= 0]
        for i in rows:
            positives = [p for p in rows if p != i and labels[p] == labels[i]]
            compared = {
                "negatives": [k for k in rows if labels[k] != labels[i]],
                "negatives_plus_self": [k for k in rows if labels[k] != labels[i] or k == i],
                "all_but_self": [k for k in rows if k != i],
            }[denominator]
            if not positives or not compared:
                continue
            below = sum(math.exp(cosine(x[m][i], x[m][k]) / temperature) for k in compared)
            logs = [math.log(math.exp(cosine(x[m][i], x[m][p]) / temperature) / below) for p in positives]
            values[i] -= sum(logs) / len(positives)
    return values


# Both losses, in all their forms, under one signature, for the laws they share.
LOSSES = {
    f"{name}-{denominator}": jax.jit(
        functools.partial(function, denominator=denominator), static_argnames="temperature"
    )
    for name, function, denominators in (
        ("cross", lambda x, labels, **options: cross_modal_contrastive(x, **options), CROSS_DENOMINATORS),
        ("supervised", supervised_contrastive, SUPERVISED_DENOMINATORS),
    )
    for denominator in denominators
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


# The equations


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("denominator", CROSS_DENOMINATORS)
def test_cross_modal_matches_eq_10(denominator, temperature):
    x, present, groups = features(1), masks(2), np.arange(N, dtype=np.int32) // 5
    options = {"temperature": temperature, "denominator": denominator}
    loss = jax.jit(functools.partial(cross_modal_contrastive, **options))
    for where, chosen in (
        (None, everything()),
        (present, present),
        (present["text"], dict.fromkeys(MODALITIES, present["text"])),
    ):
        for g in (None, groups):
            np.testing.assert_allclose(
                loss(x, where=where, groups=g),
                reference_cross_modal(x, chosen, groups=g, **options),
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("denominator", SUPERVISED_DENOMINATORS)
def test_supervised_matches_eq_11(denominator, temperature):
    x, labels, present = features(3), emotions(4), masks(5)
    options = {"temperature": temperature, "denominator": denominator}
    loss = jax.jit(functools.partial(supervised_contrastive, **options))
    for where, chosen in (
        (None, everything()),
        (present, present),
        (present["text"], dict.fromkeys(MODALITIES, present["text"])),
    ):
        np.testing.assert_allclose(
            loss(x, labels, where=where),
            reference_supervised(x, labels, chosen, **options),
            rtol=1e-5,
            atol=1e-5,
        )


def test_two_utterances_by_hand():
    """Text views (1,0) and (0,1), audio views alike: a positive has cosine 1, a negative 0, in both directions."""
    x = {m: jnp.eye(2) for m in ("text", "audio")}
    np.testing.assert_allclose(LOSSES["cross-negatives"](x, None), [-4, -4], rtol=1e-6)
    np.testing.assert_allclose(LOSSES["cross-all"](x, None), np.full(2, 2 * math.log(1 + math.exp(-2))), rtol=1e-5)


# Degenerate batches


def test_nothing_to_compare_costs_nothing(loss):
    """No rows, one row, or nothing that counts: values 0, gradients finite, NaN under the mask included."""
    labels = np.zeros(N, np.int32)
    first = np.arange(N) == 0
    call = jax.jit(jax.value_and_grad(lambda x, labels, where: loss(x, labels, where=where).sum()))
    for x, y, where in (
        (features(6), labels, np.zeros(N, bool)),
        (features(6), labels, first),
        (features(6, n=1), labels[:1], np.ones(1, bool)),
        (spoil(dict.fromkeys(MODALITIES, first), features(6)), labels, first),
    ):
        values, gradient = call(x, y, where)
        assert values == 0
        for leaf in jax.tree.leaves(gradient):
            np.testing.assert_array_equal(leaf, 0)


def test_an_utterance_alone_in_its_emotion_has_value_zero():
    x, labels = features(7, n=4), np.array([0, 0, 1, 2], np.int32)
    for denominator in SUPERVISED_DENOMINATORS:
        values = LOSSES[f"supervised-{denominator}"](x, labels)
        np.testing.assert_array_equal(values[2:], 0)
        assert (np.abs(values[:2]) > 0).all()


def test_a_batch_of_one_emotion_has_no_negatives():
    values, gradient = jax.value_and_grad(lambda x: LOSSES["supervised-negatives"](x, np.ones(N, np.int32)).sum())(
        features(8)
    )
    assert values == 0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


def test_one_modality_has_nothing_to_contrast_with():
    x = features(9, modalities=("audio",))
    np.testing.assert_array_equal(cross_modal_contrastive(x), np.zeros(N))
    labels = emotions(10)
    np.testing.assert_allclose(
        LOSSES["supervised-negatives"](x, labels), reference_supervised(x, labels, everything()), rtol=1e-5, atol=1e-5
    )


def test_unlabelled_batch_has_no_supervised_loss():
    np.testing.assert_array_equal(LOSSES["supervised-negatives"](features(11), np.full(N, -1, np.int32)), np.zeros(N))


def test_zero_rows_and_equal_rows_are_harmless(loss):
    labels = np.array([0, 0, 1, 1] * 3, np.int32)
    call = jax.jit(jax.value_and_grad(lambda x: loss(x, labels, temperature=0.05).sum()))
    zeros = {m: np.where(np.arange(N)[:, None] < 5, 0, x).astype(np.float32) for m, x in features(12).items()}
    for x in (
        zeros,
        {m: np.zeros((N, D), np.float32) for m in MODALITIES},
        {m: np.ones((N, D), np.float32) for m in MODALITIES},
    ):
        values, gradient = call(x)
        assert np.isfinite(values)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# Laws


def test_masking_equals_slicing(loss):
    x, labels, where = features(13), emotions(14), masks(15)["text"]
    sliced = loss({m: v[where] for m, v in x.items()}, labels[where])
    masked = loss(x, labels, where=where)
    np.testing.assert_allclose(masked[where], sliced, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(masked[~where], 0)


def test_a_compiled_function_may_close_over_numpy_arrays():
    x, labels, where, groups = features(53), emotions(54), masks(55), np.arange(N) // 5
    for call in (
        functools.partial(supervised_contrastive, labels=labels, where=where),
        functools.partial(cross_modal_contrastive, where=where, groups=groups),
    ):
        np.testing.assert_allclose(jax.jit(call)(x), call(x), rtol=1e-5, atol=1e-5)


def test_garbage_under_the_mask_changes_nothing(loss):
    x, labels, where = features(16), emotions(17), masks(18)

    call = jax.jit(jax.value_and_grad(lambda x: loss(x, labels, where=where).sum()))
    value, gradient = call(x)
    spoilt_value, spoilt_gradient = call(spoil(where, x))
    assert value == spoilt_value
    jax.tree.map(np.testing.assert_array_equal, gradient, spoilt_gradient)
    for m in MODALITIES:
        np.testing.assert_array_equal(gradient[m][~where[m]], 0)


def test_order_of_rows_and_of_modalities_does_not_matter(loss):
    x, labels, where = features(19), emotions(20), masks(21)
    values, order = loss(x, labels, where=where), np.random.default_rng(22).permutation(N)
    permuted = loss(
        {m: x[m][order] for m in reversed(MODALITIES)}, labels[order], where={m: w[order] for m, w in where.items()}
    )
    np.testing.assert_allclose(permuted, values[order], rtol=1e-5, atol=1e-5)


def test_scaling_any_row_changes_nothing(loss):
    x, labels = features(23), emotions(24)
    scaled = {
        m: v * 10 ** np.random.default_rng([25, i]).uniform(-2, 3, (N, 1)).astype(np.float32)
        for i, (m, v) in enumerate(x.items())
    }
    np.testing.assert_allclose(loss(scaled, labels), loss(x, labels), rtol=1e-5, atol=1e-5)


def test_vmap_equals_loop(loss):
    batches = [(features([26, i]), emotions([27, i]), masks([28, i])) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
    call = jax.jit(jax.vmap(lambda x, labels, where: loss(x, labels, where=where)))
    looped = np.stack([loss(x, labels, where=where) for x, labels, where in batches])
    np.testing.assert_allclose(call(*stacked), looped, rtol=1e-5, atol=1e-5)


def test_only_the_form_with_the_positive_below_is_never_negative():
    x = features(29, n=6)
    x["audio"] = x["visual"] = x["text"]
    assert (LOSSES["cross-negatives"](x, None) < 0).any()
    for seed in range(30, 35):
        assert (LOSSES["cross-all"](features(seed), None, temperature=0.05) >= 0).all()
    assert (LOSSES["cross-all"](x, None, temperature=0.05) >= 0).all()


def test_groups_keep_conversations_apart():
    """Values with groups equal those of each conversation alone."""
    x, groups = features(36), np.repeat(np.array([3, 7, 1], np.int32), (5, 1, 6))
    values = LOSSES["cross-negatives"](x, None, groups=groups)
    for g in (3, 7, 1):
        alone = LOSSES["cross-negatives"]({m: v[groups == g] for m, v in x.items()}, None)
        np.testing.assert_allclose(values[groups == g], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_matches_finite_differences(name):
    """Against the float64 loops, along a random direction."""
    x, labels, direction = features(37), emotions(38), features(39)
    kind, denominator = name.split("-")

    def reference(step):
        moved = {m: np.float64(x[m]) + step * np.float64(direction[m]) for m in MODALITIES}
        if kind == "cross":
            return reference_cross_modal(moved, everything(), denominator=denominator).sum()
        return reference_supervised(moved, labels, everything(), denominator=denominator).sum()

    expected = (reference(1e-5) - reference(-1e-5)) / 2e-5
    gradient = jax.grad(lambda x: LOSSES[name](x, labels).sum())(x)
    np.testing.assert_allclose(sum(np.vdot(gradient[m], direction[m]) for m in MODALITIES), expected, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_similarities_ask_for_full_precision(name):
    """Accelerators round the factors of a product by default; a CPU never shows it."""
    program = str(jax.make_jaxpr(LOSSES[name])(features(45), emotions(46)))
    assert program.count("dot_general") == program.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == 1


# Refusals


def test_refusals_name_what_is_wrong():
    x, labels = features(40), emotions(41)
    with pytest.raises(ValueError, match="denominator: expected one of negatives, all, got 'negative'"):
        cross_modal_contrastive(x, denominator="negative")
    with pytest.raises(ValueError, match="expected one of negatives, negatives_plus_self, all_but_self"):
        supervised_contrastive(x, labels, denominator="all")
    with pytest.raises(ValueError, match=r"features\['audio'\]: expected float \[12, 5\], got float32 \[12, 6\]"):
        cross_modal_contrastive(x | {"audio": np.zeros((N, D + 1), np.float32)})
    with pytest.raises(ValueError, match=r"features\['text'\]: expected float \[N, D\], got float32 \[1, 12, 5\]"):
        supervised_contrastive({m: v[None] for m, v in x.items()}, labels)
    with pytest.raises(ValueError, match="features: expected at least one modality, got none"):
        cross_modal_contrastive({})
    with pytest.raises(ValueError, match=r"labels: expected int \[12\], got int(32|64) \[3\]"):
        supervised_contrastive(x, labels[:3])
    with pytest.raises(ValueError, match=r"groups: expected int \[12\], got int(32|64) \[3\]"):
        cross_modal_contrastive(x, groups=labels[:3])
    with pytest.raises(ValueError, match=r"where: expected the modalities .*visual, got "):
        cross_modal_contrastive(x, where={m: np.ones(N, bool) for m in ("text", "audio")})


# Devices


def over_devices(kind, function):
    """Maps `function(rows, axis)` over eight devices, rows split along the first axis; outputs stacked per device."""
    if kind == "pmap":
        return jax.pmap(lambda rows: function(rows, "batch"), axis_name="batch")
    spec = (
        jax.sharding.PartitionSpec(("hosts", "devices")) if kind == "two axes" else jax.sharding.PartitionSpec("batch")
    )
    shape, names = ((2, 4), ("hosts", "devices")) if kind == "two axes" else ((8,), ("batch",))
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(shape), names)
    axis = names if kind == "two axes" else names[0]

    def per_device(rows):
        outputs = function(jax.tree.map(lambda x: x[0], rows), axis)
        return jax.tree.map(lambda x: x[None], outputs)

    return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


@pytest.mark.parametrize("kind", ["pmap", "shard_map", "two axes"])
@pytest.mark.parametrize("supervised", [False, True], ids=["cross", "supervised"])
def test_eight_devices_equal_one(kind, supervised):
    """Values, and the summed gradients of a shared weight, equal the whole batch's; one device is all padding."""
    n = 8 * 4
    rng = np.random.default_rng(42)
    rows = {
        "x": features(43, n=n),
        "labels": emotions(44, n=n),
        "where": {m: (rng.random(n) < 0.5) & (np.arange(n) // 4 != 5) for m in MODALITIES},
        "groups": np.sort(rng.integers(0, 5, n)).astype(np.int32),
    }
    weight = rng.normal(size=(D, 6)).astype(np.float32)

    def values(weight, rows, axis=None):
        x = {m: jnp.tanh(v @ weight) for m, v in rows["x"].items()}
        if supervised:
            return supervised_contrastive(x, rows["labels"], where=rows["where"], axis=axis)
        return cross_modal_contrastive(x, where=rows["where"], groups=rows["groups"], axis=axis)

    def loss(weight, rows, axis=None):
        each = values(weight, rows, axis)
        return each.sum() / n, each

    def step(rows, axis):
        gradient, each = jax.grad(loss, has_aux=True)(weight, rows, axis)
        return jax.lax.psum(gradient, axis), each

    split = jax.tree.map(lambda x: x.reshape(8, 4, *x.shape[1:]), rows)
    gradients, each = over_devices(kind, step)(split)
    expected_gradient, expected = jax.jit(jax.grad(loss, has_aux=True))(weight, rows)
    assert (np.abs(expected) > 0).sum() > 10
    np.testing.assert_allclose(each.reshape(n), expected, rtol=1e-6, atol=2e-6)
    for gradient in gradients:
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6, atol=1e-6)
