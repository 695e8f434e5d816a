"""A folder with the features that were computed already, found by all that they depend on."""

import dataclasses
import hashlib
import json
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jmer.extract.protocol import Features, Missing
from jmer.files import TEMPORARY, not_written

NOT_IN_KEY = ("licence",)


@dataclasses.dataclass(frozen=True)
class Cache:
    """Features by key: a small .npz file each, with the features or the reason why there are none.

    A file is written beside and renamed, so that a program that is killed leaves whole files alone behind, and several
    programs may share the folder.

    Attributes:
      folder: made when it is first written to.
    """

    folder: Path

    def load(self, key: str) -> Features | None:
        """Returns what is kept for a key; None if there is nothing, or it is damaged."""
        try:
            # A zip file has a checksum of its contents, which reading compares.
            with np.load(self._path(key), allow_pickle=False) as found:
                return Missing(str(found["missing"])) if "missing" in found else found["features"]
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, key: str, features: Features) -> None:
        """Keeps the features of a key. Raises UserError if the folder cannot be written."""
        missing = isinstance(features, Missing)
        arrays = {"missing": np.array(features.reason)} if missing else {"features": features}
        self._write(self._path(key), arrays)

    def check(self) -> None:
        """Raises UserError if nothing can be written to the folder."""
        probe = self.folder / "writable.npz"
        self._write(probe, {})
        probe.unlink(missing_ok=True)

    def _write(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    np.savez(file, allow_pickle=False, **arrays)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise not_written(f"cannot write to the cache {self.folder}", error, "name another (--cache)") from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


def cache_key(identity: Mapping[str, Any], **given: Any) -> str:
    """Returns 64 hexadecimal digits for what features depend on.

    Args:
      identity: of the extractor.
      given: to it, in values that JSON has: the hash of a recording and the times in it, or the words.
    """
    known = {name: value for name, value in identity.items() if name not in NOT_IN_KEY}
    return hashlib.sha256(json.dumps([known, given], sort_keys=True).encode()).hexdigest()
