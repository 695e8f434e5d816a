"""Floating-point operations of matrix products, counted in a traced program."""

import math

from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params


def matrix_flops(jaxpr: Jaxpr) -> int:
    """Counts the operations of matrix products and convolutions, two per multiplication, and nothing else.

    A `scan` counts with its length, a `cond` with its largest branch. The number of iterations of a `while` is not in
    the program, so its body counts once.

    Args:
      jaxpr: `jax.make_jaxpr(function)(*arguments).jaxpr`.
    """
    return sum(map(_flops, jaxpr.eqns))


def _flops(equation: JaxprEqn) -> int:
    params = equation.params
    match equation.primitive.name:
        case "dot_general":
            return _product(equation)
        case "conv_general_dilated":
            return _convolution(equation)
        case "scan":
            return params["length"] * matrix_flops(params["jaxpr"].jaxpr)
        case "cond":
            return max(matrix_flops(branch.jaxpr) for branch in params["branches"])
    return sum(map(matrix_flops, jaxprs_in_params(params)))


def _product(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> int:
    kernel = equation.invars[1].aval
    outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * (kernel.size // outputs)
