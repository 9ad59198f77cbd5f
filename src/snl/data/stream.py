"""Images or tiles of them in batches, decoded ahead by threads, in order, in bounded memory."""

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
    """One image made ready: its place in the list, the network's input and its own size."""

    index: int
    pixels: np.ndarray
    """uint8 (size, size, 3)."""
    original: tuple[int, int]
    """(height, width) of the image as it was; of a tile, too, that of the whole image."""
    image: np.ndarray | None = None
    """uint8 (H, W, 3) as decoded, where it was asked for."""
    source: Any = None
    """What it was read from: a path, an array or a tile."""


class Decoded:
    """The image of one or more sources, decoded once, by the thread that needs it first.

    It stays in memory as long as something refers to this object.
    """

    def __init__(self, source: Any) -> None:
        self.path = source.path if isinstance(source, Tile) else source
        self._lock = Lock()
        self._image: np.ndarray | ImageError | None = None

    def get(self) -> np.ndarray | ImageError:
        """uint8 (H, W, 3), or why there is none; the same object at every call."""
        with self._lock:
            if self._image is None:
                try:
                    self._image = load_image(self.path)
                except ImageError as error:
                    self._image = error
            return self._image

    def serves(self, source: Any) -> bool:
        """Whether the source is a tile of the same file."""
        return isinstance(source, Tile) and source.path == self.path


def prepare(image: np.ndarray, source: Any, size: int) -> np.ndarray:
    """The network's input, uint8 (size, size, 3), of the decoded image (H, W, 3) of a source."""
    return to_input(cut(image, source.box) if isinstance(source, Tile) else image, size)


def read(
    sources: Iterable[Any], size: int, workers: int | None = None, *, whole: bool = False
) -> Iterator[Loaded | ImageError]:
    """Every source in order, or the error that it gave. At most a few dozen are held at a time.

    Tiles of one file that follow one another share its decoding, and its error, which comes once.

    Args:
        sources: image files, or tiles of them; also what else `load_image` takes.
        size: side of the square input in pixels.
        workers: decoding threads; None: one a core, at most 8.
        whole: give the decoded images as well.
    """
    workers = workers or min(8, os.cpu_count() or 1)

    def load(index: int, source: Any, decoded: Decoded) -> Loaded | ImageError:
        image = decoded.get()
        if isinstance(image, ImageError):
            return image
        height, width = image.shape[:2]
        pixels = prepare(image, source, size)
        return Loaded(index, pixels, (height, width), image if whole else None, source)

    def results(pool: ThreadPoolExecutor) -> Generator[Loaded | ImageError, None, None]:
        ahead: deque[Future[Loaded | ImageError]] = deque()
        decoded: Decoded | None = None
        try:
            for index, source in enumerate(sources):
                if decoded is None or not decoded.serves(source):
                    decoded = Decoded(source)
                ahead.append(pool.submit(load, index, source, decoded))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            decoded = None
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    with ThreadPoolExecutor(workers) as pool, closing(results(pool)) as found:
        told: ImageError | None = None
        for result in found:
            if result is not told:
                yield result
            told = result if isinstance(result, ImageError) else None


def batches(
    items: Iterator[Loaded | ImageError], batch_size: int, errors: list[ImageError]
) -> Iterator[tuple[list[Loaded], np.ndarray]]:
    """Groups of up to `batch_size` images and their stacked pixels (B, size, size, 3); what could
    not be read is appended to `errors` instead."""
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
