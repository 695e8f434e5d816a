"""Features of sound by an encoder in an ONNX file, against windows computed by NumPy."""

import sys

import numpy as np
import pytest
from onnx_files import node, onnx_file, weights

from jmer.errors import UserError
from jmer.extract.registry import make_extractor

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
SOUND = RNG.normal(size=8000).astype(np.float32) / 10
KERNEL, STRIDE, WIDTH = 400, 320, 5
FILTERS = RNG.normal(size=(WIDTH, 1, KERNEL)).astype(np.float32) / 20


def onnx(encoder, **options):
    return make_extractor(
        ",".join([f"onnx:{encoder}", *(f"{name}={value}" for name, value in options.items())]), "audio"
    )


def windows(samples):
    """Returns what the encoder makes of samples: `[T, D]`."""
    frames = np.lib.stride_tricks.sliding_window_view(np.float64(samples), KERNEL)[::STRIDE]
    return np.tanh(frames @ FILTERS[:, 0].T.astype(np.float64))


@pytest.fixture
def encoder(tmp_path):
    """Makes a convolution over samples with an input and an output of some shapes."""

    def make(takes=(1, "samples"), returns=(1, "frames", WIDTH), name="encoder.onnx"):
        nodes = [
            node("Reshape", ["x", "all"], ["one"]),
            node("Conv", ["one", "filters"], ["bands"], strides=[STRIDE]),
            node("Tanh", ["bands"], ["bounded"]),
            node("Transpose", ["bounded"], ["frames"], perm=[0, 2, 1]),
        ]
        last = {
            1: node("ReduceMean", ["frames"], ["y"], axes=[0, 1], keepdims=0),
            2: node("Squeeze", ["frames", "first"], ["y"]),
            3: node("Identity", ["frames"], ["y"]),
            4: node("Unsqueeze", ["frames", "first"], ["y"]),
        }[len(returns)]
        constants = [
            weights("all", np.array([1, 1, -1])),
            weights("first", np.array([0])),
            weights("filters", FILTERS),
        ]
        return onnx_file(tmp_path / name, [*nodes, last], [("x", takes)], [("y", returns)], constants)

    return make


@pytest.mark.parametrize("takes", [(1, "s"), ("n", "s"), ("s",)], ids=["one-row", "any-rows", "no-rows"])
@pytest.mark.parametrize("returns", [("t", WIDTH), (1, "t", WIDTH)], ids=["frames", "row-of-frames"])
def test_frames_and_their_mean(encoder, takes, returns):
    path = encoder(takes, returns)
    frames, mean = onnx(path, pooling="none"), onnx(path)
    np.testing.assert_allclose(frames(SOUND), windows(SOUND), atol=1e-6)
    np.testing.assert_allclose(mean(SOUND), windows(SOUND).mean(0), atol=1e-6)
    assert (frames.width, mean.width, frames.frames, mean.frames) == (WIDTH, WIDTH, True, False)
    assert mean(SOUND).dtype == np.float32


def test_a_vector_is_taken_as_it_is(encoder):
    path = encoder(returns=(WIDTH,))
    np.testing.assert_allclose(onnx(path)(SOUND), windows(SOUND).mean(0), atol=1e-6)
    assert onnx(path).width == WIDTH
    with pytest.raises(UserError, match="returns a vector, not frames: choose pooling=mean"):
        onnx(path, pooling="none").check()


def test_an_inner_layer_can_be_taken(encoder):
    made = onnx(encoder(returns=(WIDTH,)), tensor="frames", pooling="none")
    np.testing.assert_allclose(made(SOUND), windows(SOUND), atol=1e-6)


def test_samples_are_normalised_on_request(encoder):
    made = onnx(encoder(), normalise="true", pooling="none")
    assert made.identity["normalise"]
    normalised = (SOUND - SOUND.mean(dtype=np.float64)) / SOUND.std(dtype=np.float64)
    np.testing.assert_allclose(made(SOUND + 0.5), windows(normalised), atol=1e-4)


def test_nothing_is_kept_between_utterances(encoder):
    made = onnx(encoder())
    alone = onnx(encoder())(SOUND[:1000])
    made(SOUND)
    np.testing.assert_array_equal(made(SOUND[:1000]), alone)


def test_the_identity_holds_the_encoder_and_its_options(encoder):
    path = encoder()
    identity = onnx(path).identity
    assert identity == onnx(encoder(name="again.onnx")).identity
    assert set(identity["packages"]) == {"onnxruntime"}
    assert {"tensor", "pooling", "normalise", "width", "sha256"} <= identity.keys()
    assert identity["sha256"] != onnx(encoder(returns=("t", WIDTH), name="other.onnx")).identity["sha256"]


def test_sound_that_is_too_short_for_the_encoder_is_no_error_of_the_user(encoder):
    """So that the other utterances go on."""
    made = onnx(encoder())
    made.check()
    with pytest.raises(RuntimeError, match=r"encoder.onnx does not run on an array \[1, 300\]: [^\n]*$"):
        made(SOUND[:300])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"takes": (1, 16000)}, r"takes an array \[1, 16000\]: expected samples of any number, .*: export it with dyn"),
        ({"takes": (1, "c", "s")}, r"takes an array \[1, any, any\]: expected samples of any number"),
        ({"takes": (4, "s")}, r"takes an array \[4, any\]: expected samples of any number"),
        ({"returns": (1, 1, "t", WIDTH)}, r"returns an array \[1, 1, 49, 5\]: expected frames"),
    ],
    ids=["fixed-length", "channels", "batch", "rank"],
)
def test_an_encoder_of_another_kind_gets_one_line(encoder, shapes, message):
    with pytest.raises(UserError, match=message):
        onnx(encoder(**shapes)).check()


def test_an_encoder_with_a_second_input_gets_one_line(tmp_path):
    path = tmp_path / "two.onnx"
    inputs = [("x", [1, "s"]), ("attention_mask", [1, "s"], 7)]
    onnx_file(path, [node("Identity", ["x"], ["y"])], inputs, [("y", [1, "s"])])
    with pytest.raises(UserError, match=r"has 2 inputs \(x, attention_mask\): export it with one"):
        onnx(path).check()


def test_an_encoder_that_fails_on_trial_gets_one_line(tmp_path):
    path = tmp_path / "odd.onnx"
    nodes = [node("Add", ["x", "three"], ["y"])]
    onnx_file(path, nodes, [("x", [1, "s"])], [("y", [1, "s"])], [weights("three", np.zeros(3, np.float32))])
    with pytest.raises(UserError, match=r"odd.onnx does not run on an array \[1, 16000\]: [^\n]*$"):
        onnx(path).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max': expected mean, none"),
        ({"shortest": 0}, "shortest is 0.0: expected seconds above 0"),
        ({"shortest": 2}, "shortest is 2.0: expected seconds above 0, at most 1.0"),
        ({"normalise": "yes"}, "option 'normalise' is 'yes': expected true or false"),
    ],
    ids=["pooling", "no-seconds", "seconds", "normalise"],
)
def test_a_wrong_option_gets_one_line(options, message):
    with pytest.raises(UserError, match=message):
        onnx("encoder.onnx", **options)


def test_a_file_of_another_name_gets_one_line():
    with pytest.raises(UserError, match=r"encoder\.pt is no file of an encoder: expected one in \.onnx"):
        onnx("encoder.pt")


def test_a_missing_package_gets_one_line(monkeypatch, encoder):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"the package onnxruntime is needed .*: pip install 'jmer\[onnx\]'"):
        onnx(encoder()).check()
