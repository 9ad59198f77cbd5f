"""Uses of snl beyond its public API, in one place: change this file when snl's internals change.

Nothing here imports torch before a function that needs it is called.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import snl
from snl.data.images import to_input
from snl.data.listing import inside
from snl.data.records import Record
from snl.data.stream import batches, read
from snl.decision import decide, fit, shared_tail
from snl.decision.calibration import RULES, Calibration, CalibrationSet
from snl.decision.certainty import true_rate_interval
from snl.decision.conformal import Conformal, log_score_stats
from snl.decision.inspection import ANOMALOUS, UNKNOWN, Verdict
from snl.decision.products import Prototypes, find_groups
from snl.decision.products import fit_prototypes as learn_prototypes
from snl.decision.sample import NormalSample
from snl.decision.shared_tail import SharedTail
from snl.errors import ImageError
from snl.evaluation.decision_counts import rate_interval as binomial_interval
from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics, auroc
from snl.evaluation.result import EvaluatedImage, mean_of, ordered
from snl.monitoring import baseline as monitoring
from snl.runtime import recalibrate
from snl.runtime.measure import measure
from snl.settings import MapSettings, Settings, TeacherSettings, TrainingSettings

if TYPE_CHECKING:
    from snl.evaluation.result import Evaluation
    from snl.model.teacher import Teacher
    from snl.runtime.predictor import BatchModel
    from snl.runtime.torch_engine import TorchEngine

__all__ = [
    "ANOMALOUS",
    "RULES",
    "UNKNOWN",
    "WORST",
    "Calibration",
    "CalibrationSet",
    "Conformal",
    "ImageSample",
    "Record",
    "SharedTail",
    "TimedPredictor",
    "Verdict",
    "auroc",
    "binomial_interval",
    "calibration_of_scores",
    "calibration_sets",
    "evaluate_each",
    "evaluate_run",
    "find_groups",
    "judge",
    "learn_prototypes",
    "load_teacher",
    "log_score_stats",
    "measure_images",
    "monitoring",
    "random_teacher",
    "read_pixels",
    "set_normals",
    "shared_tail",
    "split",
    "to_input",
    "torch_engine",
    "training_images",
    "training_step",
    "true_rate_interval",
    "with_map_settings",
]

WORST = 3
"""Images listed per kind of mistake and product."""


@dataclasses.dataclass(frozen=True)
class ImageSample:
    """Measurements of M images, and their records."""

    records: list[Record]
    sample: NormalSample

    @property
    def scores(self) -> np.ndarray:
        """float32 (M,), raw."""
        return self.sample.scores

    @property
    def embeddings(self) -> np.ndarray:
        """float32 (M, D)."""
        return self.sample.embeddings

    def of(self, product: str) -> np.ndarray:
        """Return bool (M,): which images show the product."""
        return self.sample.of(product)


# -- images and calibration


def split(catalog: snl.Catalog, settings: Settings) -> tuple[list[Record], list[Record]]:
    """Return the records that training uses and those that it holds back for calibration."""
    from snl.training import selection

    return selection.split(catalog, settings)


def measure_images(
    inspector: snl.Inspector,
    records: Sequence[Record],
    progress: Callable[[int, int], None] | None = None,
) -> ImageSample:
    """Return scores and embeddings of images.

    Args:
        inspector: computes them.
        records: of the images.
        progress: called with the number of images done and the number of all.
    """
    errors: list[ImageError] = []
    calibration = inspector.calibration
    sample = measure(
        inspector.predictor,
        records,
        errors,
        tile=calibration.tile,
        ignore_masks=calibration.ignore_masks,
        progress=progress,
    )
    if errors:
        raise errors[0]
    return ImageSample(list(records), sample)


def calibration_sets(inspector: snl.Inspector, images: ImageSample) -> dict[str, CalibrationSet]:
    """Return the calibration sets that these images give, by product."""
    prototypes = inspector.calibration.prototypes
    return fit.calibration_sets(images.sample, prototypes, inspector.products)


def calibration_of_scores(
    scores: Mapping[str, np.ndarray], stats: Mapping[str, tuple[float, float]]
) -> Calibration:
    """Return a calibration of held-out scores only, float32 (n,) by product."""
    sets = {
        name: CalibrationSet(
            values,
            np.ones(len(values), np.float32),
            np.zeros((len(values), 16), np.float32),
            np.arange(len(values), dtype=np.uint64),
        )
        for name, values in scores.items()
    }
    prototypes = Prototypes(np.eye(len(sets), dtype=np.float32), tuple(sets))
    return Calibration(sets, stats, prototypes)


def judge(
    calibration: Calibration,
    score: float,
    distances: Mapping[str, float],
    product: str | None = None,
) -> Verdict:
    """Return the verdict on a score and the distances to every product's nearest prototype."""
    recognised = min(distances, key=distances.__getitem__)
    others = [d for name, d in distances.items() if name != recognised]
    second = min(others, default=float("inf"))
    return decide.judge(
        calibration, score, recognised, distances[recognised], product, second=second
    )


def set_normals(inspector: snl.Inspector, records: Sequence[Record], *, add: bool = False) -> None:
    """Replace the held-out images of the products in `records`, or add to them."""
    calibration, _ = recalibrate.add_normals(
        inspector, inspector.calibration, records, add=add, force=True
    )
    inspector.recalibrate(calibration)


def read_pixels(paths: Sequence[Path], size: int, errors: list[ImageError]) -> np.ndarray:
    """Return images as uint8 (N, size, size, 3).

    Args:
        paths: of the images.
        size: side in pixels that they are resized to.
        errors: list to which the errors of unreadable images are appended.

    Raises:
        ImageError: no image can be read.
    """
    stacked = [pixels for _, pixels in batches(read(list(paths), size), 64, errors)]
    if not stacked:
        raise errors[0]
    return np.concatenate(stacked)


def training_images(catalog: snl.Catalog, size: int) -> tuple[np.ndarray, list[ImageError]]:
    """Return all normal training images, uint8 (N, size, size, 3), in the order of `snl.train`,
    and the errors of unreadable images."""
    errors: list[ImageError] = []
    used, _ = split(catalog, Settings(training=TrainingSettings(holdout=0)))
    return read_pixels([record.path for record in used], size, errors), errors


# -- evaluation of a trained network


class TimedPredictor:
    """A model that adds up the seconds of its network, without reading and metrics."""

    def __init__(self, predictor: BatchModel) -> None:
        self.predictor = predictor
        self.image_size = predictor.image_size
        self.seconds = 0.0

    def predict(self, pixels: np.ndarray) -> tuple[Any, ...]:
        """Return what the predictor returns."""
        start = time.perf_counter()
        result = self.predictor.predict(pixels)
        self.seconds += time.perf_counter() - start
        return result


def evaluate_run(predictor: BatchModel, catalog: snl.Catalog) -> dict[str, Any]:
    """Return metrics, scores, worst images and seconds of the test images."""
    timed = TimedPredictor(predictor)
    start = time.perf_counter()
    evaluation = snl.evaluate(timed, catalog)
    seconds = time.perf_counter() - start
    scores, worst = _scores_and_worst(evaluation, catalog)
    return {
        **evaluation.to_dict(),
        "evaluation_seconds": round(seconds, 1),
        "prediction_seconds": round(timed.seconds, 2),
        "skipped": evaluation.skipped,
        "scores": scores,
        "worst": worst,
    }


def evaluate_each(models: Iterable[tuple[str, BatchModel]], catalog: snl.Catalog) -> dict[str, Any]:
    """Return metrics of models of one product each, as an evaluation of one model has them.

    Args:
        models: names of products and their models; each model is used before the next is asked for.
        catalog: of all these products.

    Returns:
        `products`, `mean` and `pooled`; the latter ranks the raw scores and maps of all models.
    """
    detection, localization = DetectionMetrics(), LocalizationMetrics()

    def visit(image: EvaluatedImage) -> None:
        detection.update(image.result.score, image.result.label == "anomalous")
        if image.mask is not None:
            localization.update(image.anomaly_map, image.mask)

    products: dict[str, dict[str, Any]] = {}
    for name, model in models:
        products |= snl.evaluate(model, catalog.of(name), visit=visit).products
    return {
        "products": products,
        "mean": mean_of(list(products.values())),
        "pooled": ordered(detection.compute() | localization.compute()),
    }


def _scores_and_worst(
    evaluation: Evaluation, catalog: snl.Catalog
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return scores by product and label, and paths of the worst images, relative to the data."""
    scores: dict[str, Any] = {}
    worst: dict[str, Any] = {}
    for product in evaluation.products:
        product_scores = sorted(
            (s for s in evaluation.scores if s.product == product), key=lambda s: s.score
        )
        scores[product], paths = {}, {}
        for label in ("normal", "anomalous"):
            labelled = [s for s in product_scores if s.label == label]
            scores[product][label] = [float(f"{s.score:.4g}") for s in labelled]
            relative = (inside(s.path, catalog.root) or Path(s.path.name) for s in labelled)
            paths[label] = [path.as_posix() for path in relative]
        worst[product] = {
            "misses": paths["anomalous"][:WORST],
            "false_alarms": paths["normal"][::-1][:WORST],
        }
    return scores, worst


# -- networks and training


def random_teacher(name: str) -> Teacher:
    """Return a teacher with random weights."""
    from snl.model.teacher import Teacher

    return Teacher(TeacherSettings(name=name, weights="random"))


def load_teacher(name: str, weights: str) -> Teacher:
    """Return a teacher with the weights of a file, or those that `pretrained` and `random` name."""
    from snl.model import weights as files
    from snl.model.teacher import Teacher

    settings = TeacherSettings(name=name, weights=weights)
    teacher = Teacher(settings)
    files.load(teacher, settings)
    return teacher


def torch_engine(settings: Settings, threads: int, precision: str) -> TorchEngine:
    """Return an untrained network as `snl` runs it on a CPU."""
    from snl.model.network import Network
    from snl.runtime.torch_engine import TorchEngine

    return TorchEngine(Network(settings), "cpu", threads, precision)


def with_map_settings(
    inspector: snl.Inspector, catalog: snl.Catalog, settings: MapSettings, device: str
) -> snl.Inspector:
    """Return an inspector with the same trained network and other settings of the map.

    The statistics of normal errors are fitted again, as `snl.train` fits them.
    """
    from snl.runtime.predictor import Predictor
    from snl.runtime.torch_engine import TorchEngine
    from snl.training.fit_statistics import fit_statistics

    network = inspector.network
    network.settings = dataclasses.replace(network.settings, map=settings)
    used, _ = split(catalog, network.settings)
    fit_statistics(network, [record.path for record in used])
    # an engine keeps an optimised copy of the network, so a new one is needed
    metadata = dataclasses.replace(inspector.metadata, settings=network.settings)
    predictor = Predictor(TorchEngine(network, device), metadata)
    return snl.Inspector(predictor, inspector.calibrations)


def training_step(
    settings: Settings, files: Sequence[Path], *, cached: bool, folder: Path
) -> Callable[[], str]:
    """Return a function that does one training step of `snl train` and returns its precision.

    Args:
        settings: of the network and its training.
        files: training images; they are read now.
        cached: compute the teacher's features once beforehand, as `snl train` does where memory
            allows it.
        folder: for files of the cache.
    """
    import torch

    from snl.model import device as devices
    from snl.model.network import Network
    from snl.training import loop
    from snl.training.cache import GIB, CacheBudget, TrainingData
    from snl.training.untrained import standardise

    network = Network(settings)
    standardise(network, list(files))
    pixels = len(files) * 3 * settings.image_size**2 / GIB
    memory = 4.0 if cached else 1.01 * pixels  # not cached: there is space for the pixels only
    data = TrainingData(
        network,
        list(files),
        budget=CacheBudget(memory, 0),
        folder=folder,
        batch_size=settings.training.batch_size,
    )
    assert (data.pixels_in, data.features_in) == ("memory", "memory" if cached else "off")
    torch.manual_seed(0)
    network.student.train()
    network.student.to(memory_format=torch.channels_last)
    optimizer = loop.make_optimizer(network.student, settings.training)
    precision = devices.choose_precision(network.mean.device, settings.training.precision)
    schedule = (loop.indices(step, len(data), settings.training) for step in itertools.count())
    numbered = enumerate(data.stream(schedule), 1)

    def step() -> str:
        number, batch = next(numbered)
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(number, settings.training)
        loop.train_step(network, optimizer, batch, number, precision)
        return precision

    return step
