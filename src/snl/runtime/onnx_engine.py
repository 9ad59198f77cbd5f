"""An exported ONNX graph, run by ONNX Runtime; neither torch nor the package onnx is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic
from snl.runtime.engine import OUTPUTS, Prediction, in_batches
from snl.runtime.graph_metadata import checksum, to_metadata
from snl.runtime.model_metadata import Known
from snl.runtime.onnx_file import join, split

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """See `snl.runtime.engine.Engine`.

    Args:
        path: `*.onnx` of `snl export`.
        device: `auto` (CUDA where ONNX Runtime has it, else CPU), `cpu`, `cuda` or `cuda:N`.
        threads: of one inference; 0: as many as there are cores.
        precision: `fp32` alone; the graph has one of its own.

    Attributes:
        metadata: what `snl export` wrote beside the graph.
        checksum: of the graph.
        size: side of the square input.

    Raises:
        DependencyError: ONNX Runtime is missing.
        BundleError: the file is no graph that can be run.
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
            graph, self.metadata = split(content)
            self.checksum = checksum(graph)
            del graph, content  # not in memory beside what ONNX Runtime makes of them
            self._session = onnxruntime.InferenceSession(self.path, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own, without a base
            reason = " ".join(str(error).split())[:120]
            raise BundleError(
                f"{self.path}: no graph that can be run ({reason}); export it again from its bundle"
            ) from None
        self.batch, self.size = self._shape()
        self._kind = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        return f"ONNX Runtime {self._kind}"

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        return in_batches(
            lambda some: self._session.run(OUTPUTS, {"pixels": some}), pixels, self.batch
        )

    def write(self, path: Path, known: Known) -> None:
        """The same graph with other things known beside it."""
        if path.suffix != ".onnx":
            raise SettingsError(f"{path}: the name of an ONNX file ends in .onnx; rename it")
        graph, _ = split(_read(self.path))
        with atomic(path) as temporary:
            temporary.write_bytes(join(graph, to_metadata(known, self.checksum)))

    def _shape(self) -> tuple[int | None, int]:
        """Images of a batch, None: any number, and the side of the input."""
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


def save(content: bytes, path: Path, known: Known) -> None:
    """A graph as a file of ONNX with what is known beside it, whole or not at all."""
    graph, _ = split(content)
    with atomic(path) as temporary:
        temporary.write_bytes(join(graph, to_metadata(known, checksum(graph))))


def _providers(device: str, offered: list[str]) -> list[Any]:
    """What ONNX Runtime is told for a device."""
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
