"""Measure normal images: what a calibration is computed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from snl.data.records import Record
from snl.decision.calibration import Calibration
from snl.decision.maps import resize_mask
from snl.decision.recognition import nearest_view, recognise, source_of
from snl.decision.regions import peaks
from snl.decision.sample import PEAKS, NormalSample
from snl.decision.scoring import score_map
from snl.errors import ImageError
from snl.runtime.predictor import Predictor


def measure(
    predictor: Predictor,
    records: Sequence[Record],
    errors: list[ImageError],
    *,
    tile: int = 0,
    ignore_masks: Mapping[str, np.ndarray] | None = None,
    recognise_by: Calibration | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NormalSample:
    """Return the measurements of normal images. Every image is processed once.

    Args:
        predictor: of the network.
        records: normal images.
        errors: list to which the errors of unreadable images are appended.
        tile: side of the tiles in pixels; 0: whole images.
        ignore_masks: bool (h, w) by product: pixels of the map that do not count.
        recognise_by: by which products are recognised; None: the records name their products and
            their regions of interest.
        progress: called with (done, total).
    """
    masks = ignore_masks or {}
    before = len(errors)
    products: list[str] = []
    read: list[str] = []
    rows: list[tuple[float, np.ndarray, np.ndarray, float, int]] = []
    sources: list[Any] = [record.source for record in records]
    choose = None
    if recognise_by is not None:
        sources = [source_of(record.path, recognise_by) for record in records]
        choose = partial(nearest_view, calibration=recognise_by)
    for prediction in predictor.predict_images(sources, errors, tile=tile, choose=choose):
        record = records[prediction.index]
        product = record.product
        if recognise_by is not None:
            product = recognise(prediction, recognise_by).product
        anomaly_map, score = prediction.anomaly_map, prediction.score
        if product in masks:
            ignored = resize_mask(masks[product], anomaly_map.shape)
            anomaly_map = np.where(ignored, 0, anomaly_map)
            score = score_map(anomaly_map, predictor.settings.map)
        products.append(product)
        read.append(str(record.path))
        highest = peaks(anomaly_map, PEAKS).astype(np.float32)
        background = float(np.quantile(anomaly_map, 0.99))
        content = predictor.training.content_hash(record.path)
        rows.append((score, prediction.embedding, highest, background, content))
        if progress:
            progress(len(rows) + len(errors) - before, len(records))
    if progress and len(rows) < len(records):
        progress(len(records), len(records))
    if not rows:
        none = np.empty(0, np.float32)
        embeddings = np.empty((0, predictor.embedding_width), np.float32)
        hashes = np.empty(0, np.uint64)
        return NormalSample((), none, embeddings, np.empty((0, PEAKS), np.float32), none, hashes)
    scores, embedding, highest_peaks, backgrounds, hashes_read = zip(*rows, strict=True)
    return NormalSample(
        tuple(products),
        np.asarray(scores, np.float32),
        np.asarray(embedding, np.float32),
        np.asarray(highest_peaks, np.float32),
        np.asarray(backgrounds, np.float32),
        np.array(hashes_read, np.uint64),
        tuple(read),
    )


def measure_usable(
    predictor: Predictor,
    calibration: Calibration,
    records: Sequence[Record],
    note: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> NormalSample:
    """Return the measurements of those images that can be used, with tiles, regions of interest
    and ignore masks of a calibration.

    Args:
        predictor: of the network.
        calibration: in force, or to be changed.
        records: images whose products are known.
        note: called with a sentence about every image that is skipped.
        progress: called with (done, total).
    """
    errors: list[ImageError] = []
    sample = measure(
        predictor,
        [replace(record, roi=calibration.rois.get(record.product)) for record in records],
        errors,
        tile=calibration.tile,
        ignore_masks=calibration.ignore_masks,
        progress=progress,
    )
    for error in errors:
        note(f"skipped: {error}")
    return sample
