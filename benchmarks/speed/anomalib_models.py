"""anomalib's models with random weights, otherwise as after training, and their exports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.speed.plan import Plan

BANK = 0.01 * 1000
"""Vectors in PatchCore's memory bank per position of its grid: 1 % of 1000 images."""


def make_peer(name: str, size: int, images: Any) -> Any:
    """Return one of anomalib's Lightning modules as it is after training, with random weights.

    Args:
        name: a key of PEERS.
        size: side of the input in pixels.
        images: float (N, 3, size, size) in [0, 1]; thresholds are set from their scores.
    """
    import timm
    import torch
    from anomalib.models import EfficientAd, Patchcore, ReverseDistillation, Stfpm

    kind = {
        "anomalib-rd": ReverseDistillation,
        "anomalib-stfpm": Stfpm,
        "anomalib-patchcore": Patchcore,
        "anomalib-efficientad": EfficientAd,
    }[name]
    options: dict[str, Any] = {"pre_processor": kind.configure_pre_processor((size, size))}
    if kind is EfficientAd:
        options["model_size"] = "small"
    else:
        options["backbone"] = "resnet18"
    if kind in (ReverseDistillation, Patchcore):
        options["pre_trained"] = False
    create = timm.create_model

    def offline(backbone: str, **given: Any) -> Any:
        return create(backbone, **{**given, "pretrained": False})

    with mock.patch.object(
        timm, "create_model", offline
    ):  # STFPM always downloads weights otherwise
        module: Any = kind(**options)
    module.eval()
    model = module.model
    if kind is Patchcore:
        with torch.no_grad():
            width = sum(f.shape[1] for f in model.feature_extractor(images[:1]).values())
        model.memory_bank = torch.randn(math.ceil(BANK * (size // 8) ** 2), width)
    with torch.inference_mode():
        if kind is EfficientAd:
            _normalise_efficientad(model, images)
        result = model(module.pre_processor(images))
    processor = module.post_processor
    for part, values in (("image", result.pred_score), ("pixel", result.anomaly_map)):
        getattr(processor, f"{part}_min").fill_(float(values.min()))
        getattr(processor, f"{part}_max").fill_(float(values.max()))
        getattr(processor, f"_{part}_threshold").fill_(float(values.mean()))
    return module


def _normalise_efficientad(model: Any, images: Any) -> None:
    """Set what its training sets: mean and deviation of the teacher, quantiles of both maps."""
    import torch

    features = model.teacher(images).clone()
    mean, std = (getattr(features, f)((0, 2, 3), keepdim=True) for f in ("mean", "std"))
    model.mean_std.update({"mean": mean.clone(), "std": std.clone()})
    for part, values in zip(("st", "ae"), model.get_maps(images, normalize=False), strict=True):
        for share, name in ((0.9, "qa"), (0.995, "qb")):
            quantile = values.flatten()[:100_000].quantile(share)
            model.quantiles.update({f"{name}_{part}": torch.tensor(float(quantile))})


def prepare_peers(plan: Plan, work: Path) -> None:
    """Write anomalib's exports and checkpoints of its modules; keep what exists."""
    import torch

    torch.manual_seed(0)
    images = torch.rand(4, 3, plan.size, plan.size)
    for name in plan.peers:
        folder = work / "peers" / name
        if (folder / "done").is_file():
            continue
        module = make_peer(name, plan.size, images)
        module.to_torch(folder)
        _checkpoint(module, folder / "model.ckpt")
        if len(plan.runtimes) > 1:
            _export_peer(module, folder, plan)
        (folder / "done").touch()


def _checkpoint(module: Any, file: Path) -> None:
    """Save the module as Lightning does, without the state of the optimiser."""
    import lightning

    trainer = lightning.Trainer(
        logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True
    )
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file, weights_only=True)


def _export_peer(module: Any, folder: Path, plan: Plan) -> None:
    """Export with a dynamic batch size, which is anomalib's default.

    PatchCore's graph then accepts two images only, so it is exported for each measured batch size.
    """
    import onnxruntime

    size = (plan.size, plan.size)
    files = [module.to_onnx(folder, "model", size)]
    shape = onnxruntime.InferenceSession(str(files[0])).get_inputs()[0].shape
    if isinstance(shape[0], int):
        for extra in files[0].parent.iterdir():
            extra.unlink()
        files = [
            module.to_onnx(folder, f"model-{batch}", size, dynamic_shapes=({0: batch},))
            for batch in (1, plan.batch)
        ]
    if "openvino" in plan.runtimes:
        import openvino

        for file in files:  # as its `to_openvino` does, from the existing graph
            model = folder / "weights" / "openvino" / f"{file.stem}.xml"
            model.parent.mkdir(parents=True, exist_ok=True)
            openvino.save_model(openvino.convert_model(file), model, compress_to_fp16=False)
