"""`snl.train`: from a folder of images to an inspector, the rooms put in a row."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
import zlib
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
from snl.deployment.bundle import Facts
from snl.errors import DataError, DependencyError, ImageError, TrainingError
from snl.files import check_output
from snl.settings import DEFAULT_METHOD, DEFAULT_PRESET, Settings, TrainingSettings, resolve

try:
    import timm
    import torch
    from filelock import FileLock, Timeout

    from snl import device as devices
    from snl import weights
    from snl.deployment.inspector import Inspector, load
    from snl.model.network import Network
    from snl.model.teacher import Teacher, default_stages
    from snl.training import checkpoint
    from snl.training.cache import CacheBudget, TrainingData
    from snl.training.loop import RunOptions, check_tensorboard, fit
    from snl.training.normal_errors import fit_errors
except ImportError as error:
    raise DependencyError(
        f"training needs PyTorch and timm ({error}): pip install 'snl-ad[train]'"
    ) from None

SAMPLE = 64
"""Images looked at for the range of the overlay's colours, or to standardise a teacher."""


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
        device: see `snl.device.choose`.
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
    counts = Counter(record.product for record in used if record.path in readable)
    facts = Facts(
        dict(sorted(counts.items())),
        {
            "name": Path(catalog.root).resolve().name,
            "layout": catalog.layout,
            "fingerprint": sources["data"],
            "images": len(training.paths) + len(held),
        },
        trained,
        (0.0, 1.0),
    )
    inspector = Inspector(network, facts, {}, device)
    inspector.calibration = calibrate(inspector, held, skipped, skip_bad)
    some = [record.path for record in held or used]
    inspector.facts = replace(facts, map_range=map_range(inspector, _sample(some)))
    trained["skipped"] = skipped
    if skipped:
        note(f"{len(skipped)} images could not be read and were left out, the first: {skipped[0]}")
    if target is not None:
        inspector.save(target)
        checkpoint.clear(folder)
    return inspector


def split(catalog: Catalog, settings: Settings) -> tuple[list[Record], list[Record]]:
    """Normal training records, and those of them that are held back for thresholds.

    Each product gives its share or `holdout_least`, whichever is more, chosen by the seed; of a
    product with few images no more than a third goes for the sake of `holdout_least`, and two
    always stay for training.

    Raises:
        DataError: there are no normal training images.
    """
    used: list[Record] = []
    held: list[Record] = []
    for product in catalog.products:
        records = [r for r in catalog.train() if r.product == product]
        count = _held_back(len(records), settings.training)
        seed = [settings.training.seed, zlib.crc32(product.encode())]
        chosen = set(np.random.default_rng(seed).permutation(len(records))[:count].tolist())
        for number, record in enumerate(records):
            (held if number in chosen else used).append(record)
    if not used:
        raise DataError(
            f"{catalog.root}: no normal training images (layout '{catalog.layout}'); put them into "
            "<product>/train/good, or see what was found by snl doctor"
        )
    return used, held


def _held_back(count: int, settings: TrainingSettings) -> int:
    """How many of a product's `count` normal images are kept back."""
    if not settings.holdout:
        return 0
    least = min(settings.holdout_least, count // 3)
    return max(min(max(round(settings.holdout * count), least), count - 2), 0)


def standardise(network: Network, paths: Sequence[Path]) -> None:
    """Fit an untrained teacher's normalisation layers to a sample of the training images."""
    some = samples(paths, network.settings.tile, SAMPLE)
    for _, pixels in batches(read(some, network.settings.image_size), SAMPLE, []):
        images = network.normalise(torch.from_numpy(pixels).to(network.mean.device))
        network.teacher.standardise(images)


def calibrate(
    inspector: Inspector, records: Sequence[Record], skipped: list[str], skip_bad: bool = True
) -> dict[str, np.ndarray]:
    """Scores of held-back normal images by product; unreadable ones join `skipped`, or raise."""
    scores: dict[str, list[float]] = {}
    errors: list[ImageError] = []
    stream = read([record.path for record in records], inspector.image_size)
    for group, pixels in batches(stream, 16, errors):
        for loaded, score in zip(group, inspector.predict(pixels)[1], strict=True):
            scores.setdefault(records[loaded.index].product, []).append(float(score))
    if errors and not skip_bad:
        raise errors[0]
    skipped += [str(error) for error in errors]
    return {name: np.sort(np.array(scores[name], dtype=np.float32)) for name in sorted(scores)}


def fingerprint(teacher: Teacher) -> str:
    """sha256 over the teacher's weights, before they are fitted to anything."""
    digest = hashlib.sha256()
    for name, value in sorted(teacher.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def map_range(inspector: Inspector, paths: Sequence[Path]) -> tuple[float, float]:
    """Where the overlay's colours begin and end: see `Facts.map_range`."""
    pixels_of, scores_of = [], []
    for _, pixels in batches(read(paths, inspector.image_size), 16, []):
        maps, scores = inspector.predict(pixels)
        pixels_of.append(np.quantile(maps, 0.99, axis=(1, 2)))
        scores_of.append(scores)
    if not scores_of:
        return (0.0, 1.0)
    low = float(np.median(np.concatenate(pixels_of)))
    return (low, max(2 * float(np.concatenate(scores_of).max()), low + 1e-6))


def _sample(paths: Sequence[Path]) -> Sequence[Path]:
    """At most SAMPLE of the paths, evenly spread."""
    return paths[:: max(1, math.ceil(len(paths) / SAMPLE))]


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
        if inspector.network.settings == settings and known == sources:
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
