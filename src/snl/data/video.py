"""Read the frames of a video file, a network stream or a camera with PyAV."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.source import one_line
from snl.data.video_files import ends_early, lacks_index
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
    if is_live(source):
        return True
    return Path(source).suffix.lower() in EXTENSIONS and not Path(source).is_dir()


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
        DataError: the source cannot be opened or read, or has no frame; also, after the last good
            frame, if a file is truncated or has damaged frames.
    """
    if is_live(source):
        with LatestFrame(source) as latest:
            yield from latest
    else:
        yield from _decode(source)


def _decode(source: str, settings: Mapping[str, str] | None = None) -> Iterator[Frame]:
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
        options |= {"timeout": _TIMEOUT, "options": dict(settings or {})}
    is_file = "format" not in options and not is_live(source)
    number, damaged, cut = -1, 0, False
    first: float | None = None
    time: float | None = None
    try:
        cut = is_file and ends_early(source)
        with av.open(**options) as container:
            if not container.streams.video:
                if cut:
                    raise DataError(_without_index(source))
                raise DataError(f"{source}: has no video stream; give another file or address")
            stream = container.streams.video[0]
            packets = _Packets(container, stream, cut)
            for number, frame in enumerate(packets.frames()):
                if frame.is_corrupt and (cut or first is not None):  # normal before the first one
                    damaged += 1
                    continue
                time = _time(frame, stream, time)
                first = time if first is None else first
                image = upright(frame.to_ndarray(format="rgb24"), _display_matrix(frame))
                yield Frame(image, number, time - first)
            about = _stated_frames(stream, container)
            # Only what follows the last frame may be missing, such as sound or an index.
            cut = (cut or packets.incomplete) and not 0 < stream.frames <= number + 1 - damaged
    except (av.FFmpegError, OSError, ValueError) as error:
        if is_file and number < 0 and (cut or _lacks_index(source)):
            raise DataError(_without_index(source)) from None
        raise DataError(
            f"{source}: cannot be read after frame {number} ({one_line(error)[:120]}); check the "
            "file, the address or the camera"
        ) from None
    if is_file and cut:
        last = number - damaged
        where = f"after frame {last}" if last >= 0 else "before its first frame"
        raise DataError(
            f"{source}: the file is truncated: the video ends {where}"
            f"{f' of about {about}' if about > last else ''}; copy or record it again"
        )
    if is_file and damaged:
        raise DataError(
            f"{source}: {damaged} of {number + 1} frames are damaged and were left out; copy or "
            "record it again"
        )
    if number < 0:
        raise DataError(f"{source}: has no frames; give another file or address")


def _time(frame: Any, stream: Any, previous: float | None) -> float:
    """Return the time of a frame in seconds; without a timestamp, one frame after the previous."""
    if frame.time is not None and math.isfinite(frame.time):
        return float(frame.time)
    if previous is None:
        return 0.0
    return previous + (1 / float(stream.average_rate) if stream.average_rate else 0.0)


class _Packets:
    """The packets of a video stream, without one that the end of the file cuts off.

    Args:
        container, stream: of PyAV.
        cut: whether the file ends early.
    """

    def __init__(self, container: Any, stream: Any, cut: bool) -> None:
        self._container, self._stream, self._cut = container, stream, cut
        self.incomplete = False
        """True after an incomplete packet at the end."""

    def frames(self) -> Iterator[Any]:
        """Yield the decoded frames."""
        for packet in self._packets():
            yield from packet.decode()
        yield from self._stream.decode(None)

    def _packets(self) -> Iterator[Any]:
        # Transport and program streams have no sizes by which an incomplete packet is marked.
        unmarked = self._container.format.name in ("mpegts", "mpeg")
        held = None
        for packet in self._container.demux(self._stream):
            if not packet.size:  # flushes the decoder, which `frames` does
                continue
            if held is not None:
                yield held
            held = packet
        if held is None:
            return
        self.incomplete = held.is_corrupt
        if not (self.incomplete or (self._cut and unmarked)):
            yield held


def _stated_frames(stream: Any, container: Any) -> int:
    """Return the number of frames by the header of a file, perhaps estimated; 0: unknown."""
    if stream.frames:
        return int(stream.frames)
    seconds = float(container.duration or 0) / 1e6
    return round(seconds * float(stream.average_rate or 0))


def _without_index(source: str) -> str:
    return (
        f"{source}: is truncated, or its recording was not ended: its index of frames is missing; "
        "copy or record it again"
    )


def _lacks_index(source: str) -> bool:
    try:
        return lacks_index(source)
    except OSError:
        return False


def upright(image: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """Return a frame as it is to be shown: turned by 90 degrees or mirrored.

    Args:
        image: (H, W, 3).
        matrix: display matrix of FFmpeg and MP4: a, b, u, c, d, v, x, y, w; x' = a x + c y,
            y' = b x + d y. None, or a turn by another angle: the frame is returned as it is.
    """
    if matrix is None:
        return image
    a, b, _, c, d = (np.sign(value) if abs(value) > 100 else 0 for value in matrix[:5])
    if a and d and not b and not c:
        turned = image[:: int(d), :: int(a)]
    elif b and c and not a and not d:
        turned = image.transpose(1, 0, 2)[:: int(b), :: int(c)]
    else:
        return image
    return np.ascontiguousarray(turned)


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            content = bytes(data)
            return struct.unpack("=9i", content) if len(content) == 36 else None
    return None


class LatestFrame:
    """Iterator over the latest frames of a live source, which is read during the `with` block.

    Args:
        source: address or camera, as for `frames`.
        settings: options of FFmpeg for an address.
    """

    def __init__(self, source: str, settings: Mapping[str, str] | None = None) -> None:
        self._source, self._settings = source, settings
        self._ready = threading.Condition()
        self._frame: Frame | None = None
        self._error: Exception | None = None
        self._ended = self._stop = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> LatestFrame:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(_TIMEOUT)

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._frame is not None or self._ended or self._stop)
                frame, self._frame = self._frame, None
            if frame is None or self._stop:
                if self._error is not None and not self._stop:
                    raise self._error
                return
            yield frame

    @property
    def ended(self) -> bool:
        """Whether no further frame comes."""
        return self._ended or self._stop

    def discard(self) -> None:
        """Forget the frame that waits: the next one is newer than this call."""
        with self._ready:
            self._frame = None

    def stop(self, seconds: float = 0.0) -> None:
        """End the iteration, from any thread; wait at most some seconds until nothing is read."""
        with self._ready:
            self._stop = True
            self._ready.notify_all()
        if seconds and self._thread.ident is not None:
            self._thread.join(seconds)

    def _read(self) -> None:
        try:
            for frame in _decode(self._source, self._settings):
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
