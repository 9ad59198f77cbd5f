"""anomalib's own models on the same footing as `ablation.py`: one model for all products.

    pip install anomalib==2.7.0
    python benchmarks/peers.py DATA --teacher-weights FILE -o docs/results/peers.json
    python benchmarks/ablation.py table docs/results/peers.json -o docs/results/peers.md

anomalib is no dependency of snl; whoever wants these figures installs it. Taken from it are the
torch models, losses, maps and scores of Reverse Distillation, STFPM, PatchCore and PaDiM with the
defaults of its Lightning modules: layers, optimiser, rate, 9 neighbours, coreset of 10 %, 100
features, sigma 4 px. Ours, and the same for every row of `ablation.py`: the images and how they
are read and resized, the normalisation that belongs to the teacher, its weights (checked to give
the features of snl's teacher, bit for bit), the order of the batches, the number of steps, always
the last step, the metrics. Maps and scores are the models' raw ones.

What differs from training by anomalib's Engine:

- All products together, where its data modules have one category; ResNet-18 for all four, where
  Reverse Distillation and PatchCore have WideResNet50-2 by default; batches of 16, not 32; a
  number of steps, not of epochs.
- Images of `--image-size`, resized as snl does, where its pre-processors resize to 256.
- No post-processor: nothing is normalised to 0..1, clamped or thresholded. No early stopping or
  choice by a validation set.
- STFPM always fetches pretrained weights when it is made; here it is kept from the network and
  filled from the file.
- PatchCore's greedy coreset computes its distances in slices that fit a processor's cache: the
  same choice, several times as fast. `--coreset 0.01` is for the hurried, and the row says so.

All computes in fp32, as anomalib does, while a row of `ablation.py` may be bf16 (it says so). The
seconds of training begin when the images have been read. They hold the teacher's passes, which
snl does beforehand, once. A run that is in the results already is not done again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

import snl
from ablation import add, is_done, measured, resumed, say
from snl import progress
from snl.data.catalog import Catalog
from snl.data.stream import batches, read
from snl.errors import ImageError
from snl.model import device as devices
from snl.model import weights
from snl.model.anomaly import resize
from snl.model.teacher import Teacher
from snl.settings import Settings, TeacherSettings, TrainingSettings
from snl.training.loop import indices
from snl.training.selection import split

BACKBONE = "resnet18"
MODELS = ("rd", "stfpm", "patchcore", "padim")
TITLES = {
    "rd": "Reverse Distillation",
    "stfpm": "STFPM",
    "patchcore": "PatchCore",
    "padim": "PaDiM",
}
CORESET = 0.1
SLICE = 4096
"""Rows of features whose distances are computed at a time."""


class Peer:
    """One of anomalib's torch models as a `Predictor`.

    Args:
        model: trained.
        teacher: whose normalisation the pixels get.
        image_size: side of the square input in pixels.
        device: where the model is.
    """

    def __init__(
        self, model: nn.Module, teacher: Teacher, image_size: int, device: torch.device
    ) -> None:
        self.model = model
        self.image_size = image_size
        self.device = device
        self.mean = torch.tensor(teacher.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(teacher.std, device=device).view(1, 3, 1, 1)

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """uint8 (B, H, W, 3) to float (B, 3, H, W) as the teacher wants it."""
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return ((images.float() / 255 - self.mean) / self.std).contiguous()

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (B, size, size, 3) to maps float32 (B, size, size) and scores float32 (B,)."""
        result = self.model(self.normalise(pixels))
        maps, scores = result.anomaly_map.squeeze(1), result.pred_score.reshape(-1)
        return maps.float().cpu().numpy(), scores.float().cpu().numpy()

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One map (h, w) to `size` (H, W), as an inspector does it."""
        return resize(torch.from_numpy(anomaly_map)[None], size)[0].numpy()


def make(kind: str, image_size: int, teacher: Teacher) -> nn.Module:
    """One of MODELS with the settings of its Lightning module, its backbone being the teacher."""
    layers = ["layer1", "layer2", "layer3"]
    model: Any
    if kind == "rd":
        from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
        from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

        size, mode = (image_size, image_size), AnomalyMapGenerationMode.ADD
        model = ReverseDistillationModel(BACKBONE, size, layers, mode, pre_trained=False)
        extractor = model.encoder
    elif kind == "stfpm":
        from anomalib.models.image.stfpm.torch_model import STFPMModel

        create = timm.create_model

        def offline(name: str, **options: Any) -> Any:
            return create(name, **{**options, "pretrained": False})

        with mock.patch.object(timm, "create_model", offline):
            model = STFPMModel(layers, BACKBONE)
        extractor = model.teacher_model
    elif kind == "patchcore":
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel

        model = PatchcoreModel(layers[1:], BACKBONE, pre_trained=False)
        extractor = model.feature_extractor
    else:
        from anomalib.models.image.padim.torch_model import PadimModel

        model = PadimModel(BACKBONE, layers, pre_trained=False)
        extractor = model.feature_extractor
    fill(extractor, teacher)
    built: nn.Module = model
    return built


def fill(extractor: Any, teacher: Teacher) -> None:
    """Give a feature extractor the teacher's weights; every key must match, and the features."""
    extractor.feature_extractor.load_state_dict(teacher.net.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = dict(zip(("layer1", "layer2", "layer3"), teacher(images), strict=True))
        for layer, found in extractor(images).items():
            if not torch.equal(found, wanted[layer]):
                raise AssertionError(f"{layer} is not as snl's teacher has it")


def train(
    kind: str, peer: Peer, pixels: np.ndarray, settings: TrainingSettings, coreset: float
) -> dict[str, Any]:
    """Train or fit the model of a peer on uint8 (N, size, size, 3).

    Returns:
        Training facts in the form of `snl.training.loop.fit`.
    """
    model: Any = peer.model
    model.train()
    began = time.perf_counter()
    facts: dict[str, Any] = {"images": len(pixels), "batch_size": settings.batch_size}
    if kind in ("rd", "stfpm"):
        loss = _descend(kind, peer, pixels, settings)
        facts |= {"steps": settings.steps, "loss": loss}
    else:
        with torch.no_grad():
            for first in tqdm(
                range(0, len(pixels), settings.batch_size),
                "features",
                mininterval=progress.interval(),
            ):
                model(peer.normalise(pixels[first : first + settings.batch_size]))
            if kind == "patchcore":
                facts["bank"] = subsample(model, coreset)
            else:
                model.fit()
    model.eval()
    stored = [*model.parameters(), *model.buffers()]
    return {
        **facts,
        "seconds": round(time.perf_counter() - began, 2),
        "megabytes": round(sum(t.numel() * t.element_size() for t in stored) / 1e6, 1),
        "device": str(peer.device),
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: _version(name) for name in ("anomalib", "torch", "timm")}
        | {"snl": snl.__version__},
    }


def _descend(kind: str, peer: Peer, pixels: np.ndarray, settings: TrainingSettings) -> float:
    """The training of Reverse Distillation or STFPM; the last loss."""
    model: Any = peer.model
    if kind == "rd":
        from anomalib.models.image.reverse_distillation.lightning_model import (
            ReverseDistillation as Module,
        )
        from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss as Loss
    else:
        from anomalib.models.image.stfpm.lightning_model import Stfpm as Module
        from anomalib.models.image.stfpm.loss import STFPMLoss as Loss
    # the method needs nothing of its module but the model
    optimizer = Module.configure_optimizers(SimpleNamespace(model=model))
    loss_of = Loss()
    value = float("nan")
    for step in tqdm(range(settings.steps), "training", mininterval=progress.interval()):
        images = peer.normalise(pixels[indices(step, len(pixels), settings)])
        loss = loss_of(*model(images))
        value = float(loss.detach())
        if not np.isfinite(value):
            sys.exit(f"{TITLES[kind]} stopped at step {step + 1}: its loss is {value}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return value


def subsample(model: Any, ratio: float) -> int:
    """`PatchcoreModel.subsample_embedding`, distances in slices; how many vectors are kept."""
    from anomalib.models.components import KCenterGreedy

    embedding = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    sampler = KCenterGreedy(embedding=embedding, sampling_ratio=ratio)
    sampler.update_distances = lambda cluster_center: _update(sampler, cluster_center)
    model.memory_bank = sampler.sample_coreset()
    return len(model.memory_bank)


def _update(sampler: Any, centre: Tensor) -> None:
    """`KCenterGreedy.update_distances`: the smaller of the known distance and that to a centre."""
    features: Tensor = sampler.features
    if sampler.min_distances is None:
        sampler.min_distances = features.new_full((len(features), 1), float("inf"))
    centre = features[centre].squeeze()
    for first in range(0, len(features), SLICE):
        rows = features[first : first + SLICE]
        smallest = sampler.min_distances[first : first + SLICE]
        found = torch.linalg.norm(rows - centre, ord=2, dim=1, keepdim=True)
        torch.minimum(smallest, found, out=smallest)


def images_of(catalog: Catalog, size: int) -> tuple[np.ndarray, list[ImageError]]:
    """All normal training images (N, size, size, 3) in the order that `snl.train` has them in."""
    errors: list[ImageError] = []
    used, _ = split(catalog, Settings(training=TrainingSettings(holdout=0)))
    stacked = [pixels for _, pixels in batches(read([r.path for r in used], size), 64, errors)]
    if not stacked:
        raise errors[0]
    return np.concatenate(stacked), errors


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _names(text: str) -> Iterator[str]:
    yield from (part.strip() for part in text.split(",") if part.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--teacher-weights", default="pretrained", metavar="FILE")
    parser.add_argument("--models", default=",".join(MODELS), help="default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=600, help="of rd and stfpm")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--coreset", type=float, default=CORESET, help="share that patchcore keeps")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    kinds = [*_names(arguments.models)]
    for unknown in set(kinds) - set(MODELS):
        parser.error(f"no model '{unknown}'; there are {', '.join(MODELS)}")
    try:
        import anomalib  # noqa: F401
    except ImportError as error:
        sys.exit(f"this needs anomalib ({error}): pip install anomalib==2.7.0")
    try:
        run(kinds, arguments)
    except snl.SnlError as error:
        sys.exit(str(error))
    return 0


def run(kinds: list[str], arguments: argparse.Namespace) -> None:
    """Measure what is asked for and the results do not have yet, writing after each run."""
    size = arguments.image_size
    file = Path(arguments.teacher_weights)
    teacher = Teacher(TeacherSettings(name=BACKBONE, weights=arguments.teacher_weights))
    weights.load(teacher, TeacherSettings(name=BACKBONE, weights=arguments.teacher_weights))
    device = devices.choose(arguments.device)
    catalog = Catalog.read(arguments.data)
    fingerprint = catalog.fingerprint()
    title = f"anomalib {_version('anomalib')}, ResNet-18, {size} px, one model for all products"
    results = resumed(arguments.output, title, Path(__file__).name)
    titles = {kind: f"anomalib {TITLES[kind]}" for kind in MODELS}
    if arguments.coreset != CORESET:
        titles["patchcore"] += f" (coreset {100 * arguments.coreset:g} %)"
    pixels: np.ndarray | None = None
    for seed in map(int, _names(arguments.seeds)):
        for kind in kinds:
            shared = {"image_size": size, "teacher.name": BACKBONE, "training.seed": seed}
            own = {"training.steps": arguments.steps, "training.batch_size": arguments.batch_size}
            if kind not in ("rd", "stfpm"):
                own = {"coreset": arguments.coreset} if kind == "patchcore" else {}
            key = {
                "name": titles[kind],
                "seed": seed,
                "method": kind,
                "set": {**shared, **own},
                "teacher_weights": file.name,
                "images": fingerprint,
            }
            if is_done(results, key):
                continue
            say(f"{titles[kind]}, seed {seed}")
            if pixels is None:
                pixels, errors = images_of(catalog, size)
            torch.manual_seed(seed)
            np.random.seed(seed)  # anomalib's projection draws from it
            model = make(kind, size, teacher).to(device)
            peer = Peer(model, teacher, size, device)
            settings = TrainingSettings(
                steps=arguments.steps, batch_size=arguments.batch_size, seed=seed
            )
            training = train(kind, peer, pixels, settings, arguments.coreset)
            training["skipped"] = [str(error) for error in errors]
            result = {**key, **measured(peer, catalog), "training": training}
            add(results, result, arguments.output, [*titles.values()])


if __name__ == "__main__":
    sys.exit(main())
