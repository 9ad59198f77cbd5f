"""What a student is: the interface between a teacher's features, a student and the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Stage:
    """One feature map of a network: its channels, and its stride in input pixels."""

    channels: int
    stride: int


@dataclass(frozen=True)
class TeacherInfo:
    """What a student needs to know of its teacher.

    Attributes:
        stages: shallow to deep.
        rectified: whether the features end in a ReLU, so that the student's should too.
        depths: for a vision transformer, the number of blocks behind every stage; else empty.
    """

    stages: tuple[Stage, ...]
    rectified: bool = True
    depths: tuple[int, ...] = ()


class StudentOutput(NamedTuple):
    """What a student returns for a batch.

    Attributes:
        features: reproductions of the teacher's features, one (B, C, h, w) per stage, shallow to
            deep.
        auxiliary: further tensors by name, for losses that use them; not exported.
        losses: scalar losses of the student's own by name, added to the total with weight 1; a
            student computes them in training mode only.
    """

    features: list[Tensor]
    auxiliary: Mapping[str, Tensor] = {}
    losses: Mapping[str, Tensor] = {}


@dataclass(frozen=True)
class Batch:
    """One training batch: what the student receives and what it has to reproduce.

    Attributes:
        images: normalised images float32 (B, 3, H, W).
        inputs: teacher features that the student receives, one (B, C, h, w) per stage.
        targets: teacher features that the student has to reproduce, of the same shapes.
        weights: gradient factors of the positions, one (B, 1, h, w) per stage; None: 1.
    """

    images: Tensor
    inputs: list[Tensor]
    targets: list[Tensor]
    weights: list[Tensor] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.images)


class Student(nn.Module):
    """Base class of all students.

    A subclass implements `forward(images, features)`, sets `stride`, and overrides the other two
    methods if parts of it are initialised from data.

    Attributes:
        stride: the side of an input image must be a multiple of it.
    """

    stride: int = 1

    def forward(self, images: Tensor, features: Sequence[Tensor]) -> StudentOutput:
        """Normalised images (B, 3, H, W) and teacher features, one (B, C, h, w) per stage, to the
        student's output. A reverse student ignores the images, a forward student the features."""
        raise NotImplementedError("a student implements forward(images, features)")

    def data_initialised(self) -> Sequence[DataInitialised]:
        """Return the modules that are initialised from their inputs before training."""
        return ()

    def initialisation_inputs(self, images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the input (B, C, h, w) of each module of `data_initialised`, in the same order."""
        return []


class DataInitialised(nn.Module):
    """A module whose parameters are initialised from a sample of its inputs."""

    def initialise(self, features: Tensor, seed: int) -> None:
        """Set the parameters.

        Args:
            features: (M, C), a sample of the module's inputs.
            seed: of everything random.
        """
        raise NotImplementedError("a data-initialised module implements initialise(features, seed)")
