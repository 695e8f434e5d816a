"""Layers that are computed again for the gradient change its memory, not its numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import jaxprs_in_params
from tiny import tiny_step

from jmer.models import model_names
from jmer.models.rematerialization import rematerialized_layers

# A layer of MMGCN takes dictionaries.
CHECKED = ["concat_mlp", "mmgcn"]
ALL = [name if name in CHECKED else pytest.param(name, marks=pytest.mark.slow) for name in model_names()]


def regions(jaxpr):
    """Counts the parts of a program that are computed again."""
    inner = (found for equation in jaxpr.eqns for found in jaxprs_in_params(equation.params))
    return sum(equation.primitive.name in ("remat2", "checkpoint") for equation in jaxpr.eqns) + sum(
        map(regions, inner)
    )


@pytest.mark.parametrize("name", ALL)
def test_a_step_is_the_same(name):
    step, state, batch = tiny_step(name)
    expected, metrics = jax.jit(step)(state, batch)
    found, again = jax.jit(functools.partial(step, rematerialize=True))(state, batch)
    np.testing.assert_allclose(again.loss, metrics.loss, rtol=1e-6)
    np.testing.assert_array_equal(again.confusion, metrics.confusion)
    for before, after in ((expected.params, found.params), (expected.model_state, found.model_state)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), after, before)


class Halves(nn.Module):
    """A layer that takes and returns what is by modality, in the order of its names."""

    @nn.compact
    def __call__(self, features):
        joined = nn.Dense(4)(jnp.concatenate(list(features["by modality"].values()), axis=-1))
        return {"text": joined[..., :2], "audio": joined[..., 2:]}, {}


class InOrder(nn.Module):
    """A network whose layer, and what it makes of its results, depend on the order of dictionaries."""

    @nn.compact
    def __call__(self, x):
        halves, _ = Halves()({"by modality": {"text": x, "audio": 2 * x}})
        return jnp.concatenate(list(halves.values()), axis=-1)


def test_a_dictionary_keeps_its_order():
    x, network = jnp.arange(6.0).reshape(2, 3), InOrder()
    variables = network.init(jax.random.key(0), x)
    with rematerialized_layers():
        found = network.apply(variables, x)
    np.testing.assert_array_equal(found, network.apply(variables, x))


def test_it_is_the_layers_with_parameters_that_are_computed_again():
    step, state, batch = tiny_step("m2fnet_like")
    assert regions(jax.make_jaxpr(step)(state, batch).jaxpr) == 0
    assert regions(jax.make_jaxpr(functools.partial(step, rematerialize=True))(state, batch).jaxpr) >= len(state.params)


def kept(rematerialize):
    """Returns the bytes that the gradient needs of the forward pass."""
    step, state, batch = tiny_step("m2fnet_like")
    model, rng = step.keywords["model"], jax.random.key(0)

    def loss(params):
        output, _ = model.apply_in_training(params, {}, batch, rng, rematerialize=rematerialize)
        return sum(term.total for term in model.loss_terms(output, batch).values())

    found = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], state.params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))


def test_the_gradient_needs_less_of_the_forward_pass():
    # XLA for the CPU takes such parts together with those that they repeat: its memory stays as it is.
    assert kept(True) < 0.5 * kept(False)
