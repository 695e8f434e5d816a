"""Networks in files of TensorFlow Lite or ONNX, run on one thread of the CPU."""

import mmap
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jmer.errors import UserError
from jmer.extract.extras import require
from jmer.extract.network_folders import check_kind

FORMATS = {".onnx": ("onnxruntime", "onnx"), ".tflite": ("ai_edge_litert", "faces")}
"""Suffix -> the package that runs such files, and the extra that installs it."""

_SHOWN_NAMES = 6


_Shape = tuple[int | None, ...]
_Runs = Callable[[np.ndarray], np.ndarray]


class Network(NamedTuple):
    """A network with one input, and one tensor that is taken from it.

    Attributes:
      shape: of the input; None along an axis of any length.
      runs: returns the tensor for an input, both float32. Raises RuntimeError, with one line.
      versions: of the package that runs it, by its name.
    """

    shape: _Shape
    runs: _Runs
    versions: dict[str, str]

    def trial(self, size: Sequence[int]) -> np.ndarray:
        """Returns the tensor for an input of zeros. Raises UserError if the network does not run."""
        try:
            return self.runs(np.zeros(size, np.float32))
        except RuntimeError as error:
            raise UserError(str(error)) from error

    def shown_shape(self) -> str:
        """Returns the input's shape, for a message."""
        return f"[{', '.join('any' if size is None else str(size) for size in self.shape)}]"


def open_network(path: Path, tensor: str = "") -> Network:
    """Opens a network.

    Args:
      path: of a `.tflite` or `.onnx` file.
      tensor: name of the tensor that is taken from it, an output or any inside; empty = its only output.

    Raises:
      UserError: if the file or the package is missing or of another kind, or has no such tensor.
    """
    check_kind(path, path.suffix[1:])
    package, extra = FORMATS[path.suffix]
    module = require(package, extra, path.name)
    versions = {package: module.__version__}
    if path.suffix == ".onnx":
        return Network(*_open_onnx(path, tensor, module), versions)
    return Network(*_open_tflite(path, tensor, require(f"{package}.interpreter", extra, path.name)), versions)


def network_files(path: Path) -> list[Path]:
    """Returns a network's file and, for ONNX, those beside it in which it keeps weights.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # In protocol buffers, the entry "location" of a tensor's external data: key (1), value (2) and its length.
            starts = [match.end() for match in re.finditer(rb"\n\x08location\x12", content)]
            names = {content[start + 1 : start + 1 + content[start]] for start in starts}
    except ValueError:  # An empty file cannot be mapped.
        return [path]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    beside = (path.parent / name.decode("utf-8", "replace") for name in sorted(names))
    return [path, *(other for other in beside if other.is_file())]


def _open_tflite(path: Path, tensor: str, module: ModuleType) -> tuple[_Shape, _Runs]:
    try:
        interpreter = module.Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_preserve_all_tensors=bool(tensor),
            # A delegate would write to the terminal and warn of tensors that are kept.
            experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a network that TensorFlow Lite runs: {_first_line(error)}") from error
    entry = _only(path, "input", interpreter.get_input_details())
    if tensor:
        details = {detail["name"]: detail for detail in interpreter.get_tensor_details() if detail["name"]}
        taken = details[_found(path, tensor, list(details))]
    else:
        taken = _only(path, "output", interpreter.get_output_details())
    for detail in (entry, taken):
        if detail["dtype"] != np.float32:
            kind = np.dtype(detail["dtype"]).name
            raise UserError(f"{path}: tensor '{detail['name']}' is {kind}: export the network with float32")

    def run(values: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()
        return interpreter.get_tensor(taken["index"])

    return tuple(None if size < 0 else int(size) for size in entry["shape_signature"]), run


def _open_onnx(path: Path, tensor: str, module: ModuleType) -> tuple[_Shape, _Runs]:
    options = module.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4

    providers = ["CPUExecutionProvider"]
    try:
        session = module.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # Its errors have no base class of their own.
        raise UserError(f"{path} is not a network that onnxruntime runs: {_first_line(error)}") from error
    entry = _only(path, "input", session.get_inputs())
    outputs = [output.name for output in session.get_outputs()]
    taken = tensor or _only(path, "output", session.get_outputs()).name
    if taken not in outputs:
        # A message appended to another one is merged into it: here, a graph (7) with an output (12) of that name (1).
        # What the file keeps beside it is then looked for in its folder.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        content = path.read_bytes() + _field(7, _field(12, _field(1, taken.encode())))
        try:
            session = module.InferenceSession(content, options, providers=providers)
        except Exception as error:
            raise UserError(f"{path} has no tensor '{taken}'; its outputs are {_listed(outputs)}") from error
    if entry.type != "tensor(float)":
        raise UserError(f"{path}: input '{entry.name}' is {entry.type}: export the network with float32")

    def run(values: np.ndarray) -> np.ndarray:
        try:
            (result,) = session.run([taken], {entry.name: values})
        except Exception as error:
            raise RuntimeError(f"{path} does not run on an array {list(values.shape)}: {_first_line(error)}") from error
        return np.asarray(result, np.float32)

    return tuple(size if isinstance(size, int) else None for size in entry.shape), run


def _only(path: Path, what: str, several: Sequence[Any]) -> Any:
    """Returns the only input or output of a network."""
    if len(several) == 1:
        return several[0]
    names = _listed([one["name"] if isinstance(one, dict) else one.name for one in several])
    remedy = "choose one with tensor=NAME" if what == "output" else "export it with one, the features' source"
    raise UserError(f"{path} has {len(several)} {what}s ({names}): {remedy}")


def _found(path: Path, tensor: str, names: Sequence[str]) -> str:
    """Returns the name that equals a text, or the only one that contains it."""
    found = [name for name in names if name == tensor] or [name for name in names if tensor in name]
    if len(found) != 1:
        fault = f"has several tensors with '{tensor}' in their name" if found else f"has no tensor '{tensor}'"
        raise UserError(f"{path} {fault}; its last ones are {_listed(list(reversed(found or names)))}")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _SHOWN_NAMES} more"] if len(names) > _SHOWN_NAMES else []
    return ", ".join([*names[:_SHOWN_NAMES], *more])


def _first_line(error: Exception) -> str:
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip()).partition("\n")[0]


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a protocol buffer that is a text or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _varint(value >> 7)
