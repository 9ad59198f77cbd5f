"""Generated parts that are absent, moved or doubled."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import snl
from benchmarks import misplaced_parts
from benchmarks.misplaced_parts import CARRIED, KINDS, PARTS_DRAWN, PRODUCTS, image_of
from snl.demo.dataset import demo_image


def bright(image: np.ndarray, level: float = 120) -> float:
    """Return the share of pixels that are as bright as the metal of both products."""
    return float((image.mean(2) > level).mean())


@pytest.mark.parametrize("product", PARTS_DRAWN)
def test_how_much_of_the_part_is_in_the_image(product: str) -> None:
    normal = np.mean([bright(demo_image(product, index=n, size=96).image) for n in range(8)])
    share = {
        kind: np.mean([bright(image_of(product, kind, n, 96, 0)) for n in range(8)])
        for kind in KINDS
    }
    assert share["absent"] == 0 < 0.5 * normal < share["moved"] < normal < share["doubled"]


@pytest.mark.parametrize("product", [name + CARRIED for name in PARTS_DRAWN])
def test_a_carrier_lies_under_the_part(product: str) -> None:
    for number in range(4):
        images = {k: image_of(product, k, number, 96, 0) for k in ("good", *KINDS)}
        dark = {kind: float((image.mean(2) < 60).mean()) for kind, image in images.items()}
        # a part hides holes of the sheet, a second one more of them
        assert dark["absent"] > dark["good"] > dark["doubled"] > 0.01
        assert dark["absent"] > dark["moved"]


def test_images_are_reproducible_and_differ() -> None:
    images = [image_of("gear", kind, n, 64, 0) for kind in KINDS for n in range(3)]
    for image, other in itertools.pairwise(images):
        assert image.shape == (64, 64, 3) and not np.array_equal(image, other)
    assert np.array_equal(images[4], image_of("gear", "moved", 1, 64, 0))
    assert not np.array_equal(images[4], image_of("gear", "moved", 1, 64, 1))


def test_the_data_set(tmp_path: Path) -> None:
    misplaced_parts.draw(tmp_path / "set", images=2, size=64, seed=0)
    catalog = snl.Catalog.read(tmp_path / "set")
    assert catalog.products == tuple(sorted(PRODUCTS)) and len(catalog.train()) == 240
    kinds = [record.defect for record in catalog.test() if record.label == "anomalous"]
    assert sorted(kinds) == sorted([*KINDS] * 8)
    assert sum(record.label == "normal" for record in catalog.test()) == 8
