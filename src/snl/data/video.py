"""Frames of a video file, a network stream or a camera, by PyAV."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.images import one_line
from snl.errors import DataError, DependencyError

EXTENSIONS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"})
_LIVE = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
_CAMERA = "camera"
_PATIENCE = 10.0  # seconds for a stream to begin, and between two frames


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    image: np.ndarray
    """uint8 (H, W, 3) RGB."""
    number: int
    """From 0; frames that were dropped are counted."""
    seconds: float
    """Since the first frame, by the source's own clock."""


def is_video(source: str) -> bool:
    """Whether a word names a video, a stream or a camera, and not an image or a folder."""
    return is_live(source) or Path(source).suffix.lower() in EXTENSIONS


def is_live(source: str) -> bool:
    """Whether frames come by themselves, whether or not anyone is ready for them."""
    kind, _, rest = source.partition(":")
    return (kind == _CAMERA and rest.isdecimal()) or (kind in _LIVE and rest.startswith("//"))


def frames(source: str) -> Iterator[Frame]:
    """The frames of a source: of a file every one, of a live source the newest there is.

    A live source is read by a thread that keeps one frame alone. So what comes out is never older
    than the last one, however slow the reader is: frames are dropped, not queued.

    Args:
        source: file, `rtsp://...` and other addresses, or `camera:0` (`/dev/video0`).

    Raises:
        DependencyError: PyAV is missing.
        DataError: it cannot be opened or read, or holds no frame.
    """
    if is_live(source):
        with _Newest(source) as newest:
            yield from newest
    else:
        yield from _decoded(source)


def _decoded(source: str) -> Iterator[Frame]:
    try:
        import av
    except ImportError as error:
        raise DependencyError(
            f"{source}: videos need PyAV ({error}): pip install 'snl-ad[video]'"
        ) from None
    if not is_live(source) and not Path(source).is_file():
        raise DataError(f"{source}: no such file; check the path")
    where: dict[str, Any] = {"file": source}
    if source.startswith(_CAMERA + ":"):
        where = {"file": f"/dev/video{source.partition(':')[2]}", "format": "v4l2"}
    elif is_live(source):
        where["timeout"] = _PATIENCE
    number = -1
    try:
        with av.open(**where) as container:
            if not container.streams.video:
                raise DataError(f"{source}: holds no video; give another file or address")
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
        raise DataError(f"{source}: holds no frame; give another file or address")


class _Newest:
    """The newest frame of a live source; reading begins with the `with` and ends with it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._ready = threading.Condition()
        self._frame: Frame | None = None
        self._error: Exception | None = None
        self._over = self._stop = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Newest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(timeout=_PATIENCE)

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._frame is not None or self._over)
                frame, self._frame = self._frame, None
            if frame is None:
                if self._error is not None:
                    raise self._error
                return
            yield frame

    def _read(self) -> None:
        try:
            for frame in _decoded(self._source):
                with self._ready:
                    self._frame = frame
                    self._ready.notify()
                if self._stop:
                    return
        except Exception as error:  # raised again where it is read
            self._error = error
        finally:
            with self._ready:
                self._over = True
                self._ready.notify()
