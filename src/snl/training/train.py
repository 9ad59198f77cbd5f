"""`snl.train`: from a folder of images to an inspector."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import timm
import torch

from snl import __version__, progress
from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.data.local_copy import is_elsewhere, local_copy
from snl.data.opening import check_max_pixels
from snl.data.records import Record
from snl.data.stream import batches, read
from snl.data.tiles import samples
from snl.data.white_level import describe, sample_range
from snl.decision.fit import fit_calibration
from snl.errors import ImageError, NotFiniteError, SettingsError, TrainingError
from snl.limits import MAX_PIXELS
from snl.model import device as devices
from snl.model import weights
from snl.model.network import Network
from snl.model.ranks import Ranks
from snl.model.teacher import Teacher, default_stages
from snl.runtime import bundle
from snl.runtime.convert import network_version
from snl.runtime.inspector import Inspector, load
from snl.runtime.measure import measure
from snl.runtime.metadata import ModelMetadata, TrainingInfo
from snl.runtime.predictor import Predictor
from snl.runtime.torch_engine import TorchEngine
from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, Settings, plugins_used, resolve
from snl.signals import deferred
from snl.training import checkpoint, contents, distributed
from snl.training.cache import CacheBudget, TrainingData
from snl.training.contents import Hashes, content_hashes
from snl.training.fit_statistics import fit_statistics
from snl.training.loop import RunOptions, check_tensorboard, fit
from snl.training.run_files import check_output, finished_run, locked_run, run_folder
from snl.training.selection import format_groups, group, split
from snl.training.similar_products import group_products

STANDARDISE_SAMPLE = 64
"""Images or tiles by which an untrained teacher is standardised."""
REFERENCE_IMAGES, REFERENCE_IMAGES_IN_TILES = 100, 20
"""Training images per product for prototypes and log-score statistics."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class _Images:
    """The images of a training: used for the network, and held out for calibration."""

    catalog: Catalog
    used: list[Record]
    held_out: list[Record]

    @classmethod
    def of(cls, catalog: Catalog, settings: Settings) -> _Images:
        return cls(catalog, *split(catalog, settings))


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
                     overwrite, max_pixels, data_cache, quiet, note)  # fmt: skip
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
            else Catalog.read(data, self.layout, self.part_pattern)
        )
        if self.target is not None:
            given = None if isinstance(data, Catalog) else data
            check_output(self.target, settings, catalog_files(catalog, given))
        for text in (*catalog.notes, *catalog.unused()):
            self.note(f"note: {text}")
        return catalog


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
    images = _Images.of(catalog, settings)
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
    network = _untrained(settings, note)
    hashes = ranks.call_first(
        lambda: content_hashes(catalog.train(), _bar("comparing images", quiet))
    )
    sources = {
        "data": catalog.fingerprint(),
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
        network.size_for(len({record.product for record in images.used}))
        ranks.copy(network)
        note(_summary(network.settings, images, chosen, ranks))
        images, facts = _fit(network, images, sources, options(folder), reading, note, ranks)
        if not ranks.is_first:
            return None
        facts["image_kinds"] = found.kinds(network.settings.white_level)
        facts["highest_samples"] = dict(found.highest)
        metadata = _metadata(network, images, sources, hashes, facts)
        predictor = Predictor(TorchEngine(network, device), metadata, max_pixels=max_pixels)
        inspector = _calibrated(predictor, images, reading.skip_bad, _bar("calibrating", quiet))
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


def _untrained(settings: Settings, note: Note) -> Network:
    """The network with the teacher's weights and an untrained student.

    Its settings name the teacher's stages, so that a bundle never depends on a default, and the
    weights by the name of their file, not by its place.
    """
    stages = settings.teacher.stages or default_stages(settings.teacher.name)
    settings = settings.replace({"teacher.stages": stages})
    network = Network(settings)
    if settings.teacher.weights == "pretrained" and not weights.in_package(settings.teacher):
        note(
            f"weights of '{settings.teacher.name}': from timm's cache on this machine, or "
            "downloaded once (without a network connection this fails after a minute)"
        )
    weights.load(network.teacher, settings.teacher)
    file = Path(settings.teacher.weights).name
    network.settings = network.settings.replace({"teacher.weights": file})
    return network


def _prepare(
    network: Network, images: _Images, max_pixels: int, quiet: bool, note: Note
) -> _Images:
    """Standardise an untrained teacher, or group images without product names by a trained one."""
    settings = network.settings
    if settings.teacher.weights == "random":
        standardise(network, [record.path for record in images.used], max_pixels)
    elif settings.training.product_groups == "auto":
        bar = _bar("grouping images", quiet)
        grouped = group(images.catalog, network, bar, max_pixels=max_pixels)
        if grouped is not images.catalog:
            note(format_groups(grouped))
            images = _Images.of(grouped, settings)
    return images


def _summary(settings: Settings, images: _Images, device: torch.device, ranks: Ranks) -> str:
    processes = f" in {ranks.size} processes" if ranks.size > 1 else ""
    return (
        f"{len(images.used)} normal images of {len({r.product for r in images.used})} products "
        f"({len(images.held_out)} more held out for calibration), layout "
        f"'{images.catalog.layout}'; {settings.method} with {settings.teacher.name} at "
        f"{settings.image_size} px on {device}{processes}"
    )


def _fit(
    network: Network,
    images: _Images,
    sources: dict[str, str],
    options: RunOptions,
    reading: _Reading,
    note: Note,
    ranks: Ranks,
) -> tuple[_Images, dict[str, Any]]:
    """Train the student and, on the first rank, fit the error statistics.

    Returns:
        The images without unreadable ones, and the training facts.
    """
    settings = network.settings
    data = TrainingData(
        network,
        [record.path for record in images.used],
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
    _check_finite(network)
    began = perf_counter()
    products = {record.path: record.product for record in images.used}
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
    _check_finite(network)
    facts["statistics_seconds"] = round(perf_counter() - began, 2)
    facts["versions"] = {"snl": __version__, "torch": torch.__version__, "timm": timm.__version__}
    facts["teacher"] = sources["teacher"]
    facts["skipped"] = [str(error) for error in data.skipped]
    readable = set(data.paths)
    return replace(images, used=[r for r in images.used if r.path in readable]), facts


def _metadata(
    network: Network,
    images: _Images,
    sources: Mapping[str, str],
    hashes: Hashes,
    facts: dict[str, Any],
) -> ModelMetadata:
    """Everything that is known after training; there is no calibration yet."""
    state = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    training = TrainingInfo(
        products=dict(sorted(Counter(record.product for record in images.used).items())),
        data={
            "name": Path(images.catalog.root).resolve().name,
            "layout": images.catalog.layout,
            "fingerprint": sources["data"],
            "contents": sources["image contents"],
            "images": len(images.used) + len(images.held_out),
        },
        facts=facts,
        hashes=np.array([hashes[r.path] for r in images.used if hashes[r.path]], np.uint64),
    )
    return ModelMetadata(
        network.settings,
        training,
        (),
        tuple(network.teacher.mean),
        tuple(network.teacher.std),
        network_version(state),
        plugins_used(network.settings),
    )


def _calibrated(
    predictor: Predictor,
    images: _Images,
    skip_bad: bool,
    bar: Callable[[int, int], None] | None,
) -> Inspector:
    """The inspector with its first calibration; unreadable images are added to the facts."""
    settings = predictor.settings
    most = REFERENCE_IMAGES_IN_TILES if settings.tile else REFERENCE_IMAGES
    reference = few_per_product(images.used, most)
    errors: list[ImageError] = []
    total = len(reference) + len(images.held_out)
    training, held_out = (
        measure(predictor, records, errors, tile=settings.tile, progress=_part(bar, before, total))
        for records, before in ((reference, 0), (images.held_out, len(reference)))
    )
    for error in errors:
        if isinstance(error, NotFiniteError):
            raise _diverged(settings, str(error))
    if errors and not skip_bad:
        raise errors[0]
    predictor.training.facts["skipped"].extend(str(error) for error in errors)
    calibration = fit_calibration(
        training,
        held_out,
        seed=settings.training.seed,
        scoring=settings.map,
        tile=settings.tile,
        network=predictor.metadata.network,
    )
    return Inspector(predictor, [calibration])


def _check_finite(network: Network) -> None:
    """Check the weights and the error statistics of a trained network.

    Raises:
        TrainingError: a value that no bundle may have, because results would not be finite.
    """
    state = {name: v.detach().cpu().numpy() for name, v in network.state_dict().items()}
    try:
        bundle.check_finite(state)
    except ValueError as error:
        raise _diverged(network.settings, str(error)) from None


def _diverged(settings: Settings, reason: str) -> TrainingError:
    return TrainingError(
        f"the training diverged, nothing was written ({reason}); lower training.lr (now "
        f"{settings.training.lr:g}) and start over with --overwrite"
    )


def standardise(network: Network, paths: Sequence[Path], max_pixels: int = MAX_PIXELS) -> None:
    """Fit an untrained teacher's normalisation layers to a sample of the training images."""
    sources = samples(paths, network.settings.tile, STANDARDISE_SAMPLE, max_pixels=max_pixels)
    stream = read(
        sources,
        network.settings.image_size,
        max_pixels=max_pixels,
        white_level=network.settings.white_level,
    )
    for _, pixels in batches(stream, STANDARDISE_SAMPLE, []):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        network.teacher.standardise(images)


def fingerprint(teacher: Teacher) -> str:
    """Return the sha256 of the teacher's weights, before they are fitted to any data."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def few_per_product(records: Sequence[Record], most: int) -> list[Record]:
    """Return at most `most` records of each product, evenly spread."""
    chosen: list[Record] = []
    for product in sorted({record.product for record in records}):
        of_product = [record for record in records if record.product == product]
        chosen += of_product[:: max(1, -(-len(of_product) // most))]
    return chosen


def _bar(title: str, quiet: bool, unit: str = "image") -> Callable[[int, int], None] | None:
    return None if quiet else progress.bar(title, unit)


def _part(
    bar: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """Progress of a part of the work as progress of the whole."""
    return None if bar is None else lambda done, _: bar(before + done, total)
