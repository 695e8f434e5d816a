"""Reads files of `torch.save` as NumPy arrays, without PyTorch and without running any code in them.

Such a file is a zip container: `data.pkl`, a pickle in which each tensor is an offset, a size and strides into a
storage, and the bytes of the storages in `data/0`, `data/1`, ... The pickle is read by the restricted unpickler.
Members must be stored uncompressed and be no larger than the file together, so that a small file cannot fill memory.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from jmer.data.readers.limits import reading
from jmer.data.readers.restricted_unpickler import (
    AGAIN,
    Admission,
    CarefulUnpickler,
    GuardedArray,
    NameRefusedError,
    RestrictedUnpickler,
    StandIn,
    are_sizes,
    array_size,
    require,
    unpickler_for,
)
from jmer.guard import RefusalError, guarded

_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "BFloat16Storage": "u2",  # the upper halves of float32 numbers
}


def load_torch(path: Path) -> Any:
    """Reads what `torch.save` wrote, with an array in the place of each tensor; bfloat16 becomes float32.

    Raises:
      UserError: if the file is damaged, or contains anything but tensors, arrays and plain containers.
    """
    with (
        guarded(str(path), AGAIN, described="is no whole file of torch.save"),
        reading(path),
        zipfile.ZipFile(path) as archive,
    ):
        members = _members(archive, path.stat().st_size)
        pickled = archive.read(members["data.pkl"])
        unpickler = unpickler_for(pickled, _TorchUnpickler, _CarefulTorchUnpickler)(
            io.BytesIO(pickled), encoding="latin1"
        )
        unpickler.storages = _Storages(archive, members)
        return unpickler.load()


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the members by their name without the leading folder, after checking what reading them would take."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise RefusalError("is compressed, which torch.save does not do: save it again with torch.save")
    require(sum(member.file_size for member in members) <= size, "its members are larger than the file")
    return {member.filename.partition("/")[2]: member for member in members}


class _Storage:
    """The numbers of a storage, which tensors are views of."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray):
        self.values = values

    def __setstate__(self, state: Any) -> NoReturn:
        raise NameRefusedError("a change of a storage")


class _Storages:
    """The storages of an archive, read when a tensor needs them."""

    def __init__(self, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]):
        self._archive, self._members = archive, members
        order = archive.read(members["byteorder"]) if "byteorder" in members else b"little"
        require(order in (b"little", b"big"), "its byte order is unknown")
        self._byte_order = ">" if order == b"big" else "<"
        self._storages: dict[str, _Storage] = {}

    def __getitem__(self, reference: Any) -> _Storage:
        require(type(reference) is tuple and len(reference) == 5 and reference[0] == "storage", "a reference is forged")
        _, kind, key, device, count = reference
        if type(kind) is not StandIn or kind not in _STORAGES:
            raise NameRefusedError("a storage of another type than numbers")
        require(type(device) is str, "a reference is forged")
        require(type(key) is str and f"data/{key}" in self._members, "a storage is missing")
        if key not in self._storages:
            content = self._archive.read(self._members[f"data/{key}"])
            values = np.frombuffer(content, self._byte_order + _STORAGES[kind])
            if kind is _BFLOAT16:
                values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
            self._storages[key] = _Storage(values)
        storage = self._storages[key]
        require(type(count) is int and count == storage.values.size, "a storage has another size than its bytes")
        return storage


class _TorchAdmission(Admission):
    storages: _Storages

    def persistent_load(self, reference: Any) -> _Storage:
        return self.storages[reference]


class _TorchUnpickler(_TorchAdmission, RestrictedUnpickler):
    pass


class _CarefulTorchUnpickler(_TorchAdmission, CarefulUnpickler):
    pass


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """Returns the array that a tensor is, a view of its storage."""
    require(type(storage) is _Storage, "a tensor has no storage")
    size, values = array_size(shape), storage.values
    require(
        type(offset) is int and offset >= 0 and are_sizes(strides) and len(strides) == len(shape),
        "a tensor has forged strides",
    )
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if size else 0
    # An expanded tensor has more elements than its storage, and could have any number of them.
    require(last < max(values.size, 1) and size <= values.size, "a tensor does not fit in its storage")
    view = np.ndarray(
        shape, values.dtype, values, offset * values.itemsize if size else 0, [n * values.itemsize for n in strides]
    )
    return view.view(GuardedArray)


def _parameter(data: Any, *_: Any) -> np.ndarray:
    require(isinstance(data, np.ndarray), "a parameter is no tensor")
    return data


_STORAGES = {StandIn(f"torch.{name}"): code for name, code in _DTYPES.items()}
_BFLOAT16 = next(kind for kind, code in _STORAGES.items() if code == "u2")
_TorchAdmission.admitted = {
    **Admission.admitted,
    **{("torch", name): kind for name, kind in zip(_DTYPES, _STORAGES, strict=True)},
    ("torch._utils", "_rebuild_tensor_v2"): StandIn("torch._utils._rebuild_tensor_v2", _tensor),
    ("torch._utils", "_rebuild_parameter"): StandIn("torch._utils._rebuild_parameter", _parameter),
}
