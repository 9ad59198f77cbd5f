"""Blends and patches: exact pixels, exact masks, no patch without a visible difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snl.evaluation.composites import (
    AREA,
    CHANGED,
    CONTRAST,
    cutpaste,
    cutpastes,
    mixup,
    mixups,
)


def noise(seed: int, *shape: int, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (*shape, 3), dtype=np.uint8)


@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_a_blend_is_the_weighted_mean(seed: int, share: float) -> None:
    a, b = noise(seed, 5, 7), noise(seed + 1, 5, 7)
    exact = share * a.astype(np.float64) + (1 - share) * b
    blend = mixup(a, b, share)
    assert blend.dtype == np.uint8
    assert np.abs(blend - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(mixup(a, a, share), a)


def test_every_blend_is_of_a_different_pair_of_images() -> None:
    # one distinct value per image, powers of two, so that a blend identifies its images
    a = np.stack([np.full((2, 2, 3), 2 * v, np.uint8) for v in (0, 1, 2)])
    b = np.stack([np.full((2, 2, 3), 2 * v, np.uint8) for v in (8, 16, 32, 64)])
    seen = [int(i[0, 0, 0]) for i in mixups(a, b, 99, 0.5, np.random.default_rng(0))]
    assert sorted(seen) == sorted(u + v for u in (0, 1, 2) for v in (8, 16, 32, 64))
    assert len(list(mixups(a, b, 5, 0.5, np.random.default_rng(0)))) == 5
    alone = [int(i[0, 0, 0]) for i in mixups(b, None, 99, 0.5, np.random.default_rng(0))]
    assert sorted(alone) == sorted(8 * v for v in (3, 5, 9, 6, 10, 12))  # never one with itself
    assert list(mixups(b[:1], None, 99, 0.5, np.random.default_rng(0))) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(16, 96))
def test_the_mask_is_exactly_the_patch(seed: int, size: int) -> None:
    host = noise(seed, size, size, high=128)
    source = noise(seed + 1, size, size)
    composite = cutpaste(host, source, np.random.default_rng(seed))
    assert composite is not None
    image, mask = composite
    np.testing.assert_array_equal(image[~mask], host[~mask])
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask.sum() == height * width  # one full rectangle
    assert AREA[0] / 2 <= mask.mean() <= AREA[1] * 1.3  # sides are whole pixels
    patch = image[mask].reshape(height, width, 3)
    windows = np.lib.stride_tricks.sliding_window_view(source, (height, width), (0, 1))
    matches = (windows == patch.transpose(2, 0, 1)).all((-3, -2, -1))
    assert matches.sum() == 1  # the source contains the patch exactly once
    changed = np.abs(patch.astype(int) - host[mask].reshape(patch.shape)).max(-1) > CONTRAST
    assert changed.mean() >= CHANGED


def test_background_on_background_is_not_an_anomaly() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((32, 32, 3), 100, np.uint8)
    assert cutpaste(flat, flat + np.uint8(CONTRAST), rng) is None
    composite = cutpaste(flat, flat + np.uint8(CONTRAST + 1), rng)
    assert composite is not None and composite[1].any()
    assert list(cutpastes(flat[None], flat[None], 3, rng)) == []
    # an object in one corner: patches of background only are drawn again
    with_object = flat.copy()
    with_object[:16, :16] = 200
    for image, mask in cutpastes(flat[None], with_object[None], 20, rng):
        assert (image[mask] == 200).all(-1).mean() >= CHANGED


def test_hosts_take_turns() -> None:
    hosts = np.stack([np.full((32, 32, 3), v, np.uint8) for v in (0, 10, 20)])
    source = np.full((1, 32, 32, 3), 255, np.uint8)
    composites = list(cutpastes(hosts, source, 6, np.random.default_rng(3)))
    seen = [int(image[~mask].min()) for image, mask in composites]
    assert sorted(seen) == [0, 0, 10, 10, 20, 20]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_tiny_images_have_patches_too(size: int) -> None:
    host, source = np.zeros((size, size, 3), np.uint8), np.full((size, size, 3), 255, np.uint8)
    composite = cutpaste(host, source, np.random.default_rng(0))
    assert composite is not None
    np.testing.assert_array_equal(composite[0] == 255, np.repeat(composite[1][..., None], 3, -1))
