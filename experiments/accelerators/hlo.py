"""Reads XLA's text of a compiled program (HLO): its loops with their steps, operations, cycles and collectives."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from experiments.accelerators.work import Loop, Work, heaviest

COLLECTIVES = {
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
}
BRANCHES = ("branch_computations", "true_computation", "false_computation")
NO_ESTIMATE = 2**63 - 1
"""Cycles of an operation that the compiler has no estimate of."""

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
# Types and layouts have no word in lower case before a parenthesis.
_OPCODE = re.compile(r" ([a-z][a-z0-9-]*)\(")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SCHEDULED = re.compile(r'scheduling_name="([^"]+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


class Instruction(NamedTuple):
    """An instruction: its opcode, the text between the parentheses after it, and the attributes behind them."""

    opcode: str
    operands: str
    attributes: str

    @property
    def names(self) -> list[str]:
        """The names of the operands."""
        return re.findall(r"%([\w.-]+)", self.operands)

    @property
    def index(self) -> int:
        """Of a `get-tuple-element`."""
        return int(re.match(r", index=(\d+)", self.attributes)[1])

    def computations(self, *attributes: str) -> list[str]:
        """Returns the computations that attributes name, `name=%one` or `name={%one, %another}`."""
        found = (re.search(rf", {name}=(\{{[^}}]*\}}|%[\w.-]+)", self.attributes) for name in attributes)
        return [name for match in found if match for name in re.findall(r"%([\w.-]+)", match[1])]


class Computation(NamedTuple):
    """Instructions by name in the order of execution, and the name of the one whose value is returned."""

    instructions: dict[str, Instruction]
    root: str


class Caller(NamedTuple):
    """The loop whose body a computation is: its instruction, the computation that has it, and the caller of that."""

    loop: Instruction
    computation: Computation
    caller: "Caller | None"


def read(text: str) -> Work:
    """Returns what a program does, from `compiled.as_text()`.

    Operations are those for which a TPU's compiler estimates cycles, since the others compute addresses and the like.
    The text for other devices has none.
    """
    computations, entry = parse(text)
    return _work(computations[entry], computations, None)


def trip_counts(text: str) -> dict[str, int]:
    """Returns the steps of loops by the names that the schedule of a GPU's program has for them."""
    found = {}
    for computation in parse(text)[0].values():
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                name, count = (pattern.search(instruction.attributes) for pattern in (_SCHEDULED, _TRIP_COUNT))
                if name and count:
                    found[name[1]] = int(count[1])
    return found


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Returns the computations of a program by name, and the name of the one that runs."""
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if begun := _COMPUTATION.match(line):
            name = begun[2]
            computations[name] = Computation({}, "")
            entry = name if begun[1] else entry
        elif name and (found := _INSTRUCTION.match(line)):
            if found[1]:
                computations[name] = computations[name]._replace(root=found[2])
            computations[name].instructions[found[2]] = _instruction(found[3])
    return computations, entry


def _instruction(text: str) -> Instruction:
    opcode = _OPCODE.search(text)
    if opcode is None:
        return Instruction("", "", text)
    depth, end = 1, opcode.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return Instruction(opcode[1], text[opcode.end() : end - 1], text[end:])


def _work(computation: Computation, computations: Mapping[str, Computation], caller: Caller | None) -> Work:
    work = Work()
    for instruction in computation.instructions.values():
        match instruction.opcode.removesuffix("-start"):
            case "while":
                (body,) = instruction.computations("body")
                inside = _work(computations[body], computations, Caller(instruction, computation, caller))
                steps = _steps(instruction, computation, computations, caller)
                work = work.plus(Work(loops=(Loop(steps, inside),)))
            case "call" | "conditional":
                names = instruction.computations("to_apply", *BRANCHES)
                work = work.plus(heaviest([_work(computations[name], computations, None) for name in names]))
            case opcode if opcode in COLLECTIVES:
                work = work.plus(Work(collectives=1))
            case _:
                if estimated := _CYCLES.search(instruction.attributes):
                    cycles = int(estimated[1])
                    work = work.plus(Work(operations=1, launches=1, cycles=cycles if cycles < NO_ESTIMATE else 0))
    return work


def _steps(
    loop: Instruction, computation: Computation, computations: Mapping[str, Computation], caller: Caller | None
) -> int | None:
    """Returns the steps of a loop that counts up by one, None if they are not known."""
    if known := _TRIP_COUNT.search(loop.attributes):
        return int(known[1])
    (name,) = loop.computations("condition")
    condition = computations[name]
    test = condition.instructions[condition.root]
    if test.opcode != "compare" or ", direction=LT" not in test.attributes:
        return None
    counter, limit = (condition.instructions[operand] for operand in test.names)
    if counter.opcode != "get-tuple-element":
        return None
    start = _constant(_carried(loop, counter.index, computation), computation, computations, caller)
    end = _constant(limit, condition, computations, Caller(loop, computation, caller))
    return None if start is None or end is None else max(end - start, 0)


def _carried(loop: Instruction, index: int, computation: Computation) -> Instruction:
    """Returns what a loop starts with at a place of its tuple."""
    (name,) = loop.names
    return computation.instructions[computation.instructions[name].names[index]]


def _constant(
    value: Instruction, computation: Computation, computations: Mapping[str, Computation], caller: Caller | None
) -> int | None:
    """Returns the number that an instruction always gives, None if it is none; loops get numbers in their tuples."""
    match value.opcode:
        case "constant":
            return int(value.operands) if re.fullmatch(r"-?\d+", value.operands) else None
        case "copy" | "bitcast" | "reshape":
            (name,) = value.names
            return _constant(computation.instructions[name], computation, computations, caller)
        case "get-tuple-element" if caller and _is_invariant(value.index, caller.loop, computations):
            outer = _carried(caller.loop, value.index, caller.computation)
            return _constant(outer, caller.computation, computations, caller.caller)
    return None


def _is_invariant(index: int, loop: Instruction, computations: Mapping[str, Computation]) -> bool:
    """Returns whether a loop leaves a place of its tuple as it is."""
    (name,) = loop.computations("body")
    body = computations[name].instructions
    result = body[computations[name].root]
    if result.opcode != "tuple":
        return False
    kept = body[result.names[index]]
    return kept.opcode == "get-tuple-element" and kept.index == index and body[kept.names[0]].opcode == "parameter"
