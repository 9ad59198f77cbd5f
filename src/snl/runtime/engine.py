"""Engines run a network: pixels in, raw maps, scores and embeddings out. One class per runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from snl.errors import BundleError, SettingsError
from snl.files import check_readable
from snl.runtime.metadata import ModelMetadata

OUTPUTS = ("maps", "scores", "embeddings")
"""Names of an exported graph's outputs; its input is `pixels`."""

PRECISIONS = ("fp32", "bf16", "fp16")
"""Precisions that `snl.load` accepts; see there."""


class Outputs(NamedTuple):
    """What the network computes for a batch.

    Attributes:
        maps: float32 (B, size, size), raw.
        scores: float32 (B,), raw.
        embeddings: float32 (B, D), by which products are recognised.
        extra: further outputs (B, ...) by name.
    """

    maps: np.ndarray
    scores: np.ndarray
    embeddings: np.ndarray
    extra: Mapping[str, np.ndarray] = {}


class Engine(Protocol):
    """A network that is ready to run.

    Engines may be shared between threads: `predict` can be called from several threads at once, and
    every call gets the result that it would get alone. `close` may be called meanwhile: calls that
    have begun get their results. No engine changes settings of the whole process.

    Attributes:
        precision: `fp32`, `bf16` or `fp16`, in which the network is computed; an export has its
            own, beside this one.
    """

    precision: str

    @property
    def device(self) -> str:
        """Runtime, device and precision in words."""

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""

    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute the outputs for images uint8 (B, size, size, 3).

        Values that are not finite are returned as they are.

        Raises:
            SettingsError: the engine was closed.
        """

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write the model file: the network with this metadata; complete or not there.

        Raises:
            SettingsError: the name belongs to another kind of file.
        """

    def close(self) -> None:
        """Release the network's memory; only `close` may be called afterwards."""


def closed() -> SettingsError:
    """Return the error of a call after `close`."""
    return SettingsError("the inspector was closed; load its file again with snl.load")


def replaced(path: Path) -> BundleError:
    """Return the error of an exported file that another one has replaced since it was loaded."""
    return BundleError(
        f"{path}: another export has replaced it since it was loaded; nothing was written, load it "
        "again"
    )


def check_graph(
    path: str | Path, engine: Engine, metadata: ModelMetadata, width: int | None
) -> None:
    """Check that a graph and its metadata are of the same size of input and embeddings.

    Args:
        path: of the exported file, for messages.
        engine: runs the graph.
        metadata: of the file.
        width: of the graph's embeddings; None: unknown.

    Raises:
        BundleError: they are not.
    """
    if metadata.settings.image_size != engine.image_size:
        raise BundleError(
            f"{path}: takes images of {engine.image_size} pixels, and what is written beside it is "
            f"of {metadata.settings.image_size}; export it again from its bundle"
        )
    known = {calibration.prototypes.centres.shape[1] for calibration in metadata.calibrations}
    if width is not None and known != {width}:
        raise BundleError(
            f"{path}: its embeddings have {width} values, and its prototypes another number; "
            "export it again from its bundle"
        )


def in_batches(
    run: Callable[[np.ndarray], Sequence[np.ndarray]], pixels: np.ndarray, batch: int | None
) -> Outputs:
    """Run images through a graph with a fixed batch size; the last batch is padded by repetition.

    Args:
        run: the graph.
        pixels: uint8 (B, size, size, 3).
        batch: images per call; None: any number.
    """
    if batch is None or len(pixels) == batch:
        maps, scores, embeddings = run(pixels)
        return Outputs(maps, scores, embeddings)
    parts = []
    for first in range(0, len(pixels), batch):
        group = pixels[first : first + batch]
        padded = np.concatenate([group, np.repeat(group[-1:], batch - len(group), 0)])
        parts.append([output[: len(group)] for output in run(padded)])
    maps, scores, embeddings = (np.concatenate(outputs) for outputs in zip(*parts, strict=True))
    return Outputs(maps, scores, embeddings)


def read_export(path: Path) -> bytes:
    """Return the content of an exported file.

    Raises:
        BundleError: it is missing, no regular file, empty, or cannot be read.
    """
    check_readable(path, "export", "of snl export", f"snl export FILE -o {path.name}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); copy it again"
        ) from None
