"""What may catch a defect that no false-alarm rate catches, by what its map shows."""

from __future__ import annotations

from snl.decision.calibration import Calibration
from snl.decision.inspection import Inspection
from snl.decision.maps import highest_pixel
from snl.settings import Settings

COARSE = 1.5
"""An image whose shorter side has this many times the pixels of the network's input loses detail
that may matter."""
SEEN = 0.25
"""p-value of the map's highest pixel up to which the network sees something there."""
_LARGEST = 1024
"""Largest input that is proposed; above it tiles are."""
_STEP = 64


def what_the_map_shows(result: Inspection, calibration: Calibration) -> str:
    """Return where the map of an image is highest, and how unusual that is."""
    x, y = peak_of(result)
    p = _peak_p(result, calibration)
    if p is None:
        return f"its map is highest at {x}, {y}"
    often = f"{100 * p:.0f} % of normal images reach that"
    seen = "the network sees something there" if p <= SEEN else "the network sees no defect"
    return f"its map is highest at {x}, {y}, and {often}: {seen}"


def peak_of(result: Inspection) -> tuple[int, int]:
    """Return x and y of the map's highest pixel in the image."""
    top, left, _, _ = result.prediction.window
    x, y = highest_pixel(result.prediction.anomaly_map, result.prediction.window.size)
    return x + left, y + top


def remedies(result: Inspection, calibration: Calibration, settings: Settings) -> list[str]:
    """Return what to try for a defect that passes as normal, the most promising first.

    Args:
        result: of an anomalous image that was called normal.
        calibration: in force.
        settings: of the model.
    """
    found = []
    side, tile = settings.image_size, calibration.tile or settings.tile
    shorter = min(result.prediction.window.size)
    scale = (tile or shorter) / side
    if scale >= COARSE:
        larger = min(shorter, 2 * side) // _STEP * _STEP
        ways = [f"snl train --tile {side}"]
        if side < larger <= _LARGEST:
            ways.insert(0, f"snl train --image-size {larger}")
        found.append(
            f"a pixel that the network sees is {scale:.1f} x {scale:.1f} pixels of the image, so "
            f"small defects blur: {' or '.join(ways)}"
        )
    p = _peak_p(result, calibration)
    if p is not None and p <= SEEN:
        found.append(
            "the map reacts, but normal images react as much elsewhere: add normal images that "
            "vary as production does (snl train with more images, or snl calibrate --add), or "
            "ignore places that vary (snl calibrate --ignore)"
        )
    else:
        other = "another teacher" if settings.teacher.name == "resnet18" else "--teacher resnet18"
        found.append(
            f"the features of {settings.teacher.name} do not show it: snl train with {other} or a "
            "vision transformer"
        )
    found.append(
        "put such images into DATA/PRODUCT/bad and compare what you try: snl evaluate FILE DATA; "
        "snl calibrate FILE DATA --cost-miss 50 --cost-false-alarm 1 weighs misses against alarms"
    )
    return found


def _peak_p(result: Inspection, calibration: Calibration) -> float | None:
    highest = float(result.prediction.anomaly_map.max())
    return calibration.max_scores.p_value(highest, result.product)
