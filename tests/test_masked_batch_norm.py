"""Masked batch norm against NumPy statistics of the real rows, on one device and on eight with unequal masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmer.layers.normalization import MaskedBatchNorm

D = 3


def sample(seed, shape=(8, 6), offset=0.0):
    rng = np.random.default_rng(seed)
    x = (offset + rng.normal(size=(*shape, D)) * [1, 5, 0.1]).astype(np.float32)
    return x, rng.random(shape) < 0.6


def some_variables(seed):
    rng = np.random.default_rng(seed)
    draw = {name: rng.uniform(0.5, 2, D).astype(np.float32) for name in ("scale", "bias", "mean", "var")}
    return {
        "params": {k: draw[k] for k in ("scale", "bias")},
        "batch_stats": {k: draw[k] for k in ("mean", "var")},
    }


def train(variables, x, mask, axis=None, **options):
    y, update = MaskedBatchNorm(**options).apply(
        variables, x, mask, train=True, axis_name=axis, mutable=["batch_stats"]
    )
    return y, update["batch_stats"]


def reference(variables, x, mask, momentum=0.9):
    """Output and new running statistics, from the real rows alone."""
    rows = np.float64(x[mask])
    mean, variance = rows.mean(0), rows.var(0)
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    y = np.zeros(x.shape)
    y[mask] = (rows - mean) / np.sqrt(variance + 1e-5) * scale + bias
    old = variables["batch_stats"]
    return y, {
        "mean": momentum * old["mean"] + (1 - momentum) * mean,
        "var": momentum * old["var"] + (1 - momentum) * rows.var(0, ddof=1),
    }


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_training_uses_and_remembers_the_real_rows(offset):
    x, mask = sample(1, offset=offset)
    variables = some_variables(2)
    y, statistics = jax.jit(train)(variables, x, mask)
    expected, expected_statistics = reference(variables, x, mask)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-3 if offset else 1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(statistics[name], expected_statistics[name], rtol=1e-5)
    _, statistics = train(variables, x, mask, momentum=0.5)
    np.testing.assert_allclose(statistics["mean"], reference(variables, x, mask, 0.5)[1]["mean"], rtol=1e-5)


def test_evaluation_uses_the_running_statistics():
    x, mask = sample(3)
    variables = some_variables(4)
    scale, bias = variables["params"]["scale"], variables["params"]["bias"]
    mean, variance = (np.float64(variables["batch_stats"][k]) for k in ("mean", "var"))
    expected = np.where(mask[..., None], (x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0)
    np.testing.assert_allclose(MaskedBatchNorm().apply(variables, x, mask, train=False), expected, rtol=1e-5, atol=1e-5)


def test_fresh_parameters_are_those_of_pytorch(key):
    x, mask = sample(5)
    variables = MaskedBatchNorm().init(key(), x, mask, train=True, axis_name="batch")
    zeros, ones = np.zeros(D), np.ones(D)
    expected = {"params": {"scale": ones, "bias": zeros}, "batch_stats": {"mean": zeros, "var": ones}}
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize("is_training", [True, False])
def test_what_is_masked_changes_nothing(is_training):
    x, mask = sample(6)
    variables = some_variables(7)

    def loss(params, x):
        y, update = MaskedBatchNorm().apply(
            variables | {"params": params}, x, mask, train=is_training, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y)), (y, update)

    spoilt = np.where(mask[..., None], x, np.nan).astype(np.float32)
    call = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    results = [call(variables["params"], v) for v in (x, spoilt)]
    jax.tree.map(np.testing.assert_array_equal, *results)
    np.testing.assert_array_equal(results[0][0][1][0][~mask], 0)


@pytest.mark.parametrize("real", [0, 1])
def test_too_few_rows_leave_the_statistics_untouched(real):
    x, _ = sample(8)
    mask = np.arange(48).reshape(8, 6) < real
    variables = some_variables(9)
    y, statistics = train(variables, x, mask)
    jax.tree.map(np.testing.assert_array_equal, statistics, variables["batch_stats"])
    np.testing.assert_array_equal(y, MaskedBatchNorm().apply(variables, x, mask, train=False))
    gradient = jax.grad(lambda x: train(variables, x, mask)[0].sum())(x)
    assert np.isfinite(gradient).all()


def over_devices(kind, function):
    if kind == "pmap":
        return jax.pmap(lambda *rows: function(*rows, "batch"), axis_name="batch")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    spec = jax.sharding.PartitionSpec("batch")

    def per_device(*rows):
        outputs = function(*(row[0] for row in rows), "batch")
        return jax.tree.map(lambda x: x[None], outputs)

    return jax.jit(jax.shard_map(per_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


@pytest.mark.parametrize("kind", ["pmap", "shard_map"])
@pytest.mark.parametrize("empty", [(3,), tuple(range(8))], ids=["one empty device", "all empty"])
def test_eight_devices_equal_one(kind, empty):
    """Outputs, statistics and the summed gradients, with unequal masks on the devices."""
    x, mask = sample(10)
    mask[list(empty)] = False
    variables, target = some_variables(11), np.random.default_rng(12).normal(size=x.shape).astype(np.float32)

    def loss(params, x, mask, target, axis=None):
        y, statistics = train(variables | {"params": params}, x, mask, axis)
        return jnp.sum(jnp.sin(y) * target), (y, statistics)

    def step(x, mask, target, axis):
        gradients, aux = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x, mask, target, axis)
        return (jax.lax.psum(gradients[0], axis), gradients[1]), aux

    (params, inputs), (y, statistics) = over_devices(kind, step)(x, mask, target)
    expected = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], x, mask, target)
    (expected_params, expected_inputs), (expected_y, expected_statistics) = expected
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(inputs, expected_inputs, rtol=1e-5, atol=1e-5)
    for per_device, once in ((params, expected_params), (statistics, expected_statistics)):
        for name, values in per_device.items():
            np.testing.assert_array_equal(values, np.broadcast_to(values[:1], values.shape))
            np.testing.assert_allclose(values[0], once[name], rtol=1e-5, atol=1e-5)
