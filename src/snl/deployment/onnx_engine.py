"""An exported ONNX graph, run by ONNX Runtime; torch is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snl.deployment.engine import Prediction
from snl.deployment.metadata import KEY
from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxEngine:
    """See `snl.deployment.engine.Engine`.

    Args:
        path: `*.onnx` of `snl export`.
        device: `auto` (CUDA where ONNX Runtime has it, else CPU), `cpu` or `cuda`.
        threads: of one inference; 0: as many as there are cores.

    Raises:
        DependencyError: ONNX Runtime is missing.
        BundleError: the file is no graph that can be run.
        SettingsError: a device that ONNX Runtime does not offer here.
    """

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise DependencyError(
                f"an .onnx file needs ONNX Runtime ({error}): pip install 'snl-ad[runtime]'"
            ) from None
        self.path = Path(path)
        offered = onnxruntime.get_available_providers()
        kind = device.partition(":")[0]
        if kind == "auto":
            kind = "cuda" if _PROVIDERS["cuda"] in offered else "cpu"
        if _PROVIDERS.get(kind) not in offered:
            raise SettingsError(
                f"device '{device}' is not offered by this ONNX Runtime ({', '.join(offered)}); "
                "use --device cpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=[_PROVIDERS[kind]]
            )
        except Exception as error:  # ONNX Runtime raises classes of its own, without a base
            raise BundleError(_unreadable(self.path, error)) from None
        self._kind = kind

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        return f"ONNX Runtime {self._kind}"

    @property
    def metadata(self) -> str | None:
        """What `snl export` wrote beside the graph."""
        found: str | None = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        return found

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        return Prediction(*self._session.run(None, {"pixels": pixels}))

    def write(self, path: Path, text: str) -> None:
        """The same graph with other metadata."""
        try:
            import onnx
        except ImportError as error:
            raise DependencyError(
                f"to change an .onnx file takes the package onnx ({error}): pip install onnx"
            ) from None
        model: Any = onnx.load(self.path)
        onnx.helper.set_model_props(model, {KEY: text})
        with atomic(path) as temporary:
            onnx.save(model, temporary)


def _unreadable(path: Path, error: Exception) -> str:
    if not path.is_file():
        return f"{path}: no such file; snl export FILE -o {path.name} makes one"
    reason = " ".join(str(error).split())[:120]
    return f"{path}: no graph that can be run ({reason}); export it again from its bundle"
