"""The time in which a GPU works, from JAX's profiler, which sees the kernels of other libraries, too."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
from jax.profiler import ProfileData

NANO = 1e-9


def device_seconds(call: Callable[[], None]) -> float | None:
    """Returns the seconds in which the GPU works during a call; None if there is no GPU.

    Kernels and copies that overlap count once. They take as long as without a profiler, unlike the call.

    Args:
      call: returns when its work is done.
    """
    options = jax.profiler.ProfileOptions()
    # Of the host nothing is needed, and the calls of an eager library would be many.
    options.host_tracer_level = options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            call()
        (file,) = Path(folder).rglob("*.xplane.pb")
        spans = list(_spans(ProfileData.from_file(str(file))))
    return covered(spans) * NANO if spans else None


def _spans(profile: ProfileData) -> Iterable[tuple[float, float]]:
    """Yields beginning and end of everything that the streams of GPUs executed, in nanoseconds."""
    for plane in profile.planes:
        if plane.name.startswith("/device:GPU"):
            for line in plane.lines:
                # Other lines group the same work by operation and module.
                if line.name.startswith("Stream"):
                    yield from ((event.start_ns, event.start_ns + event.duration_ns) for event in line.events)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Returns how much the union of intervals covers."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
