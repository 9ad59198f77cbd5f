"""Training images and their teacher features, cached in memory or on disk if they fit.

The teacher is frozen and there is no augmentation, so its features are computed once. The cache
stores them in full precision and channels last, as an uncached batch has them: it changes the speed
of training, not its result.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from snl.data.roi import Readable
from snl.data.stream import batches, read
from snl.data.tiles import Source, Tile, tiles_of
from snl.errors import ImageError, TrainingError
from snl.limits import MAX_PIXELS
from snl.model.base import Batch
from snl.model.network import Network
from snl.model.ranks import ALONE, Ranks

GIB = 2**30
MOST_TILES = 50_000
"""Maximum number of tiles, sampled evenly from all; their pixels take 9.2 GiB at 256 x 256."""


@dataclass(frozen=True)
class CacheBudget:
    """Maximum size of the cache in memory and on disk, in GiB; 0: not used. Memory is preferred."""

    memory: float = 4.0
    disk: float = 20.0


class TrainingData:
    """Batches of images or tiles with their teacher features, by index.

    Attributes:
        paths: readable training images, or regions of interest in them.
        sources: what an index refers to: these images, or their tiles.
        skipped: errors of unreadable images.
        pixels_in, features_in: where they are cached: `memory`, `disk` or `off`.

    Args:
        network: defines input size, tile side, teacher features and device.
        paths: of the training images.
        budget: maximum size of the cache.
        folder: for the cache files on disk; `close` removes them.
        batch_size: for the teacher, the same as in training.
        skip_bad: skip unreadable images (their errors are in `skipped`) instead of raising.
        max_pixels: largest allowed height times width of an image.
        progress: called with (done, total) while images are read.
        note: called with a sentence about how images are cut into tiles.
        ranks: processes that train together. Those of one machine share one cache, and each fills
            its part of it.

    Raises:
        ImageError: an unreadable image, unless `skip_bad`.
        TrainingError: no image can be read.
    """

    def __init__(
        self,
        network: Network,
        paths: Sequence[Readable],
        *,
        budget: CacheBudget,
        folder: Path,
        batch_size: int,
        skip_bad: bool = True,
        max_pixels: int = MAX_PIXELS,
        progress: Callable[[int, int], None] | None = None,
        note: Callable[[str], None] = lambda text: None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.network = network
        self._ranks = ranks
        self.device = network.mean.device
        self.skipped: list[ImageError] = []
        self._max_pixels = max_pixels
        sources = self._tiles(paths, note) if network.settings.tile else list(paths)
        if self.skipped and not skip_bad:
            raise self.skipped[0]
        self._folder, self._shared = folder / "cache", None
        if ranks.size > 1:
            self._folder = folder / f"cache{ranks.rank - ranks.local_rank}"
            self._shared = self._shared_memory()
        size = network.settings.image_size
        shapes: list[tuple[int, ...]] = [(size, size, 3)]
        shapes += [(size // s.stride, size // s.stride, s.channels) for s in network.teacher.stages]
        self.pixels_in, self.features_in = ranks.share(self._plan(shapes, len(sources), budget))
        places = [self.pixels_in] + [self.features_in] * (len(shapes) - 1)
        # the first rank of a machine makes the files, and the others open them
        for turn in range(1 + (ranks.size > 1)):
            if turn == min(ranks.local_rank, 1):
                stores = [
                    self._store(
                        i, place, (len(sources), *shape), torch.float32 if i else torch.uint8
                    )
                    for i, (place, shape) in enumerate(zip(places, shapes, strict=True))
                ]
            ranks.wait()
        if ranks.size > 1 and ranks.local_rank == 0:
            self._remove()  # the mapped files stay, and a killed process leaves nothing behind
        self._pixels, self._features = stores[0], [s for s in stores[1:] if s is not None]
        readable = self._fill(sources, size, batch_size, skip_bad, progress)
        self.sources = [sources[place] for place in readable]
        self._rows = torch.tensor(readable, dtype=torch.long)
        self.paths = _files(self.sources)
        if not self.sources:
            first = f", the first: {self.skipped[0]}" if self.skipped else ""
            raise TrainingError(
                f"none of the {len(paths)} training images can be read{first}; "
                "snl doctor DATA lists what is wrong"
            )

    def __len__(self) -> int:
        return len(self.sources)

    def stream(self, schedule: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Yield the batch of each index array (B,), on the network's device.

        The teacher's features are both the student's input and its target. Images that are not
        cached are decoded ahead, see `snl.data.stream.read`.

        Raises:
            TrainingError: an image can no longer be read.
        """
        if self._pixels is not None:
            for indices in schedule:
                chosen = torch.as_tensor(indices)
                yield self._batch(chosen, self._pixels[self._rows[chosen]])
            return
        ahead: deque[np.ndarray] = deque()  # batches whose images are being read

        def sources() -> Iterator[Source]:
            for indices in schedule:
                ahead.append(indices)
                for index in np.sort(indices).tolist():  # tiles of an image one after another
                    yield self.sources[index]

        with closing(self._read_again(sources())) as stream:
            for first in stream:
                indices = ahead.popleft()
                pixels = np.empty((len(indices), *first.shape), np.uint8)
                for row, place in enumerate(np.argsort(indices, kind="stable").tolist()):
                    pixels[place] = next(stream) if row else first
                yield self._batch(torch.as_tensor(indices), torch.from_numpy(pixels))

    def close(self) -> None:
        """Release the memory and remove the cache files."""
        self._pixels, self._features = None, []
        self._remove()

    def _remove(self) -> None:
        for folder in (self._folder, self._shared):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _batch(self, indices: Tensor, pixels: Tensor) -> Batch:
        images = self.network.normalise(pixels.to(self.device))
        if self._features:
            stored = (store[self._rows[indices]].to(self.device) for store in self._features)
            features = [feature.permute(0, 3, 1, 2) for feature in stored]
        else:
            features = [
                feature.contiguous(memory_format=torch.channels_last)
                for feature in self.network.teacher_features(images)
            ]
        return Batch(images, inputs=features, targets=features)

    def _read_again(self, sources: Iterable[Source]) -> Generator[np.ndarray, None, None]:
        """Yield the network inputs of sources that were read before.

        Raises:
            TrainingError: one can no longer be read.
        """
        size = self.network.settings.image_size
        level = self.network.settings.white_level
        for loaded in read(sources, size, max_pixels=self._max_pixels, white_level=level):
            if isinstance(loaded, ImageError):
                raise TrainingError(
                    f"{loaded} (it could be read at the start of training; restore it and use "
                    "--resume)"
                )
            yield loaded.pixels

    def _tiles(self, paths: Sequence[Readable], note: Callable[[str], None]) -> list[Source]:
        """Return the tiles of all images, at most `MOST_TILES`; errors are added to `skipped`."""
        side = self.network.settings.tile
        tiles, total, errors = tiles_of(paths, side, MOST_TILES, max_pixels=self._max_pixels)
        self.skipped += errors
        sampled = f"; an even sample of {len(tiles)} is used" if len(tiles) < total else ""
        note(
            f"{len(paths) - len(errors)} images are cut into {total} tiles of {side} x {side} "
            f"pixels{sampled}"
        )
        return list(tiles)

    def _plan(
        self, shapes: list[tuple[int, ...]], count: int, budget: CacheBudget
    ) -> tuple[str, str]:
        """Return where pixels and features are cached: `memory`, `disk` or `off`."""
        free = {"memory": budget.memory * GIB, "disk": budget.disk * GIB}
        if budget.disk:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            free["disk"] = min(free["disk"], shutil.disk_usage(self._folder.parent).free / 2)
        sizes = [count * math.prod(shapes[0]), 4 * count * sum(map(math.prod, shapes[1:]))]
        places = []
        for size in sizes:
            place = next((p for p in ("memory", "disk") if size <= free[p]), "off")
            if place != "off":
                free[place] -= size
            places.append(place)
        return places[0], places[1]

    def _store(
        self, number: int, place: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor | None:
        if place == "off":
            return None
        folder = self._folder
        if place == "memory":
            if self._shared is None:
                return torch.empty(shape, dtype=dtype)
            folder = self._shared
        folder.mkdir(parents=True, exist_ok=True)
        name = str(folder / f"{number}.bin")
        return torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)

    def _shared_memory(self) -> Path:
        """Return a folder in memory that the ranks of this machine share."""
        memory = Path("/dev/shm")
        own = ""
        if self._ranks.local_rank == 0:
            place = memory if memory.is_dir() else None
            own = tempfile.mkdtemp(prefix="snl-train-", dir=place)
        return Path(self._ranks.collect(own)[self._ranks.rank - self._ranks.local_rank])

    def _fill(
        self,
        sources: Sequence[Source],
        size: int,
        batch_size: int,
        skip_bad: bool,
        progress: Callable[[int, int], None] | None,
    ) -> list[int]:
        """Read all images once and fill the cache; returns the places of the readable ones.

        A rank reads one image of as many as there are ranks on its machine.
        """
        first, every = self._ranks.local_rank, self._ranks.local_size
        own = sources[first::every]
        readable: list[int] = []
        errors: list[ImageError] = []
        done = 0
        level = self.network.settings.white_level
        stream = read(own, size, max_pixels=self._max_pixels, white_level=level)
        for group, stacked in batches(stream, batch_size, errors):
            if errors and not skip_bad:
                break
            places = [first + loaded.index * every for loaded in group]
            readable += places
            rows, pixels = torch.tensor(places), torch.from_numpy(stacked)
            if self._pixels is not None:
                self._pixels[rows] = pixels
            if self._features:
                images = self.network.normalise(pixels.to(self.device))
                features = self.network.teacher_features(images)
                for store, feature in zip(self._features, features, strict=True):
                    store[rows] = feature.permute(0, 2, 3, 1).cpu()
            done = group[-1].index + 1
            if progress:
                progress(min(done * every, len(sources)), len(sources))
        machine = self._ranks.rank - first
        found = self._ranks.collect((readable, errors))[machine : machine + every]
        self.skipped += [error for _, failed in found for error in failed]
        if self.skipped and not skip_bad:
            raise self.skipped[0]
        if progress and done * every < len(sources):  # unreadable images at the end
            progress(len(sources), len(sources))
        return sorted(place for places, _ in found for place in places)


def _file(source: Source) -> Readable:
    image = source.path if isinstance(source, Tile) else source
    return Path(image) if isinstance(image, str) else image


def _files(sources: Iterable[Source]) -> list[Readable]:
    """Return the images of sources, in order, each once."""
    return list(dict.fromkeys(map(_file, sources)))
