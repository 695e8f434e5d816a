"""What Google Cloud tells the hosts of a TPU about each other.

Kubernetes sets environment variables; other machines ask the metadata server, an HTTP server at a fixed name.
"""

import re
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

CHIPS = "accel[0-9]*", "vfio/[0-9]*"
"""Names of TPU chips in /dev."""

_SERVER = "metadata.google.internal"
_TIMEOUT = 5  # seconds


class Hosts(NamedTuple):
    """The hosts of all slices, as one of them sees them; a process runs on each."""

    first: str
    hosts: int
    host: int


def find_hosts(environment: Mapping[str, str], devices: Path = Path("/dev")) -> Hosts | None:
    """Returns the hosts of a TPU, None where there is none.

    Args:
      environment: the variables of this process.
      devices: the folder of the machine's devices.
    """
    if "TPU_WORKER_ID" in environment:
        names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
        return _hosts(names, environment["TPU_WORKER_ID"], environment.get)
    # Elsewhere the name of the server may take long not to be found.
    if "GCE_METADATA_IP" in environment or any(any(devices.glob(chip)) for chip in CHIPS):
        server = environment.get("GCE_METADATA_IP", _SERVER)
        names, index = (_ask(server, name) for name in ("worker-network-endpoints", "agent-worker-number"))
        told = dict(re.findall(r"^(\w+): '?(.*?)'?$", _ask(server, "tpu-env"), flags=re.MULTILINE))
        return _hosts(names, index, (told | dict(environment)).get)
    return None


def _hosts(names: str, index: str, tell: Callable[[str], str | None]) -> Hosts | None:
    # A name by itself, or name:number:address.
    hosts = [name.split(":")[2] if name.count(":") == 2 else name.partition(":")[0] for name in names.split(",")]
    if not names or not index.isdecimal():
        return None
    slices, own_slice = int(tell("MEGASCALE_NUM_SLICES") or 1), int(tell("MEGASCALE_SLICE_ID") or 0)
    first = (tell("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]).partition(":")[0]
    return Hosts(first, len(hosts) * slices, int(index) + len(hosts) * own_slice)


def _ask(server: str, name: str) -> str:
    """Returns an attribute of this machine; empty if there is none."""
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{name}", headers={"Metadata-Flavor": "Google"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return answer.read().decode()
    except (OSError, ValueError):
        return ""
