"""Evaluate an inspector and collect the contents of the report page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from snl import __version__
from snl.data.bands import resize_array
from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.decision.calibration import SHARED_TAIL, Calibration
from snl.decision.certainty import lie_further, true_rate_interval
from snl.evaluation.evaluate import evaluate
from snl.evaluation.parts import part_notes
from snl.evaluation.result import EvaluatedImage, Evaluation
from snl.kinds import PAGE
from snl.outputs import Output, check_outputs
from snl.reporting.page import ReportData, Shown, write_page
from snl.reporting.reviews import file_sha256
from snl.reporting.thumbnails import (
    LAYER,
    detail,
    fitted,
    layer,
    mask_thumbnail,
    picture_size,
    thumbnail,
    thumbnail_side,
)

if TYPE_CHECKING:
    from snl.runtime.inspector import Inspector

AHEAD = 32
"""Images that wait to be drawn while the network processes the next ones."""
SLIDER = (0.001, 0.5)
"""Ends of the page's sliders of rates."""


def report(
    inspector: Inspector,
    data: Catalog | str | Path,
    path: str | Path,
    *,
    products_given: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate an inspector and write the report page; see `snl.reporting.page`.

    Args:
        inspector: its decisions are reported.
        data: a catalog, or a folder or manifest to read one from; with labelled test images.
        path: HTML file to write.
        products_given: use the true product for each decision instead of recognising it.
        progress: callback with (images done, total).

    Returns:
        The evaluation that the page shows.

    Raises:
        DataError: there are no labelled test images.
        SnlError: the file cannot be written, or would replace an input or another file.

    Example:
        >>> evaluation = snl.report(snl.load("parts.snl"), "parts/", "report.html")
        >>> len(evaluation.scores) > 0
        True
    """
    catalog = Catalog.for_model(data, inspector, unseen=True)
    check_outputs([Output("the report", Path(path), PAGE)], catalog_files(catalog))
    shown: list[Future[Shown]] = []
    side = thumbnail_side(len(catalog.test()))
    distances: dict[str, list[float]] = {product: [] for product in inspector.products}

    def visit(seen: EvaluatedImage) -> None:
        if len(shown) >= AHEAD:
            shown[-AHEAD].result()
        shown.append(pool.submit(_shown, seen, inspector, catalog, side))
        verdict = seen.result.verdict
        if verdict is not None and seen.result.label == "normal":
            distances.get(seen.result.product, []).append(verdict.distance)

    with ThreadPoolExecutor(1) as pool:  # draws beside the network
        try:
            evaluation = evaluate(
                inspector,
                catalog,
                products_given=products_given,
                picture=picture_size,
                visit=visit,
                progress=progress,
            )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        images = (future.result() for future in shown)
        write_page(path, _data(inspector, catalog, evaluation, distances), images)
    return evaluation


def _shown(seen: EvaluatedImage, inspector: Inspector, catalog: Catalog, side: int) -> Shown:
    """Return one image for the page, with thumbnails in the aspect ratio of the original image."""
    result, verdict = seen.result, seen.result.verdict
    assert verdict is not None  # an inspector always decides
    picture = seen.image if seen.picture is None else seen.picture
    anomaly_map = np.asarray(seen.anomaly_map, np.float32)
    # in tiles the network sees the image at its own scale, so its details have that scale, too
    sharp = seen.image if seen.image.shape[:2] == seen.size else picture
    defect = None
    if seen.mask is not None:
        height, width = anomaly_map.shape
        defect = resize_array(seen.mask, width, height, Image.Resampling.BOX) > 0
    found = detail(sharp, anomaly_map, defect)
    part, frame = found or (None, None)
    mask = None
    if seen.mask is not None and seen.mask.any():
        size = fitted(*seen.size, side)
        mask = mask_thumbnail(resize_array(seen.mask, *size, Image.Resampling.BOX) > 0, side)
    given = verdict.product_from == "given"
    return Shown(
        path=catalog.relative(result.path),
        product=result.product,
        label=result.label,
        defect="" if result.defect == "good" else result.defect,
        score=result.score,
        calibrated=verdict.calibrated,
        p_value=verdict.p_value,
        unknown_p=None if given else verdict.unknown_p,
        recognised=verdict.recognised,
        image=thumbnail(picture, side),
        overlay=layer(
            resize_array(anomaly_map, *fitted(*seen.size, LAYER)), inspector.calibration.map_range
        ),
        mask=mask,
        part=result.part,
        detail=part,
        frame=frame,
        sha256=file_sha256(result.path),
    )


def _data(
    inspector: Inspector,
    catalog: Catalog,
    evaluation: Evaluation,
    distances: Mapping[str, list[float]],
) -> ReportData:
    """Return the contents of the page except the images; `distances` are of the normal images."""
    calibration = inspector.calibration
    training, settings = inspector.training, inspector.settings
    name = catalog.root.resolve().name
    return ReportData(
        title=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        rates={
            "anomalous": calibration.rates.anomalous,
            "uncertain": calibration.rates.uncertain,
            "unknown": calibration.unknown_rate(),
        },
        least_rates={
            product: calibration.scores.smallest_rate(product) for product in inspector.products
        },
        least_unknown_rate=calibration.unknown_rate(replace(calibration.rates, unknown=1e-9)),
        deciding_rates={
            product: _deciding_rate(calibration, product) for product in inspector.products
        },
        reviews={
            "network": inspector.predictor.metadata.network,
            "calibration": calibration.created,
        },
        pooled_least_rate=calibration.scores.smallest_rate(),
        calibration_scores={k: n.scores.tolist() for k, n in calibration.sets.items()},
        thresholds={
            product: {
                "anomalous": calibration.scores.threshold(rates.anomalous, product)[0],
                "uncertain": calibration.scores.threshold(rates.uncertain, product)[0],
            }
            for product in inspector.products
            for rates in [calibration.rates_for(product)]
        },
        threshold_curves=_threshold_curves(calibration),
        true_rates={
            product: true_rate_interval(
                calibration, product, calibration.rates_for(product).anomalous
            )
            for product in inspector.products
        },
        metrics=evaluation.to_dict(),
        curves={product: _lists(curves) for product, curves in evaluation.curves.items()},
        pooled_curves=_lists(evaluation.pooled_curves),
        provenance={
            "data": {"name": name, "layout": catalog.layout, "images": len(evaluation.scores)},
            "training data": {**training.data, "products": dict(training.products)},
            "calibration": {
                "created": calibration.created,
                "reason": calibration.reason,
                "calibration images": {k: len(n) for k, n in calibration.sets.items()},
            },
            "settings": settings.to_dict(),
            "training": dict(training.facts),
            "versions": {"report": f"snl {__version__}", **training.facts.get("versions", {})},
        },
        notes=[
            *(
                f"{further}; calibrate with images of the line: snl calibrate FILE NORMALS"
                for further in lie_further(
                    calibration, {k: np.array(v, np.float32) for k, v in distances.items()}
                )
            ),
            *part_notes(evaluation.parts),
            *(f"skipped: {text}" for text in evaluation.skipped),
            *(f"mask not used: {text}" for text in evaluation.unusable_masks),
        ],
    )


def _lists(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, list[list[float]]]:
    """Return curves as lists of x and y values."""
    return {kind: [x.tolist(), y.tolist()] for kind, (x, y) in curves.items()}


def _deciding_rate(calibration: Calibration, product: str) -> float:
    """Return the smallest rate of the page's slider at which images of a product are decided; 1 if
    there is none."""
    images = sum(map(len, calibration.sets.values()))
    known = (SLIDER[0], calibration.scores.smallest_rate(product), 1 / (1 + images))
    rates = (rate for rate in sorted(known) if rate >= SLIDER[0])
    return next((rate for rate in rates if rate < 1 and calibration.can_decide(rate, product)), 1.0)


def _threshold_curves(calibration: Calibration) -> dict[str, list[list[float]]]:
    """Return thresholds of all rates of the page's slider, for products with a shared tail."""
    rates = np.geomspace(*SLIDER, 60)
    curves = {}
    for product in calibration.products:
        if calibration.rule_for(product) != SHARED_TAIL:
            continue
        pairs = [(r, calibration.scores.threshold(r, product)[0]) for r in rates.tolist()]
        known = [(r, t) for r, t in pairs if t is not None]
        curves[product] = [[r for r, _ in known], [t for _, t in known]]
    return curves
