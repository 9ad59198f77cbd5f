"""Write the network of a bundle as a graph that runs without PyTorch.

The graph takes uint8 images (B, size, size, 3) named `pixels`, with any B or a fixed one, and
returns raw `maps`, `scores` and `embeddings`. Products, calibration and preprocessing are metadata
of the file, so a graph contains no threshold.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.catalog import Catalog
from snl.data.inputs import catalog_files
from snl.data.stream import batches, read
from snl.data.tiles import samples
from snl.decision.calibration import TRAINED
from snl.errors import DependencyError, ImageError, SettingsError, SnlError
from snl.exporting.check import (
    EXPORTED,
    Checked,
    check_aurocs,
    check_differences,
    check_finite,
    check_images,
    compare_aurocs,
    output_differences,
    recalibrate,
)
from snl.exporting.quantise import quantise_onnx, quantise_openvino
from snl.files import atomic
from snl.kinds import ONNX, OPENVINO
from snl.locks import locked
from snl.outputs import Output, check_outputs
from snl.runtime.describe import metadata_of
from snl.runtime.engine import OUTPUTS
from snl.runtime.inspector import Inspector, load
from snl.runtime.metadata import ModelMetadata
from snl.runtime.onnx_engine import write_onnx
from snl.runtime.openvino_engine import openvino_core, write_openvino
from snl.temporary import temporary_folder

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
PRECISIONS = ("fp32", "fp16", "int8")
INT8_IMAGES = 128
"""Number of normal images, evenly spread, on which int8 is calibrated."""
OPSET = 18
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def export(
    inspector: Inspector,
    path: str | Path,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    data: Catalog | str | Path | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Export the network of a bundle, compare the export with it, and keep it if they agree.

    Args:
        inspector: of a bundle.
        path: of the file to write, `*.onnx` or `*.xml`.
        format: `onnx` or `openvino`.
        precision: `fp32`; `fp16`: weights, and in ONNX also convolutions, in half precision;
            `int8`: convolutions quantised, calibrated on the normal images of `data`.
        data: catalog, folder or manifest of images to compare on; int8 needs them. If they contain
            labelled test images, the AUROC is compared, too. None: outputs are compared on
            generated images.
        batch: fixed number of images per call; None: any number.
        progress: called with (done, total) while the AUROC is measured.

    Raises:
        ExportError: the export differs by more than is allowed.
        DependencyError: a package of the extra `export` is missing.
        SettingsError: an unknown format or precision, int8 without data, or an existing export
            whose calibration was changed.
        SnlError: the file cannot be written, or would replace an input or another file.

    Example:
        >>> snl.export(snl.load("parts.snl"), "parts.onnx").differences["scores"] < 1e-4
        True
    """
    path = Path(path)
    if data is not None:
        data = Catalog.for_model(data, inspector)
    _check_options(path, format, precision, data)
    output = Output("the export", path, ONNX if format == "onnx" else OPENVINO)
    check_outputs([output], catalog_files(data) if data is not None else ())
    _check_existing(inspector, path)
    network = inspector.network  # raises an error where there is none
    pixels = check_images(inspector, data)
    with temporary_folder("snl-export") as folder:
        graph, file = folder / "graph.onnx", folder / path.name
        _write_graph(network, graph, inspector.image_size, batch)
        images = None
        if precision == "int8" and data is not None:
            images = _normal_images(inspector, data, batch or 1)
        finish = _finish_onnx if format == "onnx" else _finish_openvino
        finish(graph, file, precision, inspector.metadata, images)
        exported = load(file, "cpu")
        differences = output_differences(inspector, exported, pixels, batch)
        check_finite(path, precision, differences)
        aurocs, recalibrated = None, False
        if precision == "fp32":
            check_differences(path, differences)
        elif data is not None:
            recalibrated = recalibrate(inspector, exported, data)
            if recalibrated:
                exported.save(file)
            aurocs = compare_aurocs(inspector, exported, data, progress)
            check_aurocs(path, precision, aurocs or {})
        _keep(file, path)
    return Checked(path, len(pixels), differences, aurocs, recalibrated)


def _check_options(path: Path, format: str, precision: str, data: Catalog | None) -> None:
    if format not in FORMATS or precision not in PRECISIONS:
        raise SettingsError(
            f"export to {format} in {precision}: choose of {', '.join(FORMATS)} and "
            f"{', '.join(PRECISIONS)}"
        )
    if path.suffix.lower() != FORMATS[format]:
        raise SettingsError(
            f"{path}: the name of an {format} file ends in {FORMATS[format]}; rename -o, or give "
            "another --format"
        )
    if precision == "int8" and data is None:
        raise SettingsError("int8 is calibrated on normal images; give --data DATA")


def _check_existing(inspector: Inspector, path: Path) -> None:
    """Check that a new export loses no calibration that was made with an existing one.

    Raises:
        SettingsError: the one in force in the existing file is not in the bundle.
    """
    try:
        existing = metadata_of(path).calibrations[-1] if path.is_file() else None
    except SnlError:  # of no use
        return
    known = {version.created for version in inspector.calibrations}
    if existing and existing.created not in known and existing.reason not in (TRAINED, EXPORTED):
        raise SettingsError(
            f"{path}: its calibration was changed ({existing.reason}, {existing.created}), and the "
            "bundle does not have the change; it is not replaced: move it away, or choose another "
            "name"
        )


def _write_graph(network: Any, file: Path, size: int, batch: int | None) -> None:
    """Write the network as an ONNX file in fp32, as PyTorch exports it, without metadata."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise DependencyError(
            f"export needs onnx ({error}): pip install 'snl-ad[export]'"
        ) from None
    example = torch.zeros(batch or 2, size, size, 3, dtype=torch.uint8, device=network.mean.device)
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=4096)},)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["pixels"],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)


def _finish_onnx(
    graph: Path,
    file: Path,
    precision: str,
    metadata: ModelMetadata,
    images: Sequence[np.ndarray] | None,
) -> None:
    """Write an ONNX file in a precision, with metadata; `images` are for int8."""
    import onnx

    if images is not None:
        quantised = graph.with_name("int8.onnx")
        quantise_onnx(graph, quantised, images)
        graph = quantised
    model: Any = onnx.load(graph)
    if precision == "fp16":
        model = _half_convolutions(model)
    write_onnx(model.SerializeToString(), file, metadata)


def _half_convolutions(model: Any) -> Any:
    """Return an ONNX model whose convolutions compute in half precision."""
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise DependencyError(
            f"fp16 for ONNX needs ONNX Runtime's tools ({error}): pip install 'snl-ad[export]'"
        ) from None
    others = [node.name for node in model.graph.node if node.op_type not in _CONVOLUTIONS]
    return convert_float_to_float16(model, keep_io_types=True, node_block_list=others)


def _finish_openvino(
    graph: Path,
    file: Path,
    precision: str,
    metadata: ModelMetadata,
    images: Sequence[np.ndarray] | None,
) -> None:
    """Write an OpenVINO file in a precision, with metadata; `images` are for int8."""
    model = openvino_core().read_model(graph)
    if images is not None:
        model = quantise_openvino(model, images)
    write_openvino(model, file, metadata, compress=precision == "fp16")


def _normal_images(inspector: Inspector, data: Catalog, batch: int) -> list[np.ndarray]:
    """Return normal training images, or tiles of them, uint8 (batch, size, size, 3) each."""
    rois = inspector.calibration.rois
    images = [replace(record, roi=rois.get(record.product)).source for record in data.train()]
    most = inspector.max_pixels
    sources = samples(images, inspector.tile, INT8_IMAGES, max_pixels=most)
    level = inspector.settings.white_level
    stream = read(sources, inspector.image_size, max_pixels=most, white_level=level)
    errors: list[ImageError] = []
    groups = [pixels for _, pixels in batches(stream, batch, errors)]
    if not groups:
        why = f" that can be read (the first: {errors[0]})" if errors else ""
        raise SettingsError(
            f"{data.root}: no normal training images{why}; int8 is calibrated on them"
        )
    groups[-1] = np.resize(groups[-1], (batch, *groups[-1].shape[1:]))  # repeated until full
    return groups


def _keep(file: Path, path: Path) -> None:
    """Write an exported file to its place; OpenVINO's weights, a second file, at the same moment.

    All contents are on the disk before the first of the two files is replaced.
    """
    busy = "another snl process is writing it; wait for it, or choose another -o"
    with locked(path, busy, wait=60.0), ExitStack() as stack:
        for suffix in (path.suffix, ".bin"):
            source = file.with_suffix(suffix)
            if source.is_file():
                target = stack.enter_context(atomic(path.with_suffix(suffix), durable=True))
                shutil.copyfile(source, target)
