"""Training steps and metrics, which `worker.py` measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.speed.plan import OURS, Plan, settings_of

Figures = dict[str, Callable[[], Any]]
"""What a worker measures: a call by the title of the figure. What it returns is stored."""


def training(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """Return one training step on a batch, of `snl train` or of anomalib's Lightning module."""
    files = sorted((work / "parts").glob("*/train/good/*.png"))[: 2 * plan.batch]
    if task["subject"].startswith("anomalib"):
        return _peer_training(plan, files, task["subject"])
    import snl
    from benchmarks.internals import training_step

    changes = {"training.batch_size": plan.batch, "training.precision": task["precision"]}
    overrides = settings_of(task["subject"], plan, **changes)
    overrides["training.steps"] = 2000
    settings = snl.resolve(OURS[task["subject"]][1], "compact", overrides)
    step = training_step(settings, files, cached=task["cached"], folder=work)
    return {"step": lambda: {"precision": step()}}


def _peer_training(plan: Plan, files: Sequence[Path], name: str) -> Figures:
    """Use the transform of its pre-processor, its `training_step` and its optimiser."""
    import torch

    from benchmarks.internals import read_pixels
    from benchmarks.speed.anomalib_models import make_peer

    pixels = torch.from_numpy(read_pixels(files, plan.size, []))
    images = pixels.permute(0, 3, 1, 2).contiguous().float() / 255  # as its data set returns them
    module = make_peer(name, plan.size, images[:4])
    module.train()
    module.log = lambda *_, **__: None
    optimizer = module.configure_optimizers()
    order = torch.Generator().manual_seed(0)

    def step() -> dict[str, Any]:
        chosen = torch.randint(len(images), (plan.batch,), generator=order)
        batch = SimpleNamespace(image=module.pre_processor.transform(images[chosen]))
        loss = module.training_step(batch, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"precision": "fp32"}

    return {"step": step}


def metrics(plan: Plan, work: Path, task: dict[str, Any]) -> Figures:
    """Return computations of metrics from maps and masks in memory; they return the metrics."""
    import numpy as np

    stored = np.load(work / "maps.npz")
    maps, masks = stored["maps"], stored["masks"]
    make = {
        "snl": _snl_metrics,
        "anomalib": _anomalib_aupro,
        "torchmetrics": _torchmetrics_auroc,
        "scikit-learn": _sklearn_auroc,
    }[task["subject"]]
    make(maps[:3], masks[:3])()  # imports whatever is imported late
    return {f"{n} maps": make(maps[:n], masks[:n]) for n in plan.maps}


def _snl_metrics(maps: Any, masks: Any) -> Callable[[], dict[str, Any]]:
    from snl.evaluation.metrics import DetectionMetrics, LocalizationMetrics

    def call() -> dict[str, Any]:
        detection, localization = DetectionMetrics(), LocalizationMetrics()
        for anomaly_map, mask in zip(maps, masks, strict=True):
            detection.update(anomaly_map.max(), mask.any())
            localization.update(anomaly_map, mask)
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
