"""Read and write the metadata of an ONNX file without the package onnx.

An ONNX file is one protobuf message, ModelProto: a sequence of numbered fields. Each metadata entry
is a field with number 14, a message with a key (1) and a value (2). The graph and all other fields
are kept byte for byte. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_METADATA, _KEY, _VALUE = 14, 1, 2
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Length in bytes of the wire types for 64 and 32 bits."""


def split(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the content of a file without its metadata, and the metadata.

    Raises:
        ValueError: the content is not such a message, or it is truncated.
    """
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
