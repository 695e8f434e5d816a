"""Small pickles that would take all memory, or no end of time, are refused in one line, or read in little of both."""

import json
import pickle
import random
import struct
import subprocess
import sys

import numpy as np
import pytest

from jmer.data.readers import restricted_unpickler
from jmer.data.readers.pickle_scan import is_plain
from jmer.data.readers.restricted_unpickler import CarefulUnpickler, load_pickle
from jmer.errors import UserError

MEGABYTES, SECONDS = 400, 10
"""What any of the files may take, beyond the program itself."""

RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
LARGE = b"\x8a\x06\0\0\0\0\0\x01"
PRIME = (1 << 61) - 1  # integers that differ by it have equal hashes


def dtype(code):
    return b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array(shape, code, content):
    return RECONSTRUCT + b"(K\x01" + shape + dtype(code) + b"\x89" + content + b"tb"


def corpus(**late):
    """Returns the content of a file of three conversations, with other values in the second."""
    fields = {
        "ids": ["u0", "u1"],
        "speakers": ["M", "F"],
        "labels": [0, 1],
        "text": [[1.0, 2.0], [2.0, 3.0]],
        "audio": [[1.0, 2.0], [2.0, 3.0]],
        "visual": [[1.0, 2.0], [2.0, 3.0]],
        "sentences": ["yes", "no"],
    }
    elements = ({"a": values, "b": [late.get(name, value) for value in values]} for name, values in fields.items())
    return (*elements, ["a"], ["b"])


def nested(depth):
    value = [1.0, 2.0]
    for _ in range(depth):
        value = [value] * 10
    return value


def used_often(count):
    block = np.zeros(250_000, np.float32)
    one = {"a": [block] * count, "b": [block] * count}
    return (
        {k: ["u"] * count for k in one},
        {k: ["M"] * count for k in one},
        {k: [0] * count for k in one},
        one,
        one,
        one,
    )


def colliding(after=b""):
    """Returns the operations of integers whose hashes are equal, each with others after it."""
    return b"".join(pickle.dumps(n * PRIME, 2)[2:-1] + after for n in range(1, 60_000))


SHARED_TUPLES = b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(60))
BLOCK = b"T" + struct.pack("<i", 1_000_000) + bytes(1_000_000)
FILES = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x0f.",
    "memo of text": b"\x80\x02Np268435455\n.",
    "rows of nothing": b"\x80\x02" + array(LARGE + b"K\x00\x86", b"f8", b"U\0") + b".",
    "objects of nothing": b"\x80\x02" + array(LARGE + b"K\x00\x86", b"O8", b"]") + b".",
    "strings of nothing": b"\x80\x02c__builtin__\nset\n" + array(LARGE + b"\x85", b"U0", b"U\0") + b"\x85R.",
    "nested key": b"\x80\x02}N" + b"\x85" * 300_000 + b"Ns.",
    "nested key of marks": b"\x80\x02}" + b"(" * 300_000 + b"t" * 300_000 + b"Ns.",
    "nested key in an argument": b"\x80\x02}c__builtin__\nfrozenset\nN" + b"\x85" * 300_000 + b"\x85RNs.",
    "nested key in a set": b"\x80\x04\x8f(N" + b"\x85" * 300_000 + b"\x90.",
    "shared key": b"\x80\x02}N" + SHARED_TUPLES + b"Ns.",
    "shared element": b"\x80\x02c__builtin__\nset\n](N" + SHARED_TUPLES + b"e\x85R.",
    "shared key of a call": b"\x80\x02ccollections\nOrderedDict\n](N" + SHARED_TUPLES + b"N\x86e\x85R.",
    "colliding keys": b"\x80\x02}(" + colliding(b"N") + b"u.",
    "colliding elements": b"\x80\x02c__builtin__\nset\n](" + colliding() + b"e\x85R.",
    "nested lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "shared row": pickle.dumps(corpus(text=nested(8))),
    "shared row after a number": pickle.dumps(corpus(audio=[1.0, nested(8)])),
    "shared sentence": pickle.dumps(corpus(sentences=nested(30))),
    "shared id": pickle.dumps(corpus(ids=nested(30))),
    "shared speaker": pickle.dumps(corpus(speakers=nested(30))),
    "long id": pickle.dumps(corpus(ids=1 << 39_990)),
    "block of bytes": b"\x80\x02]("
    + array(b"J\x90\xd0\x03\x00\x85", b"f4", BLOCK + b"q\x07")
    + array(b"J\x90\xd0\x03\x00\x85", b"f4", b"h\x07") * 20_000
    + b"e.",
    "block of numbers": pickle.dumps((*used_often(10_000), {"a": ["x"] * 10_000, "b": ["x"] * 10_000}, ["a"], ["b"])),
}


LONG = b"\x8b" + struct.pack("<i", 5000) + b"\x01" * 5000
for place, content in {
    "key": b"\x80\x02}" + LONG + b"Ns.",
    "line": b"\x80\x02L" + b"9" * 4000 + b"L\n.",
    "id": pickle.dumps(corpus(ids=["LONG", "u1"]), 2).replace(b"X\x04\0\0\0LONG", LONG),
    "split": pickle.dumps((*corpus()[:-1], ["LONG"]), 2).replace(b"X\x04\0\0\0LONG", LONG),
}.items():
    FILES[f"long integer as {place}"] = content
FILES |= {
    "split without dimensions": pickle.dumps((*corpus()[:-1], np.array("b"))),
    "outside": b"\x80\x02NQ.",
}


def rows(**changed):
    """Returns the content of a file with a row per utterance."""
    part = {
        "id": ["a_0", "a_1"],
        "classification_labels": [0, 1],
        "text": [[1.0, 2.0], [2.0, 3.0]],
        "raw_text": ["x", "y"],
    }
    return pickle.dumps({"train": {**part, **changed}, "test": part})


FILES |= {
    "shared rows": rows(text=nested(8)[:2]),
    "shared row of three": rows(text=[[[1.0] * 5000] * 5000] * 2),
    "shared labels": rows(classification_labels=nested(8)),
    "shared texts": rows(raw_text=[nested(30)] * 2),
    "shared names": rows(id=[nested(30)] * 2),
    "shared lengths": rows(audio=np.ones((2, 3, 2)), audio_lengths=[nested(8)] * 2),
}
FILES["long integer as name"] = pickle.dumps(pickle.loads(rows(id=["LONG", "a_1"])), 2).replace(
    b"X\x04\0\0\0LONG", LONG
)
LINES = {
    **dict.fromkeys(
        (f"long integer as {place}" for place in ("key", "id", "split", "name")), "an integer of 39993 bits"
    ),
    "long integer as line": "an integer of 13288 bits",
    "split without dimensions": "has 1 lists of conversations",
    "outside": "it asks for an object outside the file",
    "shared rows": "text has lists in lists in more levels",
    "shared row of three": "text would take far more memory",
    "shared labels": "classification_labels has lists in lists in more levels",
    "shared texts": "sentences has lists in lists in row 0",
    "shared names": "ids has lists in lists in row 0",
    "shared lengths": "the lengths of audio has lists in lists",
    "memo": "one NoneType",
    "memo of text": "one NoneType",
    "rows of nothing": "an array has rows without any content",
    "objects of nothing": "an array has rows without any content",
    "strings of nothing": "strings without any content",
    "nested key": "a key that is a long or nested tuple",
    "nested key of marks": "a key that is a long or nested tuple",
    "nested key in an argument": "",
    "nested key in a set": "a key that is a long or nested tuple",
    "shared key": "a key that is a long or nested tuple",
    "shared element": "a key that is a long or nested tuple",
    "shared key of a call": "a key that is a long or nested tuple",
    "colliding keys": "an integer of 65 bits",
    "colliding elements": "an integer of 65 bits",
    "nested lists": "not a tuple of dictionaries",
    "shared row": "the text vectors of conversation 'b' differ in width or are not numbers",
    "shared row after a number": "the audio vectors of conversation 'b' differ in width or are not numbers",
    "shared sentence": "the sentences of conversation 'b' are not all strings",
    "shared id": "the ids of conversation 'b' are not all names or numbers",
    "shared speaker": "the speakers of conversation 'b' are neither names",
    "long id": "an integer of 39991 bits",
    "block of bytes": "its arrays would take far more memory",
    "block of numbers": "vectors would take far more memory",
}

PROGRAM = """
import json, resource, sys, time

# Here, because a process that runs JAX must not run code between fork and exec.
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

from jmer.data.convert import convert
from jmer.errors import UserError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        convert(["pickle", path, path + ".corpus", "--emotions", "A,B"])
        line = "converted"
    except UserError as error:
        line = str(error)
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([path, line, time.process_time() - begin, megabytes]), flush=True)
"""


def test_small_files_take_little_time_and_memory(tmp_path):
    paths = {name: tmp_path / f"{number}.pkl" for number, name in enumerate(FILES)}
    for name, path in paths.items():
        path.write_bytes(FILES[name])
    command = [sys.executable, "-c", PROGRAM, *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {path: rest for path, *rest in map(json.loads, done.stdout.splitlines())}
    for name, path in paths.items():
        line, seconds, megabytes = found[str(path)]
        assert LINES[name] in line and line != "converted" and "\n" not in line, (name, line)
        assert seconds < SECONDS, (name, seconds)
        assert megabytes < MEGABYTES, (name, megabytes)


def test_a_number_of_megabytes_can_be_given(tmp_path, monkeypatch):
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps([np.zeros(1 << 19) for _ in range(3)]))
    monkeypatch.setenv("JMER_READ_MB", "8")
    with pytest.raises(UserError, match=r"its arrays would take far more memory.*JMER_READ_MB"):
        load_pickle(path)
    monkeypatch.setenv("JMER_READ_MB", "16")
    assert len(load_pickle(path)) == 3
    monkeypatch.setenv("JMER_READ_MB", "many")
    with pytest.raises(UserError, match="JMER_READ_MB is 'many': expected a number of MB"):
        load_pickle(path)


def feature_file(protocol):
    rows = {k: [np.arange(n + 3, dtype=np.float32) for n in range(4)] for k in ("Ses01", "Ses02")}
    names = {k: [f"{k}_{n}" for n in range(4)] for k in rows}
    labels = {k: [np.int64(n) for n in range(4)] for k in rows}
    large = {k: [np.zeros(100)] * 4 for k in rows}
    return pickle.dumps(
        (names, labels, rows, large, {k: ["a long sentence " * 9] * 4 for k in rows}, ["Ses01"]), protocol
    )


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_feature_files_go_to_the_fast_unpickler(protocol):
    assert is_plain(feature_file(protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_both_unpicklers_read_the_same(tmp_path, monkeypatch, protocol):
    path = tmp_path / "features.pkl"
    path.write_bytes(feature_file(protocol))
    content = load_pickle(path)
    monkeypatch.setattr(restricted_unpickler, "unpickler_for", lambda pickled: CarefulUnpickler)
    assert pickle.dumps(load_pickle(path)) == pickle.dumps(content)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "features.pkl"
    chosen = random.Random(0)
    for protocol in (0, 2, 4, 5):
        whole = feature_file(protocol)
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(chosen.randint(1, 3)):
                damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
            path.write_bytes(damaged)
            try:
                load_pickle(path)
            except UserError as error:
                assert "\n" not in str(error)
