"""The metadata of an ONNX file, read and written without the package onnx.

An ONNX file is one protobuf message, ModelProto: fields one after the other, each with its number.
Metadata are its fields 14, a message of key (1) and value (2) each; the graph and all else stay as
they are, byte for byte. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_METADATA, _KEY, _VALUE = 14, 1, 2
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}


def split(content: bytes) -> tuple[bytes, dict[str, str]]:
    """A file's content to what it is without metadata, and the metadata.

    Raises:
        ValueError: it is no such message, or it is cut off.
    """
    rest, found = [], {}
    for number, whole, value in _fields(memoryview(content)):
        if number != _METADATA:
            rest.append(whole)
            continue
        entry = {n: str(v, "utf-8") for n, _, v in _fields(value)}
        found[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    return b"".join(rest), found


def join(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Inverse of `split`."""
    entries = (
        _field(_METADATA, _field(_KEY, key.encode()) + _field(_VALUE, value.encode()))
        for key, value in metadata.items()
    )
    return content + b"".join(entries)


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, bytes and, of those with a length, the value of every field."""
    at = 0
    while at < len(content):
        begin = at
        tag, at = _varint(content, at)
        value = content[:0]
        if tag & 7 == _VARINT:
            _, at = _varint(content, at)
        elif tag & 7 == _BYTES:
            length, at = _varint(content, at)
            value = content[at : at + length]
            at += length
        elif tag & 7 in _FIXED:
            at += _FIXED[tag & 7]
        else:
            raise ValueError(f"a field of unknown type at byte {begin}")
        if at > len(content):
            raise ValueError(f"it is cut off in the field at byte {begin}")
        yield tag >> 3, content[begin:at], value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"no number at byte {at}")


def _field(number: int, value: bytes) -> bytes:
    length, size = b"", len(value)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | _BYTES]) + length + bytes([size]) + value
