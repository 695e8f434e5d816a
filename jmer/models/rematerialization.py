"""Rematerialization: layers are computed again for the gradient, in place of keeping what they computed on the way."""

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax import struct


def rematerialized_layers() -> contextlib.AbstractContextManager:
    """Returns a context in which a network that is called keeps for its gradient what its layers read, no more.

    The layers are the modules that the network itself calls; those within them are part of them. The gradient needs
    what a layer computed on the way, and computes it again, one layer after the other.
    """
    inside = False

    def call(method: Any, arguments: tuple, options: Mapping, context: nn.module.InterceptorContext) -> Any:
        nonlocal inside
        module = context.module
        is_layer = len(module.path) == 1 and context.method_name == "__call__" and "params" in module.variables
        if inside or not is_layer:
            return method(*arguments, **options)
        inside = True
        try:
            # Keyword arguments may be static.
            again = nn.remat(lambda module, given: _ordered(module(*_as_given(given), **options)))
            return _as_given(again(module, _ordered(arguments)))
        finally:
            inside = False

    return nn.intercept_methods(call)


@struct.dataclass
class _Ordered:
    """A dictionary whose keys stay in their order: JAX sorts those of one that it takes apart."""

    values: tuple[Any, ...]
    keys: tuple[Any, ...] = struct.field(pytree_node=False)


def _ordered(tree: Any) -> Any:
    """Returns a pytree with `_Ordered` in the place of its dictionaries."""

    def replaced(x: Any) -> Any:
        return _Ordered(tuple(map(_ordered, x.values())), tuple(x)) if type(x) is dict else x

    return jax.tree.map(replaced, tree, is_leaf=lambda x: type(x) is dict)


def _as_given(tree: Any) -> Any:
    """Returns the pytree of which `_ordered` made this one."""

    def replaced(x: Any) -> Any:
        if not isinstance(x, _Ordered):
            return x
        return dict(zip(x.keys, map(_as_given, x.values), strict=True))

    return jax.tree.map(replaced, tree, is_leaf=lambda x: isinstance(x, _Ordered))
