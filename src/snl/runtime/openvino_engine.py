"""An exported graph, run by OpenVINO, without torch."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np

from snl.errors import BundleError, DependencyError, SettingsError
from snl.files import atomic, check_readable
from snl.runtime.engine import (
    OUTPUTS,
    Outputs,
    check_graph,
    closed,
    in_batches,
    read_export,
    replaced,
)
from snl.runtime.graph_metadata import KEYS, from_metadata, to_metadata
from snl.runtime.metadata import ModelMetadata
from snl.runtime.openvino_file import (
    checksum,
    checksum_of_file,
    join,
    split,
    version_of,
    written_by,
)


class OpenvinoEngine:
    """Runs an exported graph with OpenVINO; see `snl.runtime.engine.Engine`.

    Threads may share an engine: every call has an inference request of its own, and calls wait
    where there are more of them than cores.

    Args:
        path: `*.xml` of `snl export`, its `*.bin` beside it.
        device: `auto` and `cpu`: CPU; any of OpenVINO's names (`GPU`, `NPU`).
        threads: of one call; 0: OpenVINO's choice.
        precision: `fp32`, or `bf16` or `fp16` where the device has it.

    Attributes:
        metadata: that `snl export` wrote beside the graph.
        checksum: of the graph: the .xml without these metadata, and the .bin.
        batch: images per call; None: any number.
        embedding_width: D of the embeddings; None: the graph does not say.

    Raises:
        DependencyError: OpenVINO is missing.
        BundleError: the file is not a graph that can be run, or it was damaged or edited.
        SettingsError: a device that OpenVINO does not offer here, a precision that it lacks.
    """

    def __init__(
        self, path: str | Path, device: str = "auto", threads: int = 0, precision: str = "fp32"
    ) -> None:
        self.path = Path(path)
        self._read()
        core = openvino_core()
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
        # set explicitly, because OpenVINO would replace fp32 by bf16 on CPUs that support it
        hint = precision.replace("fp", "f")
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(self.path)
            compiled = core.compile_model(model, self._device, config)
        except RuntimeError as error:
            import openvino

            raise self._cannot_run(error, openvino.__version__) from None
        self.batch, self._size, self.embedding_width = self._shape(model)
        self.precision = precision
        self._requests: _Requests | None = _Requests(compiled)

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
        requests = self._requests
        if requests is None:
            raise closed()
        return in_batches(requests.run, pixels, self.batch)

    def save(self, path: Path, metadata: ModelMetadata) -> None:
        """Write the same graph with other metadata; the file of the weights stays as it is."""
        if path.suffix.lower() != ".xml":
            raise SettingsError(f"{path}: the name of an OpenVINO file ends in .xml; rename it")
        before, after, _ = split(read_export(self.path), KEYS)
        if checksum(before, after, checksum_of_file(_weights(self.path))) != self.checksum:
            raise replaced(self.path)
        if path.resolve() != self.path.resolve():
            with atomic(_weights(path), durable=True) as temporary:
                shutil.copyfile(_weights(self.path), temporary)
        with atomic(path, durable=True) as temporary:
            temporary.write_bytes(join(before, after, to_metadata(metadata, self.checksum)))

    def close(self) -> None:
        """Release the compiled model, after the calls that use it."""
        self._requests = None

    def _read(self) -> None:
        """Read the file, verify its checksums, and set `metadata` and `checksum`."""
        content, weights = read_export(self.path), _weights(self.path)
        if not weights.exists():
            raise BundleError(
                f"{self.path}: {weights.name} is missing beside it; copy both files of snl export"
            )
        check_readable(
            weights, "file of weights", "of snl export", f"snl export FILE -o {self.path.name}"
        )
        try:
            before, after, table = split(content, KEYS)
        except ValueError as error:
            raise self._cannot_run(error) from None
        self._written_by = written_by(content)
        of_weights = checksum_of_file(weights)
        self.checksum = checksum(before, after, of_weights)
        # before OpenVINO, which may crash or take all memory for a damaged graph
        self.metadata = from_metadata(self.path, table, self.checksum, of_weights)

    def _cannot_run(self, error: Exception, runtime: str | None = None) -> BundleError:
        """Return the error of a file that is no graph, or that this OpenVINO cannot run."""
        reason = " ".join(str(error).split())[:120]
        if runtime and version_of(runtime) < self._written_by:
            needed = ".".join(map(str, self._written_by))
            return BundleError(
                f"{self.path}: OpenVINO {'.'.join(map(str, version_of(runtime)))} cannot run it "
                f"({reason}); it was written by OpenVINO {needed}: pip install -U openvino"
            )
        return BundleError(
            f"{self.path}: no graph that can be run ({reason}); export it again from its bundle"
        )

    def _shape(self, model: Any) -> tuple[int | None, int, int | None]:
        """Return the images per batch (None: any number), the side of the input, and the width of
        the embeddings (None: not stated)."""
        inputs, outputs = model.inputs, model.outputs
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
        embeddings = next(o for o in outputs if "embeddings" in o.get_names())
        last = list(embeddings.get_partial_shape())[-1:]
        width = last[0].get_length() if last and last[0].is_static else None
        batch = None if shape[0].is_dynamic else shape[0].get_length()
        return batch, shape[1].get_length(), width


class _Requests:
    """Inference requests of a compiled model. A request serves one call at a time.

    At most one per core is made, however many threads there are: more calls wait.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._free = BoundedSemaphore(max(2, os.cpu_count() or 1))
        self._idle: list[Any] = []

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return copies of the outputs for one batch."""
        with self._free:
            try:
                request = self._idle.pop()  # one call: no other thread gets the same
            except IndexError:
                request = self._compiled.create_infer_request()
            outputs = request.infer({"pixels": pixels})
            copies = [np.array(outputs[name]) for name in OUTPUTS]
            self._idle.append(request)  # not after an error, which may leave it unusable
            return copies


_CREATION = Lock()


def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which is never released.

    OpenVINO's CPU plugin gives the thread that loads it an alternate signal stack. Where several
    cores are released in another order than the reverse of their creation, the thread is left with
    a stack that no longer exists, and the next signal with a handler ends the process.

    Raises:
        DependencyError: OpenVINO is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise DependencyError(
            f"an OpenVINO file needs OpenVINO ({error}): pip install 'snl-ad[openvino]'"
        ) from None
    with _CREATION:
        return _create(openvino.Core)


@cache
def _create(core: Any) -> Any:
    return core()


def load_openvino(
    path: str | Path, device: str, threads: int, precision: str
) -> tuple[OpenvinoEngine, ModelMetadata]:
    """Load an OpenVINO file of `snl export`; see `OpenvinoEngine` for arguments and errors."""
    engine = OpenvinoEngine(path, device, threads, precision)
    check_graph(path, engine, engine.metadata, engine.embedding_width)
    return engine, engine.metadata


def write_openvino(
    model: Any, path: Path, metadata: ModelMetadata, *, compress: bool = False
) -> None:
    """Write an OpenVINO model as `path` (`*.xml`) and a `*.bin` beside it, with metadata."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=compress)
    before, after, _ = split(path.read_bytes(), KEYS)
    of_graph = checksum(before, after, checksum_of_file(_weights(path)))
    with atomic(path, durable=True) as temporary:
        temporary.write_bytes(join(before, after, to_metadata(metadata, of_graph)))


def _weights(path: Path) -> Path:
    return path.with_suffix(".bin")
