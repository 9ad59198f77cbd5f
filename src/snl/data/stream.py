"""Read images or tiles in order and in batches, decoded ahead by threads in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from snl.data.images import load_image, to_input
from snl.data.tiles import Tile, cut
from snl.errors import ImageError


@dataclass(frozen=True)
class Loaded:
    """One decoded image or tile with its network input."""

    index: int
    """Index in the list of sources."""
    pixels: np.ndarray
    """Network input, (size, size, 3) uint8."""
    original: tuple[int, int]
    """(height, width) of the image before resizing; for a tile, of the whole image."""
    image: np.ndarray | None = None
    """The decoded image, (H, W, 3) uint8, or None if `read` was called without `whole`."""
    source: Any = None
    """The source it was read from: a path, an array or a tile."""


class LazyImage:
    """The image of one or more sources, decoded once, by the first thread that needs it.

    The image stays in memory as long as this object exists.
    """

    def __init__(self, source: Any) -> None:
        self.path = source.path if isinstance(source, Tile) else source
        self._lock = Lock()
        self._image: np.ndarray | ImageError | None = None

    def get(self) -> np.ndarray | ImageError:
        """Return the image, (H, W, 3) uint8, or the error of reading it; always the same object."""
        with self._lock:
            if self._image is None:
                try:
                    self._image = load_image(self.path)
                except ImageError as error:
                    self._image = error
            return self._image

    def has_tile(self, source: Any) -> bool:
        """Return True if the source is a tile of the same file."""
        return isinstance(source, Tile) and source.path == self.path


def prepare(image: np.ndarray, source: Any, size: int) -> np.ndarray:
    """Return the network input of a source, (size, size, 3) uint8.

    Args:
        image: the decoded image of the source, (H, W, 3) uint8.
        source: a tile, which is cut out, or anything else: the whole image.
        size: side of the square input in pixels.
    """
    return to_input(cut(image, source.box) if isinstance(source, Tile) else image, size)


def read(
    sources: Iterable[Any], size: int, workers: int | None = None, *, whole: bool = False
) -> Iterator[Loaded | ImageError]:
    """Yield every source in order, or its error. At most a few dozen are in memory at a time.

    Consecutive tiles of the same file share one decoded image. If it cannot be decoded, its error
    is yielded once.

    Args:
        sources: image files, tiles, or anything else that `load_image` accepts.
        size: side of the square input in pixels.
        workers: number of decoding threads; None: one per core, at most 8.
        whole: yield the decoded images as well.
    """
    workers = workers or min(8, os.cpu_count() or 1)

    def load(index: int, source: Any, lazy_image: LazyImage) -> Loaded | ImageError:
        image = lazy_image.get()
        if isinstance(image, ImageError):
            return image
        height, width = image.shape[:2]
        pixels = prepare(image, source, size)
        return Loaded(index, pixels, (height, width), image if whole else None, source)

    def results(pool: ThreadPoolExecutor) -> Generator[Loaded | ImageError, None, None]:
        pending: deque[Future[Loaded | ImageError]] = deque()
        lazy_image: LazyImage | None = None
        try:
            for index, source in enumerate(sources):
                if lazy_image is None or not lazy_image.has_tile(source):
                    lazy_image = LazyImage(source)
                pending.append(pool.submit(load, index, source, lazy_image))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            lazy_image = None  # frees the last image before the remaining results are used
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    with ThreadPoolExecutor(workers) as pool, closing(results(pool)) as stream:
        last_error: ImageError | None = None
        for result in stream:
            if result is not last_error:
                yield result
            last_error = result if isinstance(result, ImageError) else None


def batches(
    items: Iterator[Loaded | ImageError], batch_size: int, errors: list[ImageError]
) -> Iterator[tuple[list[Loaded], np.ndarray]]:
    """Yield groups of up to `batch_size` images, each with its pixels, (B, size, size, 3) uint8.

    Args:
        items: result of `read`.
        batch_size: images per group; the last group may have fewer.
        errors: list to which the errors of unreadable images are appended.
    """
    group: list[Loaded] = []
    for item in items:
        if isinstance(item, ImageError):
            errors.append(item)
            continue
        group.append(item)
        if len(group) == batch_size:
            yield group, np.stack([loaded.pixels for loaded in group])
            group = []
    if group:
        yield group, np.stack([loaded.pixels for loaded in group])
