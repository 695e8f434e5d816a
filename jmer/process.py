"""Settings of a process that jmer's programs make, and that the library leaves alone."""

import ctypes
import os
import platform
import warnings
from pathlib import Path

# Parameters of glibc's mallopt, by their numbers in malloc.h.
_ARENAS, _MAP_FROM, _TRIM_FROM = -8, -3, -1


def set_up_process() -> None:
    """Keeps compiled programs on disk and freed memory in the process."""
    use_compilation_cache()
    keep_freed_memory()


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless the environment names another."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jmer"
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
