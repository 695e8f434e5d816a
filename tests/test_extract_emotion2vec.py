"""The extractor emotion2vec, against a stub with the calls of funasr, which is too large to install for tests."""

import sys
import types
import zipfile

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.extract.registry import make_extractor

torch = pytest.importorskip("torch")

FUNASR = """
import numpy as np


class AutoModel:
    def __init__(self, **options):
        self.options = options
        with open(options["init_param"], "rb") as file:
            if b"foreign" in file.read():
                raise RuntimeError("size mismatch\\nof many tensors")
        print("ckpt:", options["init_param"])

    def generate(self, input, **options):
        self.asked = options
        count = (len(input) - 80) // 320
        frames = np.stack([input[i * 320 : i * 320 + 4] for i in range(count)]).astype(np.float64)
        feats = frames if options["granularity"] == "frame" else frames.mean(0)
        return [{"key": "rand_key_2yW4Acq9GFz6Y", "labels": [], "scores": [], "feats": feats}]
"""
CONFIG = "model: Emotion2vec\nmodel_conf:\n  embed_dim: 4\n"
SOUND = np.random.default_rng(0).normal(size=4000).astype(np.float32)


@pytest.fixture(autouse=True)
def funasr(tmp_path, monkeypatch):
    """Puts the stub and its distribution where Python finds them."""
    metadata = tmp_path / "site" / "funasr-9.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: funasr\nVersion: 9.1\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    module = types.ModuleType("funasr")
    exec(FUNASR, module.__dict__)
    monkeypatch.setitem(sys.modules, "funasr", module)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "emotion2vec_base"
    path.mkdir()
    (path / "config.yaml").write_text(CONFIG)
    with zipfile.ZipFile(path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"stub")
    return path


def emotion2vec(folder, **options):
    return make_extractor(
        ",".join([f"emotion2vec:{folder}", *(f"{name}={value}" for name, value in options.items())]), "audio"
    )


def test_frames_and_their_mean(folder):
    mean, frames = emotion2vec(folder), emotion2vec(folder, pooling="none")
    expected = np.stack([SOUND[i * 320 : i * 320 + 4] for i in range(12)])
    np.testing.assert_array_equal(frames(SOUND), expected)
    np.testing.assert_allclose(mean(SOUND), expected.mean(0), rtol=1e-6)
    assert mean(SOUND).dtype == frames(SOUND).dtype == np.float32
    assert (mean.width, mean.frames, frames.width, frames.frames) == (4, False, 4, True)


def test_funasr_is_given_the_files_and_the_rate_and_asked_to_be_quiet(folder, capfd):
    made = emotion2vec(folder)
    made.check()
    made(SOUND)
    assert capfd.readouterr().out == ""
    assert made._model.options == {
        "model": str(folder),
        "init_param": str(folder / "model.pt"),
        "device": "cpu",
        "ncpu": 1,
        "hub": "hf",
        "disable_update": True,
        "disable_pbar": True,
        "log_level": "ERROR",
    }
    assert made._model.asked == {
        "fs": 16000,
        "granularity": "utterance",
        "extract_embedding": True,
        "output_dir": None,
        "disable_pbar": True,
    }


def test_the_identity_holds_the_files_and_the_pooling(folder):
    identity = emotion2vec(folder).identity
    assert identity["packages"] == {"torch": torch.__version__, "funasr": "9.1"}
    assert (identity["pooling"], identity["width"], identity["frames"]) == ("mean", 4, False)
    assert len(identity["sha256"]) == 64
    assert str(folder) not in str(identity)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("iic/emotion2vec_base", r"iic/emotion2vec_base does not exist \(nothing is downloaded\): name a folder with"),
        ("emotion2vec_base/model.pt", r"emotion2vec_base/model.pt is a file: name a folder with config.yaml"),
    ],
    ids=["hub", "file"],
)
def test_what_is_no_folder_gets_one_line(folder, monkeypatch, name, message):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UserError, match=message):
        emotion2vec(name).check()


@pytest.mark.parametrize("name", ["config.yaml", "model.pt"])
def test_a_missing_file_gets_one_line(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"emotion2vec_base has no {name}: copy it from"):
        emotion2vec(folder).check()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "model: [", r"config.yaml is damaged \(while parsing [^\n]*\): get the file again$"),
        ("config.yaml", "model: Paraformer\n", "config.yaml: embed_dim in model_conf is None: expected emotion2vec's"),
        ("config.yaml", "model_conf:\n  embed_dim: big\n", "config.yaml: embed_dim in model_conf is 'big'"),
        ("config.yaml", "words", "config.yaml: embed_dim in model_conf is None"),
        ("model.pt", "version https://git-lfs.github.com/spec/v1\n", "model.pt is a Git LFS pointer, .*git lfs pull"),
        ("model.pt", "\1foreign", "emotion2vec_base cannot be loaded by funasr: size mismatch$"),
    ],
    ids=["damaged", "other-network", "no-number", "no-entries", "pointer", "other-weights"],
)
def test_a_wrong_file_gets_one_line(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message):
        emotion2vec(folder).check()


def test_weights_of_another_size_fail_where_they_are_used(folder):
    (folder / "config.yaml").write_text(CONFIG.replace("4", "8"))
    with pytest.raises(RuntimeError, match=r"funasr returned an array \[4\], not \[D\] with 8 columns"):
        emotion2vec(folder)(SOUND)


def test_a_wrong_option_gets_one_line(folder):
    with pytest.raises(UserError, match="pooling is 'frame': expected mean, none"):
        emotion2vec(folder, pooling="frame")


def test_a_missing_package_gets_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "funasr", None)
    with pytest.raises(UserError, match=r"the package funasr is needed .*: pip install 'jmer\[emotion2vec\]'"):
        emotion2vec(folder).check()
