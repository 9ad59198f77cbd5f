"""Cameras, network streams and video files."""

from __future__ import annotations

import hashlib
import io
import re
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import numpy as np
from PIL import Image
from pydantic import Field, SecretStr

from snl.data.listing import shown
from snl.data.video import Frame, LatestFrame, frames
from snl.errors import DataError, SettingsError
from snl.service.ids import new_id
from snl.service.policy import Policy, real_path
from snl.service.sinks.base import allowed_address
from snl.service.sources.base import Source, SourceImage, SourceSettings

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https")
FFMPEG = {
    "max_redirects": "0",
    "http_proxy": "",
    "rtsp_flags": "prefer_tcp",
    "protocol_whitelist": "rtsp,rtmp,http,https,rtp,srtp,tcp,udp,tls,crypto",
    "format_whitelist": "rtsp,flv,live_flv,mpjpeg,mjpeg,jpeg_pipe,png_pipe,mpegts,h264,hevc,avi,"
    "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg",
}
"""Options for a stream: no redirects, playlists and proxies, which would lead to other addresses;
no UDP, which loses parts of images, where the camera also knows TCP."""
STOP_SECONDS = 2.0
"""How long a reader may take to stop; one that waits for the network ends by itself."""
LOOK_SECONDS = 0.2
"""How often a source that waits looks whether the stream has ended."""
_URL = re.compile(r"(?:\w+://|camera:)\S*?(?=[:,;')]*(?:\s|$))")
"""An address in a message, which may have a password."""

Format = Literal["png", "jpeg"]


class LiveSettings(SourceSettings):
    """Settings of a camera or stream.

    Attributes:
        every: seconds between two images; 0: as many as the service can process.
        trigger: `auto`: by `every`; `manual`: only when it is asked for one.
        format: how frames are stored; `png` without loss, so that they can be decided again and
            used for training, `jpeg` about ten times smaller.
    """

    every: float = Field(default=1.0, ge=0, le=86_400)
    trigger: Literal["auto", "manual"] = "auto"
    format: Format = "png"


class LiveSource(Source):
    """Yields the newest frame of what delivers frames at its own rate."""

    noun: ClassVar[str] = "stream"
    settings: LiveSettings

    def __init__(self, name: str, settings: Any, policy: Policy | None) -> None:
        super().__init__(name, settings, policy)
        self.live = settings.trigger == "auto"
        self._asked = Event()
        self._latest = LatestFrame(self.address(), FFMPEG)

    @abstractmethod
    def address(self) -> str:
        """Return what PyAV opens."""

    def open(self) -> None:
        """Connect, and wait for the first frame."""
        self._latest.__enter__()
        self._frames = iter(self._latest)
        self._next(-1)

    def images(self) -> Iterator[SourceImage]:
        """Yield frames until the source is closed.

        Raises:
            DataError: there are no more frames.
        """
        due, number = time.monotonic(), -1
        try:
            while self._wait(due):
                if not self.live:
                    self._latest.discard()
                elif self.settings.every:
                    late = int((time.monotonic() - due) // self.settings.every)
                    self.dropped += late
                    due += (late + 1) * self.settings.every
                number, image = self._next(number)
                if image is None:
                    return
                self._asked.clear()
                yield SourceImage(
                    partial(encoded, image, self.settings.format),
                    f"{self.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.{self.settings.format}",
                    f"source:{self.name}/{new_id()}",
                )
        finally:
            self._latest.stop(STOP_SECONDS)

    def trigger(self) -> None:
        """Take the first frame from now on.

        Raises:
            SettingsError: the source is not triggered, or the frame before is not yet taken.
        """
        if self.live:
            raise SettingsError(f"source {self.name} takes images by itself: trigger is not manual")
        if self._asked.is_set():
            raise SettingsError(f"source {self.name}: the image before has yet to be taken")
        self._asked.set()

    def close(self) -> None:
        """Stop reading."""
        super().close()
        self._latest.stop()

    def _wait(self, due: float) -> bool:
        """Wait until a frame is wanted; False: the source was closed.

        Raises:
            DataError: the stream has ended.
        """
        while not self.closing.is_set():
            left = min(LOOK_SECONDS, due - time.monotonic()) if self.live else LOOK_SECONDS
            if left <= 0 or (not self.live and self._asked.wait(left)):
                return True
            if self.live:
                self.closing.wait(left)
            if self._latest.ended:
                self._latest.discard()
                self._next(-1)
        return False

    def _next(self, number: int) -> tuple[int, np.ndarray | None]:
        """Return the number of the newest frame and the frame; None: the source was closed.

        Args:
            number: of the frame before.

        Raises:
            DataError: there is none.
        """
        try:
            frame = next(self._frames, None)
        except DataError as error:
            raise DataError(_URL.sub(f"the {self.noun}", str(error))) from None
        if frame is None and not self.closing.is_set():
            raise DataError(f"the {self.noun} has ended")
        if frame is None:
            return number, None
        if self.live and not self.settings.every and number >= 0:
            self.dropped += frame.number - number - 1
        return frame.number, frame.image


class CameraSettings(LiveSettings):
    """Settings of a camera of this machine.

    Attributes:
        device: number of the camera: 0 for `/dev/video0`.
    """

    device: int = Field(default=0, ge=0, le=63)


class CameraSource(LiveSource):
    """A camera of this machine."""

    Settings = CameraSettings
    noun = "camera"
    settings: CameraSettings

    def address(self) -> str:
        return f"camera:{self.settings.device}"


class StreamSettings(LiveSettings):
    """Settings of a network stream.

    Attributes:
        url: `rtsp://...`, `http://...` and so on.
        username, password: for the stream; empty: none.
    """

    url: str = Field(max_length=2000)
    username: str = Field(default="", max_length=500)
    password: SecretStr = SecretStr("")


class StreamSource(LiveSource):
    """A network stream, such as that of an IP camera."""

    Settings = StreamSettings
    settings: StreamSettings

    def __init__(self, name: str, settings: StreamSettings, policy: Policy | None) -> None:
        allowed_address(settings.url, SCHEMES, policy)
        super().__init__(name, settings, policy)

    def address(self) -> str:
        settings = self.settings
        if not settings.username:
            return settings.url
        login = f"{quote(settings.username, '')}:{quote(settings.password.get_secret_value(), '')}"
        return settings.url.replace("//", f"//{login}@", 1)


class VideoSettings(SourceSettings):
    """Settings of a video file.

    Attributes:
        file: that is read once.
        every: seconds of the video between two images; 0: every frame.
        format: as of a camera.
    """

    file: Path
    every: float = Field(default=0.0, ge=0, le=86_400)
    format: Format = "png"


class VideoSource(Source):
    """A video file, whose frames are inspected once, also over a restart."""

    Settings = VideoSettings
    ends = True
    settings: VideoSettings

    def __init__(self, name: str, settings: VideoSettings, policy: Policy | None) -> None:
        super().__init__(name, settings, policy)
        path = str(settings.file)
        self._path = real_path(path) if policy is None else policy.check_folder(path)

    def open(self) -> None:
        """Look whether the file is there."""
        if not self._path.is_file():
            raise DataError("the file is not there")

    def images(self) -> Iterator[SourceImage]:
        """Yield the frames that are due by the time of the video."""
        status = self._path.stat()
        digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} {self._path}".encode(
            "utf-8", "surrogateescape")).hexdigest()[:32]  # fmt: skip
        due = 0.0
        with self._decoded() as decoded:
            for frame in decoded:
                if self.closing.is_set():
                    return
                if frame.seconds + 1e-6 < due:
                    continue
                if self.settings.every:
                    due = self.settings.every * (1 + (frame.seconds + 1e-6) // self.settings.every)
                yield SourceImage(
                    partial(encoded, frame.image, self.settings.format),
                    f"{shown(self._path.stem)}-{frame.number:06d}.{self.settings.format}",
                    f"source:{self.name}/{digest}/{frame.number}",
                )

    @contextmanager
    def _decoded(self) -> Iterator[Iterator[Frame]]:
        decoded = frames(str(self._path))
        try:
            with closing(decoded):  # type: ignore[type-var]
                yield decoded
        except DataError as error:
            raise DataError(str(error).replace(str(self._path), "the video")) from None


def encoded(image: np.ndarray, kind: Format) -> bytes:
    """Return a frame as an image file.

    Args:
        image: (H, W, 3) uint8.
        kind: of the file.
    """
    buffer = io.BytesIO()
    if kind == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
