"""What is proposed for a miss that no rate catches, by what its map shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.runtime.inspector import Inspector
from snl.runtime.remedies import peak_of, remedies, what_the_map_shows
from tests.trees import draw


@pytest.fixture
def result(inspector: Inspector) -> snl.Inspection:
    return inspector.inspect(draw(1)[0], "bolt")


def with_peak(result: snl.Inspection, inspector: Inspector, p: float) -> snl.Inspection:
    """The result with a map whose peak has about this p-value, in column 10 and row 3."""
    peaks = np.sort(inspector.calibration.sets["bolt"].peaks[:, 0])[::-1]
    value = float(peaks[0]) * 2 if p < 0.1 else float(peaks[-1]) / 2
    levels = np.zeros_like(result.prediction.anomaly_map)
    levels[3, 10] = value
    return replace(result, prediction=replace(result.prediction, anomaly_map=levels))


def test_the_place_is_in_pixels_of_the_image(result: snl.Inspection, inspector: Inspector) -> None:
    seen = with_peak(result, inspector, 0.01)
    x, y = peak_of(seen)
    height, width = result.size
    side = result.prediction.anomaly_map.shape[0]
    assert abs(x - 10.5 * width / side) <= 1 and abs(y - 3.5 * height / side) <= 1
    assert f"highest at {x}, {y}" in what_the_map_shows(seen, inspector.calibration)


def test_a_map_that_reacts_and_one_that_does_not(
    result: snl.Inspection, inspector: Inspector
) -> None:
    calibration, settings = inspector.calibration, inspector.settings
    seen, unseen = (with_peak(result, inspector, p) for p in (0.01, 0.9))
    assert "sees something there" in what_the_map_shows(seen, calibration)
    assert "sees no defect" in what_the_map_shows(unseen, calibration)
    assert any("normal images react" in text for text in remedies(seen, calibration, settings))
    (other,) = [t for t in remedies(unseen, calibration, settings) if "teacher" in t]
    assert "--teacher resnet18" in other and settings.teacher.name in other
    resnet = settings.replace({"teacher.name": "resnet18"})
    assert "--teacher resnet18" not in " ".join(remedies(unseen, calibration, resnet))


@pytest.mark.parametrize(
    ("size", "proposed", "not_proposed"),
    [
        ((48, 40), (), ("--tile", "--image-size")),  # smaller than the input of 64 px
        ((1000, 1200), ("--image-size 128", "--tile 64"), ()),
        ((100, 3000), ("--tile 64",), ("--image-size",)),
    ],
)
def test_large_images_are_cut_or_enlarged_first(
    size: tuple[int, int], proposed: tuple[str, ...], not_proposed: tuple[str, ...],
    inspector: Inspector,
) -> None:  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = inspector.inspect(image, "bolt")
    first = remedies(result, inspector.calibration, inspector.settings)[0]
    assert all(word in first for word in proposed)
    assert not any(word in first for word in not_proposed)


def test_every_extra_that_a_hint_names_exists() -> None:
    import re
    import tomllib

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    hints = {
        (match[1], match[2])
        for file in (root / "src").rglob("*.py")
        for match in re.finditer(r"pip install '?([\w.-]+)\[([\w,]+)\]", file.read_text())
    }
    assert len(hints) > 5
    for name, extras in hints:
        assert name == project["name"]
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), extras
