"""An exported graph, run by OpenVINO; torch is not needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from snl.deployment.engine import Prediction
from snl.deployment.metadata import KEY
from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic


class OpenvinoEngine:
    """See `snl.deployment.engine.Engine`.

    Args:
        path: `*.xml` (its `*.bin` beside it) or `*.onnx` of `snl export`.
        device: `auto` and `cpu`: CPU; any of OpenVINO's names (`GPU`, `NPU`).
        threads: of one inference; 0: OpenVINO's own choice.

    Raises:
        DependencyError: OpenVINO is missing.
        BundleError: the file is no graph that can be run.
        SettingsError: a device that OpenVINO does not offer here.
    """

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0) -> None:
        try:
            import openvino
        except ImportError as error:
            raise DependencyError(
                f"an OpenVINO file needs OpenVINO ({error}): pip install 'snl-ad[openvino]'"
            ) from None
        self.path = Path(path)
        core = openvino.Core()
        self._device = "CPU" if device in ("auto", "cpu") else device.upper()
        if self._device.partition(".")[0] not in {
            n.partition(".")[0] for n in core.available_devices
        }:
            raise SettingsError(
                f"device '{device}' is not offered by this OpenVINO "
                f"({', '.join(core.available_devices)}); use --device cpu"
            )
        if not self.path.is_file():
            raise BundleError(
                f"{self.path}: no such file; snl export FILE -o {self.path.name} makes one"
            )
        # fp32 is fp32: OpenVINO would go over to bf16 by itself where a CPU has it
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = core.read_model(self.path)
            self._compiled = core.compile_model(self._model, self._device, config)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise BundleError(
                f"{self.path}: no graph that can be run ({reason}); export it again"
            ) from None

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        return f"OpenVINO {self._device}"

    @property
    def metadata(self) -> str | None:
        """What `snl export` wrote beside the graph."""
        if self._model.has_rt_info([KEY]):
            return str(self._model.get_rt_info([KEY]).astype(str))
        if self._model.has_rt_info(["framework", KEY]):  # of an .onnx file
            return str(self._model.get_rt_info(["framework", KEY]).astype(str))
        return None

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        found = self._compiled(pixels)
        return Prediction(*(np.array(found[i]) for i in range(3)))

    def write(self, path: Path, text: str) -> None:
        """The same graph with other metadata."""
        save(self._model, path, text)


def save(model: Any, path: Path, text: str, *, compress: bool = False) -> None:
    """An OpenVINO model as `path` (`*.xml`) and the `*.bin` beside it, each whole or not there."""
    import openvino

    model.set_rt_info(text, [KEY])
    folder = path.with_name(f".{path.name}.new")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        openvino.save_model(model, folder / path.name, compress_to_fp16=compress)
        for suffix in (".bin", ".xml"):
            with atomic(path.with_suffix(suffix)) as temporary:
                (folder / path.name).with_suffix(suffix).replace(temporary)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
