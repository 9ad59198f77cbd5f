"""Files with samples of any depth, written byte by byte: PNG, TIFF and PGM/PPM."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.data.image_files import chunk

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's colour type by the number of channels."""
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row and column, and the steps, of each pass."""


def channels(samples: NDArray[Any]) -> int:
    return 1 if samples.ndim == 2 else samples.shape[2]


def deep_png(
    samples: NDArray[np.uint16],
    *,
    interlaced: bool = False,
    filters: bool = False,
    significant: int = 0,
    key: tuple[int, ...] = (),
) -> bytes:
    """Return a PNG of 16 bits; with `filters`, rows use PNG's five filters in turn."""
    height, width = samples.shape[:2]
    count = channels(samples)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        _rows(samples[y::dy, x::dx], 2 * count, filters)
        for y, x, dy, dx in passes
        if samples[y::dy, x::dx].size
    )
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[count], 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header)]
    if significant:
        parts.append(chunk(b"sBIT", bytes([significant] * count)))
    if key:
        parts.append(chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _rows(samples: NDArray[np.uint16], pixel: int, filters: bool) -> bytes:
    """Return filtered rows; `pixel` is the number of bytes of a pixel."""
    above = bytes(samples[0].astype(">u2").nbytes)
    out = b""
    for number, row in enumerate(samples.astype(">u2")):
        data = row.tobytes()
        left = bytes(pixel) + data[:-pixel] if len(data) > pixel else bytes(len(data))
        corner = bytes(pixel) + above[:-pixel] if len(data) > pixel else bytes(len(data))
        kind = number % 5 if filters else 0
        predicted = [
            bytes(len(data)),
            left,
            above,
            bytes((a + b) // 2 for a, b in zip(left, above, strict=True)),
            bytes(map(_paeth, left, above, corner)),
        ][kind]
        out += bytes([kind]) + bytes(
            (value - guess) % 256 for value, guess in zip(data, predicted, strict=True)
        )
        above = data
    return out


def _paeth(left: int, above: int, corner: int) -> int:
    distances = [abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)]
    return (left, above, corner)[distances.index(min(distances))]


def packed(samples: NDArray[Any], bits: int) -> bytes:
    """Return samples of `bits` bits, rows padded to bytes, highest bit first."""
    out = b""
    for row in samples.reshape(samples.shape[0], -1).tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        out += int(text, 2).to_bytes(len(text) // 8, "big")
    return out


def deep_tiff(
    samples: NDArray[Any],
    photometric: int | None,
    *,
    bits: int | None = None,
    big: bool = False,
    planar: bool = False,
    tile: tuple[int, int] | None = None,
    deflate: bool = False,
    extra: tuple[int, ...] = (),
    tags: Mapping[int, Any] | None = None,
) -> bytes:
    """Return a TIFF.

    Args:
        samples: (H, W) or (H, W, C), uint8, uint16, uint32, int16 or float32.
        photometric: tag 262; None: left out.
        bits: fewer than those of the type: samples are packed.
        big: byte order.
        planar: each channel by itself.
        tile: (height, width) of tiles; None: strips of three rows.
        deflate: compressed.
        extra: kinds of further channels.
        tags: further tags, or others: numbers or tuples of numbers.
    """
    order = ">" if big else "<"
    height, width = samples.shape[:2]
    count = channels(samples)
    depth = bits or samples.dtype.itemsize * 8
    planes = [samples[:, :, i] for i in range(count)] if planar else [samples]
    parts: list[bytes] = []
    rows, columns = tile or (3, width)
    for plane in planes:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                part = plane[top : top + rows, left : left + columns]
                if tile:
                    missing = [(0, rows - part.shape[0]), (0, columns - part.shape[1])]
                    part = np.pad(part, [*missing, *[(0, 0)] * (part.ndim - 2)])
                data = (
                    packed(part, depth)
                    if bits
                    else part.astype(part.dtype.newbyteorder(order)).tobytes()
                )
                parts.append(zlib.compress(data) if deflate else data)
    offsets = tuple(8 + sum(len(part) for part in parts[:i]) for i in range(len(parts)))
    sizes = tuple(map(len, parts))
    entries: dict[int, Any] = {
        256: width,
        257: height,
        258: (depth,) * count,
        259: 8 if deflate else 1,
        277: count,
        284: 2 if planar else 1,
        339: ({"u": 1, "i": 2, "f": 3}[samples.dtype.kind],) * count,
    }
    entries |= {322: columns, 323: rows, 324: offsets, 325: sizes} if tile else {}
    entries |= {} if tile else {273: offsets, 278: rows, 279: sizes}
    if photometric is not None:
        entries[262] = photometric
    if extra:
        entries[338] = extra
    entries |= tags or {}
    body = b"".join(parts)
    start = 8 + len(body)
    outside = start + 2 + 12 * len(entries) + 4
    table, further = b"", b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        kind, code = (3, "H") if tag in (258, 320, 338, 339, 281, 530) else (4, "I")
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        table += struct.pack(order + "HHI", tag, kind, len(values))
        if len(content) > 4:
            table += struct.pack(order + "I", outside + len(further))
            further += content + b"\0" * (len(content) % 2)
        else:
            table += content.ljust(4, b"\0")
    head = (b"MM" if big else b"II") + struct.pack(order + "HI", 42, start)
    directory = struct.pack(order + "H", len(entries)) + table + struct.pack(order + "I", 0)
    return head + body + directory + further


def netpbm(samples: NDArray[Any], maxval: int, *, plain: bool = False) -> bytes:
    """Return a PGM (H, W) or PPM (H, W, 3)."""
    number = (2 if plain else 5) + (samples.ndim == 3)
    head = b"P%d\n# a comment\n%d %d\n%d\n" % (number, samples.shape[1], samples.shape[0], maxval)
    if plain:
        return head + b"\n".join(b"%d" % value for value in samples.ravel().tolist()) + b"\n"
    return head + samples.astype(">u2" if maxval > 255 else np.uint8).tobytes()
