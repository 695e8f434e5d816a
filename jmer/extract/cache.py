"""A folder with the features that were computed already, found by all that they depend on."""

import dataclasses
import hashlib
import io
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jmer.digests import digest
from jmer.extract.protocol import Features, Missing
from jmer.files import TEMPORARY, not_written

SUFFIX = ".features"
NOT_IN_KEY = ("licence",)


@dataclasses.dataclass(frozen=True)
class Cache:
    """Features by key: a small file each, a digest and an array of NumPy, features or the reason why there are none.

    A file is written beside and renamed, so that a program that is killed leaves whole files alone behind, and several
    programs may share the folder.

    Attributes:
      folder: made when it is first written to.
    """

    folder: Path

    def load(self, key: str) -> Features | None:
        """Returns what is kept for a key; None if there is nothing, or it is damaged."""
        try:
            known, _, content = self._path(key).read_bytes().partition(b"\n")
        except OSError:
            return None
        if digest(content).encode() != known:
            return None
        found = np.load(io.BytesIO(content), allow_pickle=False)
        return Missing(str(found)) if found.dtype.kind == "U" else found

    def save(self, key: str, features: Features) -> None:
        """Keeps the features of a key. Raises UserError if the folder cannot be written."""
        content = io.BytesIO()
        array = np.array(features.reason) if isinstance(features, Missing) else features
        np.save(content, array, allow_pickle=False)
        self._write(self._path(key), digest(content.getvalue()).encode() + b"\n" + content.getvalue())

    def check(self) -> None:
        """Raises UserError if nothing can be written to the folder."""
        probe = self.folder / "writable"
        self._write(probe, b"")
        probe.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise not_written(f"cannot write to the cache {self.folder}", error, "name another (--cache)") from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{SUFFIX}"


def cache_key(identity: Mapping[str, Any], **given: Any) -> str:
    """Returns 64 hexadecimal digits for what features depend on.

    Args:
      identity: of the extractor.
      given: to it, in values that JSON has: the hash of a recording and the times in it, or the words.
    """
    known = {name: value for name, value in identity.items() if name not in NOT_IN_KEY}
    return hashlib.sha256(json.dumps([known, given], sort_keys=True).encode()).hexdigest()
