"""From a predictor and a catalog to the table of metrics, one image at a time in memory.

What decides (an `Inspector` does, a bare network does not) is judged as well: how often normal
images are flagged, and how one ranking over all products fares by raw and by calibrated scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from snl.data.catalog import Catalog, Record
from snl.data.images import load_mask
from snl.data.layouts import inside
from snl.data.stream import Loaded, batches, read
from snl.errors import DataError, ImageError
from snl.evaluation.metrics import (
    DetectionMetrics,
    LocalizationMetrics,
    auroc,
    pro_curve,
    roc_curve,
)
from snl.files import atomic
from snl.text_table import aligned

if TYPE_CHECKING:
    from snl.decision.calibration import Verdict

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

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """uint8 (B, size, size, 3) to maps float32 (B, size, size), scores float32 (B,), and what
        `conclude` wants besides."""

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One map (h, w) to `size` (H, W)."""


@runtime_checkable
class Judge(Protocol):
    """A predictor that decides, too; see `snl.runtime.inspector.Inspector`."""

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the taught products."""

    def look(
        self, sources: Sequence[Path], errors: list[ImageError], batch_size: int
    ) -> Iterator[tuple[Loaded, np.ndarray, float, np.ndarray]]:
        """Every image with its map, score and embedding."""

    def conclude(
        self, anomaly_map: np.ndarray, score: float, embedding: np.ndarray, product: str | None
    ) -> tuple[np.ndarray, Verdict]:
        """The map without what is ignored, and the verdict."""


@dataclass(frozen=True)
class ImageScore:
    """What one test image got."""

    path: Path
    product: str
    label: str
    defect: str
    score: float
    verdict: Verdict | None = None
    """Of a predictor that decides."""
    taught: bool = True
    """Whether the predictor knows the product."""


@dataclass(frozen=True)
class Seen:
    """One test image as it passes by, for reports."""

    result: ImageScore
    image: np.ndarray
    """uint8 (h, w, 3), the network's square input or, in tiles, the image."""
    size: tuple[int, int]
    """(H, W) of the image."""
    anomaly_map: np.ndarray
    """float32 (h, w)."""
    mask: np.ndarray | None
    """bool (h, w); None: unknown."""


@dataclass(frozen=True)
class Evaluation:
    """The result: metrics per product, their mean, pooled over all, and every image's score."""

    products: dict[str, dict[str, float | int | None]]
    mean: dict[str, float | int | None]
    pooled: dict[str, float | int | None]
    scores: tuple[ImageScore, ...]
    skipped: tuple[str, ...]
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
    """By product and for `pooled`: `roc` of images and `pro` of regions, each false-positive rate
    and what is found at it."""

    @property
    def calibrated_auroc(self) -> float | None:
        """Pooled image AUROC of the calibrated scores; None: the predictor does not decide."""
        both: dict[str, list[float]] = {"normal": [], "anomalous": []}
        for one in self.scores:
            if one.verdict is None:
                return None
            both[one.label].append(one.verdict.calibrated)
        return auroc(both["normal"], both["anomalous"])

    def to_dict(self) -> dict[str, Any]:
        """The tables as JSON values; None where a metric is not defined."""
        from snl.evaluation.decision_counts import decisions

        tables = {"products": self.products, "mean": self.mean, "pooled": self.pooled}
        found = decisions(self.scores)
        if not found:
            return tables
        pooled = self.pooled | {"image_auroc_calibrated": self.calibrated_auroc}
        return tables | {"pooled": pooled, "decisions": found}


def evaluate(
    predictor: Predictor,
    data: Catalog | str | Path,
    *,
    resolution: str = "input",
    batch_size: int = 16,
    save_maps: str | Path | None = None,
    products_given: bool = False,
    visit: Callable[[Seen], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every test image with a label and measure detection and localization.

    Args:
        predictor: an `Inspector`, or anything of its shape.
        data: a catalog, or a folder or manifest to read one from.
        resolution: `input`: pixel metrics at the network's input size, masks resized by nearest,
            as published results are; `original`: at every image's own size, as always where
            images are looked at in tiles.
        batch_size: images per forward pass.
        save_maps: folder for the raw maps at the images' own sizes, float32 .npy, each at its
            image's path below the data's root with `.npy` appended.
        products_given: decide knowing the product; else it is recognised, as `inspect` does.
        visit: is given every image as it passes by.
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
    judge = predictor if isinstance(predictor, Judge) else None
    for record, image, size, anomaly_map, score, *embedding in _look(
        predictor, records, batch_size, errors
    ):
        verdict, taught = None, True
        if judge is not None:
            taught = record.product in judge.products
            given = record.product if taught and products_given else None
            anomaly_map, verdict = judge.conclude(anomaly_map, score, embedding[0], given)
            score = verdict.score
        detection[record.product].update(score, record.label == "anomalous")
        mask = None
        if record.mask_known:
            mask = _mask(record, size if resolution == "original" else anomaly_map.shape, errors)
        if mask is not None:
            scaled = predictor.resize_map(anomaly_map, mask.shape)
            localization[record.product].update(scaled, mask)
        if save_maps is not None:
            _save_map(Path(save_maps), catalog.root, record, size, anomaly_map, predictor)
        scores.append(
            ImageScore(
                record.path,
                record.product,
                str(record.label),
                record.defect,
                score,
                verdict,
                taught,
            )
        )
        if visit:
            visit(Seen(scores[-1], image, size, anomaly_map, mask))
        if progress:
            progress(len(scores) + len(errors), len(records))
    if progress and len(scores) < len(records):
        progress(len(records), len(records))
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
        curves={
            name: {
                "roc": roc_curve(images.normal, images.anomalous),
                "pro": pro_curve(pixels.normal, pixels.regions),
            }
            for name, images, pixels in [
                *((name, detection[name], localization[name]) for name in products),
                ("pooled", all_detection, all_localization),
            ]
        },
    )


def _look(
    predictor: Predictor, records: Sequence[Record], batch_size: int, errors: list[ImageError]
) -> Iterator[tuple[Any, ...]]:
    """Record, image, its own size, map, score and what else there is, of every readable image."""
    paths = [record.path for record in records]
    if isinstance(predictor, Judge):
        for loaded, *found in predictor.look(paths, errors, batch_size):
            image = loaded.pixels if loaded.image is None else loaded.image
            yield records[loaded.index], image, loaded.original, *found
        return
    for group, pixels in batches(read(paths, predictor.image_size), batch_size, errors):
        for loaded, anomaly_map, score in zip(group, *predictor.predict(pixels)[:2], strict=True):
            yield records[loaded.index], loaded.pixels, loaded.original, anomaly_map, float(score)


def format_table(evaluation: Evaluation) -> str:
    """The tables as aligned text, percentages; `-` where a metric is not defined."""
    rows = [["product", *METRICS, *COUNTS]]
    tables = {**evaluation.products, "mean": evaluation.mean, "pooled": evaluation.pooled}
    for name, values in tables.items():
        cells = [_percent(values[m]) for m in METRICS] + [str(values[c]) for c in COUNTS]
        rows.append([name, *cells])
    return aligned(rows, last=2)


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
    size: tuple[int, int],
    anomaly_map: np.ndarray,
    predictor: Predictor,
) -> None:
    outside = Path("outside", *record.path.absolute().parts[1:])  # equal names stay apart
    place = inside(record.path, root) or outside
    path = folder / place.with_name(place.name + ".npy")
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, predictor.resize_map(anomaly_map, size))
