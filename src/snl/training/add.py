"""`snl.add`: new products for a trained inspector, without the images of the earlier ones.

It happens in two stages. First the new products become known: their prototypes, their patches in
the memory, the statistics of the student's errors on them, and a calibration. That takes seconds,
and the file can be used. Then adapters of the student are trained for them
(`snl.model.adapters`), for a tenth of the steps of the whole training. The scores of other
products do not change: for their images, the network computes what it computed before.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from snl import progress
from snl.data.attach import normal_images
from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.data.opening import check_max_pixels
from snl.data.records import Record
from snl.data.rois import Regions, RoiLike, rois_of, with_rois
from snl.errors import BundleError, DataError, SettingsError, TrainingError
from snl.kinds import BUNDLE
from snl.limits import MAX_PIXELS
from snl.model import device as devices
from snl.outputs import Output, check_outputs
from snl.runtime.feedback import doubts_about_folders
from snl.runtime.inspector import Inspector, load
from snl.runtime.sections import MODEL
from snl.signals import deferred
from snl.training import contents
from snl.training.addition import ADDITIONS, Addition
from snl.training.cache import CacheBudget
from snl.training.contents import content_hashes
from snl.training.loop import RunOptions
from snl.training.run_files import folder_of, locked_run
from snl.training.selection import check_numbers
from snl.training.trained import Images

STEPS = 0.1
"""Steps of the training that adds products, as a share of those of the whole training."""
LOOKS_KNOWN = 0.5
"""Images are refused if more than this share of a product looks like one that is known."""

Note = Callable[[str], None]


def add(
    file: str | Path,
    normals: Catalog | str | Path,
    *,
    product: str | None = None,
    output: str | Path | None = None,
    replace: bool = False,
    quick: bool = False,
    steps: int | None = None,
    rois: Mapping[str, RoiLike] | None = None,
    force: bool = False,
    layout: str = "auto",
    device: str = "auto",
    cache: CacheBudget | None = None,
    checkpoint_every: float = 60.0,
    max_pixels: int = MAX_PIXELS,
    quiet: bool = False,
    note: Note = lambda text: None,
) -> Inspector:
    """Add products to a trained inspector; the images of its other products are not needed.

    An addition that was interrupted goes on with the same call. `snl.undo` takes it back.

    Args:
        file: bundle of `snl.train`.
        normals: normal images of the new products, one folder for each, or a manifest or a catalog;
            with `product` any folder of images. At least four of each product.
        product: the product that `normals` show; None: as the folders or the manifest say.
        output: bundle to write; None: `file` is changed.
        replace: the products are known, and these are their new versions.
        quick: only make the products known, without training.
        steps: of the training; None: a tenth of the steps of the whole training.
        rois: regions of interest of the new products, see `snl.train`. A new version of a product
            keeps the region that it has.
        force: take the images even if they look like those of a known product, or are in folders of
            anomalous images.
        layout: of `normals`; `auto` detects it.
        device: see `snl.model.device.choose`.
        cache: memory and disk that teacher features may take.
        checkpoint_every: seconds between checkpoints.
        max_pixels: largest allowed height times width of an image.
        quiet: no progress bars.
        note: called with a sentence about every step.

    Returns:
        The inspector with all products.

    Raises:
        DataError: too few images, or images that look wrong.
        SettingsError: a bundle that works in tiles, a product that is known (without `replace`) or
            unknown (with it).
        BundleError, TrainingError: see `snl.load` and `snl.train`.

    Example:
        >>> inspector = snl.add("parts.snl", "new/", product="gear", output="new.snl")
        >>> "gear" in inspector.products
        True
    """
    check_max_pixels(max_pixels)
    source, target = Path(file), Path(output or file)
    _check_bundle(source)
    if product is not None and not product.strip():
        raise SettingsError("product '': give a name")
    catalog = _catalog(normals, product, layout)
    regions = Regions.read(rois, max_pixels=max_pixels)
    output_file = Output("-o", target, BUNDLE, anything=target == source)
    check_outputs([output_file], [*catalog_files(catalog, None), *regions.files])
    for text in filter(None, (*catalog.notes, *catalog.unused(), catalog.split_note)):
        note(f"note: {text}")
    with ExitStack() as stack:
        folder = folder_of(target)
        stack.enter_context(locked_run(target, folder))
        hashes = content_hashes(catalog.train(), _bar("comparing images", quiet))
        stated = rois_of(catalog.records)
        texts = [f"{name} {roi}" for name, roi in sorted(stated.items())]
        identity = contents.fingerprint(hashes, " ".join([*texts, regions.fingerprint]).strip())
        inspector = _start(source, target, identity, device, max_pixels)
        known_rois = {**inspector.calibration.rois, **stated}
        kept = {name: roi for name, roi in known_rois.items() if name in catalog.products}
        records = with_rois(catalog.records, {**kept, **regions.rois}, max_pixels=max_pixels)
        images = Images.of(changed(catalog, records=records), inspector.settings)
        masks = regions.ignore_masks(inspector.image_size)
        addition = Addition(images, hashes, identity, masks, max_pixels, quiet)
        stack.enter_context(devices.cpu_threads(inspector.settings.training.threads))
        last = _last_addition(inspector)
        known = last.get("contents") == identity and last["products"] == addition.products
        known = known and set(addition.products) <= set(inspector.products)  # or removed since
        if known and (last["steps"] or quick):
            note(f"{target}: {addition.names}: already added with these images")
            return inspector
        if not known:
            _check(inspector, addition, replace, force, note)
            inspector = addition.introduce(inspector)
            inspector.log(f"added {addition.names}, not trained on")
            with deferred():
                inspector.save(target)
            note(f"{target}: {addition.names} can be inspected now")
        if quick:
            return inspector
        count = steps or max(1, round(STEPS * inspector.settings.training.steps))
        # beside the log of the whole training, which stays; other runs have other folders
        run = folder / "add" / f"{count}-{identity[:16]}"
        options = RunOptions(run, True, checkpoint_every, quiet=quiet)
        inspector = addition.train(inspector, count, options, cache or CacheBudget())
        inspector.log(f"trained on {addition.names}, {count} steps")
        with deferred():
            inspector.save(target)
            shutil.rmtree(folder / "add", ignore_errors=True)
        if skipped := _last_addition(inspector)["skipped"]:
            note(f"{len(skipped)} images could not be read and were skipped, first: {skipped[0]}")
    return inspector


def _check_bundle(file: Path) -> None:
    """Check that a file is a bundle by its name.

    Raises:
        SettingsError: it is an export.
        BundleError: there is no such file.
    """
    if file.suffix.lower() in (".onnx", ".xml"):
        raise SettingsError(
            f"{file}: an export cannot be trained; add the products to its bundle and export that "
            "again"
        )
    if not file.exists():
        raise BundleError(f"{file}: no such file; create one with snl train DATA -o {file.name}")


def _catalog(normals: Catalog | str | Path, product: str | None, layout: str) -> Catalog:
    """Return the new images as training images.

    Raises:
        DataError: there are none, or too few of a product.
    """
    if isinstance(normals, Catalog):
        catalog = normals
    elif product is None:
        catalog = Catalog.read(normals, layout)
    else:
        folder = Path(normals)
        if not folder.is_dir():
            raise DataError(f"{folder}: is no folder; give a folder of normal images of {product}")
        catalog = Catalog(folder, "folders", tuple(normal_images(folder, product)))
    used = tuple(
        Record(r.path, product or r.product, "train", "normal", part=r.part, roi=r.roi)
        for r in catalog.records
        if r.label == "normal" and (product is not None or r.split == "train")
    )
    if not used:
        raise DataError(f"{catalog.root}: no normal images; give a folder of them")
    check_numbers(used)
    return changed(catalog, records=used)


def _start(source: Path, target: Path, identity: str, device: str, max_pixels: int) -> Inspector:
    """Return the inspector to change: that of `source`, or one that an interrupted addition left.

    Raises:
        TrainingError: the output exists and is something else.
    """
    inspector = load(source, device, max_pixels=max_pixels)
    if target.resolve() == source.resolve() or not target.exists():
        return inspector
    left = load(target, device, max_pixels=max_pixels)
    previous = left.predictor.metadata.previous
    network = inspector.predictor.metadata.network
    if not (
        _last_addition(left).get("contents") == identity
        and previous is not None
        and previous.sections[MODEL].document["network"] == network
    ):
        raise TrainingError(f"{target}: exists already; choose another -o, or move it away")
    return left


def _last_addition(inspector: Inspector) -> dict[str, Any]:
    """Return the facts of the last addition of products; empty: there was none."""
    additions = inspector.training.facts.get(ADDITIONS, ())
    return dict(additions[-1]) if additions else {}


def _check(
    inspector: Inspector, addition: Addition, replace: bool, force: bool, note: Note
) -> None:
    """Check that products can be added, and that their images are what they are said to be."""
    if inspector.tile:
        raise SettingsError(
            "this inspector works in tiles, which do not show what product they are of; train all "
            "products again"
        )
    known = [name for name in addition.products if name in inspector.products]
    if known and not replace:
        raise SettingsError(
            f"{', '.join(known)}: a product of this name is known; give another name with "
            "--product, or add its new version with --replace"
        )
    if replace and len(known) < len(addition.products):
        unknown = [name for name in addition.products if name not in known]
        raise SettingsError(
            f"{', '.join(unknown)}: not known to this inspector, so there is nothing to replace; "
            f"known: {', '.join(inspector.products)}"
        )
    doubts_about_folders((r.path for r in addition.images.catalog.records), "normal").decide(
        note, force
    )
    if not force:
        _check_looks(inspector, addition)


def _check_looks(inspector: Inspector, addition: Addition) -> None:
    """Check that the new products do not look like known ones.

    Raises:
        DataError: they do.
    """
    calibration = inspector.calibration
    names, embeddings = addition.embeddings(inspector.network, addition.images.used)
    total, alike = Counter(names), Counter[tuple[str, str]]()
    for product, embedding in zip(names, embeddings, strict=True):
        nearest = calibration.prototypes.nearest(embedding)
        p = calibration.unknown_p(*nearest)
        if p is not None and p > calibration.unknown_rate() and nearest.product != product:
            alike[product, nearest.product] += 1
    for (product, other), count in alike.items():
        if count > LOOKS_KNOWN * total[product]:
            raise DataError(
                f"nothing was changed: {count} of {total[product]} images of {product} look like "
                f"{other}, which is known; if they are its new version, give --product {other} "
                "--replace, and if it is another product nevertheless, --force (force=True)"
            )


def _bar(title: str, quiet: bool) -> Callable[[int, int], None] | None:
    return None if quiet else progress.bar(title, "image")
