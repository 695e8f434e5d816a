"""Settings of a process that jmer's programs make, and that the library leaves alone."""

import ctypes
import os
import platform
import threading
import warnings
from pathlib import Path

from jmer.errors import UserError

LEAST_ADDRESS_SPACE = 4_000_000 << 10
"""Bytes that JAX reserves; with 3,000,000 kB on two cores, threads cannot be started."""

LEAST_FOR_DATA = 2_000_000 << 10
"""Bytes that Arrow and its companions reserve; with 1,800,000 kB, they wait forever without a word."""

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_ARENAS, _MAP_FROM, _TRIM_FROM = -8, -3, -1


def set_up_process() -> None:
    """Keeps compiled programs on disk and freed memory in the process, and computes in 32 bits."""
    import jax

    # With JAX_ENABLE_X64 a run would draw other random numbers, and could not be resumed without it.
    jax.config.update("jax_enable_x64", False)
    use_compilation_cache()
    keep_freed_memory()


def check_address_space(least: int = LEAST_ADDRESS_SPACE, library: str = "JAX") -> None:
    """Compares the limit of the process' address space with what a library reserves, before it is imported.

    With less, its threads cannot start, and it ends the process or waits forever without a word.

    Args:
      least: bytes.
      library: that reserves them.

    Raises:
      UserError: if the limit is too small.
    """
    try:
        import resource
    except ImportError:  # no POSIX system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < least:
        raise UserError(
            f"the address space of the process is limited to {limit >> 10} kB, and {library} reserves up to "
            f"{least >> 10}: raise the limit (`ulimit -v unlimited`)"
        )


def check_threads() -> None:
    """Starts and ends as many threads as JAX starts on so many processors, before it is imported.

    With fewer, it ends the process with a core dump, or fails when it saves.

    Raises:
      UserError: if they cannot be started.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    needed = 24 + 4 * processors  # on two processors, training fails with 24 and succeeds with 40
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(needed):
            thread = threading.Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise UserError(
            f"this process can start {len(started)} threads, and JAX needs up to {needed}: raise the limit of "
            "processes (`ulimit -u`, or that of the container)"
        ) from error
    finally:
        end.set()
        for thread in started:
            thread.join()


def check_devices() -> None:
    """Starts JAX's backend.

    Raises:
      UserError: if it finds no device, as where `JAX_PLATFORMS` names what is not there.
    """
    import jax

    try:
        jax.devices()
    # JAX fails an assertion where a platform that it knows has no device.
    except (RuntimeError, AssertionError) as error:
        named = os.environ.get("JAX_PLATFORMS")
        if named:
            raise UserError(
                f"JAX_PLATFORMS={named}: JAX finds no such device here: unset it, or set it to cpu"
            ) from error
        raise UserError(f"JAX finds no device ({' '.join(str(error).split())}): set JAX_PLATFORMS=cpu") from error


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, if there is one, unless the environment names another."""
    import jax

    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and os.path.isabs(folder):
        cache = Path(folder) / "jmer"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # Without the cache, or with another process writing to it, programs are compiled again, which needs no warning.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def keep_freed_memory() -> None:
    """Keeps freed memory in the process, so that on a CPU a training step reuses that of the one before.

    glibc returns large blocks to the system and maps fresh ones, which a step touches page by page: a tenth of the time
    of LFVD's. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    # Threads share one arena, or each would keep what it freed for itself; -1 = nothing is returned.
    for parameter, value in ((_ARENAS, 1), (_MAP_FROM, 1 << 30), (_TRIM_FROM, -1)):
        library.mallopt(parameter, value)
