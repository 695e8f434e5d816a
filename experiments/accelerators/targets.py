"""The accelerators that can be compiled for without one, and what their compilers need to know of them."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from jmer.errors import UserError

TPU, GPU = "tpu", "cuda"

CUBLAS = "--xla_gpu_enable_triton_gemm=false"
"""XLA's flag for products by cuBLAS: without a GPU nothing chooses among Triton's tiles, and some do not compile."""

H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
gpu_device_info {
  cuda_compute_capability { major: 9 }
  driver_version: "12.9.0"
  runtime_version: "12.9.0"
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
}
"""
"""What XLA asks a GPU's driver for; without a driver's version, products of cuBLAS stay out of CUDA graphs."""


class Target(NamedTuple):
    """An accelerator.

    Attributes:
      title: in tables.
      platform: `TPU` or `GPU`.
      topology: name of the smallest one that the compiler knows.
      devices: how many of it take part.
      flags: of XLA, for this target alone.
    """

    title: str
    platform: str
    topology: str
    devices: int = 1
    flags: Sequence[str] = ()


TARGETS = {
    "v5e": Target("TPU v5e", TPU, "v5e:2x2"),
    "v6e": Target("TPU v6e", TPU, "v6e:2x2"),
    "h100": Target("NVIDIA H100, products by cuBLAS", GPU, "1x1x1", flags=(CUBLAS,)),
    "h100-triton": Target("NVIDIA H100, XLA's default flags", GPU, "1x1x1"),
    "v5e-x4": Target("4 x TPU v5e", TPU, "v5e:2x2", devices=4),
}
DEFAULT_TARGETS = ("v5e", "v6e", "h100", "v5e-x4")


# The plug-ins' modules by the CUDA version that they are made for.
_PLUGINS = {TPU: ("libtpu",), GPU: ("jax_cuda12_plugin", "jax_cuda13_plugin")}
_EXTRAS = {TPU: "tpu", GPU: "gpu"}

# libtpu otherwise asks the cloud which machine it is on, and lets one process of a machine use it.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def missing(name: str) -> str | None:
    """Returns which extra of jmer has the compiler for a target, None if it is installed."""
    platform = TARGETS[name].platform
    if any(importlib.util.find_spec(module) for module in _PLUGINS[platform]):
        return None
    return _EXTRAS[platform]


def check_installed(names: Sequence[str]) -> None:
    """Raises UserError if the compiler for a target is not installed."""
    for name in names:
        if extra := missing(name):
            raise UserError(
                f"the compiler for {TARGETS[name].title} is not installed: run `pip install -e '.[{extra}]'`, "
                f"or leave {name} out of --targets"
            )


def prepare(target: Target, dump: str | None = None) -> None:
    """Makes this process compute on the CPU and compile for a target; must be called before JAX's first computation.

    Args:
      target: the only one of the process, since XLA reads its flags once.
      dump: folder for what XLA writes about its programs; None = nothing.
    """
    os.environ.update(_ENVIRONMENT)
    flags = [*os.environ.get("XLA_FLAGS", "").split(), *target.flags]
    if dump is not None:
        flags += [f"--xla_dump_to={dump}", "--xla_dump_hlo_as_text"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    jax.config.update("jax_platforms", "cpu")
    # A program from the cache would not be compiled.
    jax.config.update("jax_enable_compilation_cache", False)


def devices(target: Target) -> tuple[Any, ...]:
    """Returns the devices of a target, for which programs can be compiled but not run."""
    known: Mapping[str, Any] = {"topology_name": target.topology}
    if target.platform == GPU:
        known = {"topology_name": "h100", "topology": target.topology, "target_config": H100}
    return tuple(topologies.get_topology_desc(platform=target.platform, **known).devices[: target.devices])
