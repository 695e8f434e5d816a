"""Compiled programs are read as they are, and a check of many is resumed.

`compiled/` has what XLA writes (jax 0.10.2) of one example: a loop of 11 steps around one of 5, a loop from an argument
to 9 and a conditional, for an H100 and a TPU v5e; for four of these, in place of the last two, a loop of 7 steps with a
sum over the devices. Only debugging information was removed.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from studies import table_of

from experiments.accelerators import __main__ as program
from experiments.accelerators import check, hlo, programs, report, targets, thunks
from experiments.accelerators.check import Facts, Request, Row
from experiments.accelerators.rows import load, row_file, save
from experiments.accelerators.work import Loop, Work, in_loops, loop_counts, step_of_epoch, total
from experiments.grid.processes import Died, in_processes
from jmer.errors import UserError
from jmer.layers import DAGEncoder

COMPILED = Path(__file__).parent / "compiled"
EPOCH_STEPS = 33


def text(name):
    return (COMPILED / f"{name}.txt").read_text()


def work(operations, *loops, launches=None, cycles=0, collectives=0):
    return Work(operations, operations if launches is None else launches, cycles, collectives, loops)


def on_h100():
    return thunks.count(text("h100.thunks"), text("h100.names"), hlo.trip_counts(text("h100.hlo")))


def test_kernels_of_a_gpu_are_counted_and_a_graph_is_one_launch():
    inner = work(7, launches=1)
    assert on_h100() == work(8, Loop(11, work(4, Loop(5, inner))), Loop(None, work(3)))
    assert total(on_h100()) == work(8 + 11 * (4 + 5 * 7) + 3, launches=8 + 11 * (4 + 5) + 3)
    assert in_loops(on_h100()).operations == 432


def test_loops_of_unknown_length_evaluate_their_condition():
    known = thunks.count(text("h100.thunks"), text("h100.names"), {})
    assert [loop.steps for loop in known.loops] == [None, None]
    assert known.loops[0].body.operations == 4 + 1
    assert loop_counts(on_h100()) == [(1, 11), (11, 5), (1, None)]


def test_operations_of_a_tpu_have_cycles_and_loops_their_steps():
    found = hlo.read(text("v5e.hlo"))
    assert found == work(
        6,
        Loop(11, work(1, Loop(5, work(2, cycles=4390)), cycles=1832)),
        Loop(None, work(1, cycles=1825)),
        cycles=11580,
    )
    assert total(found).cycles == 11580 + 11 * (1832 + 5 * 4390) + 1825


def test_collectives_in_loops_are_found():
    found = hlo.read(text("v5e-x4.hlo"))
    assert [(loop.steps, loop.body.collectives) for loop in found.loops] == [(11, 0), (7, 1)]
    assert (found.collectives, total(found).collectives, in_loops(found).collectives) == (1, 8, 7)


LIMIT_IN_A_TUPLE = """
%inner_condition (p.1: (s32[], s32[])) -> pred[] {
  %p.1 = (s32[], s32[]) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %limit.1 = s32[] get-tuple-element(%p.1), index=1
  ROOT %less.1 = pred[] compare(%i.1, %limit.1), direction=LT
}

%inner (p.2: (s32[], s32[])) -> (s32[], s32[]) {
  %p.2 = (s32[], s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.2), index=0
  %one.2 = s32[] constant(1)
  %next.2 = s32[] add(%i.2, %one.2)
  %limit.2 = s32[] get-tuple-element(%p.2), index=1
  ROOT %result.2 = (s32[], s32[]) tuple(%next.2, %limit.2)
}

%outer_condition (p.3: (s32[], s32[], s32[])) -> pred[] {
  %p.3 = (s32[], s32[], s32[]) parameter(0)
  %i.3 = s32[] get-tuple-element(%p.3), index=0
  %limit.3 = s32[] constant(6)
  ROOT %less.3 = pred[] compare(%i.3, %limit.3), direction=LT
}

%outer (p.4: (s32[], s32[], s32[])) -> (s32[], s32[], s32[]) {
  %p.4 = (s32[], s32[], s32[]) parameter(0)
  %i.4 = s32[] get-tuple-element(%p.4), index=0
  %start.4 = s32[] get-tuple-element(%p.4), index=1
  %limit.4 = s32[] get-tuple-element(%p.4), index=2
  %begun.4 = (s32[], s32[]) tuple(%start.4, %limit.4)
  %loop.4 = (s32[], s32[]) while(%begun.4), condition=%inner_condition, body=%inner
  %one.4 = s32[] constant(1)
  %next.4 = s32[] add(%i.4, %one.4)
  ROOT %result.4 = (s32[], s32[], s32[]) tuple(%next.4, %start.4, %limit.4)
}

ENTRY %main (x: s32[]) -> s32[] {
  %two = s32[] constant(2)
  %five = s32[] constant(5)
  %begun = (s32[], s32[], s32[]) tuple(%two, %two, %five)
  %loop = (s32[], s32[], s32[]) while(%begun), condition=%outer_condition, body=%outer
  ROOT %x = s32[] get-tuple-element(%loop), index=0
}
"""


def test_numbers_that_reach_a_loop_in_a_tuple_are_followed_if_no_step_changes_them():
    assert hlo.read(LIMIT_IN_A_TUPLE) == work(0, Loop(4, work(0, Loop(3, work(0)))))
    for changed in ("tuple(%next.4, %i.4, %limit.4)", "tuple(%next.4, %start.4, %next.4)"):
        other = LIMIT_IN_A_TUPLE.replace("tuple(%next.4, %start.4, %limit.4)", changed)
        assert hlo.read(other) == work(0, Loop(4, work(0, Loop(None, work(0)))))


def test_operations_without_an_estimate_count_but_have_no_cycles():
    changed = text("v5e.hlo").replace('"estimated_cycles":"1832"', f'"estimated_cycles":"{2**63 - 1}"')
    assert hlo.read(changed).loops[0].body._replace(loops=()) == work(1)


def test_a_step_of_an_epoch_is_the_body_of_its_loop():
    step = work(100, Loop(20, work(3)))
    epoch = work(5, Loop(EPOCH_STEPS, work(1)), Loop(EPOCH_STEPS, step), Loop(7, work(1000)))
    assert step_of_epoch(epoch, EPOCH_STEPS) == step
    with pytest.raises(ValueError, match=r"no loop of 34 steps, only \[33, 33, 7\]"):
        step_of_epoch(epoch, 34)


def test_incomplete_dumps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="XLA wrote 0 thunk sequences and 0 lists of names"):
        thunks.read(tmp_path, "")


FACTS = Facts(10, 36, None, 73.4, 3300, 1900, [(4, 36), (1, None)], 3036, None, None, 0, 0)
ON_TPUS = FACTS._replace(
    rows=12, steps=EPOCH_STEPS, launches=None, cycles=6_500_000, loop_cycles=5_395_000, collectives=3
)


def row(target="h100", shape="meld", step="step", error=None, facts=FACTS):
    return Row("dagerc", shape, step, target, False, 77.2, {"jax": "1.2"}, error, None if error else facts)


def test_tables_have_a_section_for_each_target():
    lines = report.report(
        [row("v5e-x4", step="epoch", facts=ON_TPUS), row("h100", "iemocap", error="no | tiles"), row()]
    ).splitlines()
    sections = [line for line in lines if line.startswith("## ")]
    assert sections == ["## NVIDIA H100, products by cuBLAS (`h100`)", "## 4 x TPU v5e (`v5e-x4`)"]
    failed, found = table_of(lines[lines.index(sections[0]) :])
    assert found == {
        "model": "dagerc",
        "shape": "meld",
        "program": "step",
        "rows x utterances": "10 x 36",
        "kernels a step": "3,300",
        "in loops": "92%",
        "launches a step": "1,900",
        "loops x steps": "4 x 36, 1 x ?",
        "MiB at peak": "73",
        "compile s": "77",
    }
    assert failed["kernels a step"] == "–" and failed["compile s"] == "failed"
    assert "- dagerc on iemocap, step: no | tiles" in lines
    (tpus,) = table_of(lines[lines.index(sections[1]) :])
    assert (
        tpus["rows x utterances"] == "33 x 12 x 36" and tpus["Mcycles a step"] == "6.50" and tpus["in loops"] == "83%"
    )
    assert tpus["collectives a step"] == "3" and tpus["of them in loops"] == "0"
    assert "Compiled with jax 1.2. Nothing ran on a device" in lines[2]


@pytest.fixture
def compiled(monkeypatch):
    """Replaces the compilers: programs of IEMOCAP fail; lists what was compiled."""
    requests = []

    def instead(request, log):
        requests.append(request)
        return row(request.target, request.shape, request.program, "no tiles" if request.shape == "iemocap" else None)

    monkeypatch.setattr(program, "check", instead)
    monkeypatch.setattr(program, "check_installed", lambda names: None)
    return requests


def test_rows_are_compiled_once_and_failures_are_listed(tmp_path, compiled, told):
    flags = ["--models", "dagerc", "--programs", "step", "--targets", "h100", "--out", tmp_path]
    assert told(program, *flags, "--shapes", "meld")[0] == 0 and len(compiled) == 1
    status, lines, errors = told(program, *flags)
    assert status == 1 and not errors and [request.shape for request in compiled] == ["meld", "iemocap"]
    assert lines[0] == f"2 programs in {tmp_path}: 1 compiled before, 1 to do"
    assert lines[1] == "[1/1] dagerc iemocap step h100: FAILED after 77 s: no tiles"
    assert "- dagerc on iemocap, step: no tiles" in lines
    assert [one["error"] for one in json.loads((tmp_path / "results.json").read_text())] == ["no tiles", None]
    assert (tmp_path / "table.md").read_text().strip() in "\n".join(lines)
    told(program, *flags, "--again", "failed")
    assert len(compiled) == 3
    told(program, *flags, "--again", "all")
    assert len(compiled) == 5


def test_rows_are_read_as_they_were_written(tmp_path):
    for one in (row(facts=ON_TPUS._replace(loops=[[4, 36], [1, None]])), row(error="no tiles")):
        save(tmp_path, one)
        assert load(row_file(tmp_path, one)) == one
    row_file(tmp_path, one).write_text('{"model": "dagerc"}')
    with pytest.raises(UserError, match=r"is damaged .*: delete it, and the row is compiled again"):
        load(row_file(tmp_path, one))


def test_a_process_that_ends_is_told_in_a_line(tmp_path):
    request, log = Request("lfvd", "meld", "step", "h100", False, 60), tmp_path / "row.log"
    assert check.death(Died("the process was killed by SIGALRM"), request, log) == "not compiled within 60 s"
    assert check.death(Died("the process was killed by SIGABRT"), request, log) == "the process was killed by SIGABRT"
    log.write_text("I0101 noise\nF0101 tiling.cc:7 Check failed: tiles > 0\n*** stack\n")
    assert check.death(Died("the process was killed by SIGABRT"), request, log) == (
        "the process was killed by SIGABRT: F0101 tiling.cc:7 Check failed: tiles > 0"
    )
    assert len(check.one_line("word\n" * 1000)) < 310


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "bert"], r"unknown name 'bert' in --models: choose from lfvd, dagerc"),
        (["--targets", "v3"], r"unknown name 'v3' in --targets: choose from v5e, v6e, h100, h100-triton, v5e-x4"),
        (["--models", "lpgnet", "--shapes", "meld"], r"--models lpgnet has no configuration for --shapes meld"),
        (["--timeout", "0"], r"--timeout is 0: give at least 1"),
        (["--out", __file__], r"test_accelerators.py is a file, not a folder: choose another --out"),
    ],
)
def test_mistakes_are_told_in_a_line(flags, message):
    with pytest.raises(UserError, match=message):
        program.main(flags)


def test_a_missing_compiler_is_told_before_anything_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(program, "check", None)
    for target, extra in (("v5e-x4", "tpu"), ("h100", "gpu")):
        message = rf"is not installed: run `pip install -e '.\[{extra}\]'`, or leave {target} out of --targets"
        with pytest.raises(UserError, match=message):
            program.main(["--models", "sdt", "--targets", target, "--out", str(tmp_path)])


@pytest.mark.parametrize("program_name", programs.PROGRAMS)
@pytest.mark.parametrize("count", [1, 2])
def test_what_training_runs_is_lowered_for_one_device_and_for_several(program_name, count):
    """The CPU stands in for the devices."""
    found = programs.lower("concat_mlp", "meld", program_name, jax.devices()[:count], smoke=True)
    assert found.rows % count == 0 and (found.steps is None) == (program_name == "step")
    assert f"num_partitions = {count}" in found.lowered.as_text()


LENGTH, LAYERS = 40, 2


def recurrence_for(target):
    """Compiles the loops over utterances of DAG-ERC, forward and backward, in a process of its own."""
    # Not as the other tests compile.
    jax.config.update("jax_disable_most_optimizations", False)

    def lower(devices):
        place = jax.sharding.SingleDeviceSharding(devices[0])
        encoder = DAGEncoder(features=16, hidden_features=16, num_layers=LAYERS)
        graph = [jax.ShapeDtypeStruct((2, LENGTH, LENGTH), bool, sharding=place)] * 2
        x = jax.ShapeDtypeStruct((2, LENGTH, 8), jnp.float32, sharding=place)
        params = jax.eval_shape(encoder.init, jax.random.key(0), x, *graph)
        params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=place), params)
        gradient = jax.jit(jax.grad(lambda *arguments: encoder.apply(*arguments).sum()))
        return programs.Lowered(gradient.lower(params, x, *graph), 2, LENGTH, None)

    return check.compile_for(target, lower)


@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_the_recurrence_compiles_for_accelerators_from_a_process_on_a_cpu(target):
    if extra := targets.missing(target):
        pytest.skip(f"needs jmer's extra `{extra}`, which has the compiler for {targets.TARGETS[target].title}")
    ((_, facts),) = in_processes(recurrence_for, [target], jobs=1)
    assert isinstance(facts, Facts), facts
    # On a CPU each step has an inner loop over pieces, as many as there are predecessors.
    assert {length for _, length in facts.loops} <= {LENGTH, LENGTH + LAYERS - 1}
    assert facts.loop_operations > LENGTH and facts.collectives == 0
