"""Mapping a per-device function over devices: pmap on one process, jit(shard_map) on several, jit on one device."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint.multihost import get_barrier_sync_fn

from jmer.batch import Batch
from jmer.data.packing import EpochPlan
from jmer.data.resident import Resident
from jmer.errors import UserError

AXIS = "batch"
BACKENDS = ("auto", "jit", "pmap", "shard_map")

STEP_SPECS = (P(), P(AXIS))
"""How state and batch are divided among devices."""

EPOCH_SPECS = (P(), P(), EpochPlan(conversation_ids=P(None, AXIS), computed=P(), active=P()))
"""How state, resident split and plan are divided among devices."""


# A process that ends meanwhile ends the others, see `jmer.cli.watch`.
_COMPILING_MS = 24 * 3600 * 1000

# Numbers the programs that several processes compile, in an order that is the same for all of them.
_PROGRAMS = itertools.count()


class Placed(NamedTuple):
    """A batch that is on the devices, in the form that the mapped function of one `Parallel` takes."""

    batch: Any


@dataclasses.dataclass(frozen=True)
class Parallel:
    """The mapping of a run over devices. Batches are host arrays of all rows, or were put on the devices by `place`.

    States and results have no device axis.

    Attributes:
      backend: `jit`, `pmap` or `shard_map`.
      devices: of all processes, in the order of a batch's rows.
    """

    backend: str
    devices: tuple[jax.Device, ...]

    @property
    def row_multiple(self) -> int:
        """A batch's rows must be a multiple of this."""
        return len(self.devices)

    def place(self, batch: Batch) -> Placed:
        """Puts a batch on the devices, for a step or a forward pass; any thread may call it."""
        if self.backend == "shard_map":
            return Placed(self._shard(batch))
        rows = self._split(batch) if self.backend == "pmap" else batch
        return Placed(jax.device_put(rows, self.sharding(P(AXIS))))

    def step(self, step: Callable) -> Callable[[Any, Batch | Placed], tuple]:
        """Maps `step(state, batch, *, axis_name)`, whose results are the same on every device; the state is donated."""
        if self.backend != "pmap":
            mapped = self.over_mesh(step, STEP_SPECS)
            return lambda state, batch: mapped(state, self._given(batch))
        mapped = jax.pmap(
            functools.partial(step, axis_name=AXIS),
            AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=list(self.devices),
            donate_argnums=0,
        )
        return lambda state, batch: mapped(state, self._given(batch))

    def epoch(self, epoch: Callable) -> Callable[[Any, Resident, EpochPlan], tuple]:
        """Maps `epoch(state, resident, plan, *, axis_name)` like a step; the resident split is replicated already."""
        if self.backend != "pmap":
            mapped, (*_, rows) = self.over_mesh(epoch, EPOCH_SPECS), EPOCH_SPECS
            if self.backend == "jit":
                return mapped
            return lambda state, resident, plan: mapped(state, resident, jax.tree.map(self._place, plan, rows))
        mapped = jax.pmap(
            functools.partial(epoch, axis_name=AXIS),
            AXIS,
            in_axes=(None, None, EpochPlan(conversation_ids=1, computed=None, active=None)),
            out_axes=None,
            devices=list(self.devices),
            donate_argnums=0,
        )
        return lambda state, resident, plan: mapped(
            state,
            resident,
            dataclasses.replace(plan, conversation_ids=self._split(plan.conversation_ids, axis=1)),
        )

    def over_mesh(self, function: Callable, specs: Sequence[Any]) -> Callable:
        """Maps `function(state, ..., *, axis_name)` as `jit` and `shard_map` do; its arguments are on the devices.

        Args:
          function: its results are the same on every device; the state is donated.
          specs: of the arguments, `STEP_SPECS` or `EPOCH_SPECS`.
        """
        if self.backend == "jit":
            return jax.jit(functools.partial(function, axis_name=None), donate_argnums=0)
        function = functools.partial(function, axis_name=AXIS)
        mapped = jax.shard_map(function, mesh=self._mesh, in_specs=tuple(specs), out_specs=P(), check_vma=False)
        return _compiled_together(jax.jit(mapped, donate_argnums=0))

    def sharding(self, spec: P) -> jax.sharding.Sharding:
        """Where `over_mesh` takes an argument that is divided in this way."""
        if self.backend == "jit":
            return jax.sharding.SingleDeviceSharding(self.devices[0])
        return NamedSharding(self._mesh, spec)

    def forward(self, forward: Callable) -> Callable[[Any, Batch | Placed], Any]:
        """Maps `forward(variables, batch)`, whose results have a row for each row of the batch; gives host arrays."""
        if self.backend == "jit":
            mapped = jax.jit(forward)
            return lambda variables, batch: jax.device_get(mapped(variables, self._given(batch)))
        if self.backend == "pmap":
            mapped = jax.pmap(forward, AXIS, in_axes=(None, 0), devices=list(self.devices))
            return lambda variables, batch: _join(jax.device_get(mapped(variables, self._given(batch))))
        over_mesh = jax.shard_map(forward, mesh=self._mesh, in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False)
        together = _compiled_together(jax.jit(over_mesh))
        return lambda variables, batch: multihost_utils.process_allgather(
            together(variables, self._given(batch)), tiled=True
        )

    def replicate(self, tree: Any) -> Any:
        """Puts host arrays, or arrays of one device, where `step` leaves its state, so that `step` is compiled once."""

        def place(x):
            # Where some devices belong to other processes, device_put takes no random keys.
            if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(place(jax.random.key_data(x)))
            return jax.device_put(x, self.state_sharding)

        return jax.tree.map(place, tree)

    @property
    def state_sharding(self) -> jax.sharding.Sharding:
        """Where a restored state goes."""
        return self.sharding(P())

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def _given(self, batch: Batch | Placed) -> Any:
        """Returns what a mapped function takes; that of a host array would be another program."""
        return (batch if isinstance(batch, Placed) else self.place(batch)).batch

    def _split(self, tree: Any, axis: int = 0) -> Any:
        """Gives each device its rows along a new axis, before that of rows."""
        count = len(self.devices)
        return jax.tree.map(
            lambda x: x.reshape(*x.shape[:axis], count, x.shape[axis] // count, *x.shape[axis + 1 :]), tree
        )

    def _shard(self, batch: Batch) -> Batch:
        return jax.tree.map(lambda x: self._place(x, P(AXIS)), batch)

    def _place(self, x: np.ndarray, spec: P) -> jax.Array:
        return jax.make_array_from_callback(x.shape, self.sharding(spec), lambda rows: x[rows])


def make_parallel(backend: str = "auto", devices: int = 0) -> Parallel:
    """Returns the mapping of a run over devices.

    Args:
      backend: `auto` (pmap on one process, shard_map on several), `jit` (one device), `pmap` or `shard_map`.
      devices: how many to use; 0 = all (one for `jit`).

    Raises:
      UserError: for an unknown backend, more devices than there are, or a choice that does not work with several
        processes.
    """
    if backend not in BACKENDS:
        raise UserError(f"training.parallel is '{backend}': choose one of {', '.join(BACKENDS)}")
    several = jax.process_count() > 1
    if backend == "auto":
        backend = "shard_map" if several else "pmap"
    present = jax.devices()
    if not 0 <= devices <= len(present):
        raise UserError(f"training.devices is {devices}, but there are {len(present)}: 0 takes them all")
    if several and (backend != "shard_map" or devices):
        raise UserError("with several processes, leave training.parallel=auto and training.devices=0")
    if backend == "jit" and devices > 1:
        raise UserError("training.parallel=jit uses one device: leave training.devices=0, or choose pmap or shard_map")
    return Parallel(backend, tuple(present[: 1 if backend == "jit" else devices or None]))


def is_main_process() -> bool:
    """Returns whether this process is the one that writes what only one should."""
    return jax.process_index() == 0


def max_over_processes(number: int) -> int:
    """Returns the largest of the numbers that the processes give; all of them must call it."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def main_process_has(value: bool) -> bool:
    """Returns what is true in the main process; all must call it, since files may not be the same for all at once."""
    return bool(max_over_processes(int(value and is_main_process())))


def _compiled_together(function: Any) -> Any:
    """Lets no process run a jitted function before all have compiled it; all must call it, in the same order.

    The first collective operation of a program waits for the other processes for a limited time, 30 seconds on CPUs,
    while one of them may be much longer in compiling.
    """
    if jax.process_count() == 1:
        return function
    wait, compiled = get_barrier_sync_fn(), set()

    def call(*arguments):
        shapes = tuple(x.shape for x in jax.tree.leaves(arguments))
        if shapes not in compiled:
            function.lower(*arguments).compile()
            wait(key=f"compiled {next(_PROGRAMS)}", timeout_ms=_COMPILING_MS)
            compiled.add(shapes)
        return function(*arguments)

    return call


def _join(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
