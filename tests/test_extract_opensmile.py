"""openSMILE through its extractor: the field's widths, what is too short, loud or no configuration."""

import logging
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from media import tone

from jmer.errors import UserError
from jmer.extract.opensmile import SETS, OpenSmile, _say_licence
from jmer.extract.protocol import RATE, Missing
from jmer.extract.registry import make_extractor


@pytest.fixture
def opensmile():
    return pytest.importorskip("opensmile", reason="its licence is not free: installed by hand")


def voice(seconds=1.0, level=0.3):
    rng = np.random.default_rng(0)
    return (tone(180, seconds, level=level) + 0.01 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def given(name, frames=False):
    return make_extractor(f"opensmile:{name}{',pooling=none' if frames else ''}", "audio")


def shipped(opensmile):
    """Returns the package's configuration of IS10."""
    return Path(opensmile.__file__).parent / "core" / "config" / "is09-13" / "IS10_paraling_compat.conf"


@pytest.mark.parametrize("frames", [False, True], ids=["functionals", "descriptors"])
@pytest.mark.parametrize("name", SETS)
def test_widths_and_lengths(opensmile, name, frames):
    extractor = given(name, frames)
    sound = voice()
    features = extractor(sound)
    assert features.dtype == np.float32 and features.shape[-1] == extractor.width and features.ndim == 1 + frames
    assert np.array_equal(features, extractor(sound))
    shortest = sound[: round(extractor.shortest * RATE)]
    assert np.isfinite(extractor(shortest)).all()
    assert isinstance(extractor(shortest[:-80]), Missing)


def test_all_sets_are_there(opensmile):
    values = {kind.value for kind in opensmile.FeatureSet}
    assert {opensmile.FeatureSet[name].value for name in SETS} == values


def test_values_are_openSMILEs_own(opensmile):
    sound = voice()
    direct = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    frame = direct.process_signal(sound, RATE)
    assert np.array_equal(given("eGeMAPSv02")(sound), frame.to_numpy()[0])
    assert frame["F0semitoneFrom27.5Hz_sma3nz_amean"].item() == pytest.approx(12 * np.log2(180 / 27.5), abs=0.1)


def test_what_is_too_loud_does_not_wrap_around(opensmile):
    extractor = given("eGeMAPSv02")
    clipped = np.clip(voice(level=1.3), -1, 1)
    assert np.array_equal(extractor(clipped), extractor(np.minimum(clipped, 32767 / 32768).astype(np.float32)))
    assert np.array_equal(extractor(1.5 * clipped), extractor(np.clip(1.5 * clipped, -1, 1)))


def test_a_configuration_of_ones_own(opensmile, tmp_path):
    path = tmp_path / "own.conf"
    path.write_bytes(shipped(opensmile).read_bytes())
    own = given(path)
    assert own.width == 1582 and np.array_equal(own(voice()), given("IS10")(voice()))
    assert isinstance(own(voice()[:400]), Missing)
    assert str(path) not in str(own.identity) and len(own.identity["sha256"]) == 64
    assert own.identity != given("IS10").identity
    assert given(path, frames=True).width == 38


@pytest.mark.parametrize("content", ["hello\n", "[componentInstances:cComponentManager]\n"])
def test_what_is_no_configuration(opensmile, tmp_path, content):
    path = tmp_path / "own.conf"
    path.write_text(content)
    with pytest.raises(UserError, match=r"own.conf is no configuration with a level 'func' .*\(Code: \d"):
        given(path).check()


def test_the_licence_is_said_once_and_recorded(opensmile, caplog):
    _say_licence.cache_clear()
    with caplog.at_level(logging.WARNING):
        given("IS10").check()
        given("IS09").check()
    assert [record.message for record in caplog.records] == [
        "warning: the features of openSMILE are under the audEERING Research License: no commercial use"
    ]
    identity = given("IS10").identity
    assert identity["licence"] == OpenSmile.licence and identity["feature_set"] == "IS10"
    assert list(identity["packages"]) == ["opensmile"]


def test_it_can_be_sent_to_another_process(opensmile):
    extractor = given("IS09")
    extractor(voice())
    assert np.array_equal(pickle.loads(pickle.dumps(extractor))(voice()), extractor(voice()))


def test_unknown_sets():
    with pytest.raises(UserError, match=r"openSMILE has no set 'IS14', only IS09, IS10, .*; and there is no such file"):
        _ = given("IS14").files


def test_the_set_must_be_named():
    with pytest.raises(UserError, match="write opensmile:FEATURE_SET"):
        make_extractor("opensmile", "audio")


def test_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(UserError, match=r"pip install 'jmer\[opensmile\]'"):
        given("IS10").check()
