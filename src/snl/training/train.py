"""`snl.train`: from a folder of images to an inspector."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from snl import __version__, progress
from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.data.local_copy import is_elsewhere, local_copy
from snl.data.opening import check_max_pixels
from snl.data.rois import Regions, RoiLike, with_rois
from snl.data.white_level import describe, sample_range
from snl.errors import SettingsError
from snl.limits import MAX_PIXELS, STEPS_PER_PRODUCT
from snl.model import device as devices
from snl.model.network import Network
from snl.model.ranks import Ranks
from snl.runtime.inspector import Inspector, load
from snl.runtime.predictor import Predictor
from snl.runtime.torch_engine import TorchEngine
from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, PRODUCTS_PER_UNIT, Settings, resolve
from snl.signals import deferred
from snl.training import checkpoint, contents, distributed
from snl.training.cache import CacheBudget, TrainingData
from snl.training.contents import content_hashes
from snl.training.fit_statistics import fit_statistics
from snl.training.loop import RunOptions, check_tensorboard, fit
from snl.training.run_files import check_output, finished_run, locked_run, run_folder
from snl.training.selection import check_numbers, format_groups, group
from snl.training.similar_products import group_products
from snl.training.trained import Images, calibrated, check_finite, metadata_of
from snl.training.untrained import fingerprint, standardise, untrained

Note = Callable[[str], None]


@dataclass(frozen=True)
class _Reading:
    """How training images are read; see `train`."""

    cache: CacheBudget
    skip_bad: bool
    max_pixels: int


def train(
    data: Catalog | str | Path,
    *,
    output: str | Path | None = None,
    method: str = DEFAULT_METHOD,
    preset: str = DEFAULT_PRESET,
    overrides: Mapping[str, Any] | None = None,
    layout: str = "auto",
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    cache: CacheBudget | None = None,
    skip_bad: bool = True,
    checkpoint_every: float = 60.0,
    tensorboard: bool = False,
    max_pixels: int = MAX_PIXELS,
    part_pattern: str | None = None,
    rois: Mapping[str, RoiLike] | None = None,
    data_cache: str | Path | None = None,
    quiet: bool = False,
    note: Note = lambda text: None,
) -> Inspector:
    """Train one model on the normal training images of all products.

    Args:
        data: folder or manifest (see `Catalog.read`), or a catalog. A tar archive, or a folder, a
            manifest or a Parquet file of images at an address such as `s3://plant/parts`, is copied
            to this machine first.
        output: bundle to write; an unfinished run is kept beside it in `<output>.run/`. None:
            nothing is kept on disk, use `Inspector.save`.
        method, preset, overrides: see `snl.settings.resolve`.
        layout: of the data; `auto` detects it.
        device: see `snl.model.device.choose`.
        resume: continue from the checkpoint of an unfinished run, if there is one; a finished
            bundle of the same settings and data is returned as it is.
        overwrite: replace an existing bundle or unfinished run.
        cache: memory and disk that teacher features may take.
        skip_bad: skip images that cannot be read (they are counted) instead of stopping.
        checkpoint_every: seconds between checkpoints.
        tensorboard: write TensorBoard scalars beside the JSON log.
        max_pixels: largest allowed height times width of an image, a protection of this machine's
            memory. The inspector returned has the same limit; the bundle does not store it.
        part_pattern: names the parts that several images show, see `Catalog.read`; whole parts are
            held out.
        rois: regions of interest by product: (left, top, width, height) in pixels, or the file of a
            mask; only that part of the product's images is inspected (docs/products.md). A manifest
            may state them in its column `roi` instead.
        data_cache: folder for such copies; None: `snl/data` in the user's cache folder.
        quiet: no progress bars.
        note: called with a sentence about every step.

    Returns:
        The inspector, on the device it was trained on. In a process that torchrun started (see
        docs/scale.md), the one that the first process has written.

    Raises:
        DataError, SettingsError, WeightsError, TrainingError, PluginError: with the remedy in the
            message.

    Example:
        >>> inspector = snl.train("parts/", output="new.snl")
    """
    check_max_pixels(max_pixels)
    settings = resolve(method, preset, overrides)
    target = None if output is None else Path(output)
    if tensorboard:
        check_tensorboard()
    with distributed.joined(settings.training.batch_size) as ranks:
        if ranks.size > 1 and target is None:
            raise SettingsError("several processes train one model: give an output to write it to")
        if not ranks.is_first:
            quiet, note = True, _ignore
        call = _Call(data, target, layout, part_pattern, resume or distributed.is_restarted(),
                     overwrite, max_pixels, data_cache, quiet, note,
                     Regions.read(rois, max_pixels=max_pixels))  # fmt: skip
        options = partial(
            RunOptions, resume=call.resume, checkpoint_every=checkpoint_every,
            tensorboard=tensorboard, quiet=quiet,
        )  # fmt: skip
        reading = _Reading(cache or CacheBudget(), skip_bad, max_pixels)
        inspector = _train(call, settings, distributed.device_name(device), options, reading, ranks)
        ranks.wait()
        if inspector is None:
            assert target is not None
            inspector = load(target, device)
    return inspector


@dataclass(frozen=True)
class _Call:
    """Arguments of `train`."""

    data: Catalog | str | Path
    target: Path | None
    layout: str
    part_pattern: str | None
    resume: bool
    overwrite: bool
    max_pixels: int
    data_cache: str | Path | None
    quiet: bool
    note: Note
    regions: Regions

    def catalog(self, settings: Settings) -> Catalog:
        """Read the data, after a check of the output."""
        data = self.data
        if isinstance(data, str) and is_elsewhere(data):
            folder = None if self.data_cache is None else Path(self.data_cache)
            data = local_copy(data, folder, _bar("fetching", self.quiet, "file"))
            self.note(f"{self.data}: the copy is {data}")
        catalog = (
            data
            if isinstance(data, Catalog)
            else Catalog.read(data, self.layout, self.part_pattern, settings.training.test_share)
        )
        if self.target is not None:
            given = None if isinstance(data, Catalog) else data
            inputs = [*catalog_files(catalog, given), *self.regions.files]
            check_output(self.target, settings, inputs)
        for text in filter(None, (*catalog.notes, *catalog.unused(), catalog.split_note)):
            self.note(f"note: {text}")
        records = with_rois(catalog.records, self.regions.rois, max_pixels=self.max_pixels)
        return replace(catalog, records=records)


def _train(
    call: _Call,
    settings: Settings,
    device: str,
    options: Callable[[Path], RunOptions],
    reading: _Reading,
    ranks: Ranks,
) -> Inspector | None:
    """Train, and on the first rank calibrate and write the bundle; None on the others."""
    note, quiet, target, max_pixels = call.note, call.quiet, call.target, call.max_pixels
    catalog = ranks.call_first(lambda: call.catalog(settings))
    check_numbers(catalog.train())
    images = Images.of(catalog, settings)
    chosen = devices.choose(device)
    found = ranks.call_first(
        lambda: sample_range(
            [*images.used, *images.held_out],
            max_pixels=max_pixels,
            progress=_bar("finding the white level", quiet),
        )
    )
    for text in describe(found, settings.white_level):
        note(f"note: {text}")
    settings = settings.replace({"white_level": settings.white_level or found.level})
    network = untrained(settings, note)
    hashes = ranks.call_first(
        lambda: content_hashes(catalog.train(), _bar("comparing images", quiet))
    )
    masks = call.regions.ignore_masks(settings.image_size)
    sources = {
        "data": catalog.fingerprint(call.regions.fingerprint if masks else ""),
        "image contents": contents.fingerprint(hashes),
        "teacher": fingerprint(network.teacher),
    }
    with ExitStack() as stack:
        folder = run_folder(target, stack)
        finished: list[Inspector] = []

        def is_finished() -> bool:
            if target is None:
                return False
            stack.enter_context(locked_run(target, folder))
            old = finished_run(
                target, folder, network.settings, catalog, sources, call.resume, call.overwrite,
                device,
            )  # fmt: skip
            finished.extend([] if old is None else [old])
            return old is not None

        if ranks.call_first(is_finished):
            note(f"{target}: already trained with these settings on these images")
            for inspector in finished:
                inspector.predictor.max_pixels = max_pixels
                return inspector
            return None
        recorded = checkpoint.recorded_threads(folder) if call.resume else 0
        stack.enter_context(devices.cpu_threads(recorded or settings.training.threads))
        network.to(chosen)
        images = ranks.call_first(lambda: _prepare(network, images, max_pixels, quiet, note))
        named = {record.path: record.product for record in catalog.train()}  # before grouping
        masks = {r.product: masks[named[r.path]] for r in images.used if named[r.path] in masks}
        network.size_for(len({record.product for record in images.used}))
        ranks.copy(network)
        note(_summary(network.settings, images, chosen, ranks))
        if text := _few_steps(network.settings):
            note(f"note: {text}")
        images, facts = _fit(network, images, sources, options(folder), reading, note, ranks)
        if not ranks.is_first:
            return None
        facts["image_kinds"] = found.kinds(network.settings.white_level)
        facts["highest_samples"] = dict(found.highest)
        metadata = metadata_of(network, images, sources, hashes, facts)
        predictor = Predictor(TorchEngine(network, device), metadata, max_pixels=max_pixels)
        bar = _bar("calibrating", quiet)
        inspector = calibrated(predictor, images, reading.skip_bad, bar, masks)
        skipped = facts["skipped"]
        if skipped:
            note(f"{len(skipped)} images could not be read and were skipped, first: {skipped[0]}")
        if target is not None:
            with deferred():
                inspector.save(target)
                checkpoint.clear(folder)
    return inspector


def _ignore(text: str) -> None:
    """Say nothing: the first rank speaks."""


def _prepare(network: Network, images: Images, max_pixels: int, quiet: bool, note: Note) -> Images:
    """Standardise an untrained teacher, or group images without product names by a trained one."""
    settings = network.settings
    if settings.teacher.weights == "random":
        standardise(network, [record.source for record in images.used], max_pixels)
    elif settings.training.product_groups == "auto":
        bar = _bar("grouping images", quiet)
        grouped = group(images.catalog, network, bar, max_pixels=max_pixels)
        if grouped is not images.catalog:
            note(format_groups(grouped))
            images = Images.of(grouped, settings)
    return images


def _summary(settings: Settings, images: Images, device: torch.device, ranks: Ranks) -> str:
    processes = f" in {ranks.size} processes" if ranks.size > 1 else ""
    return (
        f"{len(images.used)} normal images of {len({r.product for r in images.used})} products "
        f"({len(images.held_out)} more held out for calibration), layout "
        f"'{images.catalog.layout}'; {settings.method} with {settings.teacher.name} at "
        f"{settings.image_size} px on {device}{processes}"
    )


def _few_steps(settings: Settings) -> str:
    """Return a sentence if many products have few steps each."""
    steps, products = settings.training.steps, settings.products
    wanted = math.ceil(STEPS_PER_PRODUCT * products * 8 / settings.training.batch_size)
    if products <= PRODUCTS_PER_UNIT or steps >= wanted:
        return ""
    return (
        f"{steps} steps are {steps / products:.0f} for each of {products} products, too few to "
        f"learn them well: --steps {wanted} or more"
    )


def _fit(
    network: Network,
    images: Images,
    sources: dict[str, str],
    options: RunOptions,
    reading: _Reading,
    note: Note,
    ranks: Ranks,
) -> tuple[Images, dict[str, Any]]:
    """Train the student and, on the first rank, fit the error statistics.

    Returns:
        The images without unreadable ones, and the training facts.
    """
    settings = network.settings
    data = TrainingData(
        network,
        [record.source for record in images.used],
        budget=reading.cache,
        folder=options.folder,
        batch_size=settings.training.batch_size,
        skip_bad=reading.skip_bad,
        max_pixels=reading.max_pixels,
        progress=_bar("reading images", options.quiet),
        note=note,
        ranks=ranks,
    )
    with closing(data):
        facts = fit(network, data, sources, options, ranks)
    if not ranks.is_first:
        return images, facts
    check_finite(network)
    began = perf_counter()
    products = {record.source: record.product for record in images.used}
    groups = None
    if network.memory is not None:
        groups = group_products(
            network,
            {path: products[path] for path in data.paths},
            _bar("comparing products", options.quiet),
            max_pixels=reading.max_pixels,
        )
    fit_statistics(
        network,
        data.paths,
        _bar("errors on normal images", options.quiet),
        groups=groups,
        max_pixels=reading.max_pixels,
    )
    check_finite(network)
    facts["statistics_seconds"] = round(perf_counter() - began, 2)
    facts["versions"] = {"snl": __version__, "torch": torch.__version__}
    with suppress(PackageNotFoundError):  # the built-in teacher does without it
        facts["versions"]["timm"] = version("timm")
    facts["teacher"] = sources["teacher"]
    facts["skipped"] = [str(error) for error in data.skipped]
    readable = set(data.paths)
    return replace(images, used=[r for r in images.used if r.source in readable]), facts


def _bar(title: str, quiet: bool, unit: str = "image") -> Callable[[int, int], None] | None:
    return None if quiet else progress.bar(title, unit)
