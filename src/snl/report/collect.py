"""From an inspector and labelled images to the report page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from snl import __version__
from snl.drawing.heat import heat
from snl.evaluation.evaluate import Evaluation, Seen, evaluate
from snl.report.page import LONGEST, ReportData, Shown, mask_thumbnail, thumbnail, write_page

if TYPE_CHECKING:
    from snl.data.catalog import Catalog
    from snl.runtime.inspector import Inspector


def report(
    inspector: Inspector,
    catalog: Catalog,
    path: str | Path,
    *,
    products_given: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate and write the page, see `snl.report.page`.

    Args:
        inspector: its decisions are shown.
        catalog: with labelled test images.
        path: of the HTML file.
        products_given: decide knowing the product.
        progress: called with (done, total).

    Raises:
        DataError: no labelled test image.
        SnlError: the file cannot be written.
    """
    shown: list[Shown] = []
    evaluation = evaluate(
        inspector,
        catalog,
        products_given=products_given,
        visit=lambda seen: shown.append(_shown(seen, inspector, catalog)),
        progress=progress,
    )
    write_page(path, _data(inspector, catalog, evaluation), shown)
    return evaluation


def _shown(seen: Seen, inspector: Inspector, catalog: Catalog) -> Shown:
    """Thumbnails in the image's own proportions, and what was decided."""
    one, verdict = seen.result, seen.result.verdict
    assert verdict is not None  # an inspector decides
    height, width = seen.size
    factor = LONGEST / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = np.asarray(Image.fromarray(seen.image).resize(size, Image.Resampling.BILINEAR))
    levels = Image.fromarray(np.asarray(seen.anomaly_map, np.float32))
    anomaly_map = np.asarray(levels.resize(size, Image.Resampling.BILINEAR))
    over = heat(image, anomaly_map, inspector.facts.map_range)
    mask = None
    if seen.mask is not None and seen.mask.any():
        share = Image.fromarray(seen.mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        mask = mask_thumbnail(np.asarray(share) > 0)
    given = verdict.product_from == "given"
    return Shown(
        path=catalog.relative(one.path),
        product=one.product,
        label=one.label,
        defect="" if one.defect == "good" else one.defect,
        score=one.score,
        calibrated=verdict.calibrated,
        p_value=verdict.p_value,
        unknown_p=None if given else verdict.unknown_p,
        recognised=verdict.recognised,
        image=thumbnail(image),
        overlay=thumbnail(over),
        mask=mask,
    )


def _data(inspector: Inspector, catalog: Catalog, evaluation: Evaluation) -> ReportData:
    calibration = inspector.calibration
    facts, settings = inspector.facts, inspector.settings
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
            **{
                product: calibration.scores.smallest_rate(product) for product in inspector.products
            },
            "all products": calibration.scores.smallest_rate(),
        },
        calibration_scores={k: n.scores.tolist() for k, n in calibration.normals.items()},
        thresholds={
            product: {
                "anomalous": calibration.scores.threshold(rates.anomalous, product)[0],
                "uncertain": calibration.scores.threshold(rates.uncertain, product)[0],
            }
            for product in inspector.products
            for rates in [calibration.rates_of(product)]
        },
        metrics=evaluation.to_dict(),
        curves={
            name: {kind: [x.tolist(), y.tolist()] for kind, (x, y) in curves.items()}
            for name, curves in evaluation.curves.items()
        },
        provenance={
            "data": {"name": name, "layout": catalog.layout, "images": len(evaluation.scores)},
            "training data": {**facts.data, "products": facts.products},
            "calibration": {
                "made": calibration.made,
                "why": calibration.why,
                "held-back images": {k: len(n) for k, n in calibration.normals.items()},
            },
            "settings": settings.to_dict(),
            "training": facts.training,
            "versions": {"report": f"snl {__version__}", **facts.training.get("versions", {})},
        },
        notes=[f"left out: {text}" for text in evaluation.skipped],
    )
