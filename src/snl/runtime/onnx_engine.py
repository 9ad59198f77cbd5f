"""An exported ONNX graph, run by ONNX Runtime, without torch and without the package onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic
from snl.runtime.engine import OUTPUTS, Outputs, check_image_size, in_batches
from snl.runtime.graph_metadata import checksum, from_metadata, to_metadata
from snl.runtime.metadata import ModelMetadata
from snl.runtime.onnx_file import join, split

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """Runs an exported graph with ONNX Runtime; see `snl.runtime.engine.Engine`.

    Args:
        path: `*.onnx` of `snl export`.
        device: `auto` (CUDA where ONNX Runtime has it, else CPU), `cpu`, `cuda` or `cuda:N`.
        threads: of one call; 0: as many as there are cores.
        precision: `fp32` only; the graph has its own precision.

    Attributes:
        table: metadata that `snl export` wrote beside the graph, as text.
        checksum: of the graph.

    Raises:
        DependencyError: ONNX Runtime is missing.
        BundleError: the file is not a graph that can be run.
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
        content = _read(self.path)
        try:
            graph, self.table = split(content)
            self.checksum = checksum(graph)
            del graph, content  # not in memory beside what ONNX Runtime makes of them
            self._session = onnxruntime.InferenceSession(self.path, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own, without a base
            reason = " ".join(str(error).split())[:120]
            raise BundleError(
                f"{self.path}: no graph that can be run ({reason}); export it again from its bundle"
            ) from None
        self.batch, self._size = self._shape()
        self._kind = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"

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
        return in_batches(
            lambda batch: self._session.run(OUTPUTS, {"pixels": batch}), pixels, self.batch
        )

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write the same graph with other metadata."""
        if path.suffix.lower() != ".onnx":
            raise SettingsError(f"{path}: the name of an ONNX file ends in .onnx; rename it")
        graph, _ = split(_read(self.path))
        with atomic(path, durable=True) as temporary:
            temporary.write_bytes(join(graph, to_metadata(metadata, self.checksum)))

    def close(self) -> None:
        """Release the session."""
        self.__dict__.pop("_session", None)

    def _shape(self) -> tuple[int | None, int]:
        """Return the images per batch (None: any number), and the side of the input."""
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
        return (shape[0] if isinstance(shape[0], int) else None), shape[1]


def load_onnx(
    path: str | Path, device: str, threads: int, precision: str
) -> tuple[OnnxEngine, ModelMetadata]:
    """Load an ONNX file of `snl export`; see `OnnxEngine` for arguments and errors."""
    engine = OnnxEngine(path, device, threads, precision)
    metadata = from_metadata(path, engine.table, engine.checksum)
    check_image_size(path, engine, metadata)
    return engine, metadata


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if not path.exists():
            raise BundleError(
                f"{path}: no such file; snl export FILE -o {path.name} makes one"
            ) from None
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); give the file of snl export"
        ) from None
