"""From a predictor and a catalog to the table of metrics, one image at a time in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from snl.data.catalog import Catalog, Record
from snl.data.images import load_mask
from snl.data.layouts import inside
from snl.data.stream import Loaded, batches, read
from snl.errors import DataError, ImageError
from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics
from snl.files import atomic

METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "aupro",
    "aupro_05",
)
COUNTS = ("n_normal", "n_anomalous", "n_masked")


class Predictor(Protocol):
    """Anything that turns pixels into maps and scores."""

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (B, size, size, 3) to maps float32 (B, size, size) and scores float32 (B,)."""

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One map (h, w) to `size` (H, W)."""


@dataclass(frozen=True)
class ImageScore:
    """What one test image got."""

    path: Path
    product: str
    label: str
    defect: str
    score: float


@dataclass(frozen=True)
class Evaluation:
    """The result: metrics per product, their mean, pooled over all, and every image's score."""

    products: dict[str, dict[str, float | int | None]]
    mean: dict[str, float | int | None]
    pooled: dict[str, float | int | None]
    scores: tuple[ImageScore, ...]
    skipped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The three tables as JSON values; None where a metric is not defined."""
        return {"products": self.products, "mean": self.mean, "pooled": self.pooled}


def evaluate(
    predictor: Predictor,
    data: Catalog | str | Path,
    *,
    resolution: str = "input",
    batch_size: int = 16,
    save_maps: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every test image with a label and measure detection and localization.

    Args:
        predictor: an `Inspector`, or anything of its shape.
        data: a catalog, or a folder or manifest to read one from.
        resolution: `input`: pixel metrics at the network's input size, masks resized by nearest,
            as published results are; `original`: at every image's own size.
        batch_size: images per forward pass.
        save_maps: folder for the raw maps at the images' own sizes, float32 .npy, each at its
            image's path below the data's root with `.npy` appended.
        progress: called with (done, total).

    Returns:
        The metrics. Pixel metrics count only images whose mask is known (`n_masked`); a metric
        that is not defined (one kind of image only) is None and left out of the mean.

    Raises:
        DataError: no labelled test image.
    """
    catalog = data if isinstance(data, Catalog) else Catalog.read(data)
    records = [record for record in catalog.test() if record.label is not None]
    if not records:
        raise DataError(
            f"{catalog.root}: no labelled test images (layout '{catalog.layout}'); put normal ones "
            "into <product>/test/good and anomalous ones into <product>/test/<defect>"
        )
    detection = {r.product: DetectionMetrics() for r in records}
    localization = {r.product: LocalizationMetrics() for r in records}
    scores: list[ImageScore] = []
    errors: list[ImageError] = []
    done = 0
    stream = read([r.path for r in records], predictor.image_size)
    for group, pixels in batches(stream, batch_size, errors):
        for loaded, anomaly_map, score in zip(group, *predictor.predict(pixels), strict=True):
            record = records[loaded.index]
            anomalous = record.label == "anomalous"
            detection[record.product].update(float(score), anomalous)
            if record.mask_known:
                size = loaded.original if resolution == "original" else anomaly_map.shape
                mask = _mask(record, (size[0], size[1]), errors)
                if mask is not None:
                    scaled = predictor.resize_map(anomaly_map, mask.shape)
                    localization[record.product].update(scaled, mask)
            if save_maps is not None:
                _save_map(Path(save_maps), catalog.root, record, loaded, anomaly_map, predictor)
            scores.append(
                ImageScore(
                    record.path, record.product, str(record.label), record.defect, float(score)
                )
            )
        done += len(group)
        if progress:
            progress(done + len(errors), len(records))
    products = {
        name: detection[name].compute() | localization[name].compute() for name in sorted(detection)
    }
    all_detection, all_localization = DetectionMetrics(), LocalizationMetrics()
    for name in products:
        all_detection.merge(detection[name])
        all_localization.merge(localization[name])
    return Evaluation(
        products={name: _ordered(values) for name, values in products.items()},
        mean=_mean(list(products.values())),
        pooled=_ordered(all_detection.compute() | all_localization.compute()),
        scores=tuple(scores),
        skipped=tuple(str(error) for error in errors),
    )


def format_table(evaluation: Evaluation) -> str:
    """The tables as aligned text, percentages; `-` where a metric is not defined."""
    rows = [["product", *METRICS, *COUNTS]]
    tables = {**evaluation.products, "mean": evaluation.mean, "pooled": evaluation.pooled}
    for name, values in tables.items():
        cells = [_percent(values[m]) for m in METRICS] + [str(values[c]) for c in COUNTS]
        rows.append([name, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-2], rule, *lines[-2:]])


def _percent(value: float | int | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _ordered(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in (*METRICS, *COUNTS)}


def _mean(products: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the products where a metric is defined; counts are summed."""
    mean: dict[str, Any] = {}
    for name in METRICS:
        defined = [values[name] for values in products if values[name] is not None]
        mean[name] = sum(defined) / len(defined) if defined else None
    return mean | {name: sum(values[name] for values in products) for name in COUNTS}


def _mask(record: Record, size: tuple[int, int], errors: list[ImageError]) -> np.ndarray | None:
    """The mask at a size, empty for a normal image; None (and noted) if it cannot be read."""
    if record.label == "normal":
        return np.zeros(size, dtype=bool)
    try:
        return load_mask(record.mask, size)
    except ImageError as error:
        errors.append(error)
        return None


def _save_map(
    folder: Path,
    root: Path,
    record: Record,
    loaded: Loaded,
    anomaly_map: np.ndarray,
    predictor: Predictor,
) -> None:
    outside = Path("outside", *record.path.absolute().parts[1:])  # equal names stay apart
    place = inside(record.path, root) or outside
    path = folder / place.with_name(place.name + ".npy")
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, predictor.resize_map(anomaly_map, loaded.original))
