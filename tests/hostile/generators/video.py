"""Video files, upright or with a display matrix, whole or cut."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".mpg": "mpeg2video"}


def write_video(path: Path, frames: Sequence[Any], **options: str) -> None:
    """Write frames, (H, W, 3) uint8 each, at 10 frames per second (25 for MPEG)."""
    import av

    with av.open(str(path), "w", options=options) as container:
        rate = 25 if path.suffix == ".mpg" else 10
        stream: Any = container.add_stream(_CODECS.get(path.suffix, "mpeg4"), rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def turned_video(path: Path, frames: Sequence[Any], angle: int) -> None:
    """Write an MP4 or MOV that players turn clockwise by 0, 90, 180 or 270 degrees."""
    write_video(path, frames)
    height, width = frames[0].shape[:2]
    one = 1 << 16
    a, b, c, d, x, y = {
        0: (one, 0, 0, one, 0, 0),
        90: (0, one, -one, 0, height << 16, 0),
        180: (-one, 0, 0, -one, width << 16, height << 16),
        270: (0, -one, one, 0, 0, width << 16),
    }[angle]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    # version 0: flags 4, times 8, track 4, reserved 4, duration 4, reserved 8, layer to volume 8
    matrix = start + 40
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, x, y, 1 << 30)
    path.write_bytes(bytes(data))
