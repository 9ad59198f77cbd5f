"""A backup that is made while it is downloaded: no copy of it is on the disk of the service."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from snl.errors import SnlError
from snl.service.archive import SUFFIX
from snl.service.backup import write_backup
from snl.service.store import Store, audit

log = logging.getLogger("snl.service")

STALL_SECONDS = 120.0
"""A client that takes nothing for so long is given up, so that others can download a backup."""
_WAITING = 16
"""Pieces of 64 KiB that wait for the client."""


class BusyError(SnlError):
    """Another backup is being downloaded."""


class BrokenOffError(SnlError):
    """A backup could not be made to its end."""


class Downloads:
    """Makes backups for downloads, one at a time.

    Args:
        store: of the service.
        data: folder of the service.
    """

    def __init__(self, store: Store, data: Path) -> None:
        self.store, self.data = store, data
        self._lock = threading.Lock()
        self._running: Download | None = None

    def start(self, who: str) -> Download:
        """Start a backup, with an audit row.

        Raises:
            BusyError: another one is being downloaded.
        """
        with self._lock:
            if self._running is not None and self._running.is_alive:
                raise BusyError("another backup is being downloaded; try again when it is complete")
            download = Download(self.store, self.data)
            with self.store.writing() as session:
                session.add(audit(who, "backup download", download.name))
            self._running = download
            download.start()
        return download

    def close(self) -> None:
        """Break off what runs."""
        with self._lock:
            if self._running is not None:
                self._running.close()


class Download:
    """A backup in pieces, which a thread makes as they are read.

    Attributes:
        name: of the file.
    """

    def __init__(self, store: Store, data: Path) -> None:
        self.name = f"snl-{datetime.now(UTC):%Y%m%d-%H%M%S}{SUFFIX}"
        self._url = store.engine.url.render_as_string(hide_password=False)
        self._data = data
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snl-backup", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether it is still being made."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin; `stop` or `close` must follow."""
        self._thread.start()

    def read(self) -> bytes | None:
        """Return the next piece; None: it was the last one.

        Raises:
            StoreError, SnlError, OSError: the backup cannot be made.
            BrokenOffError: it was closed, or the client was too slow.
        """
        while True:
            try:
                piece = self._pieces.get(timeout=1)
            except queue.Empty:
                if self.is_alive or not self._pieces.empty():
                    continue
                piece = None
            if piece is None and self._error is not None:
                raise self._error
            return piece

    def stop(self) -> None:
        """Stop soon, and remove the temporary files; a complete backup stays as it is."""
        self._closed.set()

    def close(self) -> None:
        """Stop, and wait until the temporary files are removed."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            write_backup(cast(BinaryIO, _Pieces(self._put)), self._data, self._url)
            self._put(None)
        except Exception as error:  # `read` raises it
            self._error = error
            if not isinstance(error, BrokenOffError):
                log.error("a backup was broken off: %s", error)
            while not self._closed.is_set():  # what was made is worth nothing
                with suppress(queue.Full):
                    self._pieces.put_nowait(None)
                    return
                with suppress(queue.Empty):
                    self._pieces.get_nowait()

    def _put(self, piece: bytes | None) -> None:
        """Wait until there is room for a piece.

        Raises:
            BrokenOffError: nobody takes it.
        """
        for _ in range(int(STALL_SECONDS * 2)):
            if self._closed.is_set():
                raise BrokenOffError("the download was ended")
            try:
                self._pieces.put(piece, timeout=0.5)
                return
            except queue.Full:
                continue
        raise BrokenOffError(f"the client took nothing for {STALL_SECONDS:g} seconds")


class _Pieces:
    """A stream that hands on what is written to it."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put

    def write(self, content: bytes) -> int:
        self._put(content)
        return len(content)
