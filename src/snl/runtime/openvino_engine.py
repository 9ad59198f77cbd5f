"""An exported graph, run by OpenVINO; torch is not needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic
from snl.runtime.engine import OUTPUTS, Prediction, in_batches
from snl.runtime.graph_metadata import KEYS, checksum, to_metadata
from snl.runtime.model_metadata import Known


class OpenvinoEngine:
    """See `snl.runtime.engine.Engine`.

    Args:
        path: `*.xml` of `snl export`, its `*.bin` beside it.
        device: `auto` and `cpu`: CPU; any of OpenVINO's names (`GPU`, `NPU`).
        threads: of one inference; 0: OpenVINO's own choice.
        precision: `fp32`, or `bf16` or `fp16` where the device has it.

    Attributes:
        metadata: what `snl export` wrote beside the graph.
        checksum: of the weights.
        size: side of the square input.

    Raises:
        DependencyError: OpenVINO is missing.
        BundleError: the file is no graph that can be run.
        SettingsError: a device that OpenVINO does not offer here, a precision that it lacks.
    """

    def __init__(
        self, path: str | Path, device: str = "auto", threads: int = 0, precision: str = "fp32"
    ) -> None:
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
        offered = core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
        if precision != "fp32" and precision.upper() not in offered:
            raise SettingsError(  # OpenVINO would take another one and not say so
                f"OpenVINO's {self._device} does not compute in {precision} here "
                f"({', '.join(offered)}); leave out --precision"
            )
        if not self.path.is_file():
            raise BundleError(
                f"{self.path}: no such file; snl export FILE -o {self.path.name} makes one"
            )
        weights = self.path.with_suffix(".bin")
        if not weights.is_file():
            raise BundleError(
                f"{self.path}: {weights.name} is missing beside it; copy both files of snl export"
            )
        # fp32 is fp32: OpenVINO would go over to bf16 by itself where a CPU has it
        hint = precision.replace("fp", "f")
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = core.read_model(self.path)
            self._compiled = core.compile_model(self._model, self._device, config)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise BundleError(
                f"{self.path}: no graph that can be run ({reason}); export it again from its bundle"
            ) from None
        self.metadata = {
            key: str(self._model.get_rt_info([key]).astype(str))
            for key in KEYS
            if self._model.has_rt_info([key])
        }
        self.checksum = checksum(weights.read_bytes())
        self.batch, self.size = self._shape()

    @property
    def device(self) -> str:
        """Runtime and device, in words."""
        return f"OpenVINO {self._device}"

    def predict(self, pixels: np.ndarray) -> Prediction:
        """uint8 (B, size, size, 3) to raw maps, scores and embeddings."""
        return in_batches(self._run, pixels, self.batch)

    def write(self, path: Path, known: Known) -> None:
        """The same graph with other things known beside it; the weights' file stays as it is."""
        if path.suffix != ".xml":
            raise SettingsError(f"{path}: the name of an OpenVINO file ends in .xml; rename it")
        if path.resolve() != self.path.resolve():
            with atomic(path.with_suffix(".bin")) as temporary:
                shutil.copyfile(self.path.with_suffix(".bin"), temporary)
        _write(self.path, path, to_metadata(known, self.checksum))

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        found = self._compiled(pixels)
        return [np.array(found[name]) for name in OUTPUTS]

    def _shape(self) -> tuple[int | None, int]:
        """Images of a batch, None: any number, and the side of the input."""
        inputs, outputs = self._model.inputs, self._model.outputs
        shape = inputs[0].get_partial_shape() if len(inputs) == 1 else []
        if (
            len(shape) != 4
            or "pixels" not in inputs[0].get_names()
            or [name for o in outputs for name in OUTPUTS if name in o.get_names()] != [*OUTPUTS]
            or inputs[0].get_element_type().get_type_name() != "u8"
            or shape[1].is_dynamic
            or shape[1] != shape[2]
        ):
            raise BundleError(
                f"{self.path}: was not made by snl export; export a bundle of snl train"
            )
        return (None if shape[0].is_dynamic else shape[0].get_length()), shape[1].get_length()


def save(model: Any, path: Path, known: Known, *, compress: bool = False) -> None:
    """An OpenVINO model as `path` (`*.xml`) and the `*.bin` beside it, in a folder of their own."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=compress)
    weights = checksum(path.with_suffix(".bin").read_bytes())
    _write(path, path, to_metadata(known, weights))


def _write(source: Path, path: Path, metadata: dict[str, str]) -> None:
    """The XML file with other metadata."""
    tree = ElementTree.parse(source)
    root = tree.getroot()
    info = root.find("rt_info")
    if info is None:
        info = ElementTree.SubElement(root, "rt_info")
    for key in KEYS:
        for old in info.findall(key):
            info.remove(old)
        ElementTree.SubElement(info, key, value=metadata[key])
    with atomic(path) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
