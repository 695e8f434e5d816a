"""Which layers of an encoder a feature comes from: one, several beside each other, or the mean of the last ones.

    -1        the last layer
    9+10      layers 9 and 10, concatenated
    mean:4    the mean of the last four layers

Layers are counted as in `output_hidden_states` of transformers: 0 is what goes into the first block, 1 comes out of it.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jmer.errors import UserError


class Layers(NamedTuple):
    """Layers, and what is made of them.

    Attributes:
      numbers: of the layers, in order; negative ones count from the last.
      mean: whether they are averaged, not concatenated.
    """

    numbers: tuple[int, ...]
    mean: bool

    def width(self, size: int) -> int:
        """Returns the number of columns made of layers with `size` columns each."""
        return size if self.mean else size * len(self.numbers)

    def counted(self, count: int, encoder: object) -> "Layers":
        """Returns the same layers, counted from the first one.

        Args:
          count: of the encoder's layers, layer 0 included.
          encoder: its name, for the message.

        Raises:
          UserError: if the encoder does not have one of them.
        """
        if missing := [number for number in self.numbers if not -count <= number < count]:
            raise UserError(
                f"layer {missing[0]} of {encoder} does not exist: it has layers 0 to {count - 1}, or {-count} to -1"
            )
        return Layers(tuple(number % count for number in self.numbers), self.mean)

    def __str__(self) -> str:
        count = len(self.numbers)
        return f"mean:{count}" if self.mean and count > 1 else "+".join(map(str, self.numbers))

    def of(self, states: Sequence[Any], xp: Any) -> Any:
        """Returns the layers `[..., D]` of all hidden states as one array.

        Args:
          states: one array `[..., size]` per layer, that of layer 0 first.
          xp: the module of the arrays: `numpy`, `jax.numpy` or `torch`.
        """
        chosen = [states[number] for number in self.numbers]
        return sum(chosen) / len(chosen) if self.mean else xp.concatenate(chosen, -1)


def parse_layers(given: str) -> Layers:
    """Returns the layers that an option names. Raises ValueError if it names none."""
    if match := re.fullmatch(r"mean:(\d{1,3})", given):
        if count := int(match[1]):
            return Layers(tuple(range(-count, 0)), mean=True)
    elif re.fullmatch(r"-?\d{1,3}(\+-?\d{1,3})*", given):
        return Layers(tuple(map(int, given.split("+"))), mean=False)
    raise ValueError(f"layer is '{given}': expected a number such as -1, several such as 9+10, or mean:4, the last 4")
