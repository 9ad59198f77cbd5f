"""Teacher, student and map in one module: uint8 images in, anomaly maps and scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snl.errors import SettingsError
from snl.model.adapters import Router, adapt, grouped
from snl.model.anomaly import anomaly_map, score, smoothed
from snl.model.error_statistics import ErrorStatistics, embed
from snl.model.memory import PatchMemory, remaining
from snl.model.student import make_student
from snl.model.teacher import Teacher
from snl.settings import Settings


class Network(nn.Module):
    """Everything that is computed on an image, from pixels to score.

    The input normalisation is part of it, so callers pass pixels. The weights are the seeded
    initial ones until a teacher's or a bundle's are loaded.

    Args:
        settings: of the model; `training.seed` seeds the initial weights.

    Raises:
        SettingsError: a teacher or stages that cannot be built, or an unsuitable image size.
        PluginError: a plug-in that cannot be imported.
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
            self.student = make_student(self.teacher.info, settings)
            multiple = max(self.student.stride, self.teacher.stages[-1].stride)
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
        weights = settings.map.stage_weights
        if weights and len(weights) != len(self.teacher.stages):
            raise SettingsError(
                f"setting 'map.stage_weights' has {len(weights)} numbers; the teacher has "
                f"{len(self.teacher.stages)} stages"
            )
        for name, values in (("mean", self.teacher.mean), ("std", self.teacher.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.statistics = self.empty_statistics()
        self.memory = self.empty_memory()
        self.router: Router | None = None
        """The group of an image, once products were added; see `snl.model.adapters`."""

    @property
    def groups(self) -> int:
        """Number of groups of products: the first training, and every addition."""
        return self.statistics.groups

    def resize_groups(self, groups: int, gates: int) -> None:
        """Make room for a number of groups of products, and gates of the router."""
        adapt(self.student, groups)
        self.statistics.resize(groups)
        width = sum(stage.channels for stage in self.teacher.stages)
        self.router = Router(width, gates).to(self.mean.device)

    def add_group(self, new: Tensor, others: Tensor, strangers: Tensor) -> int:
        """Add a group of products, whose adapters are zero; return its number.

        Args:
            new: embeddings (Q, E) of the new products.
            others: embeddings (R, E) of the products that are there.
            strangers: embeddings (S, E) of products that are no longer there: gates that are nearer
                to them than to all others are removed.
        """
        number, old = self.groups, self.router
        gates, groups = others, torch.zeros(len(others), dtype=torch.long)
        if old is not None:
            rows = remaining(old.gates, others, strangers)
            gates, groups = old.gates[rows], old.groups[rows]
        self.resize_groups(number + 1, 1)
        assert self.router is not None
        self.router.set_gates(
            torch.cat([gates.to(new), new]),
            torch.cat([groups.cpu(), torch.full((len(new),), number)]),
        )
        return number

    def size_for(self, products: int) -> None:
        """Give the untrained student and the statistics room for a number of products, unless the
        settings state another one."""
        old, products = self.settings, self.settings.products or products
        self.settings = old.replace({"products": products})
        if self.settings.sized(10**6) == old.sized(10**6):
            return
        device = self.mean.device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(old.training.seed)
            self.student = make_student(self.teacher.info, self.settings).to(device)
        self.statistics = self.empty_statistics()

    def empty_statistics(self) -> ErrorStatistics:
        """Return statistics that change no map, with room for those of the settings."""
        clusters = self.settings.sized(self.settings.map.normalisation_clusters)
        return ErrorStatistics(self.teacher.stages, clusters).to(self.mean.device)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the input and of the map."""
        return (self.settings.image_size, self.settings.image_size)

    def empty_memory(self) -> PatchMemory | None:
        """Return a memory without patches of images, or None where the settings ask for none."""
        size, stages = self.settings.map.memory, self.teacher.stages
        if not size:
            return None
        width = sum(stage.channels for stage in stages)
        return PatchMemory(stages[-1].channels, width, size).to(self.mean.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 (B, H, W, 3) to float32 (B, 3, H, W) as the teacher expects it."""
        return (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> list[Tensor]:
        """Return the teacher's features of normalised images, one (B, C, h, w) per stage."""
        return self.teacher(images)  # type: ignore[no-any-return]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return raw maps (B, H, W), raw scores (B,) and embeddings (B, D), all float32, of images
        uint8 (B, H, W, 3) of the input size; see `snl.model.error_statistics.embed`."""
        images = self.normalise(pixels)
        features = self.teacher_features(images)
        embeddings = embed(features)
        with grouped(None if self.router is None else self.router(embeddings)):
            maps, scores = self.compare(features, self.student(images, features).features)
        return maps, scores, embeddings

    def compare(
        self, teacher: Sequence[Tensor], student: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return maps (B, H, W) and scores (B,) from the features of both networks."""
        maps = self.unnormalised(teacher, student)
        if len(self.statistics.normal_scores):
            maps = maps / self.statistics.normal_score(teacher).view(-1, 1, 1)
        return maps, score(maps, self.settings.map)

    def unnormalised(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
        """Return maps (B, H, W) before score normalisation: the distances of the features, times
        the novelty of the patches where the network has a memory of them."""
        settings = self.settings.map
        sigma = settings.sigma * self.settings.image_size / 256
        maps = anomaly_map(teacher, student, self.size, sigma, settings, self.statistics)
        if self.memory is not None:
            novelty = self.memory(teacher[-1], embed(teacher))
            maps = maps * smoothed(novelty, self.size, sigma)
        return maps
