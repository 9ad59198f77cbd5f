"""Parts taken out of real images, moved and doubled: on images whose part is known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import snl
from benchmarks.altered_images import KINDS, altered, part_of, plainest_corner, write
from snl.errors import SnlError


def image_of(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a disc on a background with noise, and where it is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :160]
    disc = (y - 60) ** 2 + (x - 80) ** 2 < 20**2
    pixels = rng.normal(60, 2, (120, 160, 3)) + 120 * disc[..., None]
    return pixels.astype(np.float32), disc


def test_the_part_is_found() -> None:
    pixels, disc = image_of()
    mask = part_of(pixels, plainest_corner(pixels))[..., 0]
    assert mask[disc].min() > 0.5 and mask[~disc].mean() < 0.02


@pytest.mark.parametrize(("kind", "least", "most"), [("absent", 0, 0), ("moved", 0.7, 1.1)])
def test_how_much_of_the_part_is_left(kind: str, least: float, most: float) -> None:
    pixels, disc = image_of()
    for seed in range(5):
        changed = altered(pixels, kind, np.random.default_rng(seed))
        share = (changed.mean(2) > 120).sum() / disc.sum()
        assert least <= share <= most
        assert (changed[disc].mean(1) > 120).mean() < 0.6  # not where it was
        assert abs(float(np.median(changed)) - 60) < 2


def test_a_second_part_lies_beside_the_first() -> None:
    pixels, disc = image_of()
    for seed in range(5):
        changed = altered(pixels, "doubled", np.random.default_rng(seed))
        assert (changed[disc].mean(1) > 120).all()
        assert (changed.mean(2) > 120).sum() > 1.2 * disc.sum()


def test_the_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "data" / name / "test" / "good"
        folder.mkdir(parents=True)
        for seed in range(3):
            pixels = image_of(seed)[0].astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{seed}.png")
    data, root = tmp_path / "data", tmp_path / "altered"
    write(data, root, ["b"], images=2, seed=0)
    records = snl.Catalog.read(root).test()
    assert {r.product for r in records} == {"b"}
    kinds = sorted(r.defect for r in records if r.label == "anomalous")
    assert kinds == sorted([*KINDS] * 2) and sum(r.label == "normal" for r in records) == 3
    with pytest.raises(SnlError, match="exists already"):
        write(data, root, ["b"], images=2, seed=0)
    with pytest.raises(SnlError, match="no normal test images of 'c'"):
        write(data, tmp_path / "other", ["c"], images=2, seed=0)
    with pytest.raises(SnlError, match="of one colour"):
        altered(np.zeros((40, 40, 3), np.float32), "moved", np.random.default_rng(0))
