"""Read images or tiles in order and in batches, decoded ahead by threads in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from traceback import clear_frames
from typing import Any

import numpy as np

from snl.data.budget import DECODED_BYTES, Budget
from snl.data.images import to_input
from snl.data.roi import Crop, Roi
from snl.data.tiles import Tile, cut
from snl.data.upright import Decoded, cropped, decoded
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

Fit = Callable[[tuple[int, int]], tuple[int, int]]
"""From the (height, width) of an image to the (width, height) of its picture."""


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
    """The decoded image, (H, W, 3) uint8, or None if it was not kept; see `read`."""
    source: Any = None
    """The source it was read from: a path, an array or a tile; of a crop, what is cropped."""
    picture: np.ndarray | None = None
    """The image at the size that `read` was asked for, (height, width, 3) uint8, or None."""
    kind: str | None = None
    """Depth and colour of a file, such as `12-bit grey`; None: it was not read from a file."""
    remarks: tuple[str, ...] = ()
    """What the conversion to 8 bits could not keep; see `snl.data.upright.Decoded`."""
    roi: Roi | None = None
    """The region of interest that `pixels` shows; None: the whole image."""
    others: tuple[tuple[np.ndarray, Roi | None], ...] = ()
    """Inputs of the other regions of interest that the source asks for and the image has."""


class _SharedImage:
    """The image of consecutive tiles, decoded once, by the first thread that needs it.

    The image stays in memory as long as this object exists.
    """

    def __init__(
        self, path: str | Path | Crop, decode: Callable[[], np.ndarray | ImageError]
    ) -> None:
        self.path = path
        self._decode = decode
        self._lock = Lock()
        self._image: np.ndarray | ImageError | None = None

    def get(self) -> np.ndarray | ImageError:
        """Return the image, (H, W, 3) uint8, or the error of reading it; always the same object."""
        with self._lock:
            if self._image is None:
                self._image = self._decode()
            return self._image


class _Reader:
    """Decodes sources in threads, in the order of a budget.

    Args: as for `read`.
    """

    def __init__(
        self,
        size: int,
        whole: bool,
        picture: Fit | None,
        max_pixels: int,
        white_level: int,
        bytes: int,
    ):
        self.budget = Budget(bytes)
        self._size, self._whole, self._picture = size, whole, picture
        self._opened = partial(decoded, max_pixels=max_pixels, white_level=white_level)
        self._white_level = white_level
        self._number = -1  # of the image, in the budget
        self._shared: _SharedImage | None = None

    def job(self, index: int, source: Any) -> tuple[int, Callable[[], Loaded | ImageError]]:
        """Return the number of a source's image in the budget, and what a thread has to do."""
        if isinstance(source, Tile):
            if self._shared is None or self._shared.path != source.path:
                self._number += 1
                decode = partial(self._decode, self._number, source.path)
                self._shared = _SharedImage(source.path, decode)
            return self._number, partial(self._cut, index, source, self._shared)
        self._shared = None
        self._number += 1
        return self._number, partial(self._load, self._number, index, source)

    def forget(self) -> None:
        """Free the last image as soon as its tiles are used."""
        self._shared = None

    def _decode(self, number: int, path: str | Path | Crop) -> np.ndarray | ImageError:
        """Return the whole image of tiles, or its error."""
        image: np.ndarray | None = None
        try:
            image = self._array(number, path)
            return image
        except ImageError as error:
            return _without_images(error)
        finally:  # what decoding took is free here, because `_array` has returned
            self.budget.settle(number, image)

    def _array(self, number: int, path: str | Path | Crop) -> np.ndarray:
        with self._opened(path, admit=partial(self._admit, number, whole=True)) as image:
            return image.array()

    def _cut(self, index: int, tile: Tile, shared: _SharedImage) -> Loaded | ImageError:
        image = shared.get()
        if isinstance(image, ImageError):
            return image
        height, width = image.shape[:2]
        pixels = to_input(cut(image, tile.box), self._size)
        return Loaded(index, pixels, (height, width), image if self._whole else None, tile)

    def _load(self, number: int, index: int, source: Any) -> Loaded | ImageError:
        """Return a whole image, or its error."""
        kept: np.ndarray | None = None
        try:
            loaded = self._loaded(number, index, source)
            kept = loaded.image if isinstance(loaded.source, str | Path) else None
            return loaded
        except ImageError as error:
            return _without_images(error)
        finally:  # what decoding took is free here, because `_loaded` has returned
            self.budget.settle(number, kept)

    def _loaded(self, number: int, index: int, source: Any) -> Loaded:
        crop = source if isinstance(source, Crop) else Crop(source, (None,))
        keep = self._whole or not isinstance(crop.source, str | Path)
        with self._opened(crop.source, admit=partial(self._admit, number, whole=keep)) as image:
            (pixels, roi), *others = (
                (view.resized(self._size, self._size), roi) for view, roi in _views(image, crop)
            )
            return Loaded(
                index=index,
                pixels=pixels,
                roi=roi,
                others=tuple(others),
                original=image.size,
                image=image.array() if keep else None,
                source=crop.source,
                picture=image.resized(*self._picture(image.size)) if self._picture else None,
                kind=image.samples.kind(self._white_level) if image.samples else None,
                remarks=image.remarks,
            )

    def _admit(self, number: int, size: int, pixels: int, whole: bool) -> None:
        self.budget.admit(number, size + (3 * pixels if whole else 0))


def _views(image: Decoded, crop: Crop) -> list[tuple[Decoded, Roi | None]]:
    """Return the regions of interest that an image has.

    Raises:
        ImageError: it has none of them.
    """
    views: list[tuple[Decoded, Roi | None]] = []
    errors: list[ImageError] = []
    for roi in crop.rois:
        try:
            views.append((cropped(image, Crop(crop.source, (roi,))), roi))
        except ImageError as error:
            errors.append(error)
    if not views:
        raise errors[0]
    return views


def _without_images(error: ImageError) -> ImageError:
    """Return an error whose traceback no longer holds the image that could not be read."""
    part: BaseException | None = error
    while part is not None:
        clear_frames(part.__traceback__)
        part = part.__cause__
    return error


def read(
    sources: Iterable[Any],
    size: int,
    workers: int | None = None,
    *,
    whole: bool = False,
    picture: Fit | None = None,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
    budget: int = DECODED_BYTES,
) -> Iterator[Loaded | ImageError]:
    """Yield every source in order, or its error, in bounded memory.

    Images are decoded ahead while those that are being decoded, and those that were kept and are
    still in use, take at most `budget` bytes; of the results that wait to be used there are at most
    a few dozen. A larger image is decoded alone.

    Consecutive tiles of the same file share one decoded image. If it cannot be decoded, its error
    is yielded once.

    Args:
        sources: image files, tiles, crops, or anything else that `load_image` accepts.
        size: side of the square input in pixels.
        workers: number of decoding threads; None: one per core, at most 8.
        whole: keep the decoded images. Those that were not read from a file are always kept.
        picture: the size at which each image is wanted as well, by its own size; not of tiles.
        max_pixels: largest allowed height times width of an image.
        white_level: see `snl.data.images.load_image`.
        budget: bytes.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    reader = _Reader(size, whole, picture, max_pixels, white_level, budget)

    def results(pool: ThreadPoolExecutor) -> Generator[Loaded | ImageError, None, None]:
        pending: deque[tuple[int, Future[Loaded | ImageError]]] = deque()

        def first() -> Loaded | ImageError:
            number, future = pending.popleft()
            reader.budget.wait_for(number)
            return future.result()

        try:
            for index, source in enumerate(sources):
                number, job = reader.job(index, source)
                pending.append((number, pool.submit(job)))
                if len(pending) > 4 * workers:
                    yield first()
            reader.forget()
            while pending:
                yield first()
        finally:
            reader.budget.close()
            for _, future in pending:
                future.cancel()

    with ThreadPoolExecutor(workers) as pool, closing(results(pool)) as stream:
        last_error: ImageError | None = None
        for result in stream:
            if result is not last_error:
                yield result
            last_error = result if isinstance(result, ImageError) else None
            del result  # while the next one is awaited, the consumer alone decides what is kept


def load(
    source: Any,
    size: int,
    *,
    whole: bool = False,
    max_pixels: int = MAX_PIXELS,
    white_level: int = 0,
) -> Loaded:
    """Return what `read` yields for one image, decoded by the calling thread.

    Args: as for `read`.

    Raises:
        ImageError: it cannot be read.
    """
    reader = _Reader(size, whole, None, max_pixels, white_level, DECODED_BYTES)
    try:
        _, job = reader.job(0, source)
        loaded = job()
    finally:
        reader.budget.close()
    if isinstance(loaded, ImageError):
        raise loaded
    return loaded


def batches(
    items: Iterator[Loaded | ImageError], batch_size: int, errors: list[ImageError]
) -> Iterator[tuple[list[Loaded], np.ndarray]]:
    """Yield groups of up to `batch_size` images, each with its pixels, (B, size, size, 3) uint8,
    without those of `Loaded.others`.

    A group ends early when its whole images, if they are kept, reach `DECODED_BYTES`.

    Args:
        items: result of `read`.
        batch_size: images per group; the last group may have fewer.
        errors: list to which the errors of unreadable images are appended.
    """
    group: list[Loaded] = []
    held = 0
    for item in items:
        if isinstance(item, ImageError):
            errors.append(item)
            continue
        group.append(item)
        held += 0 if item.image is None else item.image.nbytes
        del item
        if len(group) == batch_size or held >= DECODED_BYTES:
            yield group, np.stack([loaded.pixels for loaded in group])
            group, held = [], 0
    if group:
        yield group, np.stack([loaded.pixels for loaded in group])
