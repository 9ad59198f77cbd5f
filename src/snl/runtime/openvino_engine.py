"""An exported graph, run by OpenVINO, without torch."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic
from snl.runtime.engine import OUTPUTS, Outputs, check_image_size, in_batches
from snl.runtime.graph_metadata import KEYS, checksum, from_metadata, to_metadata
from snl.runtime.metadata import ModelMetadata


class OpenvinoEngine:
    """Runs an exported graph with OpenVINO; see `snl.runtime.engine.Engine`.

    Every thread that calls `predict` has its own inference request.

    Args:
        path: `*.xml` of `snl export`, its `*.bin` beside it.
        device: `auto` and `cpu`: CPU; any of OpenVINO's names (`GPU`, `NPU`).
        threads: of one call; 0: OpenVINO's choice.
        precision: `fp32`, or `bf16` or `fp16` where the device has it.

    Attributes:
        table: metadata that `snl export` wrote beside the graph, as text.
        checksum: of the weights.

    Raises:
        DependencyError: OpenVINO is missing.
        BundleError: the file is not a graph that can be run.
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
            raise SettingsError(  # OpenVINO would silently use another one
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
        # set explicitly, because OpenVINO would replace fp32 by bf16 on CPUs that support it
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
        self.table = {
            key: str(self._model.get_rt_info([key]).astype(str))
            for key in KEYS
            if self._model.has_rt_info([key])
        }
        self.checksum = checksum(weights.read_bytes())
        self.batch, self._size = self._shape()
        self._local = threading.local()

    @property
    def device(self) -> str:
        """Runtime and device in words."""
        return f"OpenVINO {self._device}"

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self._size

    def predict(self, pixels: np.ndarray) -> Outputs:
        """Compute raw maps, scores and embeddings of images uint8 (B, size, size, 3)."""
        return in_batches(self._run, pixels, self.batch)

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write the same graph with other metadata; the file of the weights stays as it is."""
        if path.suffix.lower() != ".xml":
            raise SettingsError(f"{path}: the name of an OpenVINO file ends in .xml; rename it")
        if path.resolve() != self.path.resolve():
            with atomic(path.with_suffix(".bin"), durable=True) as temporary:
                shutil.copyfile(self.path.with_suffix(".bin"), temporary)
        _write(self.path, path, to_metadata(metadata, self.checksum))

    def close(self) -> None:
        """Release the compiled model."""
        for name in ("_compiled", "_model", "_local"):
            self.__dict__.pop(name, None)

    def _run(self, pixels: np.ndarray) -> list[np.ndarray]:
        request = getattr(self._local, "request", None)
        if request is None:  # one request cannot serve two threads at once
            request = self._local.request = self._compiled.create_infer_request()
        outputs = request.infer({"pixels": pixels})
        return [np.array(outputs[name]) for name in OUTPUTS]

    def _shape(self) -> tuple[int | None, int]:
        """Return the images per batch (None: any number), and the side of the input."""
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


def load_openvino(
    path: str | Path, device: str, threads: int, precision: str
) -> tuple[OpenvinoEngine, ModelMetadata]:
    """Load an OpenVINO file of `snl export`; see `OpenvinoEngine` for arguments and errors."""
    engine = OpenvinoEngine(path, device, threads, precision)
    metadata = from_metadata(path, engine.table, engine.checksum)
    check_image_size(path, engine, metadata)
    return engine, metadata


def write_openvino(
    model: Any, path: Path, metadata: ModelMetadata, *, compress: bool = False
) -> None:
    """Write an OpenVINO model as `path` (`*.xml`) and a `*.bin` beside it, with metadata."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=compress)
    weights = checksum(path.with_suffix(".bin").read_bytes())
    _write(path, path, to_metadata(metadata, weights))


def _write(source: Path, path: Path, metadata: dict[str, str]) -> None:
    """Write the XML file `source` to `path` with other metadata."""
    tree = ElementTree.parse(source)
    root = tree.getroot()
    info = root.find("rt_info")
    if info is None:
        info = ElementTree.SubElement(root, "rt_info")
    for key in KEYS:
        for old in info.findall(key):
            info.remove(old)
        ElementTree.SubElement(info, key, value=metadata[key])
    with atomic(path, durable=True) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
