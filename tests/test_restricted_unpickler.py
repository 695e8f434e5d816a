"""Feature pickles of any Python version are read; malicious ones are refused without running their code."""

import collections
import contextlib
import os
import pickle
import struct
import warnings

import numpy as np
import pytest

from jmer.data.readers.restricted_unpickler import load_pickle
from jmer.errors import UserError


def write(tmp_path, content, protocol=2):
    path = tmp_path / "features.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def assert_same(got, expected):
    if isinstance(expected, np.ndarray):
        assert isinstance(got, np.ndarray)
        assert got.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        if expected.dtype.hasobject:
            assert got.tolist() == expected.tolist()
        else:
            np.testing.assert_array_equal(got, expected)
    elif isinstance(expected, dict):
        assert type(got) is dict
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, list | tuple):
        assert type(got) is type(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(got) is type(expected)
        assert got == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_scalars_and_containers_come_back(tmp_path, protocol):
    counts = collections.defaultdict(list)
    counts["a"].append(1)
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    holdings = {
        "arrays": [matrix, np.asfortranarray(matrix), matrix[:, ::2], matrix.astype(">f8"), np.zeros((0, 4)), matrix.T],
        "small": (np.array([True, False]), np.array(["é", "bc"]), np.array([b"x", b"yz"]), np.array(7, np.int64)),
        "objects": np.array(["M", None, (1, 2.5)], object),
        "scalars": [np.float64(0.5), np.int32(-3), np.float32("nan").dtype.type(2), np.str_("F"), np.bool_(True)],
        "ordered": collections.OrderedDict([("z", 1), ("a", [2])]),
        "default": counts,
        "sets": [{"Ses01", "Ses02"}, frozenset({1})],
        "bytes": [b"", b"\xff\x00", bytearray(b"ab") if protocol == 5 else b"c"],
        "text": "“naïve”",
    }
    got = load_pickle(write(tmp_path, holdings, protocol))
    assert_same(got, {**holdings, "ordered": dict(holdings["ordered"]), "default": dict(counts)})
    got["arrays"][0][0, 0] = 9  # arrays are writable


def python2_array(values):
    """Returns the pickle that Python 2 writes for a float64 matrix: its bytes as a string without an encoding."""
    raw = values.astype("<f8").tobytes()
    shape = b"".join(b"K" + bytes([n]) for n in values.shape)
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + (b"\x86" if values.ndim == 2 else b"\x85")
        + b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb."
    )


def test_python_2_arrays_sets_and_strings(tmp_path):
    values = np.array([[np.pi, -1e300], [0.0, 200.0]])
    assert_same(load_pickle(write(tmp_path, python2_array(values))), values)
    # A set, as IEMOCAP's pickles have for their training conversations, and a latin-1 string.
    pickled = b"\x80\x02c__builtin__\nset\n]U\x05Ses01a\x85RU\x04caf\xe9\x86."
    assert load_pickle(write(tmp_path, pickled)) == ({"Ses01"}, "café")


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(trap):
    """Returns pickles that would create the file `trap`, by the name that each asks for first."""
    system = Calls(os.system, f"touch {trap}")
    inside = np.empty(2, object)
    inside[:] = [1, system]
    statement = f"open({str(trap)!r}, 'w')"
    return {
        "posix.system": [system, (1, [{"a": system}]), inside, {0: [inside]}, Calls(set, [system])],
        "builtins.eval": [Calls(eval, statement), collections.OrderedDict(a=Calls(eval, statement))],
        "builtins.exec": [Calls(exec, statement)],
        "io.open": [Calls(open, str(trap), "w")],
        "numpy.save": [Calls(np.save, trap.parent / "trap", 1)],
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_names_are_refused_at_any_depth(tmp_path, protocol):
    trap = tmp_path / "trap.npy"
    for name, contents in hostile(trap).items():
        if protocol == 2:
            name = name.replace("builtins", "__builtin__")
        for content in contents:
            path = write(tmp_path, content, protocol)
            with pytest.raises(UserError, match=rf"refused and none of its code was run: it asks for {name}, but"):
                load_pickle(path)
            assert not trap.exists()


def test_the_malicious_pickles_would_run_code(tmp_path):
    trap = tmp_path / "trap.npy"
    for contents in hostile(trap).values():
        for content in contents:
            with warnings.catch_warnings(action="ignore"), contextlib.suppress(TypeError):
                pickle.loads(pickle.dumps(content))
            trap.unlink()


@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        ("torch._utils", "save dense tensors with torch.save, or as arrays"),
        ("joblib.numpy_pickle", "load it with joblib and save it with pickle.dump"),
        ("pandas.core.frame", "save the table as parquet"),
        ("scipy.sparse._csr", r"save sparse matrices as arrays \(matrix.toarray\(\)\)"),
        ("sklearn.decomposition", "save the features in these"),
    ],
)
def test_objects_of_other_packages_are_refused_with_what_to_save_instead(tmp_path, module, remedy):
    with pytest.raises(UserError, match=rf"asks for {module}\.Thing, but .*; {remedy}"):
        load_pickle(write(tmp_path, f"c{module}\nThing\n)R.".encode()))


@pytest.mark.parametrize(
    ("pickled", "named"),
    [
        # Names that begin or end as an admitted one does, each way that a pickle can write a name.
        (b"cnumpy.core.multiarray\nfromfile\n(U\x01xtR.", "numpy.core.multiarray.fromfile"),
        (b"cnumpy\nndarray.tofile\n.", "numpy.ndarray.tofile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0ccore._string\x93.", "numpy.core._string"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x0babc.os.name\x93.", "collections.abc.os.name"),
        (b"(U\x02idios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nU\x02ido.", "os.system"),
        (b"cnumpy.testing._private.utils\nrunstring\n.", "numpy.testing._private.utils.runstring"),
        (b"cos\rx\x1b[2J\nsystem\n.", r"os\?x\?\[2J.system"),
        (b"c" + b"a" * 200 + b"\nb\n.", "a" * 120 + r"\.\.\.,"),
        # Admitted names in another use.
        (b"c__builtin__\nlist\n]\x85R.", r"a call of __builtin__.list"),
        (b"cnumpy\nndarray\nK\x05\x85R.", r"a call of numpy.ndarray"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\nc__builtin__\nlist\nK\x00\x85U\x01b\x87R.",
            "array of a class other than numpy.ndarray",
        ),
        (b"c_codecs\nencode\nU\x01xU\x05rot13\x86R.", "the codec 'rot13'"),
        # Changing an admitted name would outlive the file.
        (b"c_codecs\nencode\n}U\x01aK\x01sb.", "a change of _codecs.encode"),
        (b"cnumpy\nndarray\n(N}U\x0c__setstate__K\x01stb.", "a change of numpy.ndarray"),
        # Dtypes through which raw bytes would become pointers to objects.
        (b"cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R.", "the dtype 'V8'"),
        (b"cnumpy\ndtype\n(U\x01a]}tR.", "the dtype 'a'"),
        (b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<N(U\x01at}tb.", "a structured dtype"),
    ],
)
def test_forged_names_and_uses_are_refused(tmp_path, pickled, named):
    with pytest.raises(UserError, match=named) as caught:
        load_pickle(write(tmp_path, pickled))
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_arrays_with_inconsistent_state_are_damaged(tmp_path):
    honest = python2_array(np.zeros((2, 2)))
    lies = {
        "size": honest.replace(b"K\x02K\x02\x86", b"K\x02K\x03\x86"),
        "negative": honest.replace(b"K\x02K\x02\x86", b"J\xfe\xff\xff\xffJ\xfe\xff\xff\xff\x86"),
        "objects": honest.replace(b"U\x02f8", b"U\x02O8"),
        "no dtype": honest.replace(b"cnumpy\ndtype\n", b"c__builtin__\nset\n"),
    }
    for pickled in lies.values():
        assert pickled != honest
        with pytest.raises(UserError, match=r"is not a pickle, or is truncated or damaged: get the file again \(.*\)"):
            load_pickle(write(tmp_path, pickled))


def test_a_file_that_is_not_a_pickle_is_refused(tmp_path):
    whole = pickle.dumps({"Ses01": np.ones((3, 4), np.float32)}, 4)
    contents = {f"cut at {n}": whole[:n] for n in range(0, len(whole), 7)}
    contents |= {"zip": b"PK\x03\x04" + bytes(40), "swapped": whole[::-1]}
    for content in filter(None, contents.values()):
        with pytest.raises(UserError, match=r"features.pkl (is not a pickle, or is truncated|is refused)") as caught:
            load_pickle(write(tmp_path, content))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"is a text file that begins with 'Sr No.,Utterance': if it is a csv file"):
        load_pickle(write(tmp_path, b"Sr No.,Utterance\n1,Hello\n"))
    with pytest.raises(UserError, match=r"cannot read .*nowhere.pkl: No such file"):
        load_pickle(tmp_path / "nowhere.pkl")
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        load_pickle(tmp_path)


@pytest.mark.parametrize("value", [np.array(["ab", "c"]), np.str_("ab")], ids=["array", "scalar"])
def test_characters_that_do_not_exist_are_refused(tmp_path, value):
    path = tmp_path / "text.pkl"
    whole = pickle.dumps(value, 4)
    path.write_bytes(whole)
    np.testing.assert_array_equal(load_pickle(path), value)
    path.write_bytes(whole.replace(b"b\0\0\0", b"b\0\0\1"))
    with pytest.raises(UserError, match="a text has characters that do not exist"):
        load_pickle(path)
