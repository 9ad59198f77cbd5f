"""Pictures: normal images stay untouched, defects light up, every decision and size is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from snl.deployment.inspector import Inspection
from snl.report.overlay import LONGEST, colours, heat


def inspection(height: int, width: int, **changes: object) -> Inspection:
    anomaly_map = np.zeros((height, width), np.float32)
    anomaly_map[: max(1, height // 4), : max(1, width // 4)] = 2.0
    values: dict[str, object] = {
        "score": 2.0,
        "decision": "anomalous",
        "threshold": 1.0,
        "threshold_from": "product",
        "anomaly_map": anomaly_map,
        "image": np.full((height, width, 3), 100, np.uint8),
        "map_range": (0.5, 2.0),
    }
    return Inspection(**{**values, **changes})  # type: ignore[arg-type]


def test_heat_leaves_normal_pixels_and_lights_the_others() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    levels = np.zeros((8, 8), np.float32)
    levels[2, 3] = 9.0
    result = heat(image, levels, (1.0, 2.0))
    changed = (result != image).any(-1)
    assert changed.sum() == 1 and changed[2, 3]
    np.testing.assert_array_equal(heat(image, levels - 5, (5.0, 5.0)), image)


def test_colours_grow_lighter() -> None:
    light = colours(np.linspace(0, 1, 50)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > 0).all()
    np.testing.assert_array_equal(colours(np.array([-3.0])), colours(np.array([0.0])))


@pytest.mark.parametrize("size", [(40, 48), (256, 256), (5, 3), (1, 1), (1500, 3000), (30, 900)])
@pytest.mark.parametrize("decision", ["normal", "anomalous", "uncertain"])
def test_every_size_and_decision_is_drawn(size: tuple[int, int], decision: str) -> None:
    threshold = None if decision == "uncertain" else 1.0
    picture = inspection(*size, decision=decision, threshold=threshold, product="bolt").overlay()
    assert picture.mode == "RGB"
    assert picture.width <= 2 * LONGEST + 10 and picture.height <= LONGEST + 60
    pixels = np.asarray(picture)
    assert (
        pixels[-20, 4].tolist()
        == {
            "normal": [46, 160, 67],
            "anomalous": [218, 54, 51],
            "uncertain": [191, 135, 0],
        }[decision]
    )


def test_contour_follows_the_threshold() -> None:
    white = [255, 255, 255]
    drawn = np.asarray(inspection(256, 256).overlay())[:256, 262:518]
    assert (drawn == white).all(-1).any()
    none = np.asarray(inspection(256, 256, threshold=5.0).overlay())[:256, 262:518]
    assert not (none == white).all(-1).any()
