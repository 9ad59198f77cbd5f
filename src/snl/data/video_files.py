"""Whether a video file ends before its container does: by the sizes that the container states.

Media libraries read what is there and report the end of the file as the end of the video.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_TS_PACKET, _M2TS_PACKET = 188, 192
_SEGMENT = b"\x18\x53\x80\x67"
_MOST_ELEMENTS = 1_000_000


def ends_early(path: str | Path) -> bool:
    """Return True if a video file is shorter than its structure says.

    MP4, MOV, MKV, WebM, AVI, MPG and TS are known. False also means that the structure does not
    tell: for other formats, and where a file was cut exactly between two of its parts.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        start = file.read(512)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"):
            return _boxes_end(file) > size
        if start[:4] == b"\x1aE\xdf\xa3":
            return _elements_end(file, size) > size
        if start[:4] == b"RIFF" and start[8:11] == b"AVI":
            return _chunks_end(file, size) > size + 1  # the last padding byte may be missing
        if start[:4] == b"\0\0\1\xba":
            return _packs_end(file, size) > size
        for length in (_TS_PACKET, _M2TS_PACKET):
            first = length - _TS_PACKET
            if start[first : first + 1] == b"G" and start[first + length :][:1] == b"G":
                return size % length != 0
    return False


def lacks_index(path: str | Path) -> bool:
    """Return True if an MP4 or MOV has no index, which is written when a recording ends."""
    with Path(path).open("rb") as file:
        if file.read(8)[4:8] not in (b"ftyp", b"mdat", b"wide"):
            return False
        return b"moov" not in _boxes(file)[0]


def _boxes_end(file: BinaryIO) -> int:
    return _boxes(file)[1]


def _boxes(file: BinaryIO) -> tuple[set[bytes], int]:
    """Return the kinds of the outermost boxes, and where the last one ends by its size."""
    kinds: set[bytes] = set()
    position = 0
    for _ in range(_MOST_ELEMENTS):
        file.seek(position)
        head = file.read(16)
        if not head:
            return kinds, position
        if len(head) < 8:
            return kinds, position + 8
        size, header = int.from_bytes(head[:4], "big"), 8
        kinds.add(head[4:8])
        if size == 1:
            if len(head) < 16:
                return kinds, position + 16
            size, header = int.from_bytes(head[8:16], "big"), 16
        if size < header:  # 0: up to the end of the file, whatever it is
            return kinds, 0
        position += size
    return kinds, 0


def _elements_end(file: BinaryIO, total: int) -> int:
    """Return where the segment, or the last element in a segment of unknown size, ends."""
    position = 0
    for _ in range(_MOST_ELEMENTS):
        file.seek(position)
        head = file.read(16)
        if not head:
            return position
        length = 9 - head[0].bit_length()  # of the identifier
        if length > 4:
            return 0  # not an element
        if len(head) <= length:
            return position + length + 1
        width = 9 - head[length].bit_length()
        if width > 8 or len(head) < length + width:
            return 0 if width > 8 else position + length + width
        size = int.from_bytes(head[length : length + width], "big") & ((1 << 7 * width) - 1)
        unknown = size == (1 << 7 * width) - 1
        position += length + width
        if not unknown:
            position += size
            if head[:length] == _SEGMENT or position > total:
                return position
    return 0


def _chunks_end(file: BinaryIO, total: int) -> int:
    """Return where the last RIFF chunk ends; an AVI of more than 1 GB has several."""
    position = 0
    while position < total:
        file.seek(position)
        head = file.read(8)
        if head[:4] != b"RIFF" or len(head) < 8:
            return 0
        size = int.from_bytes(head[4:], "little")
        if size in (0, 0xFFFFFFFF):  # never completed by its writer
            return 0
        position += 8 + size + size % 2
    return position


def _packs_end(file: BinaryIO, total: int) -> int:
    """Return where the last packet of an MPEG program stream ends."""
    position = max(0, total - 4 * 65536)
    if position:
        file.seek(position)
        found = file.read(2 * 65536).find(b"\0\0\1\xba")
        if found < 0:
            return 0
        position += found
    while True:
        file.seek(position)
        head = file.read(14)
        if not head.strip(b"\0"):
            return 0 if head else position  # padding
        if not head.startswith(b"\0\0\1"):
            return 0
        if len(head) < 6:
            return position + 6 if head[3:4] != b"\xb9" else position
        if head[3] == 0xB9:
            return 0
        if head[3] == 0xBA:
            is_mpeg2 = head[4] >> 6 == 1
            length = 14 + (head[13] & 7 if len(head) == 14 else 0) if is_mpeg2 else 12
        else:
            length = 6 + int.from_bytes(head[4:6], "big")
            if length == 6:
                return 0
        position += length
