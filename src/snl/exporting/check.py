"""Compare an export with the bundle that it was made from, on the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from snl.data.images import to_input
from snl.data.stream import batches, read
from snl.decision.recognition import source_of
from snl.demo.dataset import PRODUCTS, demo_image
from snl.errors import ImageError, SnlError
from snl.evaluation.evaluate import evaluate
from snl.runtime.engine import OUTPUTS
from snl.runtime.inspector import Inspector
from snl.runtime.recalibrate import add_normals

if TYPE_CHECKING:
    from snl.data.catalog import Catalog

MAX_DIFFERENCE = 1e-4
"""Largest difference of an fp32 export, relative to the largest value."""
MAX_AUROC_LOSS = {"fp16": 0.002, "int8": 0.005}
"""Largest loss of mean AUROC by precision."""
CHECK_IMAGES = 32
"""Training images, and test images, on which the outputs are compared."""
BATCH_SIZES = (1, 3, 8)
"""A graph for any batch size is compared at all of these."""

EXPORTED = "export"
"""Reason of the calibration that an export measures itself."""

AurocPairs = dict[str, tuple[float | None, float | None]]
"""`image` and `pixel` AUROC, the mean over products, of the bundle and of the export."""


class ExportError(SnlError):
    """An export that differs from its bundle by more than is allowed; it is not written."""


@dataclass(frozen=True)
class Checked:
    """An export compared with its bundle on the same images.

    Attributes:
        path: of the exported file.
        images: number of images on which the outputs were compared.
        differences: largest difference of `maps`, `scores` and `embeddings`, each relative to the
            largest value.
        aurocs: mean over products of image and pixel AUROC, of the bundle and of the export; None:
            no labelled images were given, or fp32.
        recalibrated: whether the export measured the held-out images again.
    """

    path: Path
    images: int
    differences: dict[str, float]
    aurocs: AurocPairs | None
    recalibrated: bool


def check_images(inspector: Inspector, data: Catalog | None) -> np.ndarray:
    """Return the images to compare on, uint8 (M, size, size, 3): from the data, or generated."""
    if data is not None:
        records = [
            record
            for part in (data.train(), data.test())
            for record in part[:: max(1, len(part) // CHECK_IMAGES)][:CHECK_IMAGES]
        ]
        errors: list[ImageError] = []
        stream = read(
            [source_of(record.path, inspector.calibration, record.product) for record in records],
            inspector.image_size,
            max_pixels=inspector.max_pixels,
            white_level=inspector.settings.white_level,
        )
        groups = [pixels for _, pixels in batches(stream, 16, errors)]
        if groups:
            return np.concatenate(groups)
    images = [demo_image(name, "good", i, size=128).image for name in PRODUCTS for i in range(2)]
    return np.stack([to_input(image, inspector.image_size) for image in images])


def output_differences(
    inspector: Inspector, exported: Inspector, pixels: np.ndarray, batch: int | None
) -> dict[str, float]:
    """Return the largest difference of each output, relative to its largest value.

    Args:
        inspector: of the bundle.
        exported: of the export.
        pixels: uint8 (M, size, size, 3).
        batch: the graph's fixed batch size; None: it takes any, and several are compared.
    """
    sizes: Sequence[int] = (batch,) if batch else BATCH_SIZES
    largest = dict.fromkeys(OUTPUTS, 0.0)
    first = number = 0
    while first < len(pixels):
        size = sizes[number % len(sizes)]
        group = pixels[first : first + size]
        first, number = first + size, number + 1
        expected, actual = inspector.predict(group), exported.predict(group)
        for name in OUTPUTS:
            a, b = getattr(expected, name), getattr(actual, name)
            scale = max(float(np.abs(a).max()), 1e-12)
            with np.errstate(invalid="ignore"):
                difference = float(np.abs(a - b).max()) / scale
            largest[name] = max(largest[name], difference if np.isfinite(difference) else np.inf)
    return largest


def check_finite(path: Path, precision: str, differences: dict[str, float]) -> None:
    """Check that bundle and export computed finite values; `path` is for the message.

    Raises:
        ExportError: an output of one of them is infinite or not a number.
    """
    bad = [name for name, value in differences.items() if not np.isfinite(value)]
    if bad:
        remedy = "use --precision fp32" if precision != "fp32" else "train the bundle again"
        raise ExportError(
            f"{path}: not written: {', '.join(bad)} are not finite for an image, because numbers "
            f"are too large for {precision}; {remedy}"
        )


def check_differences(path: Path, differences: dict[str, float]) -> None:
    """Check that an fp32 export computes the same as its bundle; `path` is for the message.

    Raises:
        ExportError: an output differs by more than `MAX_DIFFERENCE`.
    """
    if max(differences.values()) > MAX_DIFFERENCE:
        values = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        raise ExportError(
            f"{path}: not written: it differs from the bundle by {values}; at most "
            f"{MAX_DIFFERENCE:g} is allowed"
        )


def recalibrate(inspector: Inspector, exported: Inspector, data: Catalog) -> bool:
    """Measure the held-out images of the bundle with the export, and put the result in force.

    Thresholds are only valid for scores of the engine that they were computed from.

    Args:
        inspector: of the bundle.
        exported: its calibration is changed.
        data: is searched for the held-out images.

    Returns:
        Whether all held-out images are in `data`; otherwise nothing is changed.
    """
    held_out = inspector.calibration.held_out
    normals = [r for r in data.records if r.label == "normal" and r.path.is_file()]
    hash_of = inspector.training.content_hash
    products = [held_out.get(hash_of(record.path)) for record in normals]
    records = [
        dataclasses.replace(record, product=product)
        for record, product in zip(normals, products, strict=True)
        if product is not None
    ]
    if not held_out or len(records) < len(held_out):
        return False
    calibration, _ = add_normals(
        exported, exported.calibration, records, force=True, reason=EXPORTED
    )
    exported.recalibrate(calibration)
    return True


def compare_aurocs(
    inspector: Inspector,
    exported: Inspector,
    data: Catalog,
    progress: Callable[[int, int], None] | None = None,
) -> AurocPairs | None:
    """Return the mean image and pixel AUROC of bundle and export; None: no labelled test images.

    Args:
        inspector: of the bundle.
        exported: of the export.
        data: with labelled test images.
        progress: called with (done, total), counting the images of both evaluations.
    """
    count = sum(record.label is not None for record in data.test())
    if not count:
        return None
    means = []
    for number, model in enumerate((inspector, exported)):
        part = _shifted(progress, number * count, 2 * count) if progress else None
        means.append(evaluate(model, data, progress=part).mean)
    before, after = means
    return {name: (before[f"{name}_auroc"], after[f"{name}_auroc"]) for name in ("image", "pixel")}


def check_aurocs(path: Path, precision: str, aurocs: AurocPairs) -> None:
    """Check that an export detects as much as its bundle; `path` is for the message.

    Raises:
        ExportError: an AUROC is lower by more than `MAX_AUROC_LOSS`.
    """
    allowed = MAX_AUROC_LOSS[precision]
    for name, (before, after) in aurocs.items():
        if before is not None and after is not None and before - after > allowed:
            raise ExportError(
                f"{path}: not written: {name} AUROC {100 * before:.2f} became {100 * after:.2f}; "
                f"at most {100 * allowed:g} points are allowed"
            )


def _shifted(
    progress: Callable[[int, int], None], offset: int, total: int
) -> Callable[[int, int], None]:
    """Return a callback for one part of a larger task, which begins at `offset` of `total`."""
    return lambda done, _: progress(offset + done, total)
