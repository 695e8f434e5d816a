"""A run starts from the weights of another one: exactly where they fit, said array by array, and then without it."""

import contextlib
import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from flax import linen as nn
from test_resume import Countdown
from tiny import EMOTIONS, SIZES, WIDTHS, Output, linear_config, mean_square, tiny_corpus

import jmer
from jmer.config import base_config
from jmer.data import make_corpus
from jmer.data.synthetic import generate
from jmer.models import ModelSpec, build_model, model_names, register_model
from jmer.models.contract import example_batch
from jmer.pipeline import Pipeline
from jmer.runs.initial_weights import emotion_arrays, read_record
from jmer.runs.run import load_single_run
from jmer.training import Interrupted, loop
from jmer.training.checkpointing import Checkpoints
from jmer.training.initial_weights import named_arrays, take_weights

pytestmark = pytest.mark.usefixtures("no_figures")


@functools.cache
def corpus():
    return tiny_corpus()


def other_corpus(**changes):
    """A corpus of other conversations; `changes` are those of its card."""
    made = generate("synthetic-iemocap4", sizes=SIZES, widths=WIDTHS | changes.pop("widths", {}))
    card = dataclasses.replace(made.card, name="other", **changes)
    return make_corpus({split: made.conversations(split) for split in made.splits}, card)


class TwoLayers(nn.Module):
    """An encoder of the text, and a classifier."""

    num_classes: int
    modalities: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, batch, *, train=False):
        return Output(
            nn.Dense(self.num_classes, name="classifier")(nn.Dense(3, name="encoder")(batch.features["text"]))
        )


TWO_LAYERS = ModelSpec("two_layers", TwoLayers, mean_square, defaults={"training.batch_size": 4})


def two_layers(**changes):
    register_model(TWO_LAYERS)
    return jmer.get_config("two_layers", {"training.epochs": 1} | changes)


def train(config, data, folder, **changes):
    """Returns a run, or the runs of several seeds, and what the console showed."""
    lines = []
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return jmer.train(config, data, folder, log=lines.append), lines


def weights(run):
    return {name: np.asarray(x) for name, x in named_arrays(jax.device_get(run.variables)).items()}


def frozen(**changes):
    """The smallest model with a rate of 0: what it has after training is what it started from."""
    return linear_config(training__epochs=1, optimizer__learning_rate=0.0, **changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of the smallest model on four emotions."""
    config = linear_config(training__epochs=3, optimizer__learning_rate=0.1, seed=5)
    return train(config, corpus(), tmp_path_factory.mktemp("source") / "a")[0]


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_it_starts_from_the_weights_of_the_epoch_that_the_other_run_chose(source, tmp_path, parallel):
    config = frozen(training__init_from=str(source.folder), training__parallel=parallel)
    run, lines = train(config, other_corpus(), tmp_path / "w")
    assert weights(run).keys() == weights(source).keys()
    for name, array in weights(run).items():
        np.testing.assert_array_equal(array, weights(source)[name])
    (line,) = [line for line in lines if line.startswith("initial weights: ")]
    assert line.startswith(f"initial weights: {source.folder}, epoch {source.epoch}, digest ")
    assert line.endswith(": 2 of 2 arrays, 28 of 28 numbers; features are normalised by this corpus")
    assert "weights taken: Dense_0 (2 arrays)" in lines
    # The features are normalised by the new corpus.
    assert not np.array_equal(run.normalization["text"].mean, source.normalization["text"].mean)
    for name in ("report.md", "report.html"):
        text = (run.folder / name).read_text()
        assert f"epoch {source.epoch}, digest {read_record(run.folder).fingerprint}" in text.replace("\\", "")


def test_it_starts_from_a_checkpoint_that_is_named(source, tmp_path):
    with Checkpoints(source.folder / "checkpoints") as checkpoints:
        newest = checkpoints.newest
    folder = source.folder / "checkpoints" / str(newest)
    run, _ = train(frozen(training__init_from=str(folder)), corpus(), tmp_path / "w")
    expected = load_single_run(source.folder, step=newest)
    assert expected.epoch == 3
    jax.tree.map(np.testing.assert_array_equal, run.variables, expected.variables)


@pytest.mark.parametrize(
    ("emotions", "reason"),
    [
        (("sad", "happy", "neutral", "angry"), "of other emotions"),  # the shapes fit, the meaning does not
        ((*EMOTIONS, "afraid"), "(3, 4) there and (3, 5) here"),
    ],
)
def test_the_classifier_of_other_emotions_is_not_taken(emotions, reason, tmp_path):
    first, _ = train(two_layers(seed=1), corpus(), tmp_path / "first")
    data, still = other_corpus(emotions=emotions), {"optimizer.learning_rate": 0.0}
    started, lines = train(two_layers(**still | {"training.init_from": str(first.folder)}), data, tmp_path / "w")
    fresh, _ = train(two_layers(**still), data, tmp_path / "fresh")
    for name, array in weights(started).items():
        np.testing.assert_array_equal(array, weights(first if "encoder" in name else fresh)[name])
    left = {array.path: array.reason for array in read_record(started.folder).arrays if array.reason}
    assert left.keys() == {"classifier/kernel", "classifier/bias"} and left["classifier/kernel"] == reason
    assert "weights taken: encoder (2 arrays)" in lines
    assert any(line.startswith("weights not taken: classifier") and reason in line for line in lines)


@pytest.mark.parametrize("name", model_names())
def test_the_arrays_of_emotions_of_every_model_are_known(name):
    """They are the heads, and nothing that reads features."""
    pipeline = Pipeline.for_training(base_config(name), corpus())
    model = build_model(pipeline.config)
    found = emotion_arrays(model, pipeline)
    batch = example_batch(pipeline.widths)
    shapes = named_arrays(jax.eval_shape(model.init, jax.random.key(0), batch))
    assert found and all({"classifier", "heads"} & set(name.split("/")) for name in found)
    assert all(shapes[name].shape[-1] == len(EMOTIONS) for name in found)


def test_which_arrays_are_taken_and_why_not():
    shapes = {
        "params/encoder/kernel": np.zeros((3, 2)),
        "params/encoder/bias": np.zeros(2),
        "params/wide/kernel": np.zeros((5, 2)),
        "params/new/kernel": np.zeros((1, 1)),
        "params/new/bias": np.zeros(1),
        "params/classifier/kernel": np.zeros((2, 4)),
        "batch_stats/norm/mean": np.zeros(2),
    }
    there = {name: np.ones(x.shape) for name, x in shapes.items() if "new" not in name}
    there |= {"params/wide/kernel": np.ones((6, 2)), "params/old/kernel": np.ones(7)}
    options = {"of_emotions": {"params/classifier/kernel"}, "folder": "runs/a", "epoch": 4}
    record = take_weights(shapes, there, same_emotions=False, **options)
    assert {array.name: array.reason for array in record.arrays} == {
        "params/encoder/kernel": "",
        "params/encoder/bias": "",
        "params/wide/kernel": "(6, 2) there and (5, 2) here",
        "params/new/kernel": "not there",
        "params/new/bias": "not there",
        "params/classifier/kernel": "of other emotions",
        "batch_stats/norm/mean": "",
    }
    assert record.facts() == {
        "initial weights": f"runs/a, epoch 4, digest {record.fingerprint}: 3 of 7 arrays, 10 of 30 numbers; features "
        "are normalised by this corpus",
        "weights taken": "encoder (2 arrays), batch_stats/norm/mean",
        "weights not taken": "wide/kernel: (6, 2) there and (5, 2) here; new (2 arrays): not there; "
        "classifier/kernel: of other emotions",
        "weights not used": "old/kernel",
    }
    same = take_weights(shapes, there, same_emotions=True, **options)
    assert len(same.taken) == 4 and same.fingerprint == record.fingerprint
    more = take_weights(shapes, there | {"params/old/kernel": np.zeros(7)}, same_emotions=True, **options)
    assert more.fingerprint != record.fingerprint


def interrupt(monkeypatch, looks):
    monkeypatch.setattr(loop, "catch_preemption", lambda: contextlib.nullcontext(Countdown(looks)))


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_resumed_run_does_not_need_the_source_any_more(source, tmp_path, monkeypatch, seeds):
    copy = tmp_path / "copy"
    shutil.copytree(source.folder, copy)
    config = linear_config(training__epochs=3, training__init_from=str(copy), seeds=seeds, model__dropout_rate=0.5)
    whole, _ = train(config, corpus(), tmp_path / "whole")
    interrupt(monkeypatch, 1)
    with pytest.raises(Interrupted):
        train(config, corpus(), tmp_path / "w")
    shutil.rmtree(copy)
    interrupt(monkeypatch, 0)
    resumed, lines = train(config, corpus(), tmp_path / "w")
    assert not any(line.startswith("initial weights") for line in lines)
    for one, other in zip([resumed] if seeds == 1 else resumed, [whole] if seeds == 1 else whole, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
        assert "initial weights: " in (one.folder / "report.md").read_text()


def test_a_run_that_is_killed_before_its_first_epoch_resumes_without_the_source(source, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(source.folder, copy)
    config = frozen(training__init_from=str(copy))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "held_out_splits", killed)
        train(config, corpus(), tmp_path / "w")
    with pytest.raises(jmer.UserError, match=r"no epoch of .* is finished yet"):
        jmer.load_run(tmp_path / "w")
    shutil.rmtree(copy)
    run, _ = train(config, corpus(), tmp_path / "w")
    jax.tree.map(np.testing.assert_array_equal, run.variables, source.variables)


def test_the_same_weights_elsewhere_are_the_same_start_and_others_are_not(source, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(source.folder, copy)
    run, _ = train(frozen(training__init_from=str(source.folder)), corpus(), tmp_path / "w")
    again, lines = train(frozen(training__init_from=str(copy)), corpus(), tmp_path / "w")
    assert any("this run is finished" in line for line in lines)
    assert not any(line.startswith("initial weights") for line in lines)
    assert again.config.training.init_from == run.config.training.init_from == str(source.folder)
    before = (run.folder / "config.json").read_bytes()
    other, _ = train(frozen(seed=1), corpus(), tmp_path / "other")
    with pytest.raises(jmer.UserError, match=r"^.*/w was started from other weights \(digest \w+\) than .*/other has"):
        train(frozen(training__init_from=str(other.folder)), corpus(), tmp_path / "w")
    with pytest.raises(jmer.UserError, match=r"training\.init_from is '.*' there and '' here"):
        train(frozen(), corpus(), tmp_path / "w")
    with pytest.raises(jmer.UserError, match=r"training\.init_from is '' there and"):
        train(frozen(training__init_from=str(source.folder), seed=1), corpus(), tmp_path / "other")
    assert (run.folder / "config.json").read_bytes() == before


def refusals(source, tmp_path):
    lines = tmp_path / "seeds"
    yield str(tmp_path / "none"), corpus(), "holds no run"
    yield str(source.folder / "checkpoints" / "999"), corpus(), "999 does not exist: the run keeps its best and newest"
    train(linear_config(training__epochs=1, seeds=2), corpus(), lines)
    yield str(lines), corpus(), "holds the runs of several seeds: name one of them (" + str(lines / "seed0")
    yield str(source.folder), other_corpus(widths={"text": 9}, emotions=EMOTIONS[::-1]), "none of its 2 arrays has the"


def test_what_cannot_be_started_from_is_refused_before_anything_is_written(source, tmp_path):
    for folder, data, message in refusals(source, tmp_path):
        with pytest.raises(jmer.UserError) as refusal:
            train(frozen(training__init_from=folder), data, tmp_path / "w")
        assert message in str(refusal.value) and "\n" not in str(refusal.value)
        assert not (tmp_path / "w").exists()
