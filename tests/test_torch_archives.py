"""Files of torch.save are read as arrays without PyTorch; forged ones are refused before memory is used."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest

from jmer.data.readers.torch_archives import load_torch
from jmer.errors import UserError


def literal(value):
    """Returns the pickle program of numbers, names, strings and tuples."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(literal, value)) + b"t"
    return f"S'{value}'\n".encode() if isinstance(value, str) else f"I{int(value)}\n".encode()


def tensor(kind="torch\nFloatStorage", key="0", count=6, offset=0, shape=(2, 3), strides=(3, 1), reference=None):
    """Returns the pickle program of a tensor."""
    reference = reference or ("storage", f"c{kind}\n".encode(), key, "cpu", count)
    arguments = literal(reference) + b"Q" + b"".join(map(literal, (offset, shape, strides))) + b"I00\n(d"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def write(tmp_path, program=None, compression=zipfile.ZIP_STORED, **storages):
    storages = storages or {"0": np.arange(6, dtype="<f4").tobytes()}
    path = tmp_path / "features.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + (program or tensor()) + b".")
        for name, content in storages.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def test_tensors_come_back_as_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.arange(24.0).reshape(4, 6) - 7
    holdings = {
        "whole": x,
        "part": x[1:3, ::2],
        "transposed": x.T,
        "row": [("Ses01", x[2]), x[3]],
        "half": x.half(),
        "double": x.double(),
        "integers": torch.tensor([[-1, 2**40]]),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "mask": x > 2,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(x),
        "array": np.ones((2, 3)),
        "plain": {"a": [1, "é", None, 2.5]},
    }
    torch.save(holdings, tmp_path / "features.pt")
    got = load_torch(tmp_path / "features.pt")
    assert got.keys() == holdings.keys()
    for name, value in holdings.items():
        if isinstance(value, torch.Tensor):
            np.testing.assert_array_equal(got[name], value.detach().numpy(), strict=True)
    assert got["row"][0][0] == "Ses01"
    np.testing.assert_array_equal(got["row"][1], x[3].numpy())
    np.testing.assert_array_equal(got["array"], holdings["array"])
    assert got["plain"] == holdings["plain"]


def test_bfloat16_becomes_float32(tmp_path):
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.0, -2.5], [3e30, 1e-30]], dtype=torch.bfloat16)
    torch.save([x, x[1]], tmp_path / "features.pt")
    got = load_torch(tmp_path / "features.pt")
    np.testing.assert_array_equal(got[0], x.float().numpy(), strict=True)
    np.testing.assert_array_equal(got[1], x[1].float().numpy(), strict=True)


def test_a_written_container_is_what_torch_writes(tmp_path):
    path = write(tmp_path)
    np.testing.assert_array_equal(load_torch(path), np.arange(6, dtype=np.float32).reshape(2, 3), strict=True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(load_torch(path), np.arange(6, dtype="<f4").view(">f4").reshape(2, 3))


def test_torch_is_not_imported(tmp_path):
    code = (
        "import sys, pathlib; from jmer.data.readers.torch_archives import load_torch; "
        f"load_torch(pathlib.Path({str(write(tmp_path))!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "forged",
    [
        {"shape": (2, 4), "strides": (4, 1)},
        {"shape": (2, 3), "strides": (4, 1)},
        {"shape": (7,), "strides": (0,)},
        {"shape": (10**12,), "strides": (0,)},
        {"shape": (2**62, 4), "strides": (0, 0)},
        {"shape": (2, 3), "strides": (-3, 1)},
        {"shape": (-2, 3)},
        {"offset": 1},
        {"offset": -1, "shape": (1,), "strides": (1,)},
        {"offset": 2**63},
        {"shape": (6,), "strides": (2**62,)},
        {"strides": (1,)},
        {"strides": 3},
        {"shape": "23"},
        {"count": 7},
        {"count": 2**40},
        {"key": "1"},
        {"key": "../data.pkl"},
        {"key": 0},
        {"kind": "torch\nDoubleStorage"},
        {"reference": ("storage", "FloatStorage")},
        {"reference": ("module", "a", "b", "c", "d")},
        {"reference": "storage"},
    ],
    ids=str,
)
def test_forged_sizes_strides_and_references_are_damaged(tmp_path, forged):
    with pytest.raises(
        UserError, match=r"features.pt is no whole file of torch.save: get the file again \(.*\)"
    ) as caught:
        load_torch(write(tmp_path, tensor(**forged)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (tensor(kind="builtins\nlist"), "a storage of another type than numbers"),
        (tensor(reference=("storage", "FloatStorage", "0", "cpu", 6)), "a storage of another type than numbers"),
        (tensor(kind="torch\nComplexFloatStorage"), "torch.ComplexFloatStorage"),
        (b"ctorch._utils\n_rebuild_sparse_tensor\n.", "torch._utils._rebuild_sparse_tensor"),
        (b"cposix\nsystem\nS'true'\n\x85R.", "posix.system"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
        (literal(("storage", b"ctorch\nFloatStorage\n", "0", "cpu", 6)) + b"Q}b.", "a change of a storage"),
    ],
)
def test_other_names_are_refused(tmp_path, program, named):
    with pytest.raises(UserError, match=f"is refused and none of its code was run: it asks for {named}, but"):
        load_torch(write(tmp_path, program))


def test_the_state_of_a_tensor_cannot_be_forged(tmp_path):
    state = literal((1, (2**40,), b"cnumpy\ndtype\nS'f8'\nI0\nI1\n\x87R", 0, "x"))
    with pytest.raises(UserError, match="the bytes of an array do not fill it"):
        load_torch(write(tmp_path, tensor() + state + b"b"))


def test_a_container_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
    zeros = bytes(10**7)
    bomb = write(tmp_path, tensor(count=len(zeros) // 4), zipfile.ZIP_DEFLATED, **{"0": zeros})
    assert bomb.stat().st_size < 20_000
    with pytest.raises(UserError, match=r"is compressed, which torch.save does not do: save it again with torch.save"):
        load_torch(bomb)
    # Two entries of the directory that claim the same bytes.
    path = write(tmp_path, **{"0": bytes(24), "1": bytes(24)})
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    second = content.index(b"PK\x01\x02", directory + 4)
    for field in (20, 24):  # compressed and uncompressed size
        content[second + field : second + field + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(UserError, match="its members are larger than the file"):
        load_torch(path)


def test_damaged_containers(tmp_path):
    whole = write(tmp_path).read_bytes()
    for content in (whole[:-30], whole[: len(whole) // 2], whole.replace(b"archive/data.pkl", b"archive/data.txt")):
        (tmp_path / "cut.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"cut.pt is no whole file of torch.save: get the file again"):
            load_torch(tmp_path / "cut.pt")
