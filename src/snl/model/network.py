"""Teacher, student and map put together: uint8 images in, anomaly maps and scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.model.anomaly import anomaly_map, score
from snl.model.error_statistics import NormalErrors, embed
from snl.model.student import make_student
from snl.model.teacher import Teacher
from snl.settings import Settings


class Network(nn.Module):
    """Everything that is computed on an image, from pixels to score.

    The normalisation is part of it, so that callers only ever hand over pixels. Weights are the
    seeded initial ones until a teacher's or a bundle's are loaded.

    Args:
        settings: the whole of them; `training.seed` seeds the initial weights.

    Raises:
        SettingsError: a teacher or stages that cannot be built.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            # of the CPU alone: torch.manual_seed would seed every other device, too
            torch.default_generator.manual_seed(settings.training.seed)
            self.teacher = Teacher(settings.teacher)
            deepest = self.teacher.stages[-1].stride
            # the convolutional bottleneck halves the deepest stage once more
            halved = settings.student.architecture == "reverse" and not self.teacher.depths
            multiple = 2 * deepest if halved else deepest
            if settings.image_size % multiple:
                raise SettingsError(
                    f"setting 'image_size' is {settings.image_size}; with the stages of "
                    f"'{settings.teacher.name}' it must be a multiple of {multiple}"
                )
            if self.teacher.size not in (None, settings.image_size):
                raise SettingsError(
                    f"setting 'image_size' is {settings.image_size}; '{settings.teacher.name}' "
                    f"takes {self.teacher.size} alone: --image-size {self.teacher.size}"
                )
            positions = (settings.image_size // multiple) ** 2
            if settings.training.batch_size * positions == 1:
                raise SettingsError(
                    "a batch of one with features of a single position cannot be normalised; "
                    "raise training.batch_size or image_size"
                )
            try:
                self.student = make_student(
                    self.teacher.stages,
                    settings,
                    rectified=self.teacher.rectified,
                    depths=self.teacher.depths,
                )
            except ValueError as error:
                raise SettingsError(
                    f"setting 'student.blocks' does not fit the teacher: {error}"
                ) from None
        self.errors = NormalErrors(self.teacher.stages, settings.map.levels)
        weights = settings.map.stage_weights
        if weights and len(weights) != len(self.teacher.stages):
            raise SettingsError(
                f"setting 'map.stage_weights' has {len(weights)} numbers; the teacher has "
                f"{len(self.teacher.stages)} stages"
            )
        for name, values in (("mean", self.teacher.mean), ("std", self.teacher.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input and of the map."""
        return (self.settings.image_size, self.settings.image_size)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float (B, 3, H, W) as the teacher wants it."""
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Normalised images to one (B, C, h, w) per stage, shallow to deep."""
        return self.teacher(images)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (B, H, W, 3) of the input size to maps (B, H, W) and scores (B,), float32, raw, and
        the teacher's embeddings (B, D), see `snl.model.error_statistics.embed`."""
        images = self.normalise(pixels)
        features = self.teacher_features(images)
        maps, scores = self.compare(features, self.student(images, features))
        return maps, scores, embed(features)

    def compare(
        self, teacher: Sequence[Tensor], student: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features of both networks to maps (B, H, W) and scores (B,)."""
        maps = self.undivided(teacher, student)
        if len(self.errors.level):
            maps = maps / self.errors.level_of(teacher).view(-1, 1, 1)
        return maps, score(maps, self.settings.map)

    def undivided(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
        """Features of both networks to maps (B, H, W) on the scale of the errors themselves."""
        sigma = self.settings.map.sigma * self.settings.image_size / 256
        return anomaly_map(teacher, student, self.size, sigma, self.settings.map, self.errors)
