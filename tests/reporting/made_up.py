"""Synthetic reports: scores and p-values as from an evaluation, with arbitrary pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score, roc_curve

from snl.data.bands import resize_array
from snl.demo.dataset import DEFECTS, PRODUCTS, demo_image
from snl.evaluation.detection_rates import detection_rates
from snl.evaluation.image_score import ImageScore
from snl.reporting.page import ReportData, Shown
from snl.reporting.thumbnails import (
    LAYER,
    detail,
    fitted,
    layer,
    mask_thumbnail,
    thumbnail,
)

HOSTILE = "</script><img src=x onerror=alert(1)> & \"quotes\" 'too' \u2028 \u202etxt.exe 🔩 \udcff"
RATES = {"anomalous": 0.05, "uncertain": 0.10, "unknown": 0.01}


def p_value(score: float, held: np.ndarray) -> float:
    """Return the share of normal images, including this one, with at least this score."""
    return float((1 + (held >= score).sum()) / (len(held) + 1))


def outcome(image: Shown, rate: float, uncertain: float) -> str:
    """Return the outcome of the page's decision rule."""
    if image.unknown_p is not None and image.unknown_p <= RATES["unknown"]:
        return "unknown"
    if image.p_value is None or rate < image.p_value <= uncertain:
        return "uncertain"
    flagged = image.p_value <= rate
    if image.label == "anomalous":
        return "hit" if flagged else "miss"
    return "false_alarm" if flagged else "pass"


def outcomes(images: Sequence[Shown], rate: float, uncertain: float) -> dict[tuple[str, str], int]:
    """Return the number of images by label and outcome."""
    return Counter((image.label, outcome(image, rate, uncertain)) for image in images)


def calibration(products: Sequence[str], count: int = 25) -> dict[str, list[float]]:
    """Return random scores of calibration images by product."""
    rng = np.random.default_rng(0)
    return {
        name: list(rng.gamma(9.0, 0.11, count - 2 * (n % 5))) for n, name in enumerate(products)
    }


def made_up_curves(images: Sequence[Shown]) -> dict[str, list[list[float]]]:
    """Return the ROC curve of the images and a PRO curve; empty without images of both labels."""
    labels = np.array([image.label == "anomalous" for image in images], dtype=bool)
    if not 0 < labels.sum() < len(labels):
        return {}
    scores = [image.score for image in images]
    x, y, _ = roc_curve(labels, scores)
    grid = np.linspace(0, 0.3, 400)
    pro = 1 - np.exp(-grid * 30 * float(roc_auc_score(labels, scores)))
    return {"roc": [list(x), list(y)], "pro": [list(grid), list(pro)]}


def made_up_metrics(images: Sequence[Shown]) -> dict[str, float | int | None]:
    """Return a table with the image AUROC of the images; the other metrics are powers of it."""
    labels = np.array([image.label == "anomalous" for image in images], dtype=bool)
    auroc = None
    if 0 < labels.sum() < len(labels):
        auroc = float(roc_auc_score(labels, [image.score for image in images]))
    return {
        "image_auroc": auroc,
        "image_auroc_calibrated": auroc,
        "image_ap": auroc and auroc**1.2,
        "image_f1max": auroc and auroc**1.5,
        "pixel_auroc": auroc and auroc**0.6,
        "pixel_ap": auroc and auroc**3,
        "pixel_f1max": auroc and auroc**2.5,
        "aupro": auroc and auroc**1.7,
        "aupro_05": auroc and auroc**2.7,
        "n_normal": int((~labels).sum()),
        "n_anomalous": int(labels.sum()),
        "n_masked": len(labels),
    }


def made_up_detection(images: Sequence[Shown]) -> dict[str, Any]:
    """Return what the scores of the images allow; the page computes the decisions itself."""
    scores = [
        ImageScore(
            Path(i.path), i.product, i.label, i.defect, 0.0 if i.score != i.score else i.score
        )
        for i in images
    ]
    return detection_rates(scores).to_dict()


def report(images: Sequence[Shown], held: dict[str, list[float]], **changes: Any) -> ReportData:
    """Return report data computed from the images' scores; `held`: calibration scores by product.

    Keyword arguments replace fields of the data.
    """
    names = sorted({image.product for image in images})
    by_product = {name: [image for image in images if image.product == name] for name in names}
    curves = {name: made_up_curves(group) for name, group in by_product.items()}
    tables = {name: made_up_metrics(group) for name, group in by_product.items()}
    pooled = made_up_metrics(images)
    total = sum(map(len, held.values()))
    values: dict[str, Any] = {
        "title": "parts.snl on parts/",
        "created": "2026-03-14T15:09:26+00:00",
        "rates": RATES,
        "least_rates": {name: 1 / (len(scores) + 1) for name, scores in held.items()},
        "pooled_least_rate": 1 / (total + 1),
        "calibration_scores": held,
        "thresholds": {name: {"anomalous": None, "uncertain": None} for name in held},
        "threshold_curves": {},
        "true_rates": {},
        "metrics": {
            "products": tables,
            "mean": pooled,
            "pooled": pooled,
            "detection_rates": made_up_detection(images),
        },
        "curves": {name: curve for name, curve in curves.items() if curve},
        "pooled_curves": made_up_curves(images),
        "provenance": {
            "settings": {
                "method": "snl",
                "image_size": 128,
                "training": {"steps": 400, "lr": 2e-4},
            },
            "data": {"root": "parts", "layout": "mvtec", "images": 400, "products": names},
            "versions": {"snl": "0.1.0", "numpy": np.__version__},
            "seed": 0,
        },
        "notes": ["skipped: gear/test/good/099.png: cannot be read (truncated)"],
    }
    return ReportData(**{**values, **changes})


def demo_report(
    size: int = 256, n_good: int = 12, n_defect: int = 6
) -> tuple[ReportData, list[Shown]]:
    """Return a report on the test images of the demo set with synthetic maps; by default 270."""
    rng = np.random.default_rng(1)
    held = calibration(PRODUCTS)
    all_scores = np.concatenate([np.asarray(v) for v in held.values()])
    images = []
    for product in PRODUCTS:
        for kind in ("good", *DEFECTS[product]):
            for index in range(n_good if kind == "good" else n_defect):
                part = demo_image(product, kind, index, size=size)
                mask = part.mask > 0
                score = float(
                    rng.gamma(9.0, 0.11) * (1 if kind == "good" else rng.lognormal(0.9, 0.4))
                )
                noise = gaussian_filter(rng.random(mask.shape), 9)
                level = 0.4 * (noise - noise.min()) / np.ptp(noise)
                level += 0.55 * score * gaussian_filter(mask.astype(float), 7)
                cut, frame = detail(part.image, level) or (None, None)
                images.append(
                    Shown(
                        path=f"{product}/test/{kind}/{index:03d}.png",
                        product=product,
                        label="normal" if kind == "good" else "anomalous",
                        defect="" if kind == "good" else kind,
                        score=score,
                        calibrated=score / float(np.mean(held[product])),
                        p_value=p_value(score, all_scores),
                        unknown_p=float(rng.uniform(0.004, 1)),
                        recognised=product if rng.random() < 0.98 else PRODUCTS[0],
                        image=thumbnail(part.image),
                        overlay=layer(
                            resize_array(level.astype(np.float32), *fitted(*level.shape, LAYER)),
                            (0.45, 1.45),
                        ),
                        mask=None if kind == "good" else mask_thumbnail(mask),
                        detail=cut,
                        frame=frame,
                    )
                )
    return report(images, held), images


def many(count: int, products: int = 15, pictures: int = 24) -> tuple[ReportData, Iterator[Shown]]:
    """Return a report on any number of images that share a few pictures, as an iterator."""
    names = [f"product {n:03d}" for n in range(products)]
    held = calibration(names, 60)
    rng = np.random.default_rng(2)
    grain = (rng.random((pictures, 18, 18, 3)) * 255).astype(np.uint8)
    thumbs = [thumbnail(np.kron(g, np.ones((8, 8, 1), np.uint8))) for g in grain]
    mask = mask_thumbnail(np.eye(144, dtype=bool))

    def make_image(n: int) -> Shown:
        product, bad = names[n % products], n // products % 3 == 0
        score = float(rng.gamma(9.0, 0.11) * (rng.lognormal(0.9, 0.4) if bad else 1))
        return Shown(
            path=f"{product}/test/{'crack' if bad else 'good'}/{n:05d}.png",
            product=product,
            label="anomalous" if bad else "normal",
            defect="crack" if bad else "",
            score=score,
            calibrated=score,
            p_value=p_value(score, np.asarray(held[product])),
            unknown_p=None,
            recognised=None,
            image=thumbs[n % pictures],
            overlay=thumbs[(n + 1) % pictures],
            mask=mask if bad else None,
        )

    sample = [make_image(n) for n in range(30 * products)]
    return report(sample, held), (make_image(n) for n in range(count))
