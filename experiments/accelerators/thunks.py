"""Reads what XLA writes about a GPU's program: the sequence of its thunks (kernels, copies, calls of libraries)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.accelerators.hlo import trip_counts
from experiments.accelerators.work import Loop, Work, heaviest

GRAPH, LOOP, CHOICE = "kCommandBuffer", "kWhile", "kConditional"

_THUNK = re.compile(r"( *)(\d+): (k\w+)")
_PART = re.compile(r"( *)(\w+):$")
_METADATA = re.compile(r'profile_annotation: "([^"]+)"\s+thunk_id: (\d+)')
_COLLECTIVE = re.compile(r"k(Nccl)?(AllReduce|AllGather|ReduceScatter|AllToAll|Collective\w*|RaggedAllToAll)(Start)?$")
# The ends of what was begun elsewhere, and the waiting of streams for each other.
_NO_LAUNCH = re.compile(r"k(\w*Done|WaitForStreams|PartitionId|ReplicaId)$")


class Thunk(NamedTuple):
    """A thunk with its number and what it contains: name of a part (`body`, a branch, "" = itself) -> thunks."""

    kind: str
    number: int
    parts: dict[str, list["Thunk"]]


def read(folder: Path, text: str) -> Work:
    """Returns what a GPU's program does.

    Args:
      folder: where XLA dumped it, and no other.
      text: `compiled.as_text()`.

    Raises:
      ValueError: if the files are not there.
    """
    # Without a CUDA graph there is one file only.
    sequences = sorted(folder.glob("*.thunk_sequence_after_thunk_passes.txt")) or sorted(
        folder.glob("*.thunk_sequence.txt")
    )
    names = sorted(folder.glob("*.thunk_metadata.txt"))
    if len(sequences) != 1 or len(names) != 1:
        raise ValueError(f"XLA wrote {len(sequences)} thunk sequences and {len(names)} lists of names, not one of each")
    return count(sequences[0].read_text(), names[0].read_text(), trip_counts(text))


def count(sequence: str, metadata: str, steps: Mapping[str, int]) -> Work:
    """Returns the work of a sequence of thunks.

    Args:
      sequence: text of the thunks.
      metadata: text with the names of thunks.
      steps: name of a loop -> its steps.
    """
    names = {int(number): name for name, number in _METADATA.findall(metadata)}
    return _sequence(parse(sequence), {number: steps.get(name) for number, name in names.items()})


def parse(sequence: str) -> list[Thunk]:
    """Returns the thunks of a program, each with those that it contains."""
    program = Thunk("", 0, {"": []})
    owners = [(-1, program)]
    for line in sequence.splitlines():
        if found := _THUNK.match(line):
            thunk = Thunk(found[3], int(found[2]), {})
            owner = _owner(owners, len(found[1]))
            if not owner.parts:
                owner.parts[""] = []
            list(owner.parts.values())[-1].append(thunk)
            owners.append((len(found[1]), thunk))
        elif found := _PART.match(line):
            # This title alone is not indented like what contains it; it comes first.
            owner = owners[-1][1] if found[2] == "condition" else _owner(owners, len(found[1]))
            owner.parts[found[2]] = []
    return program.parts[""]


def _owner(owners: list[tuple[int, Thunk]], indent: int) -> Thunk:
    """Closes the thunks that cannot contain a line with this indent, and returns the one that does."""
    while owners[-1][0] >= indent:
        owners.pop()
    return owners[-1][1]


def _sequence(thunks: Sequence[Thunk], steps: Mapping[int, int | None]) -> Work:
    work = Work()
    for thunk in thunks:
        work = work.plus(_work(thunk, steps))
    return work


def _work(thunk: Thunk, steps: Mapping[int, int | None]) -> Work:
    parts = {name: _sequence(inside, steps) for name, inside in thunk.parts.items()}
    if thunk.kind == LOOP:
        # The host counts steps that are known, and evaluates no condition.
        number = steps.get(thunk.number)
        body = parts["body"] if number is not None else parts["condition"].plus(parts["body"])
        return Work(loops=(Loop(number, body),))
    if thunk.kind == CHOICE:
        return heaviest(list(parts.values()))
    if thunk.kind == GRAPH:
        return parts[""]._replace(launches=1)
    if parts:
        return parts[""]
    if _COLLECTIVE.match(thunk.kind):
        return Work(operations=1, launches=1, collectives=1)
    return Work() if _NO_LAUNCH.match(thunk.kind) else Work(operations=1, launches=1)
