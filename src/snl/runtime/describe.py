"""What a bundle or an export contains, as JSON values; needs neither the network nor torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snl.data.roi import Roi
from snl.decision.calibration import TRAINED, Calibration, Rates
from snl.errors import BundleError, SettingsError
from snl.files import FORMATS, OLDEST, check_readable, load_tensors, strict_json
from snl.runtime import graph_metadata, openvino_file, previous
from snl.runtime.convert import is_format_2, sections_of_format_2
from snl.runtime.engine import read_export
from snl.runtime.metadata import ModelMetadata, from_sections
from snl.runtime.onnx_file import split
from snl.runtime.sections import NETWORK, Section, split_sections


@dataclass(frozen=True)
class _Contents:
    """What `describe` needs of a file."""

    kind: str
    """`bundle`, `onnx` or `openvino`."""
    format: int
    """Version of the file format."""
    size: int
    """In bytes, of all files that belong together."""
    metadata: ModelMetadata


def describe(path: str | Path) -> dict[str, Any]:
    """Return what a file of snl train or snl export contains, as JSON values.

    The weights are neither loaded nor checked against their checksum; `snl.load` does that.

    Args:
        path: `*.snl`, `*.onnx` or `*.xml`.

    Returns:
        `file` (path, kind, format, bytes), `model` (method, preset, teacher, image size, tile),
        `plugins`, `data`, `training`, `products` (training images, calibration, thresholds),
        `calibration` (in use), `history` (oldest first) and `settings`.

    Raises:
        BundleError: a missing, damaged or foreign file, or one of another format.
    """
    path = Path(path)
    contents = _read(path)
    metadata = contents.metadata
    calibration = metadata.calibrations[-1]
    settings = metadata.settings
    return {
        "file": {
            "path": str(path),
            "kind": contents.kind,
            "format": contents.format,
            "bytes": contents.size,
        },
        "model": {
            "method": settings.method,
            "preset": settings.preset,
            "teacher": settings.teacher.name,
            "teacher_weights": settings.teacher.weights,
            "image_size": settings.image_size,
            "tile": settings.tile,
            "network": metadata.network,
        },
        "plugins": [dict(plugin) for plugin in metadata.plugins],
        "data": dict(metadata.training.data),
        "training": _training(metadata),
        "products": [
            _product(name, images, calibration)
            for name, images in metadata.training.products.items()
        ],
        "calibration": {
            **_version(calibration),
            "least_rate": calibration.scores.smallest_rate(),
            "rates": _rates(calibration.rates),
            "rule": calibration.rule,
            "tile": calibration.tile,
            "fit_tail": calibration.fit_tail,
        },
        "history": [_version(version) for version in metadata.calibrations],
        "settings": settings.to_dict(),
    }


def metadata_of(path: str | Path) -> ModelMetadata:
    """Return what is besides the network in a file of snl train or snl export.

    Small images and the network's previous state are left out.

    Raises:
        BundleError: a missing, damaged or foreign file.
    """
    return _read(Path(path)).metadata


def _training(metadata: ModelMetadata) -> dict[str, Any]:
    """Return the facts of the training, None where they are unknown."""
    facts, first = metadata.training.facts, metadata.calibrations[0]
    names = ("steps", "batch_size", "images", "seconds", "loss", "device", "precision")
    # the first calibration is made when training ends; it may be among those no longer kept
    finished = first.created if first.reason == TRAINED else ""
    return {
        **{name: facts.get(name) for name in names},
        "finished": finished or None,
        "versions": dict(facts.get("versions", {})),
        "teacher_sha256": facts.get("teacher"),
        "skipped_images": len(facts.get("skipped", [])),
    }


def _product(name: str, training_images: int, calibration: Calibration) -> dict[str, Any]:
    """Return one product's images, rates, thresholds and region rules."""
    rates = calibration.rates_for(name)
    return {
        "name": name,
        "training_images": training_images,
        "held_out_images": len(calibration.sets[name]),
        "rule": calibration.rule_for(name),
        "least_rate": calibration.scores.smallest_rate(name),
        "rates": _rates(rates),
        "thresholds": {
            "anomalous": _threshold(name, rates.anomalous, calibration),
            "uncertain": _threshold(name, rates.uncertain, calibration),
        },
        "ignore_mask": name in calibration.ignore_masks,
        "roi": _roi(calibration.rois.get(name)),
        "mm_per_pixel": calibration.mm_per_pixel.get(name),
        "min_region_area": calibration.min_region_area.get(name, 1),
    }


def _roi(roi: Roi | None) -> dict[str, list[int]] | None:
    """Return a region of interest as JSON values: `box` (x, y, width, height) in pixels of images
    of the size `image` (width, height)."""
    if roi is None or roi.image is None:
        return None
    return {"box": [roi.x, roi.y, roi.width, roi.height], "image": list(roi.image)}


def _threshold(product: str, rate: float, calibration: Calibration) -> dict[str, Any]:
    """Return the score threshold for a rate, and which images guarantee that rate.

    `guarantee` is `shared tail` (measured, not guaranteed), `product` (its held-out images),
    `all products` (the images of all products, for the rate pooled over them), `tail fit` (an
    estimate, without guarantee), or `nothing`.
    """
    score, basis = calibration.scores.threshold(rate, product)
    return {"rate": rate, "score": score, "guarantee": "nothing" if score is None else basis}


def _rates(rates: Rates) -> dict[str, float]:
    return {
        "anomalous": rates.anomalous,
        "uncertain": rates.uncertain,
        "unknown": rates.unknown,
        "regions": rates.regions,
    }


def _version(calibration: Calibration) -> dict[str, Any]:
    return {
        "created": calibration.created,
        "reason": calibration.reason,
        "network": calibration.network,
        "held_out_images": sum(len(data) for data in calibration.sets.values()),
    }


def _read(path: Path) -> _Contents:
    """Return the contents of a file of any kind."""
    suffix = path.suffix.lower()
    if suffix in (".onnx", ".xml"):
        return _read_export(path, "onnx" if suffix == ".onnx" else "openvino")
    return _read_bundle(path)


def _read_bundle(path: Path) -> _Contents:
    """Return the contents of a bundle, reading only the arrays that are not the network's."""
    from safetensors import SafetensorError, safe_open

    check_readable(path, "bundle", "written by snl train -o", f"snl train DATA -o {path.name}")
    try:
        with safe_open(path, framework="np") as file:
            document = strict_json((file.metadata() or {})["snl"])
            readable = OLDEST["bundle"] <= document["format"] <= FORMATS["bundle"]
            if document["kind"] != "bundle" or not readable:
                raise ValueError("another kind or format")
            old = is_format_2(document["facts"])  # whose converter needs the weights as well
            names = [n for n in file.keys() if old or not _is_large(n)]  # noqa: SIM118
            arrays = {name: file.get_tensor(name) for name in names}
        metadata = from_sections(_sections(document["facts"], arrays, old), exported=True)
    except (SafetensorError, OSError, SettingsError, LookupError, TypeError, ValueError,
            AttributeError, ArithmeticError, RecursionError) as error:  # fmt: skip
        load_tensors(path, "bundle")  # has a better explanation for most defects
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise BundleError(
            f"{path}: its description cannot be read ({reason}); it was edited, or made by another "
            "version of snl: train it again"
        ) from None
    return _Contents("bundle", document["format"], path.stat().st_size, metadata)


def _read_export(path: Path, kind: str) -> _Contents:
    """Return the contents of an export."""
    content = read_export(path)
    size = len(content)
    try:
        if kind == "onnx":
            metadata: Mapping[str, str] = split(content)[1]
        else:
            metadata = openvino_file.split(content, graph_metadata.KEYS)[2]
            weights = path.with_suffix(".bin")
            size += weights.stat().st_size if weights.is_file() else 0
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BundleError(
            f"{path}: not a readable export (truncated, damaged or of another kind: {reason}); "
            "export it again from its bundle"
        ) from None
    # the checksum of the graph is not verified: computing it would need the whole file
    known = graph_metadata.from_metadata(path, metadata, metadata.get("snl.sha256", ""))
    return _Contents(kind, json.loads(metadata[graph_metadata.KEY])["format"], size, known)


def _sections(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray], old: bool
) -> dict[str, Section]:
    """Return the sections of a bundle of this or the previous format, without the large ones."""
    if old:
        return sections_of_format_2(document, arrays)
    sections = split_sections(document, arrays)
    return {name: part for name, part in sections.items() if not _is_large(f"{name}/")}


def _is_large(name: str) -> bool:
    """Return whether an array is one of those that are not described."""
    section = name.partition("/")[0]
    return section == NETWORK or previous.belongs(section)
