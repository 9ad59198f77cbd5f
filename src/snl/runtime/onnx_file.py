"""Read and write the metadata of an ONNX file without the package onnx.

An ONNX file is one protobuf message, ModelProto: a sequence of numbered fields. Each metadata entry
is a field with number 14, a message with a key (1) and a value (2). The graph and all other fields
are kept byte for byte. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_IR_VERSION, _GRAPH, _OPSET, _METADATA, _FUNCTION = 1, 7, 8, 14, 25
_KEY, _VALUE = 1, 2
_TENSOR_LOCATION, _EXTERNAL = 14, 1
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Length in bytes of the wire types for 64 and 32 bits."""


def split(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the content of a file without its metadata, and the metadata.

    Raises:
        ValueError: the content is empty, truncated, or not such a message.
    """
    if not content:
        raise ValueError("it is empty")
    others, metadata = [], {}
    for number, encoded, value in _fields(memoryview(content)):
        if number != _METADATA:
            others.append(encoded)
            continue
        entry = {n: str(v, "utf-8") for n, _, v in _fields(value)}
        metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    return b"".join(others), metadata


def join(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file with metadata; inverse of `split`."""
    entries = (
        _field(_METADATA, _field(_KEY, key.encode()) + _field(_VALUE, value.encode()))
        for key, value in metadata.items()
    )
    return content + b"".join(entries)


def versions(content: bytes) -> tuple[int, int]:
    """Return the version of the file format (IR) and of ONNX's operators (opset); 0: not stated.

    Raises:
        ValueError: as `split`.
    """
    ir = opset = 0
    for number, encoded, value in _fields(memoryview(content)):
        if number == _IR_VERSION:
            ir = _number(encoded)
        elif number == _OPSET:
            entry = {n: (e, v) for n, e, v in _fields(value)}
            domain = bytes(entry[1][1]) if 1 in entry else b""
            if domain in (b"", b"ai.onnx") and 2 in entry:
                opset = max(opset, _number(entry[2][0]))
    return ir, opset


def has_external_data(content: bytes) -> bool:
    """Return whether weights are in other files, which no checksum covers.

    Raises:
        ValueError: as `split`.
    """
    for number, _, value in _fields(memoryview(content)):
        if number == _GRAPH and _external_in(value, _GRAPH_FIELDS):
            return True
        if number == _FUNCTION and _external_in(value, _FUNCTION_FIELDS):
            return True
    return False


_TENSOR_FIELDS: dict[int, str] = {}
_GRAPH_FIELDS = {1: "node", 5: "tensor", 15: "sparse"}
_PARTS = {
    "tensor": _TENSOR_FIELDS,
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "graph": _GRAPH_FIELDS,
}
"""Which fields of GraphProto, NodeProto, AttributeProto, SparseTensorProto hold which messages."""
_FUNCTION_FIELDS = {7: "node", 11: "attribute"}


def _external_in(message: memoryview, parts: Mapping[int, str]) -> bool:
    """Return whether a message or one inside it is a tensor whose data are in another file."""
    for number, encoded, value in _fields(message):
        if parts is _TENSOR_FIELDS:
            if number == _TENSOR_LOCATION and _number(encoded) == _EXTERNAL:
                return True
        elif number in parts and _external_in(value, _PARTS[parts[number]]):
            return True
    return False


def _number(field: memoryview) -> int:
    """Return the value of an encoded field of the type varint; 0 for other types."""
    tag, position = _varint(field, 0)
    return _varint(field, position)[0] if tag & 7 == _VARINT else 0


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield each field's number, its bytes, and its value (empty unless of the type bytes)."""
    position = 0
    while position < len(content):
        start = position
        tag, position = _varint(content, position)
        value = content[:0]
        if tag & 7 == _VARINT:
            _, position = _varint(content, position)
        elif tag & 7 == _BYTES:
            length, position = _varint(content, position)
            value = content[position : position + length]
            position += length
        elif tag & 7 in _FIXED:
            position += _FIXED[tag & 7]
        else:
            raise ValueError(f"a field of unknown type at byte {start}")
        if position > len(content):
            raise ValueError(f"it is cut off in the field at byte {start}")
        yield tag >> 3, content[start:position], value


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    """Return the number at a position, in groups of seven bits, lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"no number at byte {position}")


def _field(number: int, value: bytes) -> bytes:
    """Return an encoded field of the type bytes."""
    length, size = b"", len(value)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | _BYTES]) + length + bytes([size]) + value
