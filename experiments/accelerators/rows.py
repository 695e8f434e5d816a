"""The rows of a check in their folder: a file each, so that a stopped check is resumed by the same command."""

import json
from collections.abc import Iterator
from pathlib import Path

from experiments.accelerators.check import Facts, Request, Row
from jmer.errors import UserError
from jmer.files import atomically


def row_file(out: Path, request: Request | Row) -> Path:
    """Returns the file of a row."""
    tiny = "-smoke" if request.smoke else ""
    return out / "rows" / f"{'-'.join(request[:4])}{tiny}.json"


def save(out: Path, row: Row) -> None:
    """Writes a row."""
    facts = None if row.facts is None else row.facts._asdict()
    with atomically(row_file(out, row)) as temporary:
        temporary.write_text(json.dumps(row._asdict() | {"facts": facts}, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Row:
    """Reads a row. Raises UserError if the file is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Row(**values | {"facts": None if values["facts"] is None else Facts(**values["facts"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the row is compiled again") from error


def load_all(out: Path) -> Iterator[Row]:
    """Yields all rows of a folder."""
    return map(load, sorted((out / "rows").glob("*.json")))
