"""Calibrations made and changed: normal images looked at, feedback taken in. No training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from snl.data.catalog import Catalog, Record
from snl.data.images import load_mask
from snl.decision.calibration import PEAKS, Calibration, Normals, Rates
from snl.decision.regions import peaks
from snl.errors import DataError, ImageError
from snl.files import content_hash
from snl.runtime.inspector import Inspector

MOST_UNCERTAIN = 0.2
"""Misses lift a product's rate of uncertain to this at most."""

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Survey:
    """What the network says of M images whose products are known."""

    records: list[Record]
    scores: np.ndarray
    """float32 (M,), of maps without what is ignored of the product."""
    embeddings: np.ndarray
    """float32 (M, D)."""
    peaks: np.ndarray
    """float32 (M, 16), highest local maxima of the maps."""
    pixels: np.ndarray
    """float32 (M,), the 99th percentile of each map."""

    def of(self, product: str) -> np.ndarray:
        """bool (M,): the images of a product."""
        return np.array([record.product == product for record in self.records], bool)


def survey(
    inspector: Inspector,
    records: Sequence[Record],
    errors: list[ImageError],
    progress: Progress = None,
) -> Survey:
    """Look at images as inspection does; what cannot be read joins `errors`."""
    ignored = inspector.calibration.ignored
    kept: list[Record] = []
    rows: list[tuple[float, np.ndarray, np.ndarray, float]] = []
    paths = [record.path for record in records]
    for loaded, anomaly_map, score, embedding in inspector.look(paths, errors):
        record = records[loaded.index]
        if record.product in ignored:
            anomaly_map, verdict = inspector.conclude(anomaly_map, score, embedding, record.product)
            score = verdict.score
        kept.append(record)
        highest = peaks(anomaly_map, PEAKS).astype(np.float32)
        rows.append((score, embedding, highest, float(np.quantile(anomaly_map, 0.99))))
        if progress:
            progress(len(kept) + len(errors), len(records))
    if progress and len(kept) < len(records):
        progress(len(records), len(records))
    width = inspector.prototypes.centres.shape[1]
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    shapes = ((0,), (0, width), (0, PEAKS), (0,))
    return Survey(
        kept,
        *(
            np.asarray(column, np.float32) if rows else np.empty(shape, np.float32)
            for column, shape in zip(columns, shapes, strict=True)
        ),
    )


def normals_of(inspector: Inspector, found: Survey) -> dict[str, Normals]:
    """What calibration keeps of normal images, by product; of every taught one."""
    nearest = inspector.prototypes.distances(found.embeddings).min(1).astype(np.float32)
    hashes = np.array([content_hash(record.path) for record in found.records], np.uint64)
    return {
        product: Normals(found.scores[own], nearest[own], found.peaks[own], hashes[own])
        for product in inspector.products
        for own in [found.of(product)]
    }


def change(inspector: Inspector, why: str, **changes: object) -> Calibration:
    """Put the calibration that holds in force with changes; see `Inspector.undo`."""
    new: Calibration = dataclasses.replace(
        inspector.calibration,
        made=now(),
        why=why,
        **changes,  # type: ignore[arg-type]
    )
    inspector.recalibrate(new)
    return new


def set_normals(
    inspector: Inspector,
    records: Sequence[Record],
    *,
    add: bool = False,
    why: str = "new normal images",
    progress: Progress = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Replace the held-back images of the products that occur in `records`, or add to them.

    Images that the network was trained on are left out, for their scores say nothing of new ones;
    a product of which none is left keeps what it has.

    Returns:
        The number of images that each changed product has now.

    Raises:
        DataError: no image is left, or one of a product that was not taught.
    """
    products = sorted({record.product for record in records})
    untaught = sorted(set(products) - set(inspector.products))
    if untaught:
        raise DataError(
            f"product '{untaught[0]}' was not taught; taught: {', '.join(inspector.products)}: "
            "give folders of these names, or --product NAME"
        )
    fresh = [r for r in records if not trained_on(inspector, r.path)]
    if len(fresh) < len(records):
        note(f"{len(records) - len(fresh)} of {len(records)} images were trained on; left out")
    errors: list[ImageError] = []
    found = survey(inspector, fresh, errors, progress)
    for error in errors:
        note(f"left out: {error}")
    if not found.records:
        raise DataError("no normal image is left to calibrate with; give ones not trained on")
    new = normals_of(inspector, found)
    normals = dict(inspector.calibration.normals)
    empty = Normals.none()
    for product in products:
        if not len(new[product]):
            note(f"{product}: no image is left, its calibration stays as it was")
    products = [product for product in products if len(new[product])]
    for product in products:
        before = normals[product] if add else empty
        normals[product] = before.and_also(_once(new[product]))
    change(inspector, why, normals=normals)
    return {product: len(normals[product]) for product in products}


@dataclass(frozen=True)
class Miss:
    """An anomalous image that was passed, and the rate that would have caught it."""

    path: str
    product: str
    p_value: float | None
    caught: bool


def learn_misses(
    inspector: Inspector,
    paths: Sequence[Path],
    product: str | None = None,
    most: float = MOST_UNCERTAIN,
) -> list[Miss]:
    """Lift the rates of uncertain of the products concerned until anomalous images that were passed
    are uncertain at least; those that would take more than `most` are left as they are.

    No score of an anomalous image enters the calibration: the promise stays what it was, of a
    larger rate.
    """
    misses = []
    own = dict(inspector.calibration.own_rates)
    for result in inspector.stream(paths, product):
        p = result.p_value
        caught = result.decision != "normal" or (p is not None and p <= most)
        misses.append(Miss(str(result.path), result.product, p, caught))
        if result.decision == "normal" and caught and p is not None:
            rates = own.get(result.product, inspector.calibration.rates)
            own[result.product] = rates.changed(uncertain=max(rates.uncertain, p))
    if own != inspector.calibration.own_rates:
        change(inspector, f"{len(misses)} missed images", own_rates=own)
    return misses


def set_rates(inspector: Inspector, product: str | None = None, **rates: float | None) -> Rates:
    """Change the false-alarm rates of all products, or of one.

    Raises:
        SettingsError: a product that was not taught, rates that contradict each other or that
            nobody can promise.
    """
    inspector.check_product(product)
    calibration = inspector.calibration
    new = calibration.rates_of(product).changed(**rates)
    if rates.get("anomalous") is not None or rates.get("uncertain") is not None:
        calibration.check(new, product)
    if product:
        change(inspector, "rates", own_rates={**calibration.own_rates, product: new})
    else:
        change(inspector, "rates", rates=new)
    return new


def set_ignored(inspector: Inspector, product: str, mask: Path | None) -> None:
    """Where images of a product may look as they like (white in the mask); None: nowhere.

    The held-back images keep their scores until they are looked at again: those can only be too
    high, so the false-alarm rate only lower than stated.
    """
    inspector.check_product(product)
    ignored = dict(inspector.calibration.ignored)
    ignored.pop(product, None)
    if mask is not None:
        size = inspector.image_size
        ignored[product] = load_mask((mask,), (size, size))
        if ignored[product].all():
            raise DataError(f"{mask}: everything would be ignored; white is what to ignore")
    change(inspector, f"ignored of {product}", ignored=ignored)


def trained_on(inspector: Inspector, path: Path) -> bool:
    """Whether the network was trained on an image of this content."""
    try:
        return bool(np.isin(np.uint64(content_hash(path)), inspector.trained_on))
    except OSError:
        return False  # told when it is looked at


def records_in(folder: Path, product: str | None, layout: str = "auto") -> list[Record]:
    """Normal images of a data set; with `product` every image in the folder is one of it."""
    if product is not None:
        from snl.data.layouts import images_in

        files = images_in(folder) if folder.is_dir() else [folder]
        if not files:
            raise DataError(f"{folder}: no images in this folder; give another")
        return [Record(path, product, "test", "normal") for path in files]
    return [r for r in Catalog.read(folder, layout).records if r.label == "normal"]


def format_calibration(inspector: Inspector) -> str:
    """The calibration that holds, as aligned text."""
    calibration = inspector.calibration
    rows = [["product", "normals", "least rate", "anomalous above", "uncertain above", "by",
             "rates"]]  # fmt: skip
    for product, normals in calibration.normals.items():
        rates = calibration.rates_of(product)
        threshold, basis = calibration.scores.threshold(rates.anomalous, product)
        uncertain, _ = calibration.scores.threshold(rates.uncertain, product)
        rows.append(
            [
                product,
                str(len(normals)),
                f"{calibration.scores.smallest_rate(product):.2g}",
                _number(threshold),
                _number(uncertain),
                basis if threshold is not None else "-",
                f"{rates.anomalous:g} / {rates.uncertain:g}",
            ]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
             for row in rows]  # fmt: skip
    count = sum(map(len, calibration.normals.values()))
    least = calibration.scores.smallest_rate()
    return "\n".join(
        [
            lines[0],
            "-" * max(map(len, lines)),
            *lines[1:],
            f"all products together: {count} held-back images, rates from {least:.2g} up",
            *_extras(calibration),
            f"version of {calibration.made} ({calibration.why}); "
            f"{len(inspector.calibrations) - 1} before it",
        ]
    )


def now() -> str:
    """ISO time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _extras(calibration: Calibration) -> Iterable[str]:
    rates = calibration.rates
    yield f"unknown products: rate {rates.unknown:g}; regions: {rates.regions:g} an image"
    tables: tuple[tuple[str, Mapping[str, object]], ...] = (
        ("ignored parts of", dict.fromkeys(calibration.ignored, "")),
        ("mm per pixel:", calibration.mm_per_pixel),
        ("smallest region in pixels:", calibration.smallest),
    )
    for name, values in tables:
        if values:
            yield name + " " + ", ".join(f"{k} {v}".strip() for k, v in values.items())
    if calibration.tile:
        yield f"tiles of {calibration.tile} pixels"
    if calibration.tail:
        yield "rates below these come from a fitted tail: a guess, not a promise"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _once(normals: Normals) -> Normals:
    """Every image once."""
    _, first = np.unique(normals.hashes, return_index=True)
    first.sort()
    return Normals(*(getattr(normals, f.name)[first] for f in dataclasses.fields(normals)))
