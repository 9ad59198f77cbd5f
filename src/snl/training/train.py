"""`snl.train`: from a folder of images to an inspector, the rooms put in a row."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snl import __version__, progress
from snl.data.catalog import Catalog, Record
from snl.data.stream import batches, read
from snl.data.tiles import samples
from snl.decision.calibration import Calibration, Normals
from snl.decision.conformal import log_score_stats
from snl.decision.products import Prototypes, fit_prototypes
from snl.errors import DependencyError, ImageError, TrainingError
from snl.files import check_output, content_hash
from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, Settings, resolve

try:
    import timm
    import torch
    from filelock import FileLock, Timeout

    from snl.model import device as devices
    from snl.model import weights
    from snl.model.network import Network
    from snl.model.teacher import Teacher, default_stages
    from snl.runtime.inspector import Inspector, load
    from snl.runtime.model_metadata import Facts, Known
    from snl.runtime.recalibrate import normals_of, now, survey
    from snl.runtime.torch_engine import TorchEngine
    from snl.training import checkpoint
    from snl.training.cache import CacheBudget, TrainingData
    from snl.training.fit_statistics import fit_errors
    from snl.training.loop import RunOptions, check_tensorboard, fit
    from snl.training.selection import format_groups, group, split
except ImportError as error:
    raise DependencyError(
        f"training needs PyTorch and timm ({error}): pip install 'snl-ad[train]'"
    ) from None

SAMPLE = 64
"""Images, or tiles, looked at to standardise an untrained teacher."""
SURVEYED, SURVEYED_IN_TILES = 100, 20
"""Training images of each product that tell what it looks like and usually scores."""


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
    quiet: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Inspector:
    """Train one model on the normal training images of all products.

    Args:
        data: folder or manifest (see `Catalog.read`), or a catalog.
        output: bundle to write; its unfinished run lives beside it in `<output>.run/`. None:
            nothing is kept on disk, use `Inspector.save`.
        method, preset, overrides: see `snl.settings.resolve`.
        layout: of the data, `auto` finds it.
        device: see `snl.model.device.choose`.
        resume: go on from the checkpoint of an unfinished run, if there is one; a finished bundle
            of the same settings and data is returned as it is.
        overwrite: replace an existing bundle or unfinished run.
        cache: what teacher features may take in memory and on disk.
        skip_bad: leave out images that cannot be read (they are counted) instead of stopping.
        checkpoint_every: seconds between checkpoints.
        tensorboard: write TensorBoard scalars beside the JSON log.
        quiet: no progress bars.
        note: is told, in a sentence, what happens.

    Returns:
        The inspector, on the device it was trained on.

    Raises:
        DataError, SettingsError, WeightsError, TrainingError: with the way out in the message.

    Example:
        >>> inspector = snl.train("parts/", output="parts.snl")   # doctest: +SKIP
    """
    settings = resolve(method, preset, overrides)
    if tensorboard:
        check_tensorboard()
    catalog = data if isinstance(data, Catalog) else Catalog.read(data, layout)
    for text in catalog.notes:
        note(f"note: {text}")
    used, held = split(catalog, settings)
    chosen = devices.choose(device)
    target = None if output is None else Path(output)
    if target is not None:
        check_output(target)
    network = Network(_pinned(settings))
    if settings.teacher.weights == "pretrained" and not weights.in_package(settings.teacher):
        note(
            f"weights of '{settings.teacher.name}': from timm's cache on this machine, or fetched "
            "once (without a network this takes a minute to give up)"
        )
    weights.load(network.teacher, settings.teacher)
    # the bundle names the file the weights came from, not where it lay
    network.settings = settings = network.settings.replace(
        {"teacher.weights": Path(settings.teacher.weights).name}
    )
    sources = {"data": catalog.fingerprint(), "teacher": fingerprint(network.teacher)}
    if target is not None:
        folder = target.with_name(target.name + ".run")
        finished = _existing(target, folder, settings, sources, resume, overwrite, device)
        if finished is not None:
            note(f"{target}: already trained with these settings on these images")
            return finished
    network.to(chosen)
    if settings.teacher.weights == "random":
        standardise(network, [record.path for record in used])
    elif settings.training.groups == "auto":
        told = None if quiet else progress.bar("telling products apart")
        grouped = group(catalog, network, told)
        if grouped is not catalog:
            note(format_groups(grouped))
            catalog = grouped
            used, held = split(catalog, settings)
    note(
        f"{len(used)} normal images of {len({r.product for r in used})} products "
        f"({len(held)} more held back for thresholds), layout '{catalog.layout}'; "
        f"{settings.method} with {settings.teacher.name} at {settings.image_size} px on {chosen}"
    )
    with ExitStack() as stack:
        if target is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snl-")))
        folder.mkdir(exist_ok=True)
        stack.enter_context(_alone(folder))
        training = TrainingData(
            network,
            [record.path for record in used],
            budget=cache or CacheBudget(),
            folder=folder,
            batch_size=settings.training.batch_size,
            skip_bad=skip_bad,
            progress=None if quiet else progress.bar("reading images"),
            note=note,
        )
        stack.callback(training.close)
        options = RunOptions(folder, resume, checkpoint_every, tensorboard, quiet)
        trained = fit(network, training, sources, options)
    began = time.perf_counter()
    told = None if quiet else progress.bar("errors on normal images")
    fit_errors(network, training.paths, told)
    trained["errors_seconds"] = round(time.perf_counter() - began, 2)
    skipped = [str(error) for error in training.skipped]
    trained["versions"] = {"snl": __version__, "torch": torch.__version__, "timm": timm.__version__}
    trained["teacher"] = sources["teacher"]
    readable = set(training.paths)
    used = [record for record in used if record.path in readable]
    facts = Facts(
        dict(sorted(Counter(record.product for record in used).items())),
        {
            "name": Path(catalog.root).resolve().name,
            "layout": catalog.layout,
            "fingerprint": sources["data"],
            "images": len(used) + len(held),
        },
        trained,
        (0.0, 1.0),
    )
    told = None if quiet else progress.bar("calibrating")
    inspector = _calibrated(network, facts, used, held, skipped, skip_bad, told, device)
    trained["skipped"] = skipped
    if skipped:
        note(f"{len(skipped)} images could not be read and were left out, the first: {skipped[0]}")
    if target is not None:
        inspector.save(target)
        checkpoint.clear(folder)
    return inspector


def _calibrated(
    network: Network,
    facts: Facts,
    used: Sequence[Record],
    held: Sequence[Record],
    skipped: list[str],
    skip_bad: bool,
    told: Callable[[int, int], None] | None,
    device: str,
) -> Inspector:
    """The inspector with prototypes and usual scores from training images, and with the scores of
    the held-back ones; unreadable ones join `skipped`, or raise."""
    tile, seed = network.settings.tile, network.settings.training.seed
    products = list(facts.products)
    some = _few_of_each(used, SURVEYED_IN_TILES if tile else SURVEYED)
    width = network.errors.centres.shape[1]
    empty = Prototypes(np.zeros((len(products), width), np.float32), tuple(products))
    nothing = Calibration(
        {name: Normals.none() for name in products}, dict.fromkeys(products, (0.0, 1.0)),
        tile=tile,
    )  # fmt: skip
    hashes = np.array([content_hash(record.path) for record in used], np.uint64)
    teacher = network.teacher
    known = Known(
        network.settings, facts, empty, [nothing], hashes, tuple(teacher.mean), tuple(teacher.std)
    )
    inspector = Inspector(TorchEngine(network, device), known)
    errors: list[ImageError] = []
    count = len(some) + len(held)
    first = survey(inspector, some, errors, _part(told, 0, count))
    second = survey(inspector, held, errors, _part(told, len(some), count))
    if errors and not skip_bad:
        raise errors[0]
    skipped += [str(error) for error in errors]
    inspector.prototypes = fit_prototypes(
        first.embeddings, [r.product for r in first.records], seed
    )
    calibration = Calibration(
        normals_of(inspector, second),
        log_score_stats({name: first.scores[first.of(name)] for name in products}),
        tile=tile,
        made=now(),
    )
    inspector.calibrations = [calibration]
    shown = second if len(second.scores) else first
    low = float(np.median(shown.pixels))
    high = max(2 * float(shown.scores.max()), low + 1e-6)
    inspector.facts = replace(facts, map_range=(low, high))
    return inspector


def standardise(network: Network, paths: Sequence[Path]) -> None:
    """Fit an untrained teacher's normalisation layers to a sample of the training images."""
    some = samples(paths, network.settings.tile, SAMPLE)
    for _, pixels in batches(read(some, network.settings.image_size), SAMPLE, []):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        network.teacher.standardise(images)


def fingerprint(teacher: Teacher) -> str:
    """sha256 over the teacher's weights, before they are fitted to anything."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _few_of_each(records: Sequence[Record], most: int) -> list[Record]:
    """At most `most` records of each product, evenly spread."""
    found: list[Record] = []
    for product in sorted({record.product for record in records}):
        own = [record for record in records if record.product == product]
        found += own[:: max(1, math.ceil(len(own) / most))]
    return found


def _part(
    told: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """Progress of a part of the work as progress of the whole."""
    return None if told is None else lambda done, _: told(before + done, total)


def _existing(
    target: Path,
    folder: Path,
    settings: Settings,
    sources: Mapping[str, str],
    resume: bool,
    overwrite: bool,
    device: str,
) -> Inspector | None:
    """Decides what happens to what is there already; a finished bundle to be returned, or None."""
    unfinished = (folder / checkpoint.NAME).is_file()
    if resume and unfinished:
        return None  # the checkpoint itself tells whether it fits
    if resume and target.is_file():
        inspector = load(target, device)
        facts = inspector.facts
        known = {"data": facts.data.get("fingerprint"), "teacher": facts.training.get("teacher")}
        if inspector.settings == settings and known == sources:
            return inspector
    if overwrite:
        return None
    if target.exists():
        reason = " (trained with other settings, images or teacher weights)" if resume else ""
        raise TrainingError(
            f"{target}: exists already{reason}; choose another -o, or replace it with --overwrite"
        )
    if unfinished:
        raise TrainingError(
            f"{folder}: holds an unfinished run; go on with --resume, or start over with "
            "--overwrite"
        )
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second training away from the same output; the lock dies with the process."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise TrainingError(
            f"{folder}: another training is writing there; wait for it, or choose another -o"
        ) from None
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)


def _pinned(settings: Settings) -> Settings:
    """With the teacher's stages written out, so that a bundle never depends on a default."""
    stages = settings.teacher.stages or default_stages(settings.teacher.name)
    return settings.replace({"teacher.stages": stages})
