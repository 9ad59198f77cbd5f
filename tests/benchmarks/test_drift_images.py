"""What the benchmark of the drift monitor changes in images, and the table it makes."""

from __future__ import annotations

import json
from pathlib import Path

import drift_images
import drift_images_table
import numpy as np

from snl.demo.dataset import PRODUCTS, demo_image

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_only_parts_that_do_not_fill_the_image_have_another_ground() -> None:
    found = {name: drift_images.on_other_ground(name, 0, 1) for name in PRODUCTS}
    corners = {}
    for name in (name for name, image in found.items() if image is not None):
        image = found[name]
        assert image is not None and image.shape == (256, 256, 3)
        corners[name] = image[:8, :8].mean() - demo_image(name).image[:8, :8].mean()
    assert set(corners) == {"gear", "plate", "tile"}
    assert min(corners.values()) > 20  # paler


def test_changes_do_what_their_names_say() -> None:
    image = demo_image("wood").image
    changed = {name: change(image, 49) for name, change in drift_images.CHANGES.items()}
    mean = image.mean()
    for name, factor in (("x 0.8", 0.8), ("x 1.2", 1.2), ("-0.2 % an image", 0.9)):
        assert abs(changed[f"brightness {name}"].mean() / mean - factor) < 0.01
    steps = [np.abs(np.diff(x.astype(float), axis=1)).mean() for x in
             (image, changed["blur 1 px"], changed["blur 2 px"])]  # fmt: skip
    assert steps[0] > 1.5 * steps[1] > 2 * steps[2]


def test_the_table_kept_is_that_of_the_results_kept() -> None:
    results = json.loads((RESULTS / "drift-images.json").read_text(encoding="utf-8"))
    kept = (RESULTS / "drift-images.md").read_text(encoding="utf-8")
    assert drift_images_table.table(results).strip() == kept.strip()
