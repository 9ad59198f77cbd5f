"""The chunks of a PNG that Pillow does not report."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

SIGNATURE_BYTES = 8


def chunks(file: IO[bytes], start: int = SIGNATURE_BYTES) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and the first 64 bytes of the content of each chunk; moves the file position."""
    while True:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, file.read(min(length, 64))
        start += 12 + length


def significant_bits(file: IO[bytes]) -> int:
    """Return the largest number of the chunk sBIT, 0 if there is none; keeps the file position."""
    before = file.tell()
    try:
        for kind, content in chunks(file):
            if kind == b"sBIT":
                return max(content, default=0)
            if kind in (b"IDAT", b"IEND"):
                break
        return 0
    finally:
        file.seek(before)
