"""anomalib's models under the conditions of `benchmarks.ablation`: one model for all products.

    pip install anomalib==2.7.0
    python -m benchmarks.peers DATA --teacher-weights FILE -o docs/results/peers.json
    python -m benchmarks.ablation table docs/results/peers.json -o docs/results/peers.md

anomalib is no dependency of snl; install it for this benchmark only. From it come the torch models,
losses, maps and scores of Reverse Distillation, STFPM, PatchCore and PaDiM, with the defaults of
its Lightning modules: layers, optimiser, learning rate, 9 neighbours, coreset of 10 %, 100
features, sigma of 4 px. The same as in `benchmarks.ablation` are: the images and how they are read
and resized, the normalisation of the teacher, its weights (the features are checked to equal those
of snl's teacher bit for bit), the order of the batches, the number of steps, the metrics, and that
the network after the last step is measured. Maps and scores are the raw ones of the models.

Differences from training with anomalib's Engine:

- One model of all products, while its data modules hold one category. ResNet-18 for all four, where
  the default of Reverse Distillation and PatchCore is WideResNet50-2. Batches of 16, not 32. A
  number of steps, not of epochs.
- Images of `--image-size`, resized as snl does, where its pre-processors resize to 256.
- No post-processor: nothing is normalised to 0..1, clamped or thresholded. No early stopping and no
  selection by a validation set.
- STFPM always downloads pretrained weights when it is created; here the download is suppressed and
  the weights come from the file.
- PatchCore's greedy coreset computes its distances in slices that fit a processor's cache: the
  selection is the same, several times as fast. `--coreset 0.01` is faster still; the name of the
  row then says so.

All of anomalib is computed in fp32, its default, while a row of `benchmarks.ablation` may use bf16
(it says so). Training seconds start after the images have been read. They include the passes of the
teacher, which snl does once beforehand. A run that the results already contain is skipped.
"""

from __future__ import annotations

import argparse
import time
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
from benchmarks.common import (
    add_output,
    add_run,
    is_done,
    log,
    machine,
    names_of,
    new_parser,
    numbers_of,
    require_anomalib,
    resume_runs,
    run_main,
    versions,
)
from benchmarks.internals import evaluate_run, load_teacher, training_images
from snl import progress
from snl.errors import SnlError
from snl.model import device as devices
from snl.model.anomaly import resize
from snl.model.teacher import Teacher
from snl.settings import TrainingSettings
from snl.training.loop import indices

BACKBONE = "resnet18"
MODELS = ("rd", "stfpm", "patchcore", "padim")
TITLES = {
    "rd": "Reverse Distillation",
    "stfpm": "STFPM",
    "patchcore": "PatchCore",
    "padim": "PaDiM",
}
TRAINED = ("rd", "stfpm")
"""Models that are trained in steps; the others are fitted in one pass."""
CORESET = 0.1
SLICE = 4096
"""Rows of features whose distances are computed at once."""


class Peer:
    """One of anomalib's torch models as a `Predictor`.

    Args:
        model: one of anomalib's torch models.
        teacher: its normalisation is applied to the pixels.
        image_size: side of the square input in pixels.
        device: of the model.
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
        """Return uint8 (B, H, W, 3) as the teacher's input, float (B, 3, H, W)."""
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        return ((images.float() / 255 - self.mean) / self.std).contiguous()

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maps float32 (B, size, size) and scores float32 (B,) of uint8 images."""
        result = self.model(self.normalise(pixels))
        maps, scores = result.anomaly_map.squeeze(1), result.pred_score.reshape(-1)
        return maps.float().cpu().numpy(), scores.float().cpu().numpy()

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return a map (h, w) resized to `size` (H, W), as an inspector resizes it."""
        return resize(torch.from_numpy(anomaly_map)[None], size)[0].numpy()


def make(kind: str, image_size: int, teacher: Teacher) -> nn.Module:
    """Return one of MODELS with the defaults of its Lightning module and our teacher."""
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
    """Load the teacher's weights into a feature extractor.

    Raises:
        RuntimeError: the keys of the weights differ.
        AssertionError: the features differ from those of the teacher.
    """
    extractor.feature_extractor.load_state_dict(teacher.net.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = dict(zip(("layer1", "layer2", "layer3"), teacher(images), strict=True))
        for layer, features in extractor(images).items():
            if not torch.equal(features, expected[layer]):
                raise AssertionError(f"{layer} differs from that of snl's teacher")


def patchcore_title(coreset: float) -> str:
    """Return the name of PatchCore's row, with the coreset if it is not the default."""
    other = "" if coreset == CORESET else f" (coreset {100 * coreset:g} %)"
    return f"anomalib {TITLES['patchcore']}{other}"


def trained(
    kind: str,
    teacher: Teacher,
    pixels: np.ndarray,
    settings: TrainingSettings,
    coreset: float,
    device: torch.device,
) -> tuple[Peer, dict[str, Any]]:
    """Return a peer trained on images uint8 (N, size, size, 3), and what `train` returns.

    The arguments are those of `make` and `train`; all random numbers come from the seed.
    """
    size = pixels.shape[1]
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed)  # anomalib's random projection uses it
    peer = Peer(make(kind, size, teacher).to(device), teacher, size, device)
    return peer, train(kind, peer, pixels, settings, coreset)


def train(
    kind: str, peer: Peer, pixels: np.ndarray, settings: TrainingSettings, coreset: float
) -> dict[str, Any]:
    """Train or fit the model of a peer.

    Args:
        kind: one of MODELS.
        peer: its model is trained in place.
        pixels: uint8 (N, size, size, 3).
        settings: steps, batch size and seed.
        coreset: share of patches that PatchCore keeps, in (0, 1].

    Returns:
        Training facts in the form of `snl.train`.
    """
    model: Any = peer.model
    model.train()
    began = time.perf_counter()
    facts: dict[str, Any] = {"images": len(pixels), "batch_size": settings.batch_size}
    if kind in TRAINED:
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
        "machine": machine(),
        "versions": versions(("anomalib", "torch", "timm")) | {"snl": snl.__version__},
    }


def _descend(kind: str, peer: Peer, pixels: np.ndarray, settings: TrainingSettings) -> float:
    """Train Reverse Distillation or STFPM and return the last loss."""
    model: Any = peer.model
    if kind == "rd":
        from anomalib.models.image.reverse_distillation.lightning_model import (
            ReverseDistillation as Module,
        )
        from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss as Loss
    else:
        from anomalib.models.image.stfpm.lightning_model import Stfpm as Module
        from anomalib.models.image.stfpm.loss import STFPMLoss as Loss
    # the method uses only `model` of its module
    optimizer = Module.configure_optimizers(SimpleNamespace(model=model))
    loss_of = Loss()
    value = float("nan")
    for step in tqdm(range(settings.steps), "training", mininterval=progress.interval()):
        images = peer.normalise(pixels[indices(step, len(pixels), settings)])
        loss = loss_of(*model(images))
        value = float(loss.detach())
        if not np.isfinite(value):
            raise SnlError(
                f"{TITLES[kind]} stopped at step {step + 1}: its loss is {value}; check the images"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return value


def subsample(model: Any, ratio: float) -> int:
    """Do `PatchcoreModel.subsample_embedding` in slices and return the number of kept vectors."""
    from anomalib.models.components import KCenterGreedy

    embedding = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    if ratio >= 1:  # all are kept, in any order
        model.memory_bank = embedding
        return len(embedding)
    sampler = KCenterGreedy(embedding=embedding, sampling_ratio=ratio)
    sampler.update_distances = lambda cluster_center: _update(sampler, cluster_center)
    model.memory_bank = sampler.sample_coreset()
    return len(model.memory_bank)


def _update(sampler: Any, centre: Tensor) -> None:
    """Do `KCenterGreedy.update_distances`: the minimum of old distances and those to a centre."""
    features: Tensor = sampler.features
    if sampler.min_distances is None:
        sampler.min_distances = features.new_full((len(features), 1), float("inf"))
    centre = features[centre].squeeze()
    for first in range(0, len(features), SLICE):
        rows = features[first : first + SLICE]
        smallest = sampler.min_distances[first : first + SLICE]
        distances = torch.linalg.norm(rows - centre, ord=2, dim=1, keepdim=True)
        torch.minimum(smallest, distances, out=smallest)


def run(options: argparse.Namespace) -> None:
    """Do the runs that the results do not have yet, and write the results after each."""
    size = options.image_size
    teacher = load_teacher(BACKBONE, options.teacher_weights)
    device = devices.choose(options.device)
    catalog = snl.Catalog.read(options.data)
    fingerprint = catalog.fingerprint()
    anomalib = versions(["anomalib"])["anomalib"]
    title = f"anomalib {anomalib}, ResNet-18, {size} px, one model for all products"
    results = resume_runs(options.output, title, Path(__file__).name)
    titles = {kind: f"anomalib {TITLES[kind]}" for kind in MODELS}
    titles["patchcore"] = patchcore_title(options.coreset)
    pixels: np.ndarray | None = None
    for seed in options.seeds:
        for kind in options.models:
            shared = {"image_size": size, "teacher.name": BACKBONE, "training.seed": seed}
            specific: dict[str, Any] = {}
            if kind in TRAINED:
                specific = {
                    "training.steps": options.steps,
                    "training.batch_size": options.batch_size,
                }
            elif kind == "patchcore":
                specific = {"coreset": options.coreset}
            key = {
                "name": titles[kind],
                "seed": seed,
                "method": kind,
                "set": {**shared, **specific},
                "teacher_weights": Path(options.teacher_weights).name,
                "images": fingerprint,
            }
            if is_done(results, key):
                continue
            log(f"{titles[kind]}, seed {seed}")
            if pixels is None:
                pixels, errors = training_images(catalog, size)
            budget = TrainingSettings(steps=options.steps, batch_size=options.batch_size, seed=seed)
            peer, training = trained(kind, teacher, pixels, budget, options.coreset, device)
            training["skipped"] = [str(error) for error in errors]
            result = {**key, **evaluate_run(peer, catalog), "training": training}
            add_run(results, result, options.output, [*titles.values()])


def parser() -> argparse.ArgumentParser:
    parser = new_parser("peers", __doc__)
    parser.add_argument("data", type=Path)
    add_output(parser)
    parser.add_argument("--teacher-weights", default="pretrained", metavar="FILE")
    parser.add_argument(
        "--models",
        type=names_of,
        default=",".join(MODELS),
        metavar="NAMES",
        help="comma-separated (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=numbers_of, default="0,1,2", metavar="N,N")
    parser.add_argument("--steps", type=int, default=600, help="of rd and stfpm")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument(
        "--coreset", type=float, default=CORESET, help="share of patches that patchcore keeps"
    )
    parser.add_argument("--device", default="auto")
    return parser


def main() -> None:
    options = parser().parse_args()
    for unknown in sorted(set(options.models) - set(MODELS)):
        raise SnlError(f"--models: no model '{unknown}'; choose from {', '.join(MODELS)}")
    require_anomalib()
    run(options)


if __name__ == "__main__":
    run_main(main)
