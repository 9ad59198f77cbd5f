"""Training images and their teacher features, kept in memory or on disk where they fit.

The teacher is frozen and there is no augmentation, so its features are computed once. The cache
holds them in full precision and channels last, as an uncached batch has them: it changes the speed
of training, not its result.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snl.data.images import load_image, to_input
from snl.data.stream import batches, read
from snl.errors import ImageError, TrainingError
from snl.model.network import Network

GIB = 2**30


@dataclass(frozen=True)
class CacheBudget:
    """What the cache may take, in GiB; 0 switches the place off. Memory is tried first."""

    memory: float = 4.0
    disk: float = 20.0


class TrainingData:
    """Batches of pixels and teacher features by index.

    Args:
        network: gives the input size, the features and, by its parameters, the device.
        paths: of the training images.
        budget: of the cache.
        folder: where cache files on disk may lie; they are removed by `close`.
        batch_size: of the teacher's pass, the same as in training.
        skip_bad: leave unreadable images out (they are listed in `skipped`) instead of raising.
        progress: called with (done, total) while images are read.

    Raises:
        ImageError: an unreadable image, if they are not to be skipped.
        TrainingError: no readable image is left.
    """

    def __init__(
        self,
        network: Network,
        paths: Sequence[Path],
        *,
        budget: CacheBudget,
        folder: Path,
        batch_size: int,
        skip_bad: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.network = network
        self.device = network.mean.device
        self.skipped: list[ImageError] = []
        self._folder = folder / "cache"
        size = network.settings.image_size
        shapes: list[tuple[int, ...]] = [(size, size, 3)]
        shapes += [(size // s.stride, size // s.stride, s.channels) for s in network.teacher.stages]
        self.pixels_in, self.features_in = self._plan(shapes, len(paths), budget)
        places = [self.pixels_in] + [self.features_in] * (len(shapes) - 1)
        stores = [
            self._store(i, place, (len(paths), *shape), torch.float32 if i else torch.uint8)
            for i, (place, shape) in enumerate(zip(places, shapes, strict=True))
        ]
        self._pixels, self._features = stores[0], [s for s in stores[1:] if s is not None]
        self.paths = self._fill(paths, size, batch_size, skip_bad, progress)
        if not self.paths:
            first = f", the first: {self.skipped[0]}" if self.skipped else ""
            raise TrainingError(
                f"none of the {len(paths)} training images can be read{first}; "
                "snl doctor DATA lists what is wrong"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def stream(self, schedule: Iterable[np.ndarray]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """For each index array (B,): normalised images (B, 3, H, W) and teacher features, on the
        network's device. Uncached images are decoded one batch ahead.

        Raises:
            TrainingError: an image that could be read before and cannot be read now.
        """
        pending = iter(schedule)
        with ThreadPoolExecutor(8 if self._pixels is None else 1) as pool:

            def ask(indices: np.ndarray) -> list[object]:
                if self._pixels is not None:
                    return [indices]
                return [indices, *(pool.submit(self._decode, int(i)) for i in indices)]

            ahead = [ask(indices) for _, indices in zip(range(2), pending, strict=False)]
            while ahead:
                indices, *decoded = ahead.pop(0)
                for upcoming in pending:
                    ahead.append(ask(upcoming))
                    break
                yield self._batch(torch.as_tensor(indices), decoded)

    def close(self) -> None:
        """Give memory and cache files back."""
        self._pixels, self._features = None, []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _batch(self, indices: Tensor, decoded: list[object]) -> tuple[Tensor, list[Tensor]]:
        if self._pixels is not None:
            pixels = self._pixels[indices]
        else:
            pixels = torch.from_numpy(np.stack([future.result() for future in decoded]))  # type: ignore[attr-defined]
        images = self.network.normalise(pixels.to(self.device))
        if self._features:
            stored = (store[indices].to(self.device) for store in self._features)
            return images, [feature.permute(0, 3, 1, 2) for feature in stored]
        features = self.network.teacher_features(images)
        return images, [f.contiguous(memory_format=torch.channels_last) for f in features]

    def _decode(self, index: int) -> np.ndarray:
        try:
            return to_input(load_image(self.paths[index]), self.network.settings.image_size)
        except ImageError as error:
            raise TrainingError(
                f"{error} (it could be read when training began; put it back and --resume)"
            ) from None

    def _plan(
        self, shapes: list[tuple[int, ...]], count: int, budget: CacheBudget
    ) -> tuple[str, str]:
        """Where pixels and features go: `memory`, `disk` or `off`."""
        free = {"memory": budget.memory * GIB, "disk": budget.disk * GIB}
        if budget.disk:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            free["disk"] = min(free["disk"], shutil.disk_usage(self._folder.parent).free / 2)
        sizes = [count * math.prod(shapes[0]), 4 * count * sum(map(math.prod, shapes[1:]))]
        chosen = []
        for size in sizes:
            place = next((p for p in ("memory", "disk") if size <= free[p]), "off")
            if place != "off":
                free[place] -= size
            chosen.append(place)
        return chosen[0], chosen[1]

    def _store(
        self, number: int, place: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor | None:
        if place == "off":
            return None
        if place == "memory":
            return torch.empty(shape, dtype=dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        name = str(self._folder / f"{number}.bin")
        return torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)

    def _fill(
        self,
        paths: Sequence[Path],
        size: int,
        batch_size: int,
        skip_bad: bool,
        progress: Callable[[int, int], None] | None,
    ) -> list[Path]:
        """One pass over the images; rows are filled densely, in order, without the bad ones."""
        kept: list[Path] = []
        for group, stacked in batches(read(paths, size), batch_size, self.skipped):
            if self.skipped and not skip_bad:
                raise self.skipped[0]
            rows = slice(len(kept), len(kept) + len(group))
            kept += [paths[loaded.index] for loaded in group]
            pixels = torch.from_numpy(stacked)
            if self._pixels is not None:
                self._pixels[rows] = pixels
            if self._features:
                images = self.network.normalise(pixels.to(self.device))
                features = self.network.teacher_features(images)
                for store, feature in zip(self._features, features, strict=True):
                    store[rows] = feature.permute(0, 2, 3, 1).cpu()
            if progress:
                progress(len(kept) + len(self.skipped), len(paths))
        if self.skipped and not skip_bad:
            raise self.skipped[0]
        return kept
