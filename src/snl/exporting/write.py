"""A bundle as a graph that runs without torch, checked against the bundle before it is kept.

The graph takes uint8 images (B, size, size, 3) named `pixels`, B as you like, and gives raw `maps`,
`scores` and `embeddings`. Products, calibration and preprocessing are metadata beside it, so that a
threshold is never frozen into a graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snl.data.images import to_input
from snl.data.stream import batches, read
from snl.data.tiles import samples
from snl.demo.dataset import PRODUCTS, demo_image
from snl.errors import DependencyError, ImageError, SettingsError, SnlError
from snl.exporting.quantise import quantise_onnx, quantise_openvino
from snl.files import atomic
from snl.runtime.inspector import Inspector, load
from snl.runtime.onnx_engine import write_onnx
from snl.runtime.openvino_engine import write_openvino

if TYPE_CHECKING:
    from snl.data.catalog import Catalog

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}
PRECISIONS = ("fp32", "fp16", "int8")
BOUND = 1e-4
"""Largest difference of an fp32 export, relative to the largest value."""
AUROC_BOUNDS = {"fp16": 0.002, "int8": 0.005}
QUANTISED_ON = 128
"""Normal images, evenly spread, that int8 takes its ranges from."""
CHECKED_ON = 32
OPSET = 18
_CONVOLUTIONS = ("Conv", "ConvTranspose")


class ExportError(SnlError):
    """An export that differs from its bundle by more than is allowed; nothing is kept."""


@dataclass(frozen=True)
class Checked:
    """An export against its bundle, on the same images.

    Attributes:
        path: the file.
        images: looked at.
        differences: of `maps`, `scores` and `embeddings`, the largest, relative to the largest
            value.
        aurocs: mean over products of image and pixel AUROC by bundle and by export; None: no
            labelled images were given, or fp32.
        recalibrated: whether the held-out images were looked at again by the export.
    """

    path: Path
    images: int
    differences: dict[str, float]
    aurocs: dict[str, tuple[float | None, float | None]] | None
    recalibrated: bool


def export(
    inspector: Inspector,
    path: str | Path,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    data: Catalog | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Export the network of a bundle, compare the export with it, and keep it if they agree.

    Args:
        inspector: of a bundle.
        path: of the file, `*.onnx` or `*.xml`.
        format: `onnx` or `openvino`.
        precision: `fp32`; `fp16`: weights, and in ONNX convolutions too, in half precision; `int8`:
            convolutions quantised after the normal images of `data`.
        data: images to check on, needed for int8. Labelled test images among them let the AUROC be
            compared; without any data generated parts are looked at.
        batch: a fixed number of images; None: any.
        progress: called with (done, total) while labelled images are looked at.

    Raises:
        ExportError: the export differs by more than is allowed.
        DependencyError: a package of the extra `export` is missing.
        SettingsError: an unknown format or precision, int8 without data.

    Example:
        >>> snl.export(snl.load("parts.snl"), "parts.onnx").differences["scores"] < 1e-4
        True
    """
    path = Path(path)
    if format not in FORMATS or precision not in PRECISIONS:
        raise SettingsError(
            f"export to {format} in {precision}: choose of {', '.join(FORMATS)} and "
            f"{', '.join(PRECISIONS)}"
        )
    if path.suffix != FORMATS[format]:
        raise SettingsError(
            f"{path}: the name of an {format} file ends in {FORMATS[format]}; rename -o, or give "
            "another --format"
        )
    if precision == "int8" and data is None:
        raise SettingsError("int8 takes its ranges from normal images; give --data DATA")
    network = inspector.network  # says so where there is none
    pixels = _check_images(inspector, data)
    with tempfile.TemporaryDirectory(prefix="snl-export-") as folder:
        raw = Path(folder) / "raw.onnx"
        _write_onnx(network, raw, inspector.image_size, batch)
        made = Path(folder) / path.name
        finish = _finish_onnx if format == "onnx" else _finish_openvino
        images = None
        if precision == "int8":
            assert data is not None
            images = _normals(inspector, data, batch or 1)
        finish(raw, made, precision, inspector, images)
        exported = load(made, "cpu")
        aurocs, recalibrated = None, False
        differences = _differences(inspector, exported, pixels, batch)
        if precision == "fp32" and max(differences.values()) > BOUND:
            raise ExportError(_told(path, differences, f"at most {BOUND:g} is allowed"))
        if precision != "fp32" and data is not None:
            recalibrated = _recalibrate(inspector, exported, data, made)
            aurocs = _aurocs(inspector, exported, data, progress)
            for name, (before, after) in aurocs.items():
                if before is None or after is None:
                    continue
                if before - after > AUROC_BOUNDS[precision]:
                    change = f"{name} AUROC {100 * before:.2f} became {100 * after:.2f}"
                    limit = f"at most {100 * AUROC_BOUNDS[precision]:g} points are allowed"
                    raise ExportError(f"{path}: not written: {change}; {limit}")
        _keep(made, path)
    return Checked(path, len(pixels), differences, aurocs, recalibrated)


def _write_onnx(network: Any, file: Path, size: int, batch: int | None) -> None:
    """The graph as PyTorch gives it, without metadata."""
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
            output_names=["maps", "scores", "embeddings"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.save(str(file), external_data=False)


def _finish_onnx(
    raw: Path,
    made: Path,
    precision: str,
    inspector: Inspector,
    images: Sequence[np.ndarray] | None,
) -> None:
    import onnx

    if images is not None:
        quantised = raw.with_name("int8.onnx")
        quantise_onnx(raw, quantised, images)
        raw = quantised
    model: Any = onnx.load(raw)
    if precision == "fp16":
        try:
            from onnxruntime.transformers.float16 import convert_float_to_float16
        except ImportError as error:
            raise DependencyError(
                f"fp16 of ONNX needs ONNX Runtime's tools ({error}): pip install 'snl-ad[export]'"
            ) from None
        others = [node.name for node in model.graph.node if node.op_type not in _CONVOLUTIONS]
        model = convert_float_to_float16(model, keep_io_types=True, node_block_list=others)
    write_onnx(model.SerializeToString(), made, inspector.metadata)


def _finish_openvino(
    raw: Path,
    made: Path,
    precision: str,
    inspector: Inspector,
    images: Sequence[np.ndarray] | None,
) -> None:
    try:
        import openvino
    except ImportError as error:
        raise DependencyError(
            f"an OpenVINO file needs OpenVINO ({error}): pip install 'snl-ad[openvino]'"
        ) from None
    model = openvino.Core().read_model(raw)
    if images is not None:
        model = quantise_openvino(model, images)
    write_openvino(model, made, inspector.metadata, compress=precision == "fp16")


def _normals(inspector: Inspector, data: Catalog, batch: int) -> list[np.ndarray]:
    """Normal training images, or tiles of them, uint8 (batch, size, size, 3) each."""
    paths = [record.path for record in data.train()]
    stream = read(samples(paths, inspector.tile, QUANTISED_ON), inspector.image_size)
    found = [pixels for _, pixels in batches(stream, batch, [])]
    if not found:
        raise SettingsError(
            f"{data.root}: no normal training images; int8 takes its ranges from them"
        )
    found[-1] = np.resize(found[-1], (batch, *found[-1].shape[1:]))  # repeats what there is
    return found


def _check_images(inspector: Inspector, data: Catalog | None) -> np.ndarray:
    """uint8 (M, size, size, 3): of the data, or generated."""
    if data is not None:
        records = [
            record
            for part in (data.train(), data.test())
            for record in part[:: max(1, len(part) // CHECKED_ON)][:CHECKED_ON]
        ]
        errors: list[ImageError] = []
        stream = read([record.path for record in records], inspector.image_size)
        found = [pixels for _, pixels in batches(stream, 16, errors)]
        if found:
            return np.concatenate(found)
    made = [demo_image(name, "good", i, size=128).image for name in PRODUCTS for i in range(2)]
    return np.stack([to_input(image, inspector.image_size) for image in made])


def _differences(
    inspector: Inspector, exported: Inspector, pixels: np.ndarray, batch: int | None
) -> dict[str, float]:
    """The largest difference of each output over the largest value; in batches of several sizes,
    for a graph that takes any must be right for all."""
    sizes: Sequence[int] = (batch,) if batch else (1, 3, 8)
    worst = {"maps": 0.0, "scores": 0.0, "embeddings": 0.0}
    first = 0
    for number in range(len(pixels)):
        size = sizes[number % len(sizes)]
        group = pixels[first : first + size]
        if len(group) < (batch or 1):
            break
        first += size
        ours, theirs = inspector.predict(group), exported.predict(group)
        for name in worst:
            a, b = getattr(ours, name), getattr(theirs, name)
            scale = max(float(np.abs(a).max()), 1e-12)
            difference = float(np.abs(a - b).max()) / scale
            worst[name] = max(worst[name], difference if np.isfinite(difference) else np.inf)
    return worst


def _recalibrate(inspector: Inspector, exported: Inspector, data: Catalog, made: Path) -> bool:
    """Let the export look at the held-out images again, if the data has them: thresholds belong to
    the scores of whoever computes them."""
    from snl.files import content_hash
    from snl.runtime.recalibrate import add_normals

    held = {
        int(h): product
        for product, data in inspector.calibration.sets.items()
        for h in data.hashes.tolist()
    }
    records = [r for r in data.records if r.label == "normal" and r.path.is_file()]
    mine = []
    for record in records:
        product = held.get(content_hash(record.path))
        if product is not None:
            mine.append(dataclasses.replace(record, product=product))
    if len(mine) < len(held):
        return False
    calibration, _ = add_normals(exported, exported.calibration, mine, reason="export")
    exported.recalibrate(calibration)
    exported.save(made)
    return True


def _aurocs(
    inspector: Inspector,
    exported: Inspector,
    data: Catalog,
    progress: Callable[[int, int], None] | None,
) -> dict[str, tuple[float | None, float | None]]:
    """Mean image and pixel AUROC of both, if there are labelled images."""
    from snl.evaluation.evaluate import evaluate

    if not data.test():
        return {}
    total = 2 * len(data.test())
    found = []
    for part, one in enumerate((inspector, exported)):
        done = part * len(data.test())
        told = (lambda n, _, d=done: progress(d + n, total)) if progress else None
        found.append(evaluate(one, data, progress=told).mean)
    return {
        name.removesuffix("_auroc"): (found[0][name], found[1][name])
        for name in ("image_auroc", "pixel_auroc")
    }


def _keep(made: Path, path: Path) -> None:
    for suffix in (".bin", path.suffix):
        source = made.with_suffix(suffix)
        if source.is_file():
            with atomic(path.with_suffix(suffix)) as temporary:
                temporary.write_bytes(source.read_bytes())


def _told(path: Path, differences: dict[str, float], limit: str) -> str:
    each = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    return f"{path}: not written: it differs from the bundle by {each}; {limit}"
