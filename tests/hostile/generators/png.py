"""PNG files written by hand: every depth, colour type, interlacing and ancillary chunk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.data.deep_files import ADAM7


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(
    samples: NDArray[np.int64],
    depth: int,
    colour: int,
    *,
    interlaced: bool = False,
    before: Sequence[tuple[bytes, bytes]] = (),
    size: tuple[int, int] | None = None,
) -> bytes:
    """Return a PNG file.

    Args:
        samples: (H, W) or (H, W, C) integers.
        depth: bits per sample.
        colour: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
        interlaced: Adam7.
        before: chunks between the header and the pixels: sBIT, PLTE, tRNS, gAMA, ...
        size: (H, W) that the header claims; None: the true one.
    """
    pixels = samples if samples.ndim == 3 else samples[:, :, None]
    height, width = size or pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    rows = b""
    if interlaced:
        for top, left, down, right in ADAM7:
            rows += _rows(pixels[top::down, left::right], depth)
    else:
        rows = _rows(pixels, depth)
    body = b"".join(chunk(kind, content) for kind, content in before)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + body
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _rows(pixels: NDArray[np.int64], depth: int) -> bytes:
    if pixels.size == 0:
        return b""
    flat = pixels.reshape(len(pixels), -1)
    if depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
    if depth == 8:
        return b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in flat)
    return b"".join(b"\0" + pack_bits(row, depth) for row in flat)


def pack_bits(row: NDArray[np.int64], depth: int) -> bytes:
    """Return samples of a few bits packed into bytes, the first one highest."""
    bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()
