"""PGM, PPM, BMP, JPEG and WebP files, and signatures of formats that nobody decodes here."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_pnm(samples: NDArray[np.int64], largest: int, *, plain: bool = False) -> bytes:
    """Return a PGM or PPM file: binary (P5, P6), or with numbers as text (P2, P3)."""
    height, width = samples.shape[:2]
    number = {(2, True): 2, (3, True): 3, (2, False): 5, (3, False): 6}[samples.ndim, plain]
    head = f"P{number}\n# a comment\n{width} {height}\n{largest}\n".encode()
    if plain:
        return head + "\n".join(" ".join(map(str, r)) for r in samples.reshape(height, -1)).encode()
    return head + samples.astype(">u2" if largest > 255 else np.uint8).tobytes()


def write_bmp(rgba: NDArray[np.uint8], version: int = 5) -> bytes:
    """Return a 32-bit BMP with an alpha mask in its header (V4 or V5).

    Args:
        rgba: (H, W, 4).
        version: 4 or 5.
    """
    height, width = rgba.shape[:2]
    size = {4: 108, 5: 124}[version]
    data = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    info = (info + masks).ljust(size, b"\0")
    start = 14 + size
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + data


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a file as Pillow writes it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    """Return EXIF data with an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return the picture that stored pixels with an EXIF orientation show."""
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a),
    }
    return np.ascontiguousarray(turns[orientation](image))


_BOX = b"\x00\x00\x00\x18ftyp"
UNSUPPORTED = {
    ".jp2": b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x14ftypjp2 " + b"\0" * 64,
    ".j2k": b"\xff\x4f\xff\x51" + b"\0" * 64,
    ".heic": _BOX + b"heic\0\0\0\0mif1heic" + b"\0" * 64,
    ".avif": _BOX + b"avif\0\0\0\0mif1avif" + b"\0" * 64,
    ".jxl": b"\xff\x0a" + b"\0" * 64,
    ".psd": b"8BPS\x00\x01" + b"\0" * 64,
    ".gif.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ".exr": b"\x76\x2f\x31\x01" + b"\0" * 64,
    ".hdr": b"#?RADIANCE\n" + b"\0" * 64,
    ".dcm": b"\0" * 128 + b"DICM" + b"\0" * 64,
    ".pdf": b"%PDF-1.7\n" + b"\0" * 64,
    ".cr2": b"II*\x00\x10\x00\x00\x00CR\x02\x00" + b"\0" * 64,
}
"""First bytes of files in formats that are not supported, by the suffix they usually have."""
