"""`training.matmul_precision` reaches every matrix product of a step but those that ask for more themselves."""

import functools

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny import EMOTIONS, WIDTHS, tiny_corpus

from jmer.config import base_config, check_config
from jmer.data.batching import batches
from jmer.errors import UserError
from jmer.models import build_model
from jmer.precision import PRECISIONS, matmul_precision
from jmer.training import create_train_state, make_optimizer, train_step

SIZES = {"d_r": 4, "d_h": 4, "d_x": 4, "d_z": 2, "num_heads": 2, "dag_layers": 1, "num_classes": len(EMOTIONS)}


def products(jaxpr):
    """Yields the precision of every matrix product, also of those in loops and branches."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def precisions(name):
    config = base_config("lfvd").unlock()
    config.model.update(SIZES, modalities=tuple(WIDTHS))
    model, optimizer = build_model(config), make_optimizer(config.optimizer, steps=[1])
    (batch,) = batches(tiny_corpus().conversations("train")[:2], WIDTHS, batch_size=2)
    state = create_train_state(model, optimizer, WIDTHS, 0)
    with matmul_precision(name):
        traced = jax.make_jaxpr(functools.partial(train_step, model=model, optimizer=optimizer))(state, batch)
    return [*products(traced.jaxpr)]


def test_products_have_the_precision_that_is_asked_for():
    usual, low = precisions("default"), precisions("bfloat16")
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert len(usual) == len(low) > 50
    assert set(usual) == {None, highest}
    assert {p for p in low if p != highest} == {jax.lax.DotAlgorithmPreset.BF16_BF16_F32}
    # The similarities of the two contrasts, and their derivatives.
    assert usual.count(highest) == low.count(highest) >= 4


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_name_is_one_that_jax_knows(name):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with matmul_precision(name):
        np.testing.assert_array_equal(jax.jit(lambda x: x @ x.T)(x), x @ x.T)


def test_another_name_is_refused():
    config = base_config("lfvd").unlock()
    config.training.matmul_precision = "half"
    with pytest.raises(UserError, match=r"training\.matmul_precision is 'half': choose one of default, float32"):
        check_config(config, tiny_corpus())
