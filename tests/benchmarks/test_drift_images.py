"""The changes of images in the benchmark of the drift monitor."""

from __future__ import annotations

import numpy as np

from benchmarks.drift_delay import images as drift_images
from snl.demo.dataset import PRODUCTS, demo_image


def test_only_parts_that_do_not_fill_the_image_have_another_background() -> None:
    drawn = {name: drift_images.on_other_background(name, 0, 1) for name in PRODUCTS}
    corners = {}
    for name in (name for name, image in drawn.items() if image is not None):
        image = drawn[name]
        assert image is not None and image.shape == (256, 256, 3)
        corners[name] = image[:8, :8].mean() - demo_image(name).image[:8, :8].mean()
    assert set(corners) == {"gear", "plate", "tile"}
    assert min(corners.values()) > 20  # paler


def test_changes_have_the_effect_of_their_names() -> None:
    image = demo_image("wood").image
    changed = {name: change(image, 49) for name, change in drift_images.CHANGES.items()}
    mean = image.mean()
    for name, factor in (("x 0.8", 0.8), ("x 1.2", 1.2), ("-0.2 % an image", 0.9)):
        assert abs(changed[f"brightness {name}"].mean() / mean - factor) < 0.01
    steps = [np.abs(np.diff(x.astype(float), axis=1)).mean() for x in
             (image, changed["blur 1 px"], changed["blur 2 px"])]  # fmt: skip
    assert steps[0] > 1.5 * steps[1] > 2 * steps[2]
