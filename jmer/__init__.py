"""jmer: multimodal emotion recognition in conversation, in JAX.

The packages, in the order in which data flows: `jmer.config`, `jmer.data`, `jmer.models` (built from `jmer.layers` and
`jmer.losses`), `jmer.training`, `jmer.evaluation`. Nothing is imported here, so that one layer costs one layer.
"""

__version__ = "0.1.0"
