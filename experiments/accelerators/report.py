"""The tables of the check."""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.accelerators.check import Facts, Row
from experiments.accelerators.programs import PROGRAMS
from experiments.accelerators.targets import GPU, TARGETS
from experiments.benchmarks.cases import EXPERIMENTS
from experiments.tables import NOTHING, bullets, markdown, write_text
from jmer.files import atomically

MEGA = 1e6


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Returns rows by target, model, shape and program, as these are declared."""
    cases, targets = list(EXPERIMENTS), list(TARGETS)
    return sorted(rows, key=lambda row: (targets.index(row.target), cases.index(row[:2]), PROGRAMS.index(row.program)))


def report(rows: Sequence[Row]) -> str:
    """Returns the tables, one for each target; `rows` are at least one."""
    rows = ordered(rows)
    versions = {f"{package} {version}" for row in rows for package, version in row.versions.items()}
    parts = [
        "# jmer's programs, compiled for accelerators",
        f"Compiled with {', '.join(sorted(versions))}. Nothing ran on a device: there are no times here.",
    ]
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        failed = [f"{row.model} on {row.shape}, {row.program}: {row.error}" for row in own if row.error is not None]
        parts += [f"## {TARGETS[target].title} (`{target}`)", markdown([_cells(row) for row in own])]
        parts += bullets("Not compiled:", failed)
    return "\n\n".join(parts)


def summary(row: Row) -> str:
    """Returns a line about a row."""
    title = " ".join(row[:4])
    if row.facts is None:
        return f"{title}: FAILED after {row.seconds:.0f} s: {row.error}"
    shown = {name: what for name, what in _cells(row).items() if what != NOTHING}
    return f"{title}: " + ", ".join(f"{name} {what}" for name, what in list(shown.items())[3:])


def write(out: Path, text: str, rows: Sequence[Row]) -> None:
    """Writes `table.md` and `results.json`."""
    write_text(out / "table.md", text)
    plain = [row._asdict() | {"facts": row.facts and row.facts._asdict()} for row in ordered(rows)]
    with atomically(out / "results.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _cells(row: Row) -> dict[str, str]:
    target = TARGETS[row.target]
    found = _gpu if target.platform == GPU else _tpu
    cells = {"model": row.model, "shape": row.shape + (", tiny" if row.smoke else ""), "program": row.program}
    if row.facts is None:
        return cells | {name: NOTHING for name in _facts(_EMPTY, found, target.devices)} | {"compile s": "failed"}
    return cells | _facts(row.facts, found, target.devices) | {"compile s": f"{row.seconds:.0f}"}


_EMPTY = Facts(0, 0, None, 0, 0, 0, (), 0, 0, 0, 0, 0)


def _facts(facts: Facts, found, devices: int) -> dict[str, str]:
    steps = "" if facts.steps is None else f"{facts.steps} x "
    return (
        {"rows x utterances": f"{steps}{facts.rows} x {facts.length}"}
        | found(facts)
        | {
            "loops x steps": ", ".join(f"{count} x {length or '?'}" for count, length in facts.loops) or "none",
            "MiB at peak": f"{facts.megabytes:.0f}",
        }
        | (_collectives(facts) if devices > 1 else {})
    )


def _gpu(facts: Facts) -> dict[str, str]:
    return {
        "kernels a step": f"{facts.operations:,}",
        "in loops": _fraction(facts.loop_operations, facts.operations),
        "launches a step": f"{facts.launches:,}",
    }


def _tpu(facts: Facts) -> dict[str, str]:
    return {
        "operations a step": f"{facts.operations:,}",
        "Mcycles a step": f"{facts.cycles / MEGA:.2f}",
        "in loops": _fraction(facts.loop_cycles, facts.cycles),
    }


def _collectives(facts: Facts) -> dict[str, str]:
    return {"collectives a step": str(facts.collectives), "of them in loops": str(facts.loop_collectives)}


def _fraction(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else NOTHING
