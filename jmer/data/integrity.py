"""Digests of the files of a saved corpus, which tell one that has changed from one that `save_corpus` wrote.

Small files are compared whole, before anything else reads them. Of Arrow files, which are not read until their rows are
asked for, the sizes are compared here and the contents when the corpus' identity is computed.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from jmer.digests import digest, sealed, unsealed
from jmer.errors import UserError
from jmer.guard import guarded

DIGESTS_FILE = "digests.json"
ARROW_SUFFIX = ".arrow"


def write_digests(folder: Path, fingerprints: Mapping[str, str]) -> None:
    """Writes the digests of all files of a saved corpus into its folder.

    Args:
      folder: the corpus' folder.
      fingerprints: split -> that of its contents, see `jmer.data.identity.SplitIdentity`.
    """
    files = {path.relative_to(folder).as_posix(): _state(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    fields = sealed({"files": files, "splits": dict(fingerprints)})
    (folder / DIGESTS_FILE).write_text(json.dumps(fields, indent=2) + "\n")


def check_digests(folder: Path) -> dict[str, str]:
    """Compares the files of a saved corpus with what was written; others that lie there do not matter.

    Returns:
      Split -> fingerprint of its contents; empty for a corpus of an earlier version, which has no digests.

    Raises:
      UserError: if one is missing or has changed.
    """
    if not (folder / DIGESTS_FILE).exists():
        return {}
    with guarded(str(folder / DIGESTS_FILE), "convert the corpus again", described="is damaged"):
        fields = unsealed(json.loads((folder / DIGESTS_FILE).read_bytes()))
        for name, written in fields["files"].items():
            path = folder / name
            if not path.is_file() or _state(path) != written:
                raise _damaged(path)
        return dict(fields["splits"])


def _state(path: Path) -> str | int:
    return path.stat().st_size if path.suffix == ARROW_SUFFIX else digest(path.read_bytes())


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is {'damaged' if path.exists() else 'missing'}: convert the corpus again")
