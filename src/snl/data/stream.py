"""Images in batches, decoded ahead by threads, in order, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snl.data.images import load_image, to_input
from snl.errors import ImageError


@dataclass(frozen=True)
class Loaded:
    """One image made ready: its place in the list, the network's input and its own size."""

    index: int
    pixels: np.ndarray
    """uint8 (size, size, 3)."""
    original: tuple[int, int]
    """(height, width) of the image as it was."""


def read(
    sources: Sequence[str | Path], size: int, workers: int | None = None
) -> Iterator[Loaded | ImageError]:
    """Every source in order, or the error that it gave. At most a few dozen are held at a time.

    Args:
        sources: image files.
        size: side of the square input in pixels.
        workers: decoding threads; None: one a core, at most 8.
    """
    workers = workers or min(8, os.cpu_count() or 1)

    def load(index: int) -> Loaded | ImageError:
        try:
            image = load_image(sources[index])
        except ImageError as error:
            return error
        height, width = image.shape[:2]
        return Loaded(index, to_input(image, size), (height, width))

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Loaded | ImageError]] = deque()
        try:
            for index in range(len(sources)):
                ahead.append(pool.submit(load, index))
                if len(ahead) > 4 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


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
