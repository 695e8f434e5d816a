"""Digests, which tell the same contents from any others that chance or a mistake brings: 32 hexadecimal digits.

xxHash runs at the speed of the memory, so that what is read can always be compared; it is not made to resist forgery.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

DIGEST = "digest"


def digest(*pieces: bytes | memoryview) -> str:
    """Returns the digest of bytes, however they are divided."""
    found = xxhash.xxh3_128()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def digest_json(value: Any) -> str:
    """Returns the digest of a value that JSON can hold, the same before it is written and after it is read."""
    return digest(json.dumps(value, sort_keys=True).encode())


def sealed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns fields, which JSON can hold, with their digest among them."""
    return {**fields, DIGEST: digest_json(fields)}


def unsealed(fields: Any) -> dict[str, Any]:
    """Undoes `sealed`. Raises ValueError if anything has changed in between."""
    if isinstance(fields, dict):
        rest = {name: value for name, value in fields.items() if name != DIGEST}
        if fields.get(DIGEST) == digest_json(rest):
            return rest
    raise ValueError("its contents and its digest differ")


def digest_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the digest of the names, shapes, types and entries of arrays, in whatever order they come."""
    pieces: list[bytes | memoryview] = []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        pieces += [f"{name} {array.shape} {array.dtype}".encode(), array_bytes(array)]
    return digest(*pieces)


def array_bytes(array: np.ndarray) -> memoryview:
    """Returns the bytes of an array in C order; they are not copied if they lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
