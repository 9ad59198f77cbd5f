"""Evaluate a model on a catalog, in bounded memory.

For a model with a calibration (an `Inspector`), the evaluation also tells how often its decisions
are right, and how well raw and calibrated scores rank the images of all products together. For a
model without one (a `Predictor`, or anything with `image_size` and `predict`), it measures only
scores and maps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.data.listing import inside
from snl.data.masks import load_mask
from snl.data.records import Record
from snl.data.stream import Fit
from snl.decision.calibration import Calibration
from snl.decision.decide import decide
from snl.decision.inspection import Verdict
from snl.decision.maps import resize_map
from snl.decision.prediction import Prediction
from snl.decision.recognition import nearest_view, source_of
from snl.errors import DataError, ImageError
from snl.evaluation.image_score import ImageScore
from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics, pro_curve, roc_curve
from snl.evaluation.parts import score_parts
from snl.evaluation.result import EvaluatedImage, Evaluation, mean_of, ordered
from snl.files import atomic
from snl.kinds import MAP
from snl.limits import MAX_PIXELS
from snl.outputs import Output, check_outputs
from snl.runtime.predictor import BatchModel, predict_images


def evaluate(
    model: BatchModel,
    data: Catalog | str | Path,
    *,
    resolution: str = "input",
    batch_size: int = 16,
    save_maps: str | Path | None = None,
    products_given: bool = False,
    picture: Fit | None = None,
    visit: Callable[[EvaluatedImage], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score every labelled test image and measure detection and localization.

    Args:
        model: an `Inspector`, a `Predictor`, or anything with `image_size` and `predict`.
        data: a catalog, or a folder or manifest to read one from.
        resolution: `input`: pixel metrics at the network's input size, masks resized by nearest
            neighbour, as published results are; `original`: at every image's own size
            (always used for tiled images).
        batch_size: images per forward pass.
        save_maps: folder for the raw maps at the images' own sizes, float32 .npy, each at its
            image's path below the data's root with `.npy` appended.
        products_given: decide with the product known; otherwise it is recognised, as by `inspect`.
        picture: size of the pictures that `visit` gets, by the size of the image; None: none.
        visit: called with an `EvaluatedImage` after each image.
        progress: called with (done, total).

    Returns:
        The metrics. Pixel metrics count only images with a known mask (`n_masked`) of the image's
        shape; a metric that
        is undefined because there are only normal or only anomalous images is None and left out of
        the mean.

    Raises:
        DataError: no labelled test image.

    Example:
        >>> evaluation = snl.evaluate(snl.load("parts.snl"), "parts/")
        >>> 0 <= evaluation.mean["image_auroc"] <= 1
        True
    """
    catalog = Catalog.for_model(data, model, unseen=True)
    records = [record for record in catalog.test() if record.label is not None]
    if not records:
        raise DataError(
            f"{catalog.root}: no labelled test images (layout '{catalog.layout}'); put normal ones "
            "into <product>/test/good and anomalous ones into <product>/test/<defect>"
        )
    maps = {} if save_maps is None else map_files(save_maps, catalog)
    if save_maps is not None:
        output = Output("save_maps", Path(save_maps), MAP, tuple(maps.values()))
        check_outputs([output], catalog_files(catalog))
    calibration: Calibration | None = getattr(model, "calibration", None)
    tile = calibration.tile if calibration else 0
    max_pixels = getattr(model, "max_pixels", MAX_PIXELS)
    detection = {r.product: DetectionMetrics() for r in records}
    localization = {r.product: LocalizationMetrics() for r in records}
    scores: list[ImageScore] = []
    errors: list[ImageError] = []
    mask_errors: list[ImageError] = []
    remarks: Counter[str] = Counter()
    predictions = predict_images(
        model,
        [_source(record, calibration, products_given) for record in records],
        errors,
        batch_size,
        tile=tile,
        scoring=calibration.scoring if calibration else None,
        keep_images=visit is not None and (tile > 0 or bool(calibration and calibration.rois)),
        picture=picture,
        max_pixels=max_pixels,
        choose=partial(nearest_view, calibration=calibration) if calibration else None,
    )
    for prediction in predictions:
        record = records[prediction.index]
        remarks.update(prediction.remarks)
        prediction, verdict = _decided(prediction, record, calibration, products_given)
        anomaly_map, size = prediction.anomaly_map, prediction.size
        if prediction.roi is not None:  # masks are of whole images
            side = model.image_size
            anomaly_map = prediction.map_at(side, side) if tile == 0 else prediction.full_map()
        detection[record.product].update(prediction.score, record.label == "anomalous")
        mask = None
        if record.mask_known:
            shape = size if resolution == "original" else anomaly_map.shape
            mask = _mask(record, shape, size, max_pixels, mask_errors)
        if mask is not None:
            exact = resolution == "original" and prediction.roi is not None
            shown = prediction.full_map() if exact else resize_map(anomaly_map, mask.shape)
            localization[record.product].update(shown, mask)
        if save_maps is not None:
            _save_map(maps[record.path], prediction.full_map())
        known = calibration is None or record.product in calibration.products
        label = str(record.label)
        scores.append(
            ImageScore(
                record.path,
                record.product,
                label,
                record.defect,
                prediction.score,
                verdict,
                known,
                record.part,
            )
        )
        if visit:
            image = prediction.pixels if prediction.image is None else prediction.image
            assert image is not None  # one of the two is there
            visit(EvaluatedImage(scores[-1], image, size, anomaly_map, mask, prediction.picture))
        if progress:
            progress(len(scores) + len(errors), len(records))
    if progress and len(scores) < len(records):
        progress(len(records), len(records))
    evaluation = _evaluation(detection, localization, scores, errors, mask_errors)
    parts = score_parts(records, scores, calibration)
    return replace(evaluation, remarks=dict(remarks), parts=parts)


def _source(record: Record, calibration: Calibration | None, given: bool) -> Any:
    """Return what is read of an image: of one that is inspected, as its product asks for."""
    if calibration is None:
        return record.source
    return source_of(record.path, calibration, _product(record, calibration, given))


def _product(record: Record, calibration: Calibration, given: bool) -> str | None:
    """Return the product of an image if it is given; None: it is recognised."""
    return record.product if given and record.product in calibration.products else None


def _decided(
    prediction: Prediction, record: Record, calibration: Calibration | None, given: bool
) -> tuple[Prediction, Verdict | None]:
    """Return the prediction without ignored pixels, and the verdict, if there is a calibration."""
    if calibration is None:
        return prediction, None
    inspection = decide(prediction, calibration, _product(record, calibration, given))
    return inspection.prediction, inspection.verdict()


def _evaluation(
    detection: dict[str, DetectionMetrics],
    localization: dict[str, LocalizationMetrics],
    scores: list[ImageScore],
    errors: list[ImageError],
    mask_errors: list[ImageError],
) -> Evaluation:
    products = {
        name: detection[name].compute() | localization[name].compute() for name in sorted(detection)
    }
    all_detection, all_localization = DetectionMetrics(), LocalizationMetrics()
    for name in products:
        all_detection.merge(detection[name])
        all_localization.merge(localization[name])
    return Evaluation(
        products={name: ordered(values) for name, values in products.items()},
        mean=mean_of(list(products.values())),
        pooled=ordered(all_detection.compute() | all_localization.compute()),
        scores=tuple(scores),
        skipped=tuple(str(error) for error in errors),
        unusable_masks=tuple(str(error) for error in mask_errors),
        curves={name: _curves(detection[name], localization[name]) for name in products},
        pooled_curves=_curves(all_detection, all_localization),
    )


def _curves(
    images: DetectionMetrics, pixels: LocalizationMetrics
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        "roc": roc_curve(images.normal, images.anomalous),
        "pro": pro_curve(pixels.normal, pixels.regions),
    }


def _mask(
    record: Record,
    size: tuple[int, int],
    image_size: tuple[int, int],
    max_pixels: int,
    errors: list[ImageError],
) -> np.ndarray | None:
    """Return the mask at a size, empty for a normal image.

    If it cannot be read or has another aspect ratio than the image, return None and add the error
    to `errors`.
    """
    if record.label == "normal":
        return np.zeros(size, dtype=bool)
    try:
        return load_mask(record.mask, size, image_size=image_size, max_pixels=max_pixels)
    except ImageError as error:
        errors.append(error)
        return None


def map_files(folder: str | Path, catalog: Catalog) -> dict[Path, Path]:
    """Return the file of the raw map for each labelled test image.

    It has the image's path below the data's root, with `.npy` appended.
    """
    return {
        record.path: Path(folder) / place.with_name(place.name + ".npy")
        for record in catalog.test()
        for outside in [Path("outside", *record.path.absolute().parts[1:])]  # avoids collisions
        for place in [inside(record.path, catalog.root) or outside]
    }


def _save_map(path: Path, anomaly_map: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, anomaly_map)
