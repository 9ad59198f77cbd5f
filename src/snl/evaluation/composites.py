"""Synthetic anomalies made of normal images: Mixup blends and CutPaste patches.

All images are uint8 (size, size, 3). All random draws come from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]

AREA = (0.02, 0.15)
"""Range of the share of the image that a patch covers, as in CutPaste (Li et al., arXiv
2104.04015)."""
ASPECT = (0.3, 3.3)
"""Range of a patch's height over width, drawn log-uniformly; from the same source."""
CONTRAST = 25
"""A pixel has visibly changed if a channel changes by more than this, of 255. Sensor noise and JPEG
artefacts are mostly smaller."""
CHANGED = 0.5
"""Share of a patch's pixels that must have visibly changed; otherwise it is drawn again."""
TRIES = 50


def mixup(a: Images, b: Images, share: float) -> Images:
    """Return share * a + (1 - share) * b, rounded. Both are images or stacks of the same shape.

    Source: Zhang et al., "mixup", ICLR 2018, with a fixed share.
    """
    return np.rint(share * a.astype(np.float32) + (1 - share) * b).astype(np.uint8)


def mixups(
    a: Images, b: Images | None, count: int, share: float, rng: np.random.Generator
) -> Iterator[Images]:
    """Yield up to `count` blends, each of a different pair of images.

    Args:
        a: (n, size, size, 3), images with weight `share`.
        b: (m, size, size, 3), the others; None: pairs of two different images of `a`.
        count: maximum number; there are never more blends than pairs.
        share: weight of `a`, between 0 and 1.
        rng: draws the pairs.
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
    """Paste a random rectangle of `source` at a random position of `host`.

    A patch of background on background is not an anomaly, so at least a share CHANGED of the
    patch's pixels must differ by more than CONTRAST from the pixels they replace. Otherwise size
    and positions are drawn again.

    Returns:
        The image, and its mask (size, size), True exactly on the patch. None if all of TRIES
        patches differed too little.
    """
    for _ in range(TRIES):
        height, width = _extent(host.shape[0], rng)
        target = _position(host, height, width, rng)
        patch = source[_position(source, height, width, rng)]
        changed = np.abs(host[target].astype(np.int16) - patch).max(-1) > CONTRAST
        if changed.mean() >= CHANGED:
            image, mask = host.copy(), np.zeros(host.shape[:2], np.bool_)
            image[target], mask[target] = patch, True
            return image, mask
    return None


def cutpastes(
    hosts: Images, sources: Images, count: int, rng: np.random.Generator
) -> Iterator[tuple[Images, NDArray[np.bool_]]]:
    """Yield up to `count` images with a patch, and their masks; hosts take turns. There are fewer
    where no visible patch is possible."""
    order = rng.permutation(len(hosts))
    for number in range(count):
        source = sources[rng.integers(len(sources))]
        composite = cutpaste(hosts[order[number % len(hosts)]], source, rng)
        if composite is not None:
            yield composite


def _extent(size: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the height and width of a patch in pixels."""
    area = rng.uniform(*AREA) * size**2
    aspect = math.exp(rng.uniform(*np.log(ASPECT)))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(height, 1), max(width, 1)


def _position(image: Images, height: int, width: int, rng: np.random.Generator) -> Any:
    """Draw a rectangle of an image, as an index of two slices."""
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)
