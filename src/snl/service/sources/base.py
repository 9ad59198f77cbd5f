"""What a source of images is; a package adds one in the entry-point group `snl.sources`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from snl.errors import SettingsError
from snl.service.connectors import ConnectorSettings, Kinds
from snl.service.policy import Policy

MOST_BYTES = 256 * 2**20
"""Largest image file."""

KINDS = Kinds(
    "source",
    "snl.sources",
    {
        "folder": "snl.service.sources.folder:FolderSource",
        "camera": "snl.service.sources.live:CameraSource",
        "stream": "snl.service.sources.live:StreamSource",
        "video": "snl.service.sources.live:VideoSource",
        "mqtt": "snl.service.sources.mqtt:MqttSource",
    },
)


class SourceSettings(ConnectorSettings):
    """Settings of every source.

    Attributes:
        model: that inspects; empty: the first one.
        product: that the images show; empty: it is recognised.
    """

    model: str = Field(default="", max_length=100)
    product: str = Field(default="", max_length=200)


@dataclass(frozen=True)
class SourceImage:
    """An image that a source has.

    Attributes:
        content: returns the image file; None: it is no longer there. It is called only if the store
            does not have `key`.
        name: that is shown.
        key: by which the same image is known again; None: every image is new.
        known_as: another key that it may have in the store.
        part: physical part.
        product: that it shows; None: that of the settings.
        token: by which the source knows it again.
    """

    content: Callable[[], bytes | None]
    name: str = ""
    key: str | None = None
    part: str = ""
    product: str | None = None
    known_as: str | None = None
    token: Any = None


class Source(ABC):
    """A source of images, from `open` to `close`; after that it is not used again.

    Making one connects to nothing.

    All methods but `close` and `trigger` are called by one thread. A source that cannot go on
    raises an SnlError or OSError of one line; it is then made and opened again after a while.

    Args:
        name: of the source.
        settings: an instance of `Settings`.
        policy: what it may reach, where the API has set it up; None: the configuration has.

    Raises:
        SettingsError: it may not reach what the settings say.
    """

    Settings: ClassVar[type[SourceSettings]] = SourceSettings
    live: bool = False
    """Whether an image that cannot be inspected at once is dropped: the next one is newer."""
    pause: float = 0.0
    """Seconds after each image that was inspected; those that are known follow one another."""
    ends: ClassVar[bool] = False
    """Whether the source ends with its last image, or with an error, and is not opened again."""

    def __init__(self, name: str, settings: Any, policy: Policy | None) -> None:
        self.name, self.settings = name, settings
        self.closing = threading.Event()
        self.dropped = 0
        """Images that the source itself has dropped."""

    @abstractmethod
    def open(self) -> None:
        """Connect; return when images can come."""

    @abstractmethod
    def images(self) -> Iterator[SourceImage]:
        """Yield images until the source ends or is closed."""

    def stored(self, image: SourceImage) -> None:  # noqa: B027
        """Take note that an image is in the store."""

    def refused(self, image: SourceImage, why: str) -> bool:
        """Take note that an image cannot be inspected.

        Returns:
            Whether that is final; False: it will come again.
        """
        return True

    def trigger(self) -> None:
        """Take one image now.

        Raises:
            SettingsError: the source takes images by itself.
        """
        raise SettingsError(f"source {self.name} takes no trigger; only cameras and streams do")

    def close(self) -> None:
        """Stop soon; called from any thread, and more than once."""
        self.closing.set()
