"""Images that are no longer normal, made of normal ones: Mixup blends and CutPaste patches.

All images are uint8 (size, size, 3), and everything random comes from the generator given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

AREA = (0.02, 0.15)
"""Share of the image that a patch covers, as in CutPaste (Li et al., arXiv 2104.04015)."""
ASPECT = (0.3, 3.3)
"""Height over width of a patch, drawn evenly in its logarithm; from the same source."""
CONTRAST = 25
"""Levels of 255 in any channel: a pixel that changes by more has visibly changed; the noise of a
sensor and the blocks of a JPEG mostly lie below."""
CHANGED = 0.5
"""Share of a patch's pixels that must have visibly changed, or it is drawn again."""
TRIES = 50


def mixup(a: Images, b: Images, share: float) -> Images:
    """share * a + (1 - share) * b, rounded; images or stacks of one shape.

    Source: Zhang et al., "mixup", ICLR 2018, with a fixed share.
    """
    return np.rint(share * a.astype(np.float32) + (1 - share) * b).astype(np.uint8)


def mixups(
    a: Images, b: Images | None, count: int, share: float, rng: np.random.Generator
) -> Iterator[Images]:
    """Up to `count` blends, no two of the same two images.

    Args:
        a: (n, size, size, 3), images with weight `share`.
        b: (m, size, size, 3), the others; None: `a` with itself, never an image with itself.
        count: fewer come where there are not as many pairs of images.
        share: weight of `a`, between 0 and 1.
        rng: what is drawn, in order.
    """
    if b is None:
        first, second = np.triu_indices(len(a), 1)
    else:
        first, second = np.divmod(np.arange(len(a) * len(b)), len(b))
    for pair in rng.permutation(first.size)[:count]:
        yield mixup(a[first[pair]], (a if b is None else b)[second[pair]], share)


def cutpaste(
    host: Images, source: Images, rng: np.random.Generator
) -> tuple[Images, NDArray[np.bool_]] | None:
    """A rectangle of `source`, from any place in it, pasted at any place of `host`.

    A patch of background on background is no anomaly. So at least CHANGED of the patch's pixels
    must differ by more than CONTRAST from those they replace; else size and places are drawn again.

    Returns:
        The image, and its mask (size, size), True exactly on the patch; None where TRIES patches
        hardly differed from what they replaced.
    """
    for _ in range(TRIES):
        height, width = _extent(host.shape[0], rng)
        here, there = _place(host, height, width, rng), _place(source, height, width, rng)
        changed = np.abs(host[here].astype(np.int16) - source[there]).max(-1) > CONTRAST
        if changed.mean() >= CHANGED:
            image, mask = host.copy(), np.zeros(host.shape[:2], np.bool_)
            image[here], mask[here] = source[there], True
            return image, mask
    return None


def cutpastes(
    hosts: Images, sources: Images, count: int, rng: np.random.Generator
) -> Iterator[tuple[Images, NDArray[np.bool_]]]:
    """`count` pasted images and masks, hosts in turn; fewer where no visible patch was found."""
    order = rng.permutation(len(hosts))
    for number in range(count):
        source = sources[rng.integers(len(sources))]
        made = cutpaste(hosts[order[number % len(hosts)]], source, rng)
        if made is not None:
            yield made


def _extent(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a patch in pixels."""
    area = rng.uniform(*AREA) * size**2
    aspect = math.exp(rng.uniform(*np.log(ASPECT)))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(height, 1), max(width, 1)


def _place(image: Images, height: int, width: int, rng: np.random.Generator) -> Any:
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)
