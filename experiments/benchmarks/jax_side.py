"""jmer's side of the comparison."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.cases import Case
from experiments.benchmarks.flops import matrix_flops
from experiments.benchmarks.side import JMER
from jmer.batch import Batch
from jmer.models import build_model
from jmer.training.multi_run import map_runs
from jmer.training.optimizer import make_optimizer
from jmer.training.parallel import STEP_SPECS, make_parallel
from jmer.training.step import train_step
from jmer.training.train_state import create_train_state


class JaxSide:
    """A model of jmer on one device. Calls are asynchronous; `wait` waits for them.

    Attributes:
      name: of the side.
    """

    name = JMER

    def __init__(self, case: Case):
        config = case.config
        self._single, self._seed = case.single, config.seed
        self._model = build_model(config)
        optimizer = make_optimizer(config.optimizer, steps=[1] * config.training.epochs)
        parallel = make_parallel("jit")
        self._initial = functools.partial(create_train_state, self._model, optimizer, case.widths)
        self._state = parallel.replicate(self._initial(self._seed))
        self._pure_step = functools.partial(train_step, model=self._model, optimizer=optimizer)
        self._step = parallel.over_mesh(self._pure_step, STEP_SPECS)
        self._forward = jax.jit(self._probabilities)
        self._pending: Any = None

    def place(self, batch: Batch) -> Batch:
        """Transfers a batch of NumPy arrays to the device."""
        return jax.device_put(batch)

    def train(self, batch: Batch) -> None:
        """Takes one training step."""
        self._state, metrics = self._step(self._state, batch)
        self._pending = self._state, metrics

    def infer(self, batch: Batch) -> None:
        """Predicts a batch."""
        self._pending = self._forward(self._state.variables, batch)

    def _probabilities(self, variables: Any, batch: Batch) -> jax.Array:
        return jax.nn.softmax(self._model.module.apply(variables, batch, train=False).logits)

    def several(self, seeds: int) -> "JaxSide":
        """Returns a side whose training steps are those of several seeds, in one program."""
        side, mapping = copy.copy(self), map_runs(seeds, jax.devices()[:1])
        side._state = mapping.stack([self._initial(self._seed + i) for i in range(seeds)])
        side._step = mapping.map(functools.partial(self._pure_step, axis_name=None), (0, None), donate_argnums=(0,))
        return side

    def wait(self) -> None:
        """Waits for all asynchronous work."""
        jax.block_until_ready(self._pending)

    def compile(self, batch: Batch) -> None:
        """Traces, lowers and compiles the training step for batches of this shape."""
        self._step = self._step.lower(self._state, batch).compile()

    def loss(self, batch: Batch) -> float:
        """Returns the loss on a batch without dropout."""

        @jax.jit
        def total(variables, batch):
            terms = self._model.loss(self._model.module.apply(variables, batch, train=False), batch)
            return sum(weight * value / jnp.where(count > 0, count, 1) for weight, value, count in terms.values())

        return float(total(self._state.variables, batch))

    def variables(self) -> dict:
        """Returns parameters and running statistics as NumPy arrays."""
        return jax.device_get(self._state.variables)

    def flops_per_utterance(self) -> float:
        """Returns the operations of matrix products in a training step on the single conversation, per utterance."""
        step = jax.make_jaxpr(self._pure_step)(self._state, self._single)
        return matrix_flops(step.jaxpr) / self._single.mask.size


def product(size: int) -> Callable[[], None]:
    """Returns a function that multiplies two float32 matrices of `size` x `size` and waits for the result."""
    left, right = jax.device_put(np.random.default_rng(0).standard_normal((2, size, size), np.float32))
    multiply = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(multiply(left, right))
