"""Networks that compute in bfloat16: what stays in float32, and how near the results are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from tiny import tiny_step

from jmer.config import base_config
from jmer.errors import UserError
from jmer.models import get_spec, model_names

ABLE = [name for name in model_names() if get_spec(name).bfloat16]
CHECKED = ["concat_mlp", "sdt"]
ALL = [name if name in CHECKED else pytest.param(name, marks=pytest.mark.slow) for name in ABLE]
# What loses too much in eight bits.
EXACT = {"exp", "exp2", "expm1", "log", "log1p", "rsqrt", "sqrt", "erf", "cumsum", "cumlogsumexp", "pow"}


def equations(jaxpr, in_loop=False):
    """Yields every equation of a program, and whether it is in a loop."""
    for equation in jaxpr.eqns:
        yield equation, in_loop
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner, in_loop or equation.primitive.name in ("scan", "while"))


def is_low(variables):
    return any(getattr(v.aval, "dtype", None) == jnp.bfloat16 for v in variables)


@pytest.mark.parametrize("name", ALL)
def test_what_needs_float32_has_it(name):
    step, state, batch = tiny_step(name, dtype="bfloat16")
    program = jax.make_jaxpr(step)(state, batch)
    floats = [v.aval.dtype for v in program.jaxpr.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating)]
    assert set(floats) == {np.dtype("float32")}
    products = 0
    for equation, in_loop in equations(program.jaxpr):
        kind = equation.primitive.name
        products += kind == "dot_general" and not in_loop and is_low(equation.invars)
        assert not (kind in EXACT and is_low(equation.invars)), equation
        assert not (kind in ("scan", "while") and is_low(equation.outvars)), equation
    assert products >= 3


def test_results_are_near_those_of_float32():
    results = {}
    for dtype in ("float32", "bfloat16"):
        step, state, batch = tiny_step("concat_mlp", dtype=dtype)
        results[dtype] = *jax.jit(step)(state, batch), state.params
        model, variables = step.keywords["model"], state.variables
        assert jax.eval_shape(functools.partial(model.apply, train=False), variables, batch).logits.dtype == np.float32
    (low, metrics, start), (high, expected, same_start) = results["bfloat16"], results["float32"]
    jax.tree.map(np.testing.assert_array_equal, start, same_start)
    np.testing.assert_allclose(metrics.loss, expected.loss, rtol=0.01)
    assert metrics.loss != expected.loss
    moved = [
        np.asarray(after) - before for after, before in zip(*map(jax.tree.leaves, (high.params, start)), strict=True)
    ]
    for one, other, size in zip(*map(jax.tree.leaves, (low.params, high.params)), moved, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0, atol=0.05 * np.abs(size).max())


def test_the_type_is_part_of_the_configuration_of_models_that_can():
    assert base_config("concat_mlp").model.dtype == "float32"
    assert "dtype" not in base_config("dialoguernn").model
    with pytest.raises(UserError, match=r"model\.dtype must be one of float32, bfloat16, not float16"):
        tiny_step("concat_mlp", dtype="float16")
