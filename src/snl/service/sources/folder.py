"""A folder in which another program, such as that of a camera, puts image files.

The folder is listed again and again, which also works on network shares. A file is taken when two
listings in a row show the same size and time: a file that is being written is left alone, and one
that is renamed into place waits for the second listing. Files are known again by the store, so a
restart inspects none of them twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from snl.data.listing import is_image, is_visible, shown
from snl.errors import DataError, ImageError
from snl.service.ids import new_id
from snl.service.policy import Policy, real_path
from snl.service.sources.base import MOST_BYTES, Source, SourceImage, SourceSettings

log = logging.getLogger("snl.service")

DONE, FAILED = "done", "failed"
"""Sub-folders that are never listed."""
PATIENCE_SECONDS = 10.0
"""After how long a file that cannot be read as an image is tried again, once: it may be one that is
written with breaks."""

_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
)
Stamp = tuple[int, int]
"""Size and time of change, by which another content is noticed."""
Token = tuple[Path, Stamp, bytes]
"""A file, with the SHA-256 of its content where that counts."""


class FolderSettings(SourceSettings):
    """Settings of a folder.

    Attributes:
        folder: that is watched.
        pattern: of the names, such as `*.png`; empty: names with the suffix of an image.
        subfolders: whether sub-folders are watched too.
        product_from_subfolder: the product is the name of the first sub-folder.
        after: what becomes of a file that is in the store.
        poll: seconds between two listings.
        interval: seconds between two images, for a demonstration that looks like a line.
    """

    folder: Path
    pattern: str = Field(default="", max_length=100)
    subfolders: bool = False
    product_from_subfolder: bool = False
    after: Literal["keep", "move", "delete"] = "keep"
    poll: float = Field(default=1.0, ge=0.05, le=3600)
    interval: float = Field(default=0.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _agree(self) -> FolderSettings:
        if self.product_from_subfolder and (self.product or not self.subfolders):
            raise ValueError("product_from_subfolder needs subfolders = true, and no product")
        return self


@dataclass
class _Seen:
    """A file that was listed."""

    stamp: Stamp
    is_link: bool
    again: float | None = None
    """`time.monotonic()` after which it is tried a second time."""
    finished: bool = False


class FolderSource(Source):
    """Yields the complete image files of a folder, oldest first."""

    Settings = FolderSettings
    settings: FolderSettings

    def __init__(self, name: str, settings: FolderSettings, policy: Policy | None) -> None:
        super().__init__(name, settings, policy)
        self.pause = settings.interval
        path = str(settings.folder)
        self._root = real_path(path) if policy is None else policy.check_folder(path)

    def open(self) -> None:
        self._seen: dict[Path, _Seen] = {}
        self._left: dict[Path, tuple[Token, str]] = {}
        """Files that are finished, but could not be moved or deleted."""
        self._unlisted: set[Path] = set()
        if not self._root.is_dir():
            raise DataError("the folder is not there")
        self._list()

    def images(self) -> Iterator[SourceImage]:
        while not self.closing.wait(self.settings.poll):
            for token, where in list(self._left.values()):
                self._finish(token, where)
            for path in self._list():
                if self.closing.is_set():
                    return
                image = self._image(path, self._seen[path])
                if image is not None:
                    yield image

    def stored(self, image: SourceImage) -> None:
        self._finish(image.token, "" if self.settings.after == "delete" else DONE)

    def refused(self, image: SourceImage, why: str) -> bool:
        path, stamp, _ = image.token
        seen = self._seen.get(path)
        if seen is None or seen.stamp != stamp:
            return False
        if seen.again is None and not seen.is_link:
            seen.again = time.monotonic() + PATIENCE_SECONDS
            return False
        self._finish(image.token, FAILED)
        return True

    # --- listing ---

    def _list(self) -> list[Path]:
        """List the folder; return the files that did not change since the last time."""
        now, ready, there = time.monotonic(), [], set()
        for path, is_link, stamp in self._files():
            there.add(path)
            seen = self._seen.get(path)
            if seen is None or seen.stamp != stamp:
                self._seen[path] = _Seen(stamp, is_link)
            elif not seen.finished and (seen.again is None or seen.again <= now):
                ready.append(path)
        for path in self._seen.keys() - there:
            del self._seen[path]
            self._left.pop(path, None)
        return sorted(ready, key=lambda path: (self._seen[path].stamp[1], path))

    def _files(self) -> Iterator[tuple[Path, bool, Stamp]]:
        """Yield the files, whether each is a link, and their stamps.

        Raises:
            DataError: the folder cannot be listed now.
        """
        folders = [self._root]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = folder / entry.name
                        with suppress(FileNotFoundError):
                            status = entry.stat(follow_symlinks=False)
                            if stat.S_ISDIR(status.st_mode):
                                if self._is_watched(folder, entry.name):
                                    folders.append(path)
                            elif self._is_wanted(entry.name, status.st_mode):
                                yield path, stat.S_ISLNK(status.st_mode), _stamp(status)
            except FileNotFoundError:
                if folder == self._root:
                    raise DataError("the folder is gone") from None
            except OSError as error:
                reason = f"cannot be listed ({error.strerror or type(error).__name__})"
                if folder == self._root:
                    raise DataError(f"the folder {reason}") from None
                if folder not in self._unlisted:
                    self._unlisted.add(folder)
                    log.warning("source %s: %s: %s", self.name, shown(folder.name), reason)

    def _is_watched(self, folder: Path, name: str) -> bool:
        ours = folder == self._root and name in (DONE, FAILED)
        return self.settings.subfolders and is_visible(name) and not ours

    def _is_wanted(self, name: str, mode: int) -> bool:
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return False
        pattern = self.settings.pattern.lower()
        if not pattern:
            return is_image(name)
        return is_visible(name) and fnmatchcase(name.lower(), pattern)

    # --- files ---

    def _image(self, path: Path, seen: _Seen) -> SourceImage | None:
        """Return an image; None: the file changes, or is gone.

        A file that stays is known again by its name, size and time, so that a restart reads none of
        them. One that makes way may be followed by another with the same three, of a camera that
        always writes the same name: its content counts too. `known_as` is for files that were
        there before `after` was changed.
        """
        inside = path.relative_to(self._root)
        of_content = b""
        content: Callable[[], bytes | None] = partial(self._read, path, seen.stamp)
        if self.settings.after != "keep":
            with suppress(ImageError):  # raised again by `content`
                now = content()
                if now is None:
                    return None
                of_content = hashlib.sha256(now).digest()
                content = partial(bytes, now)
        by_stamp = b"%d %d " % seen.stamp + os.fsencode(inside)
        from_folder = self.settings.product_from_subfolder and len(inside.parts) > 1
        return SourceImage(
            content,
            shown(inside.as_posix()),
            self._key(by_stamp + of_content),
            product=shown(inside.parts[0]) if from_folder else None,
            known_as=self._key(by_stamp) if of_content else None,
            token=(path, seen.stamp, of_content),
        )

    def _key(self, content: bytes) -> str:
        return f"source:{self.name}/{hashlib.sha256(content).hexdigest()}"

    def _read(self, path: Path, stamp: Stamp) -> bytes | None:
        """Return a file's content; None: it changes, or is gone.

        Raises:
            ImageError: it cannot be read, or is no file of this folder.
        """
        name = shown(path.relative_to(self._root).as_posix())
        if path.is_symlink() or path.parent.resolve() != path.parent:
            raise ImageError(f"{name} is a symbolic link, which is not followed")
        try:
            with open(os.open(path, _FLAGS), "rb") as file:  # noqa: PTH123
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError(f"{name} is not a regular file")
                if status.st_size > MOST_BYTES:
                    raise ImageError(f"{name} is larger than {MOST_BYTES // 2**20} MiB")
                content = file.read(stamp[0] + 1)
                same = _stamp(os.fstat(file.fileno())) == stamp
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ImageError(f"{name} cannot be read ({reason})") from None
        return content if same and len(content) == stamp[0] else None

    def _finish(self, token: Token, where: str) -> None:
        """Do with a file what becomes of it: keep it, or move it to a sub-folder, or delete it."""
        path, stamp, _ = token
        seen = self._seen.get(path)
        if seen is not None and seen.stamp == stamp:
            seen.finished = True
        if self.settings.after == "keep":
            return
        try:
            self._take(token, where)
        except OSError as error:
            if path not in self._left:
                name = shown(path.relative_to(self._root).as_posix())
                log.warning("source %s: %s stays for now (%s)", self.name, name, error.strerror)
            self._left[path] = token, where
        else:
            self._left.pop(path, None)

    def _take(self, token: Token, where: str) -> None:
        """Move a file, or delete it; another one that has got its name meanwhile stays.

        Raises:
            OSError: it cannot be moved.
        """
        path, stamp, of_content = token
        if where:
            target = self._root / where / path.relative_to(self._root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.parent.resolve() != target.parent:
                raise OSError(0, f"{where} has a symbolic link")
            if os.path.lexists(target):
                target = target.with_name(_other(path.name))
        else:
            target = path.with_name(f".snl-{new_id()}")
        try:
            path.rename(target)
        except FileNotFoundError:  # another program took it
            return
        same = _stamp(target.lstat()) == stamp
        if same and of_content:  # neither size nor time need to differ
            same = hashlib.sha256(target.read_bytes()).digest() == of_content
        if not same:
            target.rename(path.with_name(_other(path.name)))
        elif not where:
            target.unlink()


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


def _other(name: str) -> str:
    """Return a name that no other file has."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    return f"{os.fsdecode(os.fsencode(stem)[:150])}-{new_id()}{suffix[:20]}"
