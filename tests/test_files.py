"""Names of files for names of anything, and addresses that are none."""

import os
import re
import unicodedata
from pathlib import Path

import pytest
from names import KEPT

from jmer.errors import UserError
from jmer.files import atomically, check_argument, file_names, local_path

NAMES = [
    *KEPT,
    "CON",
    "com1",
    "nul",
    "日" * 400,
    "👍" * 400,
    "A",
    "a",
    "a-2",
    "a",
    "é",
    "e\u0301",
    "-rf",
    ".hidden",
    "a.b",
]


def test_each_name_gets_a_file_of_its_own_inside_the_folder(tmp_path):
    found = file_names(NAMES)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in found}) == len(NAMES)
    for name in found:
        assert len(f"{name}.srt".encode()) <= 255
        assert not name.startswith(("-", ".")) and name.lower() not in ("con", "com1", "nul")
        (tmp_path / f"{name}.srt").write_text(name)
    assert sorted(os.listdir(tmp_path)) == sorted(f"{name}.srt" for name in found)


def test_ordinary_names_are_kept():
    ordinary = ["dia0_utt3", "Ses01F_impro01", "Zoë", "日本語", "2020-01-01"]
    assert file_names(ordinary) == ordinary
    assert file_names(["a/b", "../../etc", "a b", ""]) == ["a_b", "_etc", "a_b-2", "_"]


ADDRESSES = {
    "gs://bucket/run": "give a folder, and copy it from and to the store",
    "s3://bucket/run": "give a folder, and copy it from and to the store",
    "hdfs://node:9000/run": "give a folder, and copy it from and to the store",
    "abfs://container@account.dfs.core.windows.net/run": "give a folder, and copy it from and to the store",
    "https://host/run.zip": "download what is there, and give the file or folder",
    "file:///data/run": "give the path alone (/data/run)",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_no_path(address):
    line = f"{address} is an address, and files and folders alone can be read and written: {ADDRESSES[address]}"
    for given in (address, address.upper().replace("RUN", "run")):
        with pytest.raises(UserError, match=f"^{re.escape(given)} is an address"):
            local_path(given)
    for argument in (address, f"--workdir={address}", f"--config.data.path={address}", f"--text=bert:{address}"):
        with pytest.raises(UserError, match=f"^{re.escape(line)}"):
            check_argument(argument)


def test_pathlib_takes_a_slash_of_an_address():
    with pytest.raises(UserError, match=r"^gs:/bucket/run is an address"):
        local_path(Path("gs://bucket/run"))


@pytest.mark.parametrize("path", ["runs/a", "/data/a:b", "C:/runs", "lfvd_meld:tiny,plain", "a.py:x", "host:8476", ""])
def test_a_path_is_no_address(path):
    assert local_path(path) == Path(path)
    check_argument(path)


def test_a_folder_that_is_called_like_an_address_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gs:/bucket").mkdir(parents=True)
    assert local_path(Path("gs:/bucket")) == Path("gs:/bucket")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell what a descriptor is of")
def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, flushed):
    """Otherwise a machine that fails would leave empty files where whole ones were."""
    with atomically(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    folder = temporary.parent
    assert flushed == [temporary, folder, (temporary, tmp_path / "a.json"), tmp_path]

    flushed.clear()
    with atomically(tmp_path / "b") as temporary:
        (temporary / "within").mkdir(parents=True)
        (temporary / "within" / "c.txt").write_text("c")
    before = flushed[: flushed.index((temporary, tmp_path / "b"))]
    assert {temporary, temporary / "within", temporary / "within" / "c.txt"} <= set(before)
