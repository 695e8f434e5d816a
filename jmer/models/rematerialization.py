"""Rematerialization: layers are computed again for the gradient, in place of keeping what they computed on the way."""

import contextlib
from collections.abc import Mapping
from typing import Any

from flax import linen as nn


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
            return nn.remat(lambda module, *arguments: module(*arguments, **options))(module, *arguments)
        finally:
            inside = False

    return nn.intercept_methods(call)
