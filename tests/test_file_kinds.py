"""A whole file of another kind is named with its remedy, and is not called damaged."""

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from jmer.errors import UserError
from jmer.file_kinds import check_kind, kind_of


def archive(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("features.pkl"))
    return buffer.getvalue()


def saved(save, *values, **named):
    buffer = io.BytesIO()
    save(buffer, *values, **named)
    return buffer.getvalue()


PICKLE = pickle.dumps({"a": np.ones(3)})
PAGE = b"<!DOCTYPE html>\n<html><head><title>"
FILES = {
    "git-lfs": [b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 151409987\n"],
    "git-annex": [b"/annex/objects/SHA256E-s12--ab.pkl\n", b"../.git/annex/objects/xx/SHA256E-s12--ab.pkl"],
    "dvc": [b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: features.pkl\n"],
    "html": [
        PAGE + b"Google Drive - Virus scan warning</title>",
        PAGE + b"data/features.pkl at master \xc2\xb7 owner/name</title><link href='https://github.githubassets.com'>",
        PAGE + b"404",
        b"\n<html lang='en'>",
        b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">',
    ],
    "xml": [b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>', b"<Error><Code>"],
    "json-message": [b'{"error":"Repository not found"}', b'{\n  "message": "Not Found"}'],
    "json": [b'[{"text": "Hi"}]', b'\xef\xbb\xbf{"train": []}'],
    "text": [
        b"Sr No.,Utterance,Speaker\n1,Hello,Ann\n",
        b"dialogue,sentence\nd0,caf\xe9\n",
        "é,ü\n".encode(),
        b"Name\n",
    ],
    "utf-16": ["a,b\n1,2\n".encode("utf-16"), "dialogue,speaker\n".encode("utf-16-le"), "a,b\n".encode("utf-16-be")],
    "pickle": [pickle.dumps({"a": [1]}, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)],
    "torch": [archive("archive/data.pkl", "archive/data/0", "archive/version")],
    "torchscript": [archive("m/data.pkl", "m/code/x.py", "m/constants.pkl")],
    "torch-legacy": [pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)],
    "npz": [saved(np.savez, a=np.ones(3)), saved(np.savez_compressed, a=np.ones(3))],
    "npy": [saved(np.save, np.ones((3, 4)))],
    "xlsx": [archive("[Content_Types].xml", "xl/workbook.xml")],
    "zip": [archive("IEMOCAP_features/a.pkl"), archive("a.npy", "readme.txt")],
    "gzip": [gzip.compress(PICKLE)],
    "bzip2": [bz2.compress(PICKLE)],
    "xz": [lzma.compress(PICKLE)],
    "zlib": [zlib.compress(PICKLE, level) for level in (1, 3, 6, 9)],
    "tar": [tar(), gzip.compress(tar()), bz2.compress(tar()), lzma.compress(tar())],
    "7z": [b"7z\xbc\xaf\x27\x1c\0\4" + bytes(30)],
    "rar": [b"Rar!\x1a\x07\x01\0" + bytes(30)],
    "zstd": [b"\x28\xb5\x2f\xfd" + bytes(30)],
    "hdf5": [b"\x89HDF\r\n\x1a\n" + bytes(30)],
    "matlab": [b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(128), b"MATLAB 7.3 MAT-file, Platform".ljust(128)],
    "parquet": [b"PAR1\x15\4" + bytes(30)],
    "arrow": [b"ARROW1\0\0" + bytes(30), b"\xff\xff\xff\xff\x10\1\0\0", b"FEA1\0\0\0\0"],
    "safetensors": [(40).to_bytes(8, "little") + b'{"text":{"dtype":"F32"}}', (70000).to_bytes(8, "little") + b'{"t":'],
    "pdf": [b"%PDF-1.7\n%\xe2\xe3"],
    "media": [b"RIFF\x24\0\0\0WAVEfmt ", b"\0\0\0\x20ftypisom", b"ID3\3\0"],
    "appledouble": [b"\0\x05\x16\x07\0\x02\0\0Mac OS X"],
    "empty": [b""],
    "zeros": [bytes(5000)],
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_by_its_content(tmp_path, name):
    for content in FILES[name]:
        path = tmp_path / "features.pkl"
        path.write_bytes(content)
        kind = kind_of(path)
        assert kind is not None and kind.name == name, content[:60]
        check_kind(path, "other", name)
        with pytest.raises(UserError) as caught:
            check_kind(path, "other")
        assert str(caught.value) == f"{path} is {kind.what}: {kind.remedy}"
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILES["git-lfs"][0], "is a Git LFS pointer, not the file itself: .*git lfs pull"),
        (FILES["html"][0], "is a page of Google Drive .*'Download anyway'"),
        (FILES["html"][1], "is a web page of GitHub, .*download the raw file"),
        (FILES["html"][2], "is a web page, not the file itself"),
        (FILES["zip"][0], r"is a zip archive \(1 files, the first 'IEMOCAP_features/a.pkl'\): unpack it"),
        (archive("a\n" * 40), r"the first 'a\\na\\n.*\.\.\.'\)"),
        (FILES["tar"][1], "is a tar archive, compressed with gzip: unpack it"),
        (FILES["text"][0], "is a text file that begins with 'Sr No.,Utterance,Speaker': if it is a csv file"),
    ],
    # Compressed contents differ from second to second.
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_the_message_names_the_remedy(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        check_kind(tmp_path / "a.pkl", "npy")


HEADERS = """par1,par2 PAR1,PAR2 fea1,fea2 FEA1,x id3,x ID3,x version,https error,x x,y x^2,y headline,a
conversation,p1 (a,b) BZh,x"""


@pytest.mark.parametrize("header", HEADERS.split())
def test_a_table_may_begin_like_another_file(tmp_path, header):
    for content in (f"{header}\n1,2\n", f"{header}\n1,p1\n2,p2\n"):
        (tmp_path / "a.csv").write_text(content)
        check_kind(tmp_path / "a.csv", "text")


@pytest.mark.parametrize(
    "content",
    [FILES["zip"][0][:40], bytes([1, 2, 3, 0, 4]), b"x\xff\x00\x01", PICKLE[10:], b"\0\1"],
    # A zip file holds the time at which it was made.
    ids=["cut zip", "binary", "not UTF-8", "cut pickle", "zeros"],
)
def test_other_files_and_cut_containers_pass(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    assert kind_of(tmp_path / "a.pkl") is None
    check_kind(tmp_path / "a.pkl")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nowhere.pkl: No such file"):
        check_kind(tmp_path / "nowhere.pkl")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        check_kind(tmp_path)
