"""TIFF files written by hand: depths, scales, photometric interpretations, layouts, byte orders."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.hostile.generators.png import pack_bits

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
MIN_SAMPLE, MAX_SAMPLE = 280, 281
_SHORT, _LONG, _LONG8 = 3, 4, 16


def write_tiff(
    samples: NDArray[Any],
    bits: int,
    photometric: int = BLACK_IS_ZERO,
    *,
    big_endian: bool = False,
    big_tiff: bool = False,
    planar: bool = False,
    tile: int = 0,
    deflate: bool = False,
    sample_format: int = 1,
    tags: Mapping[int, list[int]] | None = None,
) -> bytes:
    """Return a TIFF file of one page.

    Args:
        samples: (H, W) or (H, W, C).
        bits: per sample; other than 8, 16, 32 and 64 the samples are packed.
        photometric: tag 262.
        big_endian: byte order.
        big_tiff: 64-bit offsets.
        planar: one plane per channel.
        tile: side of the tiles in pixels, a multiple of 16; 0: one strip.
        deflate: compress.
        sample_format: 1 unsigned, 2 signed, 3 floating point.
        tags: more tags of the type SHORT.
    """
    pixels = samples if samples.ndim == 3 else samples[:, :, None]
    height, width, channels = pixels.shape
    order = ">" if big_endian else "<"
    planes = [pixels[:, :, c : c + 1] for c in range(channels)] if planar else [pixels]
    pieces = [_encode(p, bits, order, sample_format) for plane in planes for p in _cut(plane, tile)]
    if deflate:
        pieces = [zlib.compress(piece) for piece in pieces]
    head = 16 if big_tiff else 8
    offsets, data = [], b""
    for piece in pieces:
        offsets.append(head + len(data))
        data += piece + b"\0" * (len(piece) % 2)
    long = _LONG8 if big_tiff else _LONG
    entries: dict[int, tuple[int, list[int]]] = {
        256: (_LONG, [width]),
        257: (_LONG, [height]),
        258: (_SHORT, [bits] * channels),
        259: (_SHORT, [8 if deflate else 1]),
        262: (_SHORT, [photometric]),
        277: (_SHORT, [channels]),
        284: (_SHORT, [2 if planar else 1]),
        339: (_SHORT, [sample_format] * channels),
    }
    counts = [len(piece) for piece in pieces]
    if tile:
        entries |= {322: (_SHORT, [tile]), 323: (_SHORT, [tile])}
        entries |= {324: (long, offsets), 325: (long, counts)}
    else:
        entries |= {273: (long, offsets), 278: (_LONG, [height]), 279: (long, counts)}
    entries |= {tag: (_SHORT, values) for tag, values in (tags or {}).items()}
    return (
        _header(order, big_tiff, head + len(data))
        + data
        + _directory(entries, order, big_tiff, head + len(data))
    )


def _cut(plane: NDArray[Any], tile: int) -> list[NDArray[Any]]:
    if not tile:
        return [plane]
    height, width = plane.shape[:2]
    down, right = -height % tile, -width % tile
    padded = np.pad(plane, ((0, down), (0, right), (0, 0)))
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, height, tile)
        for left in range(0, width, tile)
    ]


def _encode(pixels: NDArray[Any], bits: int, order: str, sample_format: int) -> bytes:
    kind = {1: "u", 2: "i", 3: "f"}[sample_format]
    if bits in (8, 16, 32, 64):
        return pixels.astype(f"{order}{kind}{bits // 8}").tobytes()
    return b"".join(pack_bits(row.reshape(-1), bits) for row in pixels)


def _header(order: str, big_tiff: bool, directory: int) -> bytes:
    mark = b"MM" if order == ">" else b"II"
    if big_tiff:
        return mark + struct.pack(order + "HHHQ", 43, 8, 0, directory)
    return mark + struct.pack(order + "HI", 42, directory)


def _directory(
    entries: Mapping[int, tuple[int, list[int]]], order: str, big_tiff: bool, start: int
) -> bytes:
    number, pointer, room = ("Q", "Q", 8) if big_tiff else ("H", "I", 4)
    letters = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}
    size = struct.calcsize(order + number) + len(entries) * (4 + 2 * room) + room
    table, values = struct.pack(order + number, len(entries)), b""
    for tag, (kind, items) in sorted(entries.items()):
        value = struct.pack(order + letters[kind] * len(items), *items)
        if len(value) > room:
            offset = start + size + len(values)
            values += value + b"\0" * (len(value) % 2)
            value = struct.pack(order + pointer, offset)
        table += struct.pack(order + "HH" + pointer, tag, kind, len(items)) + value.ljust(
            room, b"\0"
        )
    return table + b"\0" * room + values
