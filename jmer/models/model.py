"""A model: the network and its loss."""

from collections.abc import Callable
from typing import NamedTuple

from flax import linen as nn


class Model(NamedTuple):
    """What training needs to know of a model.

    Attributes:
      module: `module.apply(variables, batch, train=...)` gives an output with `logits` `[B, T, C]`. A module with other
        variables than `params`, running statistics of a batch, also takes `axis`: the mapped axis whose devices hold
        the rest of the batch, or None. One whose `packs` is True keeps the conversations of a row apart
        (`batch.segments`); without it each row has one.
      loss: `loss(output, batch, axis=None)` gives `{term: (weight, sum, count)}`, sums and counts over this device's
        utterances; the loss is the sum of weight · sum / count over terms.
    """

    module: nn.Module
    loss: Callable

    @property
    def packs(self) -> bool:
        """Whether a row may hold several conversations."""
        return getattr(self.module, "packs", False)
