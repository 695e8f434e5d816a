"""The benchmark program: what it counts and times, what it refuses, and a run of it at its smallest."""

import functools
import importlib.util
import json
import os
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from experiments.benchmarks import __main__ as program
from experiments.benchmarks import cases, clock, device_time, epoch, machine, row
from experiments.benchmarks.flops import matrix_flops
from experiments.benchmarks.footprint import Footprint
from experiments.benchmarks.jax_side import JaxSide
from experiments.benchmarks.report import report, summary
from experiments.grid.processes import Died
from jmer.data.batching import real_fraction
from jmer.errors import UserError


@pytest.fixture(autouse=True)
def same_threads():
    """The program sets PyTorch's threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def count(function, *shapes):
    arguments = [jnp.ones(shape) for shape in shapes]
    return matrix_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def square(x):
    return x @ x


PRODUCT = 2 * 3**3
"""Operations of a product of two 3 x 3 matrices."""


def test_products_count_two_operations_for_each_multiplication():
    assert count(jnp.matmul, (2, 3), (3, 5)) == 2 * 2 * 3 * 5
    assert count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (7, 2, 3), (7, 3, 5)) == 7 * 2 * 2 * 3 * 5
    assert count(lambda a, b: jnp.einsum("bij,bij->b", a, b), (7, 2, 3), (7, 2, 3)) == 7 * 2 * 2 * 3
    assert count(lambda a: jnp.tanh(a) * a + 1, (7, 7)) == 0


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_every_place_of_its_kernel(groups):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=groups
        )

    assert count(convolve, (2, 9, 4), (3, 4 // groups, 6)) == 2 * (2 * 9 * 6) * (3 * 4 // groups)


def test_a_gradient_counts_both_of_its_products():
    forward = 2 * 4 * 3 * 5
    gradient = jax.grad(lambda w, x: jnp.tanh(x @ w).sum(), argnums=(0, 1))
    assert count(gradient, (3, 5), (4, 3)) == 3 * forward


def test_what_is_called_counts_as_often_as_it_is_called():
    assert count(lambda x: jax.jit(square)(jax.jit(square)(x)), (3, 3)) == 2 * PRODUCT
    assert count(jax.grad(jax.checkpoint(lambda x: jnp.tanh(square(square(x))).sum())), (3, 3)) == (2 + 2 + 4) * PRODUCT


def test_a_scan_counts_its_length():
    def nested(x):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (square(x), None), x, length=4)[0], None

        return jax.lax.scan(outer, x, length=5)[0]

    assert count(nested, (3, 3)) == 20 * PRODUCT


def test_a_cond_counts_its_largest_branch():
    def choose(x):
        return jax.lax.switch(x.sum().astype(int), [lambda x: x, lambda x: square(square(x)), square], x)

    assert count(choose, (3, 3)) == 2 * PRODUCT


def test_a_while_counts_once():
    def repeat(body):
        return lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, body, x)

    def scanned(x):
        return jax.lax.scan(lambda x, _: (repeat(square)(x), None), x, length=2)[0]

    assert count(repeat(square), (3, 3)) == PRODUCT
    assert count(repeat(lambda x: square(repeat(square)(x))), (3, 3)) == 2 * PRODUCT
    assert count(scanned, (3, 3)) == 2 * PRODUCT


def test_calls_are_timed_in_turn_each_after_one_of_its_kind(monkeypatch):
    now, log = [0.0], []
    fake = types.SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda seconds: log.append("rest"))
    monkeypatch.setattr(clock, "time", fake)

    def call(name, seconds):
        log.append(name)
        now[0] += seconds

    found = clock.alternate({"a": lambda: call("a", 1.0), "b": lambda: call("b", 4.0)}, repeats=2)
    assert found == {"a": [1.0, 1.0], "b": [4.0, 4.0]}
    assert log == ["rest", "a", "a", "rest", "b", "b"] * 2
    assert clock.matmul_peak([lambda: call("a", 1.0), lambda: call("b", 0.5)], 10) == 2 * 10**3 / 0.5


@pytest.mark.parametrize(("model", "shape"), [("sdt", "iemocap"), ("lfvd", "meld"), ("dagerc", "meld")])
def test_a_case_has_the_sizes_that_it_promises(model, shape):
    case = cases.make_case(model, shape)
    sizes = cases.SHAPES[shape]
    assert case.utterances == sizes.batch.utterances == {"iemocap": 776, "meld": 351}[shape]
    assert case.padded.mask.shape == (sizes.batch.conversations, sizes.batch.longest)
    assert sorted(case.packed.conversation_ids[case.packed.conversation_ids >= 0]) == list(
        range(sizes.batch.conversations)
    )
    assert real_fraction([case.packed]) > 0.8 > 0.5 > real_fraction([case.padded])
    assert case.single.mask.shape == (1, sizes.single) and case.single.mask.all()
    wanted = ("text",) if model == "dagerc" else ("text", "audio", "visual")
    assert case.widths == {m: x.shape[-1] for m, x in case.padded.features.items()}
    assert case.widths == {m: cases.WIDTHS[m] for m in wanted}
    again = cases.make_case(model, shape)
    jax.tree.map(
        np.testing.assert_array_equal,
        (case.padded, case.packed, case.single),
        (again.padded, again.packed, again.single),
    )


def test_every_row_has_a_configuration_of_its_model_also_at_its_smallest():
    for model, shape in cases.EXPERIMENTS:
        case = cases.make_case(model, shape, smoke=True)
        assert case.config.model.name == model and case.config.data.path == cases.SHAPES[shape].corpus
        assert all(width <= max(cases.SMOKE_WIDTHS.values()) for width in case.widths.values())


class Recorder:
    """A side that notes what it is trained on."""

    def __init__(self, name):
        self.name = name
        self.trained = []

    def place(self, batch):
        return batch

    def train(self, batch):
        self.trained.append(batch)

    def wait(self):
        self.waited_after = len(self.trained)


def test_epochs_hold_every_conversation_once_and_pad_as_each_side_does():
    case = cases.make_case("dagerc", "iemocap", smoke=True)
    pipeline = cases.epoch_pipeline(case)
    conversations = pipeline.examples["train"]
    ours, theirs = Recorder("jmer"), Recorder("PyTorch")
    found = [epoch.run_epoch(side, pipeline) for side in (ours, theirs)]
    for side in (ours, theirs):
        timed = side.trained[1:]
        assert len(timed) == 3 and side.waited_after == len(side.trained)
        assert sum(batch.mask.sum() for batch in timed) == sum(map(len, conversations))
    lengths = np.concatenate([batch.mask.sum(1) for batch in theirs.trained[1:]])
    assert sorted(lengths[lengths > 0]) == sorted(map(len, conversations))
    assert sorted(i for batch in ours.trained[1:] for i in batch.conversation_ids.flat if i >= 0) == list(range(40))
    assert len({batch.mask.shape for batch in ours.trained}) == 1
    assert all(batch.mask[:, -1].any() for batch in theirs.trained)
    assert found[0].real_fraction == real_fraction(ours.trained[1:]) > found[1].real_fraction
    assert found[0].utterances == found[1].utterances == 400


OPTIONS = row.Options(3, "cpu", None, True, False, False, 5, "float32")


def made_up_row(**changes):
    values = {
        "model": "lfvd",
        "shape": "meld",
        "utterances": 300,
        "useful_shares": {"jmer": 0.75, "PyTorch": 0.25},
        "single": 10,
        "flops_per_utterance": 2e6,
        "training": {"jmer": [0.3, 0.1, 0.2], "PyTorch": [2.0, 1.0, 1.5]},
        "inference": {"jmer": [0.01], "PyTorch": [0.05]},
        "latency": {"jmer": [0.002], "PyTorch": [0.03]},
        "footprints": {"jmer": Footprint(200.0, 512.4, 7.25), "PyTorch": Died("its process ended with status 1")},
        "losses": {"jmer": 1.5, "PyTorch": 1.5},
        "busy": {},
        "seeds": {},
        "epochs": {},
    }
    return row.Row(**(values | changes))


def table(text, title):
    """Returns the rows of the table under a heading, column -> cell."""
    (lines,) = re.findall(rf"^## {title}.*\n\n((?:\|.*\n?)+)", text, flags=re.MULTILINE)
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines())
    return [dict(zip(head, line, strict=True)) for line in body]


def test_tables_show_medians_rates_ratios_and_shares():
    text = report([made_up_row()], OPTIONS, {"device": "abacus"}, [4e9, 8e9, 6e9], 512)
    (training,), (prediction,) = table(text, "A training step"), table(text, "Prediction")
    assert training == {
        "model": "lfvd",
        "shape": "meld",
        "jmer ms": "200",
        "PyTorch ms": "1500",
        "PyTorch : jmer": "7.5x",
        "jmer utt/s": "1500",
        "PyTorch utt/s": "200",
        "jmer useful share": "0.75",
        "PyTorch useful share": "0.25",
        "MFLOP/utt": "2",
        "jmer share of peak": "50.0%",
        "PyTorch share of peak": "6.7%",
        "compile s": "7.25",
        "jmer MiB": "512",
        "PyTorch MiB": "–",
    }
    assert prediction["PyTorch : jmer"] == "5.0x" and prediction["jmer utt/s"] == "30000"
    assert prediction["latency jmer ms"] == "2" and prediction["latency PyTorch : jmer"] == "15.0x"
    assert "abacus" in text and "512 x 512 matrices, 4.0, 8.0, 6.0 GFLOP/s" in text and "median 6.0" in text
    assert "float32. Medians" in text and "whole epoch" not in text and "seeds" not in text


def test_several_seeds_and_what_a_gpu_is_idle_are_shown_where_they_were_measured():
    seeds = {"jmer": [0.3, 0.1, 0.2], row.SEVERAL: [0.5, 0.25, 0.4]}
    text = report([made_up_row(seeds=seeds, busy={"jmer": 0.75, "PyTorch": 0.031})], OPTIONS, {}, [1e9], 512)
    (several,), (training,) = table(text, "A training step of 5 seeds"), table(text, "A training step,")
    assert several == {
        "model": "lfvd",
        "shape": "meld",
        "one seed ms": "200",
        "5 seeds ms": "400",
        "one after the other : together": "2.5x",
    }
    assert training["jmer busy"] == "75%" and training["PyTorch busy"] == "3%"


def test_what_runs_at_the_same_time_counts_once():
    assert device_time.covered([(5, 7), (0, 2), (1, 3), (2.5, 2.75)]) == 5
    assert device_time.covered([]) == 0


def profile_of(plane, line):
    event = types.SimpleNamespace(start_ns=2e9, duration_ns=1e9)
    lines = [
        types.SimpleNamespace(name=line, events=[event]),
        types.SimpleNamespace(name="XLA Modules", events=[event]),
    ]
    return types.SimpleNamespace(planes=[types.SimpleNamespace(name=plane, lines=lines)])


@pytest.mark.parametrize(
    ("plane", "line", "seconds"),
    [("/device:GPU:0", "Stream #13(Compute)", 1.0), ("/device:GPU:0", "Steps", None), ("/host:CPU", "Stream #1", None)],
)
def test_a_gpus_streams_tell_how_long_it_works(plane, line, seconds, monkeypatch):
    profile = types.SimpleNamespace(from_file=lambda path: profile_of(plane, line))
    monkeypatch.setattr(device_time, "ProfileData", profile)
    calls = []
    assert device_time.device_seconds(lambda: calls.append(1)) == seconds and calls == [1]


def test_a_processor_alone_has_no_gpu_that_works():
    assert device_time.device_seconds(lambda: jax.block_until_ready(jnp.ones(3) + 1)) is None


def test_several_seeds_step_as_each_does_alone():
    case = cases.make_case("concat_mlp", "meld", smoke=True)
    side = JaxSide(case)
    batch = side.place(case.packed)
    several = side.several(3)
    several.train(batch)
    side.train(batch)
    first = jax.tree.map(lambda x: x[0], several.variables())
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), first, side.variables())


def test_a_models_precision_is_its_configurations():
    assert cases.make_case("sdt", "meld", smoke=True, precision="bfloat16").config.model.dtype == "bfloat16"
    with pytest.raises(UserError, match=r"^m3net computes in float32 alone: choose other --models, or another --prec"):
        cases.make_case("m3net", "meld", smoke=True, precision="bfloat16")


def test_an_epoch_has_a_table_of_its_own():
    epochs = {"jmer": epoch.Epoch(2.0, 1000, 0.9), "PyTorch": epoch.Epoch(30.0, 1000, 0.5)}
    (shown,) = table(report([made_up_row(epochs=epochs)], OPTIONS, {}, [1e9], 512), "A whole epoch")
    assert shown["jmer utt/s"] == "500" and shown["PyTorch utt/s"] == "33.3" and shown["PyTorch : jmer"] == "15.0x"
    assert shown["jmer useful share"] == "0.90" and shown["PyTorch useful share"] == "0.50"


def test_progress_says_why_memory_is_not_known():
    line = summary(made_up_row())
    assert "PyTorch : jmer 7.5x" in line and line.endswith("memory of PyTorch unknown: its process ended with status 1")


def test_another_loss_is_refused():
    case = cases.make_case("lpgnet", "iemocap", smoke=True)
    row.check_same_loss(case, {"jmer": 2.0, "PyTorch": 2.0001}, 1e-4)
    row.check_same_loss(case, {"jmer": 2.0, "PyTorch": 2.001}, 1e-2)
    for wrong in (2.001, float("nan")):
        with pytest.raises(UserError, match=r"^lpgnet on iemocap: the loss is 2 in jmer and .* in PyTorch, so times"):
            row.check_same_loss(case, {"jmer": 2.0, "PyTorch": wrong}, 1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "lfvd,bert"], r"unknown name 'bert' in --models: choose from lfvd, dagerc, sdt, lpgnet"),
        (["--shapes", "mosi"], r"unknown name 'mosi' in --shapes: choose from iemocap, meld"),
        (["--models", "lpgnet", "--shapes", "meld"], r"--models lpgnet has no configuration for --shapes meld"),
        (["--repeats", "0"], r"--repeats is 0: give at least 1"),
        (["--threads", "-1"], r"--threads is -1: give at least 1"),
        (["--seeds", "0"], r"--seeds is 0: give at least 1"),
        (["--precision", "bfloat16"], r"--precision bfloat16 is jmer's own: add --only-jmer"),
        (["--precision", "tensorfloat32"], r"--precision tensorfloat32 is a GPU's: add --device gpu"),
        (["--only-jmer", "--torch-compile"], r"--torch-compile measures PyTorch: omit --only-jmer"),
        (["--device", "gpu", "--only-jmer"], r"--device gpu: JAX finds no GPU: run `pip install -e '.\[gpu\]'`"),
        (["--out", __file__], r"test_benchmarks.py is a file, not a folder: choose another --out"),
    ],
)
def test_mistakes_are_told_in_a_line(flags, message, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with pytest.raises(UserError, match=message):
        program.main(["--smoke", *flags])


def test_a_machine_without_pytorch_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"PyTorch is not installed: run `pip install -e '.\[benchmarks\]'`"):
        program.main(["--smoke"])
    machine.prepare("cpu", None, with_torch=False)


def small_run(out, *flags):
    assert program.main(["--smoke", "--shapes", "iemocap", "--out", str(out), *flags]) == 0
    return json.loads((out / "results.json").read_text())


def test_a_run_measures_both_sides_and_keeps_all_times(tmp_path, monkeypatch, capsys):
    requests = []

    def known(request):
        requests.append(request.side)
        return Footprint(1.0, 2.0, 3.0)

    monkeypatch.setattr(row, "footprint", known)
    # The program sets it, and the other tests' processes would see it.
    monkeypatch.setenv("NPROC", os.environ["NPROC"])
    results = small_run(tmp_path, "--models", "lpgnet", "--threads", "1", "--seeds", "2")
    printed = capsys.readouterr()
    assert printed.out.startswith((tmp_path / "table.md").read_text().rstrip("\n"))
    assert printed.err.startswith("[1/1] lpgnet on iemocap, training step: jmer ms")
    (found,) = results["rows"]
    assert requests == ["jmer", "PyTorch"] and found["footprints"]["jmer"]["peak_megabytes"] == 2.0
    for what, repeats in (("training", 1), ("inference", 1), ("latency", 5)):
        assert {side: len(times) for side, times in found[what].items()} == {"jmer": repeats, "PyTorch": repeats}
        assert min(min(times) for times in found[what].values()) > 0
    assert found["losses"]["jmer"] == pytest.approx(found["losses"]["PyTorch"], rel=1e-4)
    assert {side: len(times) for side, times in found["seeds"].items()} == {"jmer": 1, row.SEVERAL: 1}
    assert found["busy"] == {}
    assert found["utterances"] == 60 and found["single"] == 6 and found["flops_per_utterance"] > 0
    assert results["machine"]["PyTorch"].endswith(", 1 threads")
    assert len(results["peaks"]) == 2 and min(results["peaks"]) > 0
    assert set(results["machine"]) == {"machine", "device", "Python", "JAX", "PyTorch"}


@pytest.mark.slow
@pytest.mark.parametrize("model", program.MODELS)
def test_every_model_is_measured_in_processes_of_their_own(model, tmp_path):
    (found,) = small_run(tmp_path, "--models", model)["rows"]
    ours, theirs = found["footprints"]["jmer"], found["footprints"]["PyTorch"]
    assert ours["compile_seconds"] > 0 and theirs["compile_seconds"] is None
    for needed in (ours, theirs):
        assert 0 < needed["loaded_megabytes"] < needed["peak_megabytes"]


@pytest.mark.slow
def test_jmer_can_be_measured_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(row, "footprint", lambda request: Footprint(1.0, 2.0, 3.0))
    results = small_run(tmp_path, "--models", "dagerc", "--only-jmer")
    assert set(results["rows"][0]["training"]) == {"jmer"} and "PyTorch" not in results["machine"]


@pytest.mark.slow
def test_both_sides_train_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(row, "footprint", lambda request: Footprint(1.0, 2.0, 3.0))
    (found,) = small_run(tmp_path, "--models", "lpgnet", "--epoch")["rows"]
    assert {side: e["utterances"] for side, e in found["epochs"].items()} == {"jmer": 400, "PyTorch": 400}
    assert min(e["seconds"] for e in found["epochs"].values()) > 0
