"""Cross-entropy, distillation and masked means, against float64 transcriptions of their formulas, and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer.layers.gaussian import Gaussian
from jmer.losses.classification import cross_entropy, focal_loss, published_focal_loss
from jmer.losses.distillation import soft_label_distillation, variational_distillation
from jmer.losses.reduction import masked_mean

MODALITIES = ("text", "audio", "visual")


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def chance(seed, *shape, p=0.6):
    return np.random.default_rng(seed).random(shape) < p


def softmax(row):
    powers = np.exp(np.float64(row) - np.max(row))
    return powers / powers.sum()


def posteriors(seed, *shape):
    return {
        m: Gaussian(normal([seed, i], *shape), np.exp(normal([seed, i, 1], *shape))) for i, m in enumerate(MODALITIES)
    }


def spoil(where, x):
    """What stands under the mask becomes NaN."""
    return np.where(where[..., None], x, np.nan).astype(np.float32)


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


# Cross-entropy


def reference_cross_entropy(logits, labels, where, weights):
    values = np.zeros(labels.shape)
    for i in np.ndindex(*labels.shape):
        if where[i] and labels[i] >= 0:
            values[i] = -weights[labels[i]] * np.log(softmax(logits[i])[labels[i]])
    return values


def test_cross_entropy_matches_the_formula():
    logits, weights = 3 * normal(1, 4, 5, 6), np.exp(normal(2, 6))
    labels, where = np.random.default_rng(3).integers(-1, 6, (4, 5)).astype(np.int32), chance(4, 4, 5)
    everywhere, ones = np.ones_like(where), np.ones(6)
    for loss in (cross_entropy, jax.jit(cross_entropy)):
        for options, expected in (
            ({}, reference_cross_entropy(logits, labels, everywhere, ones)),
            ({"where": where}, reference_cross_entropy(logits, labels, where, ones)),
            ({"class_weights": weights}, reference_cross_entropy(logits, labels, everywhere, weights)),
            ({"where": where, "class_weights": weights}, reference_cross_entropy(logits, labels, where, weights)),
        ):
            np.testing.assert_allclose(loss(logits, labels, **options), expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy_ignores_what_is_masked_or_unlabelled():
    logits, labels = normal(5, 8, 3), np.array([0, 1, 2, -1, 0, 1, -1, 2], np.int32)
    where = np.array([1, 1, 0, 1, 0, 1, 0, 1], bool)
    counts = where & (labels >= 0)

    def total(x):
        return cross_entropy(x, labels, where=where).sum()

    clean, gradient = jax.value_and_grad(total)(logits)
    spoilt, spoilt_gradient = jax.value_and_grad(total)(spoil(counts, logits))
    assert clean == spoilt
    np.testing.assert_array_equal(gradient, spoilt_gradient)
    np.testing.assert_array_equal(gradient[~counts], 0)
    np.testing.assert_allclose(
        cross_entropy(logits, labels, where=where)[counts], cross_entropy(logits[counts], labels[counts])
    )


def test_cross_entropy_gradient_is_probability_minus_target():
    logits, labels = normal(6, 7, 4), np.array([0, 1, 2, 3, 3, 2, 1], np.int32)
    gradient = jax.grad(lambda x: cross_entropy(x, labels).sum())(logits)
    expected = [softmax(row) - np.eye(4)[label] for row, label in zip(logits, labels, strict=True)]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_cross_entropy_does_not_hide_a_label_beyond_the_classes():
    assert np.isnan(cross_entropy(normal(7, 1, 3), np.array([3], np.int32)))[0]


def test_cross_entropy_of_extreme_logits():
    logits = jnp.array([[1e4, -1e4], [1e4, -1e4]])
    labels = jnp.array([0, 1])
    np.testing.assert_array_equal(cross_entropy(logits, labels), [0, 2e4])
    assert_finite(jax.grad(lambda x: cross_entropy(x, labels).sum())(logits))


def test_cross_entropy_refuses_shapes_that_disagree():
    with pytest.raises(ValueError, match=r"labels: expected int \[4\], got int32 \[3\]"):
        cross_entropy(jnp.zeros((4, 2)), jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match=r"class_weights: expected float \[2\], got float32 \[3\]"):
        cross_entropy(jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32), class_weights=jnp.ones(3))
    with pytest.raises(ValueError, match=r"where: expected bool \[4\], got bool \[5\]"):
        cross_entropy(jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32), where=jnp.ones(5, bool))


# Focal losses


def reference_focal(row, label, gamma):
    p = softmax(row)[label]
    return -((1 - p) ** gamma) * np.log(p)


def reference_published_focal(row, label, gamma):
    p = softmax(row)
    return -np.mean([(1 - (c == label) * np.log(p[c])) ** gamma * np.log(p[c]) for c in range(len(p))])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.5])
def test_focal_losses_match_their_formulas(gamma):
    logits, weights = 3 * normal(60, 4, 5, 6), np.exp(normal(61, 6))
    labels, where = np.random.default_rng(62).integers(-1, 6, (4, 5)).astype(np.int32), chance(63, 4, 5)
    expected, published = np.zeros((2, *labels.shape))
    for i in np.ndindex(*labels.shape):
        if where[i] and labels[i] >= 0:
            expected[i] = reference_focal(logits[i], labels[i], gamma)
            published[i] = reference_published_focal(logits[i], labels[i], gamma)
    dirty, options = spoil(where & (labels >= 0), logits), {"gamma": gamma, "where": where}
    for stop in (False, True):
        found = focal_loss(dirty, labels, stop_factor_gradient=stop, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    found = focal_loss(dirty, labels, class_weights=weights, **options)
    np.testing.assert_allclose(found, weights[labels] * expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(published_focal_loss(dirty, labels, **options), published, rtol=1e-5, atol=1e-6)


def slopes(loss, logits):
    """Central differences of a sum over utterances, in float64."""
    result = np.zeros(logits.shape)
    for i in np.ndindex(*logits.shape):
        step = np.zeros(logits.shape)
        step[i] = 1e-5
        result[i] = (loss(logits + step) - loss(logits - step)) / 2e-5
    return result


def test_the_gradient_passes_through_the_factor_unless_it_is_stopped():
    logits, labels, gamma = normal(64, 5, 4).astype(np.float64), np.array([0, 1, 2, 3, 1], np.int32), 0.5
    p = np.stack([softmax(row)[label] for row, label in zip(logits, labels, strict=True)])

    def total(reference):
        return lambda x: sum(reference(row, label, gamma) for row, label in zip(x, labels, strict=True))

    def of_entropy(x):
        rows = zip(x, labels, (1 - p) ** gamma, strict=True)
        return sum(-factor * np.log(softmax(row)[label]) for row, label, factor in rows)

    for loss, options, expected in (
        (focal_loss, {}, total(reference_focal)),
        (focal_loss, {"stop_factor_gradient": True}, of_entropy),
        (published_focal_loss, {}, total(reference_published_focal)),
    ):
        gradient = jax.grad(lambda x: loss(x, labels, gamma=gamma, **options).sum())(np.float32(logits))  # noqa: B023
        np.testing.assert_allclose(gradient, slopes(expected, logits), rtol=1e-4, atol=1e-6)


def test_focal_losses_without_gamma():
    logits, labels = normal(65, 6, 3), np.array([0, 1, 2, -1, 0, 1], np.int32)
    np.testing.assert_allclose(focal_loss(logits, labels, gamma=0), cross_entropy(logits, labels), rtol=1e-6)
    everything = -jax.nn.log_softmax(logits).mean(-1)
    expected = np.where(labels >= 0, everything, 0)
    np.testing.assert_allclose(published_focal_loss(logits, labels, gamma=0), expected, rtol=1e-6)


@pytest.mark.parametrize(("classes", "expected"), [(7, 0.529), (6, 0.553)])
def test_the_published_focal_loss_is_smallest_at_half_a_label(classes, expected):
    p = np.linspace(0.01, 0.99, 9801)
    rest = np.broadcast_to(((1 - p) / (classes - 1))[:, None], (len(p), classes - 1))
    values = published_focal_loss(
        np.log(np.concatenate([p[:, None], rest], axis=1), dtype=np.float32), np.zeros(len(p), np.int32), gamma=2.5
    )
    assert abs(p[np.argmin(values)] - expected) < 2e-3


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.5])
def test_focal_losses_of_certain_logits_are_finite(gamma):
    logits = jnp.array([[1e4, -1e4], [1e4, -1e4], [1e-7, 0.0], [17.0, 0.0]])
    labels = jnp.array([0, 1, 0, 0])
    for loss in (focal_loss, published_focal_loss):
        values, gradient = jax.value_and_grad(lambda x: loss(x, labels, gamma=gamma).sum())(logits)  # noqa: B023
        assert_finite((values, gradient))
    assert focal_loss(logits, labels, gamma=gamma)[0] == 0


def test_focal_losses_refuse_what_does_not_fit():
    labels = jnp.zeros(2, jnp.int32)
    for loss in (focal_loss, published_focal_loss):
        with pytest.raises(ValueError, match="gamma: expected a number of at least 0, got -1"):
            loss(jnp.zeros((2, 3)), labels, gamma=-1)
        with pytest.raises(ValueError, match=r"where: expected bool \[2\], got bool \[3\]"):
            loss(jnp.zeros((2, 3)), labels, gamma=1, where=jnp.ones(3, bool))
        assert np.isnan(loss(jnp.zeros((2, 3)), jnp.array([3, 3]), gamma=1)).all()
    with pytest.raises(ValueError, match=r"class_weights: expected float \[3\], got float32 \[2\]"):
        focal_loss(jnp.zeros((2, 3)), labels, gamma=1, class_weights=jnp.ones(2))


# Variational distillation


def reference_kl(q, p, i):
    m1, s1, m2, s2 = (np.float64(x[i]) for x in (q.mean, q.scale, p.mean, p.scale))
    return np.sum(np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5)


def reference_sampled_kl(q, p, z, i):
    def log_density(g):
        m, s = np.float64(g.mean[i]), np.float64(g.scale[i])
        return np.sum(-((z[i] - m) ** 2) / (2 * s**2) - np.log(s * np.sqrt(2 * np.pi)))

    return log_density(q) - log_density(p)


def reference_distillation(q, teacher, present, samples=None):
    shape = q[teacher].mean.shape
    prior = Gaussian(np.zeros(shape), np.ones(shape))
    values = np.zeros(shape[:-1])
    for i in np.ndindex(*values.shape):
        for m in q:
            targets = [prior] if m == teacher or not present[teacher][i] else [prior, q[teacher]]
            for target in targets if present[m][i] else []:
                if samples is None:
                    values[i] += reference_kl(q[m], target, i)
                else:
                    values[i] += reference_sampled_kl(q[m], target, samples[m], i)
    return values


@pytest.mark.parametrize("teacher", MODALITIES)
def test_variational_distillation_matches_eq_13(teacher):
    q = posteriors(10, 3, 4, 5)
    samples = {m: normal([11, i], 3, 4, 5) for i, m in enumerate(MODALITIES)}
    everything = dict.fromkeys(MODALITIES, np.ones((3, 4), bool))
    some = {m: chance([12, i], 3, 4) for i, m in enumerate(MODALITIES)}
    one = chance(13, 3, 4)
    for where, present in ((None, everything), (some, some), (one, dict.fromkeys(MODALITIES, one))):
        for z in (None, samples):
            np.testing.assert_allclose(
                variational_distillation(q, teacher=teacher, where=where, samples=z),
                reference_distillation(q, teacher, present, z),
                rtol=1e-5,
                atol=1e-5,
            )


def test_sampled_distillation_is_unbiased():
    q = {
        m: jax.tree.map(lambda x: np.broadcast_to(0.3 + 0.2 * x, (100_000, 2)), g)
        for m, g in posteriors(14, 1, 2).items()
    }
    samples = {m: g.mean + g.scale * normal([15, i], 100_000, 2) for i, (m, g) in enumerate(q.items())}
    sampled = np.float64(variational_distillation(q, samples=samples))
    exact = float(variational_distillation(q)[0])
    assert abs(sampled.mean() - exact) < 4 * sampled.std() / np.sqrt(len(sampled))


def test_standard_normal_posteriors_are_the_trivial_minimum():
    q = dict.fromkeys(MODALITIES, Gaussian(jnp.zeros((4, 3)), jnp.ones((4, 3))))
    values, gradient = jax.value_and_grad(lambda q: variational_distillation(q).sum())(q)
    assert values == 0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


def test_one_modality_is_drawn_to_the_prior_alone():
    q = posteriors(16, 4, 3)
    prior = Gaussian(np.zeros((4, 3)), np.ones((4, 3)))
    values = variational_distillation({"audio": q["audio"]}, teacher="audio")
    np.testing.assert_allclose(values, [reference_kl(q["audio"], prior, i) for i in range(4)], rtol=1e-5)


def test_a_stopped_teacher_feels_only_the_prior():
    q = posteriors(17, 4, 3)

    def gradient(stop, **only):
        return jax.grad(lambda q: variational_distillation(q, stop_teacher_gradient=stop, **only).sum())(q)

    stopped, free = gradient(True), gradient(False)
    np.testing.assert_allclose(stopped["text"].mean, q["text"].mean, rtol=1e-5)
    np.testing.assert_allclose(stopped["text"].scale, q["text"].scale - 1 / q["text"].scale, rtol=1e-4, atol=1e-5)
    assert np.abs(stopped["text"].mean - free["text"].mean).max() > 0.1
    np.testing.assert_allclose(stopped["audio"].mean, free["audio"].mean, rtol=1e-6)
    np.testing.assert_array_equal(variational_distillation(q, stop_teacher_gradient=True), variational_distillation(q))


@pytest.mark.parametrize("sampled", [False, True])
def test_distillation_ignores_what_is_masked(sampled):
    q = posteriors(18, 6, 3)
    z = {m: normal([19, i], 6, 3) for i, m in enumerate(MODALITIES)}
    where = {m: chance([20, i], 6) for i, m in enumerate(MODALITIES)}

    def total(q, z):
        return variational_distillation(q, where=where, samples=z if sampled else None).sum()

    spoilt = {m: Gaussian(spoil(where[m], g.mean), spoil(where[m], g.scale)) for m, g in q.items()}
    spoilt_z = {m: spoil(where[m], x) for m, x in z.items()}
    value, gradient = jax.value_and_grad(total)(q, z)
    spoilt_value, spoilt_gradient = jax.value_and_grad(total)(spoilt, spoilt_z)
    assert value == spoilt_value
    jax.tree.map(np.testing.assert_array_equal, gradient, spoilt_gradient)
    nothing = np.zeros(6, bool)
    empty, gradient = jax.value_and_grad(lambda q: variational_distillation(q, where=nothing).sum())(spoilt)
    assert empty == 0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


def test_distillation_refuses_what_does_not_fit():
    q = posteriors(21, 4, 3)
    with pytest.raises(ValueError, match="teacher: expected one of text, audio, visual, got 'video'"):
        variational_distillation(q, teacher="video")
    with pytest.raises(ValueError, match="samples: expected the modalities text, audio, visual, got text"):
        variational_distillation(q, samples={"text": q["text"].mean})
    with pytest.raises(ValueError, match="where: expected the modalities text, audio, visual, got text, audio"):
        variational_distillation(q, where=dict.fromkeys(("text", "audio"), np.ones(4, bool)))
    with pytest.raises(ValueError, match=r"posteriors\[.*\].mean: expected float \[.*\], got float32 "):
        variational_distillation(q | {"audio": posteriors(22, 4, 2)["audio"]})


# Soft labels


def reference_soft_labels(student, teacher, temperature):
    values = np.zeros(student.shape[:-1])
    for i in np.ndindex(*values.shape):
        p, q = (softmax(np.float64(x[i]) / temperature) for x in (teacher, student))
        values[i] = sum(p[c] * (np.log(p[c]) - np.log(q[c])) for c in range(len(p)))
    return values


@pytest.mark.parametrize("temperature", [1.0, 8.0, 0.25])
def test_soft_labels_match_the_formula(temperature):
    student, teacher, where = normal(30, 3, 4, 6), normal(31, 3, 4, 6), chance(32, 3, 4)
    expected = reference_soft_labels(student, teacher, temperature)
    np.testing.assert_allclose(
        soft_label_distillation(student, teacher, temperature=temperature), expected, rtol=1e-5, atol=1e-6
    )
    masked = soft_label_distillation(spoil(where, student), spoil(where, teacher), temperature=temperature, where=where)
    np.testing.assert_allclose(masked, np.where(where, expected, 0), rtol=1e-5, atol=1e-6)


def test_identical_heads_learn_nothing_from_each_other():
    logits = normal(33, 5, 4)
    value, gradients = jax.value_and_grad(lambda s, t: soft_label_distillation(s, t).sum(), argnums=(0, 1))(
        logits, logits
    )
    assert value == 0
    for leaf in gradients:
        np.testing.assert_allclose(leaf, np.zeros((5, 4)), atol=1e-6)


def test_the_teacher_learns_unless_stopped():
    student, teacher = normal(34, 5, 4), normal(35, 5, 4)

    def gradient(stop):
        loss = lambda s, t: soft_label_distillation(s, t, stop_teacher_gradient=stop).sum()  # noqa: E731
        return jax.grad(loss, argnums=(0, 1))(student, teacher)

    expected = [softmax(s) - softmax(t) for s, t in zip(student, teacher, strict=True)]
    np.testing.assert_allclose(gradient(True)[0], expected, atol=1e-6)
    np.testing.assert_allclose(gradient(False)[0], expected, atol=1e-6)
    np.testing.assert_array_equal(gradient(True)[1], 0)
    assert np.abs(gradient(False)[1]).max() > 0.01


def test_soft_labels_have_finite_gradients_when_all_is_masked():
    logits = np.full((3, 4), np.nan, np.float32)
    loss = lambda s, t: soft_label_distillation(s, t, where=np.zeros(3, bool)).sum()  # noqa: E731
    value, gradients = jax.value_and_grad(loss, argnums=(0, 1))(logits, logits)
    assert value == 0
    assert_finite(gradients)
    with pytest.raises(ValueError, match=r"teacher_logits: expected float \[3, 4\], got float32 \[3, 5\]"):
        soft_label_distillation(jnp.zeros((3, 4)), jnp.zeros((3, 5)))


def test_losses_per_utterance_are_maps():
    """vmap over conversations equals a loop over them."""
    logits, other = normal(36, 3, 5, 4), normal(37, 3, 5, 4)
    labels, where = np.random.default_rng(38).integers(-1, 4, (3, 5)).astype(np.int32), chance(39, 3, 5)
    q = posteriors(40, 3, 5, 2)
    for loss, arguments in (
        (lambda x, y, w: cross_entropy(x, y, where=w), (logits, labels, where)),
        (lambda x, y, w: soft_label_distillation(x, y, where=w), (logits, other, where)),
        (lambda q, w: variational_distillation(q, where=w), (q, where)),
    ):
        looped = [loss(*jax.tree.map(lambda x, i=i: x[i], arguments)) for i in range(3)]
        np.testing.assert_allclose(jax.vmap(loss)(*arguments), np.stack(looped), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(loss(*arguments), np.stack(looped), rtol=1e-6, atol=1e-6)


# Masked mean


def test_masked_mean_is_the_mean_of_what_counts():
    values, where, weights = normal(50, 4, 6), chance(51, 4, 6), np.exp(normal(52, 4, 6))
    garbage = np.where(where, values, np.nan)
    np.testing.assert_allclose(masked_mean(garbage, where), np.float64(values[where]).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        masked_mean(garbage, where, weights=np.where(where, weights, np.nan)),
        np.average(np.float64(values[where]), weights=np.float64(weights[where])),
        rtol=1e-5,
    )


def test_masked_mean_of_nothing_is_zero():
    for options in ({}, {"weights": jnp.ones(3)}):
        value, gradient = jax.value_and_grad(masked_mean)(jnp.ones(3), jnp.zeros(3, bool), **options)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    assert masked_mean(jnp.ones(3), jnp.ones(3, bool), weights=jnp.zeros(3)) == 0


def test_weighted_mean_of_cross_entropy_divides_by_the_weights():
    logits, labels, class_weights = (
        normal(53, 9, 3),
        np.arange(9, dtype=np.int32) % 3,
        np.array([0.2, 1.0, 3.0], np.float32),
    )
    weights = class_weights[labels]
    mean = masked_mean(cross_entropy(logits, labels), np.ones(9, bool), weights=weights)
    weighted = np.asarray(cross_entropy(logits, labels, class_weights=class_weights), np.float64)
    np.testing.assert_allclose(mean, weighted.sum() / weights.sum(), rtol=1e-5)


def test_masked_mean_refuses_another_shape():
    with pytest.raises(ValueError, match=r"where: expected bool \[4\], got bool \[3\]"):
        masked_mean(jnp.zeros(4), jnp.ones(3, bool))


def mapped(kind, function):
    """`function(rows..., axis)` over eight devices: outputs stacked along a new first axis."""
    if kind == "pmap":
        return jax.pmap(lambda *rows: function(*rows, "batch"), axis_name="batch")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    spec = jax.sharding.PartitionSpec("batch")

    def per_device(*rows):
        rows = jax.tree.map(lambda x: x[0], rows)
        return jax.tree.map(lambda x: x[None], function(*rows, "batch"))

    return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
def test_masked_mean_over_devices(kind):
    """Unequal counts, one device all padding: the global mean, the same bits everywhere, and its gradient."""
    parameter = jnp.float32(0.7)
    x, where, weights = normal(54, 8, 5), chance(55, 8, 5), np.exp(normal(56, 8, 5))
    where[3] = False

    def loss(parameter, x, where, weights, axis=None):
        return masked_mean(jnp.sin(parameter * x), where, weights=weights, axis=axis)

    def step(x, where, weights, axis):
        value, gradient = jax.value_and_grad(loss)(parameter, x, where, weights, axis)
        return value, jax.lax.psum(gradient, axis)

    values, gradients = mapped(kind, step)(x, where, weights)
    value, gradient = jax.value_and_grad(loss)(parameter, x, where, weights)
    assert len(set(np.asarray(values).tolist())) == 1
    np.testing.assert_allclose(values, np.full(8, value), rtol=1e-6)
    np.testing.assert_allclose(gradients, np.full(8, gradient), rtol=1e-6)
