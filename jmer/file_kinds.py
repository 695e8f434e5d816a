"""What a file really is, by its first bytes, so that a whole file of another kind is not called damaged.

A reader calls `check_kind(path, ...)` with the kinds that it reads before it parses a file (a Git LFS pointer or a web
page is a valid csv file too):

    check_kind(path, "npz")             a .npz file
    check_kind(path, "text")            csv, tab-separated or other plain text; "json" is a kind of its own
    check_kind(path, "pickle", "torch")

The error says what the file is and what to do with it. A file that is not recognised passes, and so does a container
that is cut off: what the reader itself says about it is better. `kind_of` returns the kind, for a reader of several.
"""

import bz2
import dataclasses
import lzma
import re
import zipfile
import zlib
from pathlib import Path

from jmer.errors import UserError
from jmer.guard import guarded

HEAD_BYTES = 4096
SHOWN_CHARACTERS = 40
XZ_BYTES = 1 << 27
"""What decompressing the beginning of an xz file may take; its header may ask for gigabytes."""


@dataclasses.dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes:
      name: short, for `check_kind`.
      what: what it is, after "is".
      remedy: what to do with it.
    """

    name: str
    what: str
    remedy: str


def check_kind(path: Path, *expected: str) -> None:
    """Checks that a file is not recognised as anything but what a reader expects.

    Args:
      path: the file.
      expected: names of the kinds that the reader reads.

    Raises:
      UserError: if it is of another kind, with what it is and the remedy, or if it cannot be read.
    """
    kind = kind_of(path)
    if kind and kind.name not in expected:
        raise UserError(f"{path} is {kind.what}: {kind.remedy}")


def kind_of(path: Path) -> FileKind | None:
    """Returns what a file is, None if it is not recognised.

    Raises:
      UserError: if it cannot be read.
    """
    with guarded(str(path), "get the file again"), path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return _zip_kind(path) if head.startswith(b"PK\x03\x04") else _kind_of_bytes(head) or _text_kind(head)


_TABLE = "convert it with the format `table`"
_AS_ARRAYS = "save what it contains as NumPy arrays (numpy.savez) and use the format `table`"
_UNPACK = "unpack it and give the files in it"
_AGAIN = "open its address in a browser and download the file itself"

_PAGE = rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?(<\?xml[^>]*>\s*)?<(?i:!doctype html|html|head)\b"

# The first pattern that the beginning of a file matches says what it is.
_KINDS = [
    (re.compile(pattern, re.DOTALL), FileKind(name, what, remedy))
    for pattern, name, what, remedy in (
        (rb"\Z", "empty", "empty", "get the file again"),
        (
            rb"\0{64}",
            "zeros",
            "filled with zeros at its beginning",
            "download or copy it again",
        ),
        (
            rb"version https?://[^\n]*(git-lfs|hawser)",
            "git-lfs",
            "a Git LFS pointer, not the file itself",
            "get the file with `git lfs pull` in its repository",
        ),
        (
            rb"(\.\./)*(\.git)?/annex/objects/",
            "git-annex",
            "a git-annex pointer, not the file itself",
            "get the file with `git annex get`",
        ),
        (rb"outs:\s+- (md5|etag|hash)", "dvc", "a DVC pointer, not the file itself", "get the file with `dvc pull`"),
        (
            _PAGE + rb".*(?i:virus scan|scan this file for viruses|drive\.google)",
            "html",
            "a page of Google Drive (its virus scan warning or quota), not the file itself",
            "open its address in a browser and choose 'Download anyway', or use a program such as gdown",
        ),
        (
            _PAGE + rb".*(?i:github)",
            "html",
            "a web page of GitHub, not the file itself",
            "download the raw file from that page",
        ),
        (_PAGE, "html", "a web page, not the file itself", _AGAIN),
        (rb"(\xef\xbb\xbf)?\s*<(?i:\?xml|error)\b", "xml", "an XML text, such as a server sends for an error", _AGAIN),
        (
            rb'\s*\{\s*"(error|errors|message|detail|status|code)"\s*:',
            "json-message",
            "a server's message in JSON, not the file itself",
            _AGAIN,
        ),
        (rb"\x93NUMPY", "npy", "a single NumPy array (.npy)", "save all columns in one file with numpy.savez"),
        (
            rb"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.",
            "torch-legacy",
            "a torch.save file in the format before PyTorch 1.6",
            "load it with PyTorch and save it again with torch.save, or as NumPy arrays in a pickle",
        ),
        (
            rb"\x80[\x02-\x05]|\(*([\]}]q\0|\([dl]p\d\n|[SV][^\n]*\np\d\n|c[^\n,]+\n[\w.]+\n)",
            "pickle",
            "a pickle",
            "convert it with the format `pickle`",
        ),
        (rb"\x89HDF\r\n\x1a\n", "hdf5", "an HDF5 file (.h5, .csd, .mat)", f"read it with h5py, {_AS_ARRAYS}"),
        (rb"MATLAB 7", "matlab", "a MATLAB file (version 7.3, HDF5)", f"read it with h5py, {_AS_ARRAYS}"),
        (rb"MATLAB \d", "matlab", "a MATLAB file", f"read it with scipy.io.loadmat, {_AS_ARRAYS}"),
        (rb"PAR1[^ -~\s]", "parquet", "a parquet file", _TABLE),
        (rb"ARROW1\0|FEA1\0|\xff{4}", "arrow", "an Arrow or Feather file", f"save it as parquet, {_TABLE}"),
        (
            rb".{3}\0{5}\{\s*\"",
            "safetensors",
            "a safetensors file",
            f"load it with safetensors, {_AS_ARRAYS}",
        ),
        (rb"7z\xbc\xaf\x27\x1c", "7z", "a 7z archive", _UNPACK),
        (rb"Rar!\x1a\x07", "rar", "a RAR archive", _UNPACK),
        (rb".{257}ustar", "tar", "a tar archive", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "zstd", "compressed with zstd", "decompress it with `zstd -d`"),
        (rb"\x04\x22\x4d\x18", "lz4", "compressed with lz4", "decompress it with `lz4 -d`"),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xls", "an Excel or Office file", "save the sheet as csv"),
        (rb"%PDF-", "pdf", "a PDF document", "give the file with the features"),
        (rb"RIFF.{4}(WAVE|AVI )|.{4}ftyp|fLaC|OggS|ID3[\2-\4]", "media", "a recording", "extract its features first"),
        (
            rb"\0\x05\x16\x07",
            "appledouble",
            "a ._ file that macOS wrote beside the real one",
            "give the file without ._",
        ),
    )
]

_COMPRESSED = (
    (b"\x1f\x8b\x08", "gzip", "gunzip", lambda head: zlib.decompressobj(31).decompress(head, 512)),
    (b"BZh", "bzip2", "bunzip2", lambda head: bz2.BZ2Decompressor().decompress(head, 512)),
    (b"\xfd7zXZ\0", "xz", "unxz", lambda head: lzma.LZMADecompressor(memlimit=XZ_BYTES).decompress(head, 512)),
    (b"\x78", "zlib", "", lambda head: zlib.decompressobj().decompress(head, 512)),
    (b"ZF0x", "zlib", "", lambda head: head),
)
_UNMISTAKABLE = ("gzip", "xz")
"""Whose beginnings are found in nothing else, so that a damaged file is of the kind."""


def _kind_of_bytes(head: bytes) -> FileKind | None:
    return next((kind for pattern, kind in _KINDS if pattern.match(head)), None) or _compressed_kind(head)


def _compressed_kind(head: bytes) -> FileKind | None:
    for magic, name, program, decompress in _COMPRESSED:
        if not head.startswith(magic):
            continue
        try:
            content = decompress(head)
        except Exception:  # what a library says of damaged bytes differs, and means the same
            if name not in _UNMISTAKABLE:
                continue
            content = b""
        if not program:
            what = "compressed with zlib, as joblib does"
            return FileKind(name, what, "load it with joblib and save it with pickle.dump or numpy.savez")
        if content[257:262] == b"ustar":
            return FileKind("tar", f"a tar archive, compressed with {name}", _UNPACK)
        return FileKind(name, f"compressed with {name}", f"decompress it with `{program}`")
    return None


def _zip_kind(path: Path) -> FileKind | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except Exception:  # it is the reader's to say what is wrong with it
        return None
    names = {member.rsplit("/", 1)[-1] for member in members}
    if "constants.pkl" in names:
        return FileKind("torchscript", "a TorchScript model, not features", "give the file with the features")
    if "data.pkl" in names:
        return FileKind("torch", "a torch.save file", "convert it with the format `pickle`")
    if members and all(member.endswith(".npy") for member in members):
        return FileKind("npz", "a NumPy archive (.npz)", _TABLE)
    if "[Content_Types].xml" in names:
        return FileKind("xlsx", "an Excel or Office file", "save the sheet as csv")
    first = f", the first {_shown(members[0])}" if members else ""
    return FileKind("zip", f"a zip archive ({len(members)} files{first})", _UNPACK)


def _text_kind(head: bytes) -> FileKind | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_utf16(head):
        return FileKind("utf-16", "text in UTF-16", "save it as UTF-8")
    if re.search(rb"[\0-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    start = head.decode("utf-8", "replace").lstrip("\ufeff").lstrip()
    if start.startswith(("{", "[")):
        return FileKind("json", "a JSON file", "convert it with the format that reads it, such as `dag-json`")
    what = f"a text file that begins with {_shown(start.partition(chr(10))[0].strip())}"
    return FileKind("text", what, "if it is a csv file, convert it with the format `table`")


def _is_utf16(head: bytes) -> bool:
    """Whether every other byte is zero, as in UTF-16 of Latin letters without a byte order mark."""
    even, odd = head[:64:2], head[1:64:2]
    return len(odd) > 1 and ((all(even) and not any(odd)) or (all(odd) and not any(even)))


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
