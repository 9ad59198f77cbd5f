"""Training steps and metrics for `speed.py`, run by `speed_worker.py`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from speed_subjects import OURS, Plan, settings_of

Figures = dict[str, Callable[[], Any]]


def training(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """One step on a batch: of `snl train` as its loop does it, or of anomalib's module."""
    files = sorted((work / "parts").glob("*/train/good/*.png"))[: 2 * plan.batch]
    if task["subject"].startswith("anomalib"):
        return _peer_training(plan, files, task["subject"])
    import torch

    import snl
    from snl.model import device as devices
    from snl.model.network import Network
    from snl.training import loop
    from snl.training.cache import GIB, CacheBudget, TrainingData
    from snl.training.train import standardise

    changes = {"training.batch_size": plan.batch, "training.precision": task["precision"]}
    overrides = settings_of(task["subject"], plan, **changes)
    overrides["training.steps"] = 2000
    settings = snl.resolve(OURS[task["subject"]][1], "compact", overrides)
    network = Network(settings)
    standardise(network, files)
    pixels = len(files) * 3 * plan.size**2 / GIB
    memory = 4.0 if task["cached"] else 1.01 * pixels  # uncached: pixels alone fit
    data = TrainingData(
        network,
        files,
        budget=CacheBudget(memory, 0),
        folder=work,
        batch_size=plan.batch,
    )
    assert (data.pixels_in, data.features_in) == ("memory", "memory" if task["cached"] else "off")
    torch.manual_seed(0)
    network.student.train()
    network.student.to(memory_format=torch.channels_last)
    optimizer = loop.make_optimizer(network.student, settings.training)
    precision = devices.choose_precision(network.mean.device, settings.training.precision)
    schedule = (loop.indices(step, len(data), settings.training) for step in itertools.count())
    batches = enumerate(data.stream(schedule), 1)

    def step() -> dict[str, Any]:
        number, batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = loop.learning_rate(number, settings.training)
        loop.train_step(network, optimizer, batch, number, precision)
        return {"precision": precision}

    return {"step": step}


def _peer_training(plan: Plan, files: Sequence[Path], name: str) -> Figures:
    """The hook of its pre-processor, `training_step`, and the optimiser it configures."""
    import numpy as np
    import torch

    from snl.data.stream import batches, read
    from speed_peers import make_peer

    stacked = [pixels for _, pixels in batches(read(list(files), plan.size), 64, [])]
    pixels = torch.from_numpy(np.concatenate(stacked))
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255  # as its data set gives them
    module = make_peer(name, plan.size, images[:4])
    module.train()
    module.log = lambda *_, **__: None
    optimizer = module.configure_optimizers()
    order = torch.Generator().manual_seed(0)

    def step() -> dict[str, Any]:
        some = torch.randint(len(images), (plan.batch,), generator=order)
        batch = SimpleNamespace(image=module.pre_processor.transform(images[some]))
        loss = module.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"precision": "fp32"}

    return {"step": step}


def metrics(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """Figures of maps and masks that lie in memory; the results are given back, too."""
    import numpy as np

    stored = np.load(work / "maps.npz")
    maps, masks = stored["maps"], stored["masks"]
    make = {
        "snl": _snl_metrics,
        "anomalib": _anomalib_aupro,
        "torchmetrics": _torchmetrics_auroc,
        "scikit-learn": _sklearn_auroc,
    }[task["subject"]]
    make(maps[:3], masks[:3])()  # what is imported late
    return {f"{n} maps": make(maps[:n], masks[:n]) for n in plan.maps}


def _snl_metrics(maps: Any, masks: Any) -> Callable[[], dict[str, Any]]:
    from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics

    def call() -> dict[str, Any]:
        detection, localization = DetectionMetrics(), LocalizationMetrics()
        for one, mask in zip(maps, masks, strict=True):
            detection.update(one.max(), mask.any())
            localization.update(one, mask)
        return {**detection.compute(), **localization.compute()}

    return call


def _anomalib_aupro(maps: Any, masks: Any) -> Callable[[], dict[str, Any]]:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks).int()

    def call() -> dict[str, Any]:
        metric = _AUPRO()
        for first in range(0, len(scores), 32):
            metric.update(scores[first : first + 32], truth[first : first + 32])
        return {"aupro": float(metric.compute())}

    return call


def _torchmetrics_auroc(maps: Any, masks: Any) -> Callable[[], dict[str, Any]]:
    import torch
    from torchmetrics.functional.classification import binary_auroc

    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks).int()
    return lambda: {"pixel_auroc": float(binary_auroc(scores, truth))}


def _sklearn_auroc(maps: Any, masks: Any) -> Callable[[], dict[str, Any]]:
    from sklearn.metrics import roc_auc_score

    return lambda: {"pixel_auroc": float(roc_auc_score(masks.ravel(), maps.ravel()))}
