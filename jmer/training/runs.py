"""Several runs as one program: mapped over a leading axis of runs, which devices divide among themselves."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jmer.training.state import State

AXIS = "runs"


@dataclasses.dataclass(frozen=True)
class Runs:
    """How runs are spread: each device computes whole runs, and nothing passes between devices.

    Attributes:
      count: how many runs there are.
      devices: those that are used.
    """

    count: int
    devices: Sequence[jax.Device]

    @property
    def rows(self) -> int:
        """Length of the leading axis; rows beyond `count` repeat the last run, and nobody looks at them."""
        return -(-self.count // len(self.devices)) * len(self.devices)

    def map(self, function: Callable, in_axes: tuple, *, donate_argnums: tuple[int, ...] = ()) -> Callable:
        """Maps a function over the runs.

        Args:
          function: of one run; its results get a leading axis.
          in_axes: as `jax.vmap` takes them: 0 = each run has its own, None = shared.
          donate_argnums: arguments whose memory the results may take.
        """
        specs = jax.tree.map(lambda axis: P() if axis is None else P(AXIS), in_axes, is_leaf=lambda axis: axis is None)
        mapped = jax.shard_map(
            jax.vmap(function, in_axes), mesh=self._mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
        )
        return jax.jit(mapped, donate_argnums=donate_argnums)

    def stack(self, trees: Sequence[Any]) -> Any:
        """Stacks what each run has, and spreads it over the devices."""
        filled = [*trees, *[trees[-1]] * (self.rows - self.count)]
        sharding = NamedSharding(self._mesh, P(AXIS))
        return jax.tree.map(lambda *leaves: jax.device_put(jnp.stack(leaves), sharding), *filled)

    def share(self, tree: Any) -> Any:
        """Puts host arrays on every device."""
        return jax.device_put(tree, NamedSharding(self._mesh, P()))

    def unstack(self, state: State) -> list[State]:
        """Returns each run's state, on the first device."""
        host = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
        rows = [jax.tree.map(lambda x, i=i: x[i], host) for i in range(self.count)]
        alone = [jax.device_put(row, self.devices[0]) for row in rows]
        return [row.replace(key=jax.random.wrap_key_data(row.key)) for row in alone]

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))


def spread(count: int, devices: Sequence[jax.Device]) -> Runs:
    """Spreads `count` runs over as few of the devices as let the busiest one have the fewest runs."""
    each = -(-count // len(devices))
    return Runs(count, devices[: -(-count // each)])
