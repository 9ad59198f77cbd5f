"""Change the calibration of an inspector with new images: measurements, then pure edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snl.data.attach import normal_images
from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.decision import edit
from snl.decision.calibration import Calibration
from snl.decision.certainty import lie_further
from snl.decision.edit import MAX_UNCERTAIN_RATE
from snl.decision.fit import calibration_sets, raised_scores
from snl.decision.inspection import NORMAL
from snl.decision.sample import NormalSample
from snl.errors import DataError, ImageError
from snl.runtime import feedback
from snl.runtime.inspector import Inspector
from snl.runtime.measure import measure, measure_usable
from snl.runtime.remedies import remedies, what_the_map_shows

Note = Callable[[str], None]
Progress = Callable[[int, int], None] | None


def calibrate(
    inspector: Inspector,
    normals: Catalog | str | Path | None = None,
    *,
    product: str | None = None,
    add: bool = False,
    rate: float | None = None,
    uncertain_rate: float | None = None,
    unknown_rate: float | None = None,
    regions_rate: float | None = None,
    force: bool = False,
    progress: Progress = None,
    note: Note = lambda text: None,
) -> Calibration:
    """Change the calibration of an inspector: new normal images, other false-alarm rates.

    `Inspector.undo` takes the change back; `Inspector.save` makes it permanent.

    Args:
        inspector: to change.
        normals: normal images that training did not see; they replace the held-out images of their
            products. A folder per product, a manifest, a catalog, or with `product` any folder or
            image.
        product: the product that `normals` show, and whose rates change; None: several.
        add: add to the held-out images instead of replacing them.
        rate: share of normal images that may be called anomalous.
        uncertain_rate: the same for anomalous or uncertain.
        unknown_rate: share of images of known products that may be called unknown.
        regions_rate: mean number of regions marked in a normal image.
        force: take `normals` even if the calibration in force speaks against them.
        progress: called with (done, total) while images are processed.
        note: called with a sentence about everything noteworthy.

    Returns:
        The calibration that is now in force; a change without an effect makes no new version.

    Raises:
        DataError: no usable image, or images that look wrong; see `snl.runtime.feedback`.
        SettingsError: an unknown product, a rate that the images do not allow.

    Example:
        >>> inspector = snl.load("parts.snl")
        >>> snl.calibrate(inspector, "normals/", rate=0.1).rates.anomalous
        0.1
        >>> inspector.save("calibrated.snl")
    """
    inspector.check_product(product)
    calibration = inspector.calibration
    edits: list[Calibration] = []
    if normals is not None:
        if isinstance(normals, Catalog):
            records = [record for record in normals.records if record.label == "normal"]
        else:
            feedback.doubts_about_data(Path(normals)).decide(note, force)
            records = records_in(Path(normals), product)
        calibration, _ = add_normals(
            inspector, calibration, records, add=add, named=product is not None, force=force,
            progress=progress, note=note,
        )  # fmt: skip
        edits.append(calibration)
    rates = {
        "anomalous": rate,
        "uncertain": uncertain_rate,
        "unknown": unknown_rate,
        "regions": regions_rate,
    }
    if any(value is not None for value in rates.values()):
        calibration = edit.set_rates(calibration, product, **rates)
        edits.append(calibration)
    changed = edit.combine(inspector.calibration, edits)
    if not edit.is_same(changed, inspector.calibration):
        inspector.recalibrate(changed)
    elif edits:
        note("nothing changed: the result is the calibration in force")
    return inspector.calibration


def add_normals(
    inspector: Inspector,
    calibration: Calibration,
    records: Sequence[Record],
    *,
    add: bool = False,
    named: bool = False,
    force: bool = False,
    reason: str = "new normal images",
    progress: Progress = None,
    note: Note = lambda text: None,
) -> tuple[Calibration, dict[str, int]]:
    """Replace the held-out images of the products in `records`, or add to them.

    Images that the network was trained on are skipped, because their scores say nothing about new
    images; a product without any other image keeps its calibration.

    Args:
        inspector: computes the predictions; it is not changed.
        calibration: to change.
        records: normal images.
        add: keep the images that are there.
        named: whether the user named the product of these very images.
        force: take them even if the calibration in force speaks against them.
        reason: of the new version.
        progress: called with (done, total).
        note: called with a sentence about everything that was skipped or looks wrong.

    Returns:
        The new calibration, and the number of images that each changed product has now.

    Raises:
        DataError: no image is left, one of an unknown product, or images that look wrong.
    """
    products = sorted({record.product for record in records})
    unknown = sorted(set(products) - set(calibration.products))
    if unknown:
        raise DataError(
            f"product '{unknown[0]}' is not known to this inspector; known: "
            f"{', '.join(calibration.products)}: give folders of these names, or --product NAME"
        )
    if named:  # otherwise the layout of the data has stated the labels
        feedback.doubts_about_folders([r.path for r in records], "normal").decide(note, force)
    fresh = [record for record in records if not trained_on(inspector, record.path)]
    if len(fresh) < len(records):
        note(f"{len(records) - len(fresh)} of {len(records)} images were trained on; skipped")
    sample = measure_usable(inspector.predictor, calibration, fresh, note, progress)
    if not len(sample):
        raise DataError("no normal image is left to calibrate with; give ones not trained on")
    comparable = calibration.tile == inspector.calibration.tile  # scores of tiles are others
    if comparable:
        feedback.doubts_about_normals(calibration, sample, named=named).decide(note, force)
    sets = calibration_sets(
        sample,
        calibration.prototypes,
        calibration.products,
        calibration.references,
        calibration.rois,
    )
    if comparable:
        new_distances = {product: sets[product].distances for product in products}
        for further in lie_further(calibration, new_distances):
            note(str(further))
    for product in products:
        if not len(sets[product]):
            note(f"{product}: no image is left, its calibration stays as it was")
    new = {product: sets[product] for product in products if len(sets[product])}
    changed = edit.set_calibration_sets(calibration, new, add=add, reason=reason)
    if comparable:
        feedback.doubts_about_thresholds(calibration, changed).decide(note, force)
    return changed, {product: len(changed.sets[product]) for product in new}


@dataclass(frozen=True)
class FalseAlarm:
    """A normal image that was flagged, and its p-value in the new calibration.

    Attributes:
        path: of the image.
        product: whose normal images it joined; empty if it was trained on and therefore skipped.
        p_value: in the new calibration; None: it was trained on or is held out already, so it was
            not added.
        score: that it has; None where it has no p-value.
    """

    path: str
    product: str
    p_value: float | None
    score: float | None = None


def learn_false_alarms(
    inspector: Inspector,
    calibration: Calibration,
    paths: Sequence[Path],
    product: str | None = None,
    note: Note = lambda text: None,
    *,
    force: bool = False,
) -> tuple[Calibration, list[FalseAlarm]]:
    """Add flagged images of normal parts to the held-out images of their products.

    Every image is processed once. Images that are held out already are not added again.

    Args:
        inspector: computes the predictions; it is not changed.
        calibration: to change.
        paths: of the images.
        product: of all images; None: it is recognised.
        note: called with a sentence about everything that was skipped or looks wrong.
        force: add them even if the calibration in force speaks against them.

    Returns:
        The new calibration (the same one if no image is new), and what became of each image.

    Raises:
        SettingsError: an unknown product.
        ImageError: an image cannot be used.
        DataError: all of them were trained on, or some look wrong; see `snl.runtime.feedback`.
    """
    calibration.check_product(product)
    feedback.doubts_about_folders(paths, "normal").decide(note, force)
    new = [path for path in feedback.once_each(paths, note) if not trained_on(inspector, path)]
    trained = sum(trained_on(inspector, path) for path in paths)
    if trained:
        note(f"{trained} of {len(paths)} images were trained on; skipped")
    held = _held_out(inspector, calibration, new)
    for path, owner in held.items():
        note(f"{path}: is a held-out image of {owner} already; not added again")
        if product not in (None, owner) and not force:
            raise DataError(
                f"nothing was changed: {path} is a held-out normal image of {owner}, not of "
                f"{product}; leave it out, or repeat it with --force (force=True)"
            )
    fresh = [path for path in new if path not in held or product not in (None, held[path])]
    if not fresh and not held:
        raise DataError("no normal image is left to calibrate with; give ones not trained on")
    measured = {path: FalseAlarm(str(path), owner, None) for path, owner in held.items()}
    if fresh:
        sample = _flagged(inspector, calibration, fresh, product)
        feedback.doubts_about_normals(
            calibration, sample, named=product is not None, single=True
        ).decide(note, force)
        before, sets = calibration, calibration_sets(
            sample, calibration.prototypes, calibration.products, calibration.references,
            calibration.rois,
        )  # fmt: skip
        added = {name: data for name, data in sets.items() if len(data)}
        calibration = edit.set_calibration_sets(before, added, add=True, reason="false alarms")
        feedback.doubts_about_thresholds(before, calibration).decide(note, force)
        measured |= {
            path: FalseAlarm(str(path), name, calibration.scores.p_value(score, name), score)
            for path, name, score in zip(
                fresh, sample.products, raised_scores(calibration, sample), strict=True
            )
        }
    return calibration, [measured.get(path, FalseAlarm(str(path), "", None)) for path in paths]


def _held_out(
    inspector: Inspector, calibration: Calibration, paths: Sequence[Path]
) -> dict[Path, str]:
    """Return the product of each file that is among the held-out images."""
    owners = calibration.held_out
    found = {path: owners.get(_content(inspector, path) or -1) for path in paths}
    return {path: owner for path, owner in found.items() if owner is not None}


def _flagged(
    inspector: Inspector, calibration: Calibration, paths: Sequence[Path], product: str | None
) -> NormalSample:
    """Return the measurements of images.

    Raises:
        ImageError: one of them cannot be used.
    """
    errors: list[ImageError] = []
    roi = calibration.rois.get(product or "")
    sample = measure(
        inspector.predictor,
        [Record(path, product or "", "test", "normal", roi=roi) for path in paths],
        errors,
        tile=calibration.tile,
        ignore_masks=calibration.ignore_masks,
        recognise_by=None if product else calibration,
    )
    if errors:
        raise errors[0]
    return sample


@dataclass(frozen=True)
class Miss:
    """An anomalous image that was called normal, and whether it is caught now.

    Attributes:
        path: of the image.
        product: whose calibration was used.
        p_value: of its score.
        caught: whether it is at least uncertain in the new calibration.
        before: the decision of the calibration in force.
        shows: where its map is highest, and how unusual that is.
        remedies: what may catch it, the most promising first; empty if it is caught.
    """

    path: str
    product: str
    p_value: float | None
    caught: bool
    before: str = NORMAL
    shows: str = ""
    remedies: tuple[str, ...] = ()


def learn_misses(
    inspector: Inspector,
    calibration: Calibration,
    paths: Sequence[Path],
    product: str | None = None,
    largest: float = MAX_UNCERTAIN_RATE,
    note: Note = lambda text: None,
    *,
    force: bool = False,
) -> tuple[Calibration, list[Miss]]:
    """Raise the rates of uncertain until missed anomalous images are at least uncertain.

    Images that would need a rate above `largest` are left as they are; see
    `snl.decision.edit.raise_uncertain_rates`.

    Raises:
        ImageError: an image cannot be used.
        DataError: images that are no missed anomalies of the product; see `snl.runtime.feedback`.
    """
    view = Inspector(inspector.predictor, [calibration])
    results = list(view.stream(paths, product))
    found = [(path, result.verdict()) for path, result in zip(paths, results, strict=True)]
    doubts = feedback.doubts_about_misses(calibration, inspector.training, found)
    doubts.decide(note, force)
    changed, caught = edit.raise_uncertain_rates(calibration, results, largest)
    return changed, [
        Miss(
            str(result.path),
            result.product,
            result.p_value,
            now,
            result.decision,
            what_the_map_shows(result, calibration),
            () if now else tuple(remedies(result, calibration, inspector.settings)),
        )
        for result, now in zip(results, caught, strict=True)
    ]


def trained_on(inspector: Inspector, path: Path) -> bool:
    """Return whether the network was trained on an image with this content."""
    content = _content(inspector, path)
    return content is not None and bool(np.isin(np.uint64(content), inspector.training.hashes))


def _content(inspector: Inspector, path: Path) -> int | None:
    """Return the hash of an image file; None: it cannot be read, as its decoding will report."""
    try:
        return inspector.training.content_hash(path)
    except (OSError, ValueError):
        return None


def records_in(folder: Path, product: str | None, layout: str = "auto") -> list[Record]:
    """Return the normal images of a data set; with `product` every image shows that product.

    Raises:
        DataError: there are none.
    """
    if product is not None:
        if not folder.is_dir():
            return [Record(folder, product, "test", "normal")]
        records = normal_images(folder, product)
        if not records:
            raise DataError(f"{folder}: no images in this folder that are normal; give another")
        return records
    return [r for r in Catalog.read(folder, layout).records if r.label == "normal"]
