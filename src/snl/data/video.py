"""Read the frames of a video file, a network stream or a camera with PyAV."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.source import one_line
from snl.errors import DataError, DependencyError

EXTENSIONS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"})
_LIVE = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
_CAMERA = "camera"
_TIMEOUT = 10.0  # seconds, for a stream to start and between two frames


@dataclass(frozen=True)
class Frame:
    """One frame of a video or live source."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    number: int
    """Number of the frame, from 0; dropped frames are counted."""
    seconds: float
    """Time since the first frame, by the timestamps of the source."""


def is_video(source: str) -> bool:
    """Return True if an argument is a video, a stream or a camera, not an image or a folder."""
    return is_live(source) or Path(source).suffix.lower() in EXTENSIONS


def is_live(source: str) -> bool:
    """Return True if a source is live: it delivers frames at its rate, read or not."""
    scheme, _, address = source.partition(":")
    is_camera = scheme == _CAMERA and address.isdecimal()
    return is_camera or (scheme in _LIVE and address.startswith("//"))


def frames(source: str) -> Iterator[Frame]:
    """Yield the frames of a source: every frame of a file, the newest frame of a live source.

    A live source is read by a thread that keeps only the latest frame. A slow consumer therefore
    never gets an old frame: frames are dropped, not queued.

    Args:
        source: file, address (`rtsp://...`, `http://...`, ...), or `camera:0` (`/dev/video0`).

    Raises:
        DependencyError: PyAV is not installed.
        DataError: the source cannot be opened or read, or has no frame.
    """
    if is_live(source):
        with _LatestFrame(source) as latest:
            yield from latest
    else:
        yield from _decode(source)


def _decode(source: str) -> Iterator[Frame]:
    try:
        import av
    except ImportError as error:
        raise DependencyError(
            f"{source}: reading videos needs PyAV ({error}); run: pip install 'snl-ad[video]'"
        ) from None
    if not is_live(source) and not Path(source).is_file():
        raise DataError(f"{source}: no such file; check the path")
    options: dict[str, Any] = {"file": source}
    if source.startswith(_CAMERA + ":"):
        options = {"file": f"/dev/video{source.partition(':')[2]}", "format": "v4l2"}
    elif is_live(source):
        options["timeout"] = _TIMEOUT
    number = -1
    try:
        with av.open(**options) as container:
            if not container.streams.video:
                raise DataError(f"{source}: has no video stream; give another file or address")
            first = None
            for number, frame in enumerate(container.decode(video=0)):
                time = float(frame.time or 0.0)
                first = time if first is None else first
                yield Frame(frame.to_ndarray(format="rgb24"), number, time - first)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(
            f"{source}: cannot be read after frame {number} ({one_line(error)[:120]}); check the "
            "file, the address or the camera"
        ) from None
    if number < 0:
        raise DataError(f"{source}: has no frames; give another file or address")


class _LatestFrame:
    """Iterator over the latest frames of a live source, which is read during the `with` block."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._ready = threading.Condition()
        self._frame: Frame | None = None
        self._error: Exception | None = None
        self._ended = self._stop = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _LatestFrame:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(timeout=_TIMEOUT)

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._frame is not None or self._ended)
                frame, self._frame = self._frame, None
            if frame is None:
                if self._error is not None:
                    raise self._error
                return
            yield frame

    def _read(self) -> None:
        try:
            for frame in _decode(self._source):
                with self._ready:
                    self._frame = frame
                    self._ready.notify()
                if self._stop:
                    return
        except Exception as error:  # raised again by __iter__, in the consumer's thread
            self._error = error
        finally:
            with self._ready:
                self._ended = True
                self._ready.notify()
