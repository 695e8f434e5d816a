"""Small ONNX files, written as protocol buffers (onnx.proto, IR version 8) without the package onnx."""

import numpy as np

_FLOAT, _INT = 1, 7


def varint(value):
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number, value):
    """Returns a field: a whole number, or a text or message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def shape_of(sizes, kind=_FLOAT):
    """Returns a TypeProto: a tensor; a size that is a text is of any length."""
    dimensions = b"".join(field(1, field(1 if isinstance(size, int) else 2, size)) for size in sizes)
    return field(1, field(1, kind) + field(2, dimensions))


def value_info(name, sizes=None, kind=_FLOAT):
    return field(1, name) + (field(2, shape_of(sizes, kind)) if sizes is not None else b"")


def node(operation, inputs, outputs, **attributes):
    """Returns a NodeProto; attributes are whole numbers or lists of them."""
    content = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    content += field(4, operation)
    for name, value in attributes.items():
        one = isinstance(value, int)
        values = field(3, value) if one else b"".join(field(8, item) for item in value)
        content += field(5, field(1, name) + values + field(20, 2 if one else 7))
    return content


def weights(name, array, beside=None):
    """Returns a TensorProto; with `beside`, a path, its values are written to that file."""
    kind = _INT if array.dtype == np.int64 else _FLOAT
    content = b"".join(field(1, size) for size in array.shape) + field(2, kind) + field(8, name)
    if beside is None:
        return content + field(9, array.tobytes())
    beside.write_bytes(array.tobytes())
    return content + field(13, field(1, "location") + field(2, beside.name)) + field(14, 1)


def onnx_file(path, nodes, inputs, outputs, initializers=()):
    """Writes a model; inputs and outputs are pairs (name, sizes), with a third entry for a kind of numbers."""
    graph = b"".join(field(1, one) for one in nodes) + field(2, "tiny")
    graph += b"".join(field(5, one) for one in initializers)
    graph += b"".join(field(11, value_info(*one)) for one in inputs)
    graph += b"".join(field(12, value_info(*one)) for one in outputs)
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17)))
    return path
