"""Starting a network from the weights of another one: which arrays fit, and what is said of the others."""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jmer.digests import digest_arrays

NOT_THERE = "not there"


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a network.

    Attributes:
      name: its path, e.g. `params/classifier/kernel`.
      shape: in the network that starts.
      reason: why it was not taken from the other network; empty if it was.
    """

    name: str
    shape: tuple[int, ...]
    reason: str = ""

    @property
    def size(self) -> int:
        """Its number of entries."""
        return math.prod(self.shape)

    @property
    def path(self) -> str:
        """Its path as reports show it."""
        return self.name.removeprefix("params/")


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What a network has taken from another one before its training.

    Attributes:
      source: the folder of the other network's run, as it was given.
      epoch: the epoch that its weights are from, counted from 1.
      fingerprint: digest of all its arrays.
      arrays: of the network that starts.
      unused: arrays that the other network alone has.
    """

    source: str
    epoch: int
    fingerprint: str
    arrays: Sequence[Array]
    unused: Sequence[Array]

    @property
    def taken(self) -> list[Array]:
        """The arrays that were taken."""
        return [array for array in self.arrays if not array.reason]

    def facts(self) -> dict[str, str]:
        """Returns name -> value of what is to be known of the start, for the console and the reports."""
        taken, left = self.taken, [array for array in self.arrays if array.reason]
        entries, total = (f"{sum(array.size for array in arrays):,}" for arrays in (taken, self.arrays))
        facts = {
            "initial weights": f"{self.source}, epoch {self.epoch}, digest {self.fingerprint}: {len(taken)} of "
            f"{len(self.arrays)} arrays, {entries} of {total} numbers; features are normalised by this corpus",
            "weights taken": ", ".join(_by_module(taken)),
            "weights not taken": "; ".join(_by_module(left)),
            "weights not used": ", ".join(_by_module(self.unused)),
        }
        return {name: value for name, value in facts.items() if value}


def take_weights(
    shapes: Mapping[str, Any],
    source: Mapping[str, np.ndarray],
    *,
    of_emotions: Collection[str],
    same_emotions: bool,
    folder: str,
    epoch: int,
) -> InitialWeights:
    """Finds which arrays of another network fit, by name and shape.

    Args:
      shapes: name -> anything with the shape of the array, of the network that starts.
      source: name -> array of the other network.
      of_emotions: names of arrays whose entries belong to emotions, as those of a classifier do.
      same_emotions: whether both networks have the same emotions in the same order; if not, arrays of emotions do not
        fit, whatever their shape.
      folder, epoch: of the other network's run.
    """

    def reason(name: str, shape: tuple[int, ...]) -> str:
        if name not in source:
            return NOT_THERE
        if source[name].shape != shape:
            return f"{source[name].shape} there and {shape} here"
        return "" if same_emotions or name not in of_emotions else "of other emotions"

    arrays = [Array(name, tuple(x.shape), reason(name, tuple(x.shape))) for name, x in shapes.items()]
    unused = [Array(name, x.shape) for name, x in source.items() if name not in shapes]
    return InitialWeights(folder, epoch, digest_arrays(source), arrays, unused)


def named_arrays(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, e.g. `params/classifier/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def replace_arrays(variables: Any, arrays: Mapping[str, Any]) -> Any:
    """Returns the variables of a network with some arrays replaced, named as in `named_arrays`."""
    leaves, structure = jax.tree.flatten(variables)
    return jax.tree.unflatten(
        structure, [arrays.get(name, leaf) for name, leaf in zip(named_arrays(variables), leaves, strict=True)]
    )


def _by_module(arrays: Sequence[Array]) -> Iterator[str]:
    """Yields a few words for each module of a network, or for each of its arrays if they differ by the reason."""
    groups: dict[tuple[str, str], list[Array]] = {}
    for array in arrays:
        groups.setdefault((array.path.partition("/")[0], array.reason), []).append(array)
    for (module, reason), found in groups.items():
        name = found[0].path if len(found) == 1 else f"{module} ({len(found)} arrays)"
        yield f"{name}: {reason}" if reason else name
