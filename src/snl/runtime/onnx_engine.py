"""An exported ONNX graph, run by ONNX Runtime, without torch and without the package onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic
from snl.runtime.engine import (
    OUTPUTS,
    Outputs,
    check_graph,
    closed,
    in_batches,
    read_export,
    replaced,
)
from snl.runtime.graph_metadata import checksum, from_metadata, to_metadata
from snl.runtime.metadata import ModelMetadata
from snl.runtime.onnx_file import has_external_data, join, split, versions
from snl.runtime.onnx_versions import too_old

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """Runs an exported graph with ONNX Runtime; see `snl.runtime.engine.Engine`.

    Args:
        path: `*.onnx` of `snl export`.
        device: `auto` (CUDA where ONNX Runtime has it, else CPU), `cpu`, `cuda` or `cuda:N`.
        threads: of one call; 0: as many as there are cores.
        precision: `fp32` only; the graph has its own precision.

    Threads may share an engine: an ONNX Runtime session has no state that a call changes.

    Attributes:
        metadata: that `snl export` wrote beside the graph.
        checksum: of the graph.
        batch: images per call; None: any number.
        embedding_width: D of the embeddings; None: the graph does not say.

    Raises:
        DependencyError: ONNX Runtime is missing.
        BundleError: the file is not a graph that can be run, or it was damaged or edited.
        SettingsError: a device that ONNX Runtime does not offer here, another precision.
    """

    def __init__(
        self, path: str | Path, device: str = "auto", threads: int = 0, precision: str = "fp32"
    ) -> None:
        if precision != "fp32":
            raise SettingsError(
                f"{path}: an ONNX file computes in the precision that it was exported in; leave "
                "out --precision, or export it anew: snl export --precision"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise DependencyError(
                f"an .onnx file needs ONNX Runtime ({error}): pip install 'snl-ad[runtime]'"
            ) from None
        self.path = Path(path)
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        content = read_export(self.path)
        try:
            graph, table = split(content)
            self._versions = versions(graph)
            external = has_external_data(graph)
        except (ValueError, RecursionError) as error:
            raise self._cannot_run(error) from None
        if external:
            raise BundleError(
                f"{self.path}: has weights in another file, which no checksum covers; export it "
                "again from its bundle"
            )
        self.checksum = checksum(graph)
        # before ONNX Runtime, which may crash or take all memory for a damaged graph
        self.metadata = from_metadata(self.path, table, self.checksum)
        del graph, table, content  # not in memory beside what ONNX Runtime makes of them
        try:
            self._session: Any = onnxruntime.InferenceSession(
                self.path, options, providers=providers
            )
        except Exception as error:  # ONNX Runtime raises classes of its own, without a base
            raise self._cannot_run(error, onnxruntime.__version__) from None
        self.batch, self._size, self.embedding_width = self._shape()
        self._kind = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"
        self.precision = "fp32"

    @property
    def device(self) -> str:
        """Runtime and device in words."""
        return f"ONNX Runtime {self._kind}"

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self._size

    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3)."""
        session = self._session
        if session is None:
            raise closed()
        return in_batches(lambda batch: session.run(OUTPUTS, {"pixels": batch}), pixels, self.batch)

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write the same graph with other metadata."""
        if path.suffix.lower() != ".onnx":
            raise SettingsError(f"{path}: the name of an ONNX file ends in .onnx; rename it")
        graph, _ = split(read_export(self.path))
        if checksum(graph) != self.checksum:
            raise replaced(self.path)
        with atomic(path, durable=True) as temporary:
            temporary.write_bytes(join(graph, to_metadata(metadata, self.checksum)))

    def close(self) -> None:
        """Release the session, after the calls that use it."""
        self._session = None

    def _cannot_run(self, error: Exception, runtime: str | None = None) -> BundleError:
        """Return the error of a file that is no graph, or that this ONNX Runtime cannot run."""
        reason = " ".join(str(error).split())
        update = too_old(runtime, *self._versions, reason) if runtime else None
        if update:
            return BundleError(f"{self.path}: {update}")
        return BundleError(
            f"{self.path}: no graph that can be run ({reason[:120]}); export it again from its "
            "bundle"
        )

    def _shape(self) -> tuple[int | None, int, int | None]:
        """Return the images per batch (None: any number), the side of the input, and the width of
        the embeddings (None: not stated)."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if (
            [one.name for one in inputs] != ["pixels"]
            or [one.name for one in outputs] != [*OUTPUTS]
            or inputs[0].type != "tensor(uint8)"
            or len(shape) != 4
            or shape[1] != shape[2]
            or not isinstance(shape[1], int)
        ):
            raise BundleError(
                f"{self.path}: was not made by snl export; export a bundle of snl train"
            )
        widths = [one.shape[-1] for one in outputs if one.name == "embeddings" and one.shape]
        width = widths[0] if widths and isinstance(widths[0], int) else None
        return (shape[0] if isinstance(shape[0], int) else None), shape[1], width


def load_onnx(
    path: str | Path, device: str, threads: int, precision: str
) -> tuple[OnnxEngine, ModelMetadata]:
    """Load an ONNX file of `snl export`; see `OnnxEngine` for arguments and errors."""
    engine = OnnxEngine(path, device, threads, precision)
    check_graph(path, engine, engine.metadata, engine.embedding_width)
    return engine, engine.metadata


def write_onnx(content: bytes, path: Path, metadata: ModelMetadata) -> None:
    """Write a graph as an ONNX file with metadata; the file is complete or not there."""
    graph, _ = split(content)
    with atomic(path) as temporary:
        temporary.write_bytes(join(graph, to_metadata(metadata, checksum(graph))))


def _providers(device: str, offered: list[str]) -> list[Any]:
    """Return ONNX Runtime's execution providers for a device."""
    kind, colon, index = device.partition(":")
    if kind == "auto":
        return [_PROVIDERS[k] for k in ("cuda", "cpu") if _PROVIDERS[k] in offered]
    if _PROVIDERS.get(kind) not in offered or (colon and not index.isdecimal()):
        raise SettingsError(
            f"device '{device}' is not offered by this ONNX Runtime ({', '.join(offered)}); "
            "use --device cpu"
        )
    return (
        [(_PROVIDERS["cuda"], {"device_id": index or "0"})]
        if kind == "cuda"
        else [_PROVIDERS[kind]]
    )
