"""The thread of a source: it opens the source, inspects what comes, and opens it again."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from snl.data.listing import shown
from snl.errors import DependencyError, ImageError, PluginError, SettingsError, SnlError
from snl.service.batching import ClosedError, FullError, LateError
from snl.service.connectors import masked
from snl.service.models import Models, NoModelError
from snl.service.sources.base import Source, SourceImage
from snl.service.store import DuplicateError, Store, StoreError
from snl.service.tables import InspectionRow
from snl.service.upload import Upload

log = logging.getLogger("snl.service")

FIRST_SECONDS, MOST_SECONDS = 1.0, 60.0
"""First and longest time between two attempts."""
STOP_SECONDS = 10.0
"""How long a source may take to stop."""
MOST_DEFECTS = 3
"""Attempts at an image that makes an error which is not its own."""

State = Literal["running", "paused", "reconnecting", "ended", "failed"]


@dataclass
class Status:
    """What a source does, and has done since the service started.

    Attributes:
        state: `reconnecting`: it is opened, now or after a while; `ended`: a video is at its end;
            `failed`: it cannot run until something is changed.
        error: the last one.
        images: that were inspected.
        known: that were in the store already, and were not inspected again.
        dropped: that were left out because the service was busy.
        failed: that cannot be inspected.
        last: time of the last inspection.
    """

    state: State = "reconnecting"
    error: str = ""
    images: int = 0
    known: int = 0
    dropped: int = 0
    failed: int = 0
    last: datetime | None = None


class Backoff:
    """Growing times between attempts, with jitter: sources that failed together do not all come
    back at the same moment."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin with the first time again."""
        self._seconds = FIRST_SECONDS

    def next(self) -> float:
        """Return how many seconds to wait."""
        seconds, self._seconds = self._seconds, min(2 * self._seconds, MOST_SECONDS)
        return min(seconds * random.uniform(1.0, 1.5), MOST_SECONDS)


class Runner:
    """Runs one source in a thread, from `start` to `stop`, any number of times.

    Args:
        name: of the source.
        make: returns a new source.
        inspect: stores an inspection, as `Service.inspect`.
        store: of the inspections.
        models: that inspect.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Source],
        inspect: Callable[[Upload], InspectionRow],
        store: Store,
        models: Models,
    ) -> None:
        self.name, self.make, self.inspect, self.store = name, make, inspect, store
        self.models = models
        self.status = Status()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._source: Source | None = None
        self._final = False
        """Whether the source is not opened again after an error."""

    def start(self) -> None:
        """Start the thread.

        Raises:
            SettingsError: the one before has yet to stop.
        """
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(STOP_SECONDS if self._stop.is_set() else 0)
            if self._thread.is_alive():
                raise SettingsError(f"source {self.name} is running, or has yet to stop")
        self._stop = threading.Event()
        self.status.state, self.status.error = "reconnecting", ""
        self._thread = threading.Thread(
            target=self._run, name=f"snl-source-{self.name}", daemon=True
        )
        self._thread.start()

    def signal(self) -> None:
        """Let the thread stop soon."""
        self._stop.set()
        with self._lock:
            source = self._source
        if source is not None:
            source.close()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop; an image that is being inspected is finished.

        Args:
            seconds: after which it is not waited for; the thread then ends when it can.
        """
        self.signal()
        if self._thread is not None:
            self._thread.join(seconds)

    def trigger(self) -> None:
        """Take one image now.

        Raises:
            SettingsError: the source does not run, or takes no trigger.
        """
        with self._lock:
            source = self._source
        if source is None or self.status.state != "running":
            raise SettingsError(f"source {self.name} is {self.status.state}; it takes no image now")
        source.trigger()

    # --- the thread ---

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stop.is_set():
            state: State = "reconnecting"
            try:
                if self._use(backoff):
                    state = "ended"
            except (DependencyError, PluginError) as error:
                self._note(error)
                state = "failed"
            except (SnlError, OSError) as error:
                self._note(error)
                if self._final:
                    state = "failed"
            except Exception as error:  # the thread must live
                log.exception("source %s", self.name)
                self._note(error)
            self._set(state)
            if state != "reconnecting":
                return
            self._stop.wait(backoff.next())

    def _use(self, backoff: Backoff) -> bool:
        """Run a new source until it ends, fails or is stopped; return whether it has ended."""
        self._final = True  # settings that do not allow it
        source = self.make()
        self._final = source.ends
        self.models.active(source.settings.model)
        with self._lock:
            self._source = source
        dropped = self.status.dropped
        try:
            if self._stop.is_set():
                return False
            source.open()
            self._set("running")
            with closing(source.images()) as images:  # type: ignore[type-var]
                for image in images:
                    dropped += self._take(source, image)
                    self.status.dropped = dropped + source.dropped
                    backoff.reset()
                    if self._stop.is_set():
                        break
            return True
        finally:
            with self._lock:
                self._source = None
            source.close()

    def _set(self, state: State) -> None:
        if not self._stop.is_set():
            self.status.state = state

    def _note(self, error: Exception) -> None:
        """Show an error as the last one, and log it if it is another one than before."""
        cause, error = error, _without_internals(error)
        text = masked(" ".join(str(error).split())[:500]) or type(error).__name__
        if not self._stop.is_set():
            if text != self.status.error:
                log.warning("source %s: %s", self.name, masked(str(cause)))
            self.status.error = text

    def _take(self, source: Source, image: SourceImage) -> int:
        """Inspect an image, unless it is in the store; wait while the service cannot.

        Returns:
            The number of dropped images: 1 or 0.

        Raises:
            SnlError, OSError: the source cannot go on; the image will come again.
        """
        backoff, defects, status = Backoff(), 0, self.status
        content: bytes | None = None
        while not self._stop.is_set():
            try:
                if self._is_known(image):
                    raise DuplicateError("the image is in the store")
                if content is None and (content := self._content(source, image)) is None:
                    return 0
                self.inspect(self._upload(source, image, content))
                status.images, status.last = status.images + 1, datetime.now(UTC)
                self._stop.wait(source.pause)
            except DuplicateError:
                status.known += 1
            except (FullError, LateError, ClosedError) as error:
                if source.live and not isinstance(error, ClosedError):
                    return 1
                seconds = self.models.active(source.settings.model).batcher.wait_seconds()
                self._stop.wait(min(max(seconds, 0.05), 1.0))
                continue
            except (StoreError, OSError) as error:
                self._note(error)
                self._stop.wait(backoff.next())
                continue
            except _SourceError as error:
                raise error.cause from None
            except ImageError as error:
                self._refuse(source, image, error)
                return 0
            except (NoModelError, SettingsError) as error:
                if image.product is None or isinstance(error, NoModelError):
                    raise  # what the settings of the source say
                self._refuse(source, image, error)
                return 0
            except Exception as error:
                log.exception("source %s, image %s", self.name, shown(image.name))
                defects += 1
                if defects >= MOST_DEFECTS:
                    self._refuse(source, image, error)
                    return 0
                self._stop.wait(backoff.next())
                continue
            source.stored(image)
            break
        return 0

    def _is_known(self, image: SourceImage) -> bool:
        keys = (image.key, image.known_as)
        return any(key is not None and self.store.by_key(key) is not None for key in keys)

    def _content(self, source: Source, image: SourceImage) -> bytes | None:
        try:
            return image.content()
        except ImageError:
            raise
        except (SnlError, OSError) as error:
            raise _SourceError(error) from None

    def _upload(self, source: Source, image: SourceImage, content: bytes) -> Upload:
        settings = source.settings
        return Upload(
            content,
            shown(image.name),
            settings.model,
            image.product or settings.product or None,
            shown(image.part),
            image.key,
            f"source:{self.name}",
        )

    def _refuse(self, source: Source, image: SourceImage, error: Exception) -> None:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        if source.refused(image, why):
            self.status.failed += 1
            name = shown(image.name)
            self._note(ImageError(why if name in why else f"{name}: {why}"))


def _without_internals(error: Exception) -> Exception:
    """Return an error as everybody may see it, without hosts and paths."""
    if isinstance(error, StoreError):
        return StoreError("the store cannot be used now; it is tried again")
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return StoreError(f"images cannot be read or stored now ({reason}); it is tried again")
    if isinstance(error, SnlError):
        return error
    return SnlError(f"a defect ({type(error).__name__}); the log of the service has the details")


class _SourceError(Exception):
    """The source itself failed while it read an image."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause
