"""The layers of DAG-ERC over the utterances in order, by the program of the platform that is compiled for.

What is chosen is chosen when the program is lowered, not by the process that traces it.
"""

import functools
from typing import NamedTuple

import jax

from jmer.layers import dag_recurrence, dag_wavefront
from jmer.layers.dag_recurrence import Weights


class Graph(NamedTuple):
    """A batch's graph, as a CPU's program and as accelerators' read it (`jmer.layers.dag_wavefront.by_step`)."""

    links: dag_recurrence.Links
    by_step: jax.Array


def graph_for(layers: int, adjacency: jax.Array, same_speaker: jax.Array) -> Graph:
    """Prepares a graph (bool `[B, T, T]` each, see `jmer.layers.dag.predecessor_graph`) for a number of layers."""
    return Graph(dag_recurrence.links(adjacency, same_speaker), dag_wavefront.by_step(adjacency, same_speaker, layers))


class Options(NamedTuple):
    """What is known when a program is traced.

    Attributes:
      negative_slope: of scores below zero.
      kernel: whether a TPU runs the kernels of `jmer.layers.dag_kernel`.
    """

    negative_slope: float
    kernel: bool = False


def _by_platform(options, on_cpu, on_accelerator, *arguments):
    programs = {"cpu": on_cpu, "default": functools.partial(on_accelerator, kernel=False)}
    if options.kernel:
        programs["tpu"] = functools.partial(on_accelerator, kernel=True)
    return jax.lax.platform_dependent(*arguments, **programs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def states(options: Options, weights: list[Weights], x: jax.Array, graph: Graph) -> list[jax.Array]:
    """Runs layers over the utterances in order; on accelerators all of them advance together.

    Args:
      options: what is known when a program is traced.
      weights: of each layer.
      x: `[T, B, H]`, what the lowest layer reads.
      graph: the links.

    Returns:
      Each layer's states, `[T, B, H]`.
    """

    def on_cpu(weights, x, graph):
        return dag_recurrence.states(options.negative_slope, weights, x, graph.links)

    def on_accelerator(weights, x, graph, kernel):
        return dag_wavefront.forward(options.negative_slope, weights, x, graph.by_step, kernel=kernel)[0]

    return _by_platform(options, on_cpu, on_accelerator, weights, x, graph)


class _Saved(NamedTuple):
    """What the way back needs, of each program; zeros of the one that does not run."""

    on_cpu: list[dag_recurrence.Saved]
    on_accelerator: jax.Array


def _forward(options, weights, x, graph):
    def on_cpu(weights, x, graph):
        made, saved = dag_recurrence.forward(options.negative_slope, weights, x, graph.links)
        return made, _Saved(saved, dag_wavefront.empty(x, len(weights)))

    def on_accelerator(weights, x, graph, kernel):
        made, saved = dag_wavefront.forward(options.negative_slope, weights, x, graph.by_step, kernel=kernel)
        return made, _Saved([dag_recurrence.empty(x, graph.links)] * len(weights), saved)

    made, saved = _by_platform(options, on_cpu, on_accelerator, weights, x, graph)
    return made, (weights, x, graph, saved)


def _backward(options, saved, states_bar):
    def on_cpu(weights, x, graph, saved, states_bar):
        return dag_recurrence.backward(options.negative_slope, weights, x, graph.links, saved.on_cpu, states_bar)

    def on_accelerator(weights, x, graph, saved, states_bar, kernel):
        return dag_wavefront.backward(
            options.negative_slope, weights, x, graph.by_step, saved.on_accelerator, states_bar, kernel=kernel
        )

    bars = _by_platform(options, on_cpu, on_accelerator, *saved, states_bar)
    return *bars, None


states.defvjp(_forward, _backward)
