"""Extractors are named on a command line, with options, and know what identifies them."""

import dataclasses
import hashlib
import pickle
from pathlib import Path

import pytest

from jmer.errors import UserError
from jmer.extract.protocol import Extractor, Missing, PictureExtractor, SoundExtractor, TextExtractor
from jmer.extract.registry import CLASSES, described, extractor_class, make_extractor, named, option_docs


@dataclasses.dataclass(frozen=True)
class Fake(TextExtractor):
    """Makes nothing.

    Attributes:
      model: a file.
      layer: which one.
      rate: how often.
      loud: whether it is loud.
    """

    model: Path
    layer: int = -1
    rate: float = 0.5
    loud: bool = False

    name = "fake"
    licence = "none"
    extra = "text"

    @property
    def width(self):
        return 3

    @property
    def files(self):
        return [self.model]

    def __call__(self, words):
        return Missing("nothing to make")


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setitem(CLASSES, "fake", f"{__name__}:Fake")


def test_options_have_the_types_of_fields():
    assert make_extractor("fake:a/b.bin,layer=3,rate=2,loud=true", "text") == Fake(Path("a/b.bin"), 3, 2.0, True)
    assert make_extractor("fake:x", "text") == Fake(Path("x"))


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("hashing,columns=1024", "hashing"),
        ("hashing,longest=5,columns=64", "hashing:64,longest=5"),
        ("fake:/a/b,loud=true", "fake:/a/b,loud=true"),
        ("fake:/a/b,loud=false,layer=-1", "fake:/a/b"),
    ],
)
def test_an_extractor_has_one_name(given, canonical):
    assert named(make_extractor(given, "text")) == canonical
    assert make_extractor(canonical, "text") == make_extractor(given, "text")


def test_its_name_holds_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named(make_extractor("fake:b", "text")) == f"fake:{tmp_path}/b"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("fak", "no extractor 'fak', only hashing"),
        ("fake", "write fake:MODEL, a file"),
        ("fake:x,layr=3", "'fake' has no option 'layr': did you mean layer"),
        ("fake:x,layer", "option 'layer' has no value: write layer=VALUE"),
        ("fake:x,layer=1,layer=2", "option 'layer' is given twice"),
        ("fake:x,model=y", "option 'model' is given twice"),
        ("fake:x,layer=1.5", "option 'layer' is '1.5': expected a whole number"),
        ("fake:x,rate=fast", "option 'rate' is 'fast': expected a number"),
        ("fake:x,loud=yes", "option 'loud' is 'yes': expected true or false"),
        ("hashing,columns=0", "columns must be at least 1"),
    ],
)
def test_a_wrong_name_option_or_value_gets_one_line(given, line):
    with pytest.raises(UserError, match=line):
        make_extractor(given, "text")


def test_an_extractor_of_another_modality_is_refused():
    with pytest.raises(UserError, match="extractor 'fake' makes text features: for audio there are"):
        make_extractor("fake:x", "audio")


def test_the_identity_has_the_files_hash_and_no_path(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"weights")
    (tmp_path / "c").write_bytes(b"other")
    one, moved, other = (Fake(tmp_path / name).identity for name in "abc")
    assert one == moved != other
    assert one["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert str(tmp_path) not in str(one)
    assert {"extractor": "fake", "layer": -1, "rate": 0.5, "width": 3, "frames": False}.items() <= one.items()


def test_a_changed_file_has_another_hash(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = Fake(path).identity["sha256"]
    path.write_bytes(b"two, longer")
    assert Fake(path).identity["sha256"] != before


def test_an_extractor_is_kept_while_its_files_do_not_change(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = make_extractor(f"fake:{path}", "text")
    before = first.identity
    assert make_extractor(f"fake:{path},layer=-1", "text") is first
    path.write_bytes(b"two, longer")
    changed = make_extractor(f"fake:{path}", "text")
    assert changed is not first and changed.identity != before


def test_a_missing_file_and_a_missing_package_get_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*/none: No such file"):
        Fake(tmp_path / "none").check()
    with pytest.raises(
        UserError, match=r"extractor 'fake': the package nosuch is needed .* pip install 'jmer\[text\]'"
    ):
        Fake(tmp_path).require("nosuch.module")


def test_what_is_loaded_stays_in_its_process(tmp_path):
    (tmp_path / "a").write_bytes(b"weights")
    extractor = Fake(tmp_path / "a")
    assert extractor.identity
    sent = pickle.loads(pickle.dumps(extractor))
    assert sent == extractor and "identity" not in vars(sent)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "fake"])
def test_every_extractor_is_described_with_all_its_options(name):
    found = extractor_class(name)
    assert issubclass(found, Extractor) and found.name == name and found.licence
    assert option_docs(found).keys() >= {field.name for field in dataclasses.fields(found)}
    text = "\n".join(described(found))
    assert found.licence in text and ("installed" in text)
    assert issubclass(found, TextExtractor | SoundExtractor | PictureExtractor)
