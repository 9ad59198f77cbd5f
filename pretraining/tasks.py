"""Pretraining tasks: regression of the features of ResNet-18, or classification of formulas."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data.constants import IMAGENET_DEFAULT_STD as STD
from torch import Tensor, nn

from canvases import TRAINING_PHOTOGRAPHS
from crops import held_out
from formula import CLASSES
from snl.model import weights
from snl.model.compact import Compact
from snl.model.teacher import Teacher
from snl.settings import TeacherSettings

STAGES = (64, 128, 256)
"""Channels of the stages of ResNet-18 with strides 4, 8 and 16, which are regressed."""
SIZE = 128
"""Side of the training images in pixels."""


def normalise(images: Tensor) -> Tensor:
    """Return images, (B, 3, N, N) uint8, as network inputs: normalised like ImageNet."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    images = (images.float() / 255 - mean) / std
    return images.contiguous(memory_format=torch.channels_last)


class Task(nn.Module, ABC):
    """A network with the losses that it is trained to minimise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Compact(STAGES)

    @property
    def inputs(self) -> dict[str, str]:
        """Inputs of the weights other than generated images, with their licences."""
        return {}

    def start(self, batch: list[Tensor]) -> None:
        """Initialise from the batch of the first step, before that step."""

    @abstractmethod
    def losses(self, batch: list[Tensor]) -> list[Tensor]:
        """Return the losses of a batch: images (B, 3, N, N) uint8, and labels, if any."""

    def held_out_losses(self, net: nn.Module) -> list[Tensor]:
        """Return the losses of `net` on held-out images; empty if the task has none."""
        return []


class Distillation(Task):
    """Mean squared error per stage to the features of ResNet-18.

    Each channel is normalised to mean 0 and standard deviation 1 over the first batch, so that
    predicting the mean gives an error of 1.

    Args:
        file: ImageNet weights of ResNet-18.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        settings = TeacherSettings(name="resnet18", weights=file)
        self.teacher = Teacher(settings)
        weights.load(self.teacher, settings)
        for number, channels in enumerate(STAGES):
            self.register_buffer(f"mean_{number}", torch.zeros(channels))
            self.register_buffer(f"std_{number}", torch.ones(channels))
        self._file = Path(file)
        self._held_out = (held_out(96, SIZE) * 255).round().byte()

    @property
    def inputs(self) -> dict[str, str]:
        digest = hashlib.sha256(self._file.read_bytes()).hexdigest()
        return {
            "teacher": f"ResNet-18, torchvision IMAGENET1K_V1 (BSD-3-Clause), sha256 {digest}",
            "photographs": f"scikit-image: {', '.join(TRAINING_PHOTOGRAPHS)} (public domain, CC0)",
        }

    @torch.no_grad()
    def start(self, batch: list[Tensor]) -> None:
        for number, stage in enumerate(self.teacher(normalise(batch[0]))):
            values = stage.float().transpose(0, 1).flatten(1)
            self.get_buffer(f"mean_{number}").copy_(values.mean(1))
            deviation = values.std(1)
            constant = deviation < 1e-5  # do not amplify constant channels
            self.get_buffer(f"std_{number}").copy_(deviation.masked_fill(constant, 1))

    def losses(self, batch: list[Tensor], net: nn.Module | None = None) -> list[Tensor]:
        images = normalise(batch[0])
        with torch.no_grad():
            targets = self.teacher(images)
        outputs = (net or self.net)(images)
        errors = []
        for number, (target, output) in enumerate(zip(targets, outputs, strict=True)):
            mean = self.get_buffer(f"mean_{number}").view(1, -1, 1, 1)
            std = self.get_buffer(f"std_{number}").view(1, -1, 1, 1)
            errors.append(F.mse_loss(output.float(), (target.float() - mean) / std))
        return errors

    @torch.no_grad()
    def held_out_losses(self, net: nn.Module) -> list[Tensor]:
        return self.losses([self._held_out.to(self.get_buffer("mean_0").device)], net)


class Classification(Task):
    """Cross-entropy of a linear classifier of formulas on the pooled features of all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(sum(STAGES), CLASSES)

    def losses(self, batch: list[Tensor]) -> list[Tensor]:
        images, labels = batch
        pooled = torch.cat([f.mean((2, 3)) for f in self.net(normalise(images))], 1)
        return [F.cross_entropy(self.head(pooled).float(), labels)]
