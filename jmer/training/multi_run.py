"""Several runs in one program: mapped over a leading axis of runs, which the devices divide among themselves."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jmer.training.train_state import TrainState

AXIS = "runs"


@dataclasses.dataclass(frozen=True)
class RunMapping:
    """The mapping of several runs over devices: each device computes whole runs, and nothing passes between devices.

    Attributes:
      count: number of runs.
      devices: those that are used.
    """

    count: int
    devices: tuple[jax.Device, ...]

    @property
    def rows(self) -> int:
        """Length of the leading axis; rows beyond `count` repeat the last run and are ignored."""
        return -(-self.count // len(self.devices)) * len(self.devices)

    def map(self, function: Callable, in_axes: tuple, *, donate_argnums: tuple[int, ...] = ()) -> Callable:
        """Maps a function over the runs.

        Args:
          function: of one run; its results get a leading axis.
          in_axes: as `jax.vmap` takes them: 0 = each run has its own, None = all have one.
          donate_argnums: arguments whose memory the results may take.
        """
        specs = jax.tree.map(lambda axis: P() if axis is None else P(AXIS), in_axes, is_leaf=lambda axis: axis is None)
        mapped = jax.shard_map(
            jax.vmap(function, in_axes), mesh=self._mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
        )
        return jax.jit(mapped, donate_argnums=donate_argnums)

    def stack(self, trees: Sequence[Any]) -> Any:
        """Stacks the trees of the runs and distributes them over the devices."""
        filled = [*trees, *[trees[-1]] * (self.rows - self.count)]
        sharding = NamedSharding(self._mesh, P(AXIS))
        return jax.tree.map(lambda *leaves: jax.device_put(jnp.stack(leaves), sharding), *filled)

    def replicate(self, tree: Any) -> Any:
        """Puts host arrays on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, P()))

    def unstack(self, state: TrainState) -> list[TrainState]:
        """Returns each run's state, on the first device."""
        # Taken from the device that has it: an entry of the whole would be computed by all devices together.
        parts = [jax.tree.map(functools.partial(_part, device=device), state) for device in self.devices]
        each = self.rows // len(self.devices)
        return [jax.device_put(_entry(parts[i // each], i % each), self.devices[0]) for i in range(self.count)]

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))


def _part(x: jax.Array, device: jax.Device) -> jax.Array:
    """Returns what a device has of an array."""
    (part,) = (shard.data for shard in x.addressable_shards if shard.device == device)
    return part


@jax.jit
def _entry(tree: Any, i: int) -> Any:
    """Returns an entry of the leading axis of all leaves, which are on one device."""
    return jax.tree.map(lambda x: x[i], tree)


def map_runs(count: int, devices: Sequence[jax.Device]) -> RunMapping:
    """Maps `count` runs over as few of the devices as leave the busiest one the fewest runs."""
    each = -(-count // len(devices))
    return RunMapping(count, tuple(devices[: -(-count // each)]))
