"""Everything a model file holds besides the network itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snl.decision.calibration import Calibration
from snl.decision.serialise import from_document, to_document
from snl.errors import PluginError
from snl.files import content_hash
from snl.registry import REGISTRIES
from snl.runtime import history, previous
from snl.runtime.history import Event
from snl.runtime.previous import Previous
from snl.runtime.sections import (
    CALIBRATION,
    EVENTS,
    MODEL,
    NETWORK,
    TRAINING,
    Section,
)
from snl.settings import Settings

HISTORY = 10
"""Calibrations that a file keeps, for undoing changes."""


_REFERENCES = ("references", "reference_scales")
"""Arrays that a version shares with the one before it; stored once, because they are large."""


@dataclass(frozen=True)
class TrainingInfo:
    """Facts about a training; JSON values.

    Attributes:
        products: normal training images by product.
        data: name of the root, layout, fingerprint and number of images of the training data.
        facts: steps, seconds, images per second, last losses, device, software versions, kinds of
            images and their highest samples (docs/images.md), skipped
            images.
        hashes: uint64 (N,), content hashes of the training images.
        hashed: what of a file these hashes, and those of held-out images, are made from: `whole`,
            or `ends` in files of earlier versions; see `snl.files.content_hash`.
    """

    products: Mapping[str, int]
    data: Mapping[str, Any]
    facts: Mapping[str, Any]
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64), repr=False)
    hashed: str = "whole"

    def content_hash(self, path: str | Path) -> int:
        """Return the hash of an image file that can be compared with those of this model.

        Raises:
            OSError: the file cannot be read.
        """
        return content_hash(path, ends=self.hashed == "ends")


@dataclass(frozen=True)
class ModelMetadata:
    """Everything that an inspector needs besides the network.

    Attributes:
        settings: of the model.
        training: facts.
        calibrations: versions, oldest first; the last one is in force.
        mean, std: of the network's input channels (RGB, 0..1); the network itself normalises.
        network: version of the network.
        plugins: kind, name, package and version of every plug-in that the network needs.
        events: the history of the file, oldest first.
        previous: what the bundle was before its network was changed; None: it was not.
        extra: sections of later versions, kept as they are.
    """

    settings: Settings
    training: TrainingInfo
    calibrations: Sequence[Calibration]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    network: str = ""
    plugins: Sequence[Mapping[str, str]] = ()
    events: tuple[Event, ...] = ()
    previous: Previous | None = None
    extra: Mapping[str, Section] = field(default_factory=dict)


def events_of(metadata: ModelMetadata) -> tuple[Event, ...]:
    """Return the history of a file; of one that has none, that of its calibrations."""
    return metadata.events or tuple(
        Event(version.created, "", version.reason, version.network, len(version.products))
        for version in metadata.calibrations
    )


def to_sections(metadata: ModelMetadata) -> dict[str, Section]:
    """Return the sections of a model file, without the network's."""
    versions: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, calibration in enumerate(metadata.calibrations[-HISTORY:]):
        document, tables = to_document(calibration)
        if number and _same_references(calibration, metadata.calibrations[-HISTORY:][number - 1]):
            tables = {name: value for name, value in tables.items() if name not in _REFERENCES}
        versions.append(document)
        arrays |= {f"{number}.{name}": value for name, value in tables.items()}
    model = {
        "settings": metadata.settings.to_dict(),
        "preprocessing": {
            "image_size": metadata.settings.image_size,
            "resize": "whole image or tile to a square, bilinear with antialiasing",
            "channels": "RGB",
            "mean": list(metadata.mean),
            "std": list(metadata.std),
        },
        "network": metadata.network,
        "plugins": [dict(plugin) for plugin in metadata.plugins],
    }
    training = {
        "products": dict(metadata.training.products),
        "data": dict(metadata.training.data),
        "facts": dict(metadata.training.facts),
        "hashed": metadata.training.hashed,
    }
    sections = {
        MODEL: Section(model),
        TRAINING: Section(training, {"hashes": metadata.training.hashes}),
        CALIBRATION: Section({"versions": versions}, arrays),
    }
    if metadata.events:
        sections[EVENTS] = history.to_section(metadata.events)
    return {**sections, **metadata.extra}


def from_sections(sections: Mapping[str, Section], *, exported: bool = False) -> ModelMetadata:
    """Inverse of `to_sections`; the network's section is ignored.

    Args:
        sections: of a model file.
        exported: whether the network is an exported graph, which runs without its plug-ins.

    Raises:
        PluginError: a plug-in that the network needs is not installed.
        SettingsError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError: the
            sections are damaged.
    """
    model, training = sections[MODEL], sections[TRAINING]
    plugins = [{str(k): str(v) for k, v in one.items()} for one in model.document["plugins"]]
    missing = [one for one in plugins if one["name"] not in REGISTRIES[one["kind"]]]
    if missing and not exported:
        raise PluginError(_missing_plugin(missing[0]))
    settings = Settings.from_dict(
        model.document["settings"], [plugin["name"] for plugin in missing]
    )
    hashes, hashed = training.arrays["hashes"], str(training.document.get("hashed", "ends"))
    if hashes.dtype != np.uint64 or hashes.ndim != 1 or hashed not in ("whole", "ends"):
        raise ValueError("the list of training images is damaged")
    info = TrainingInfo(
        {str(k): int(v) for k, v in training.document["products"].items()},
        dict(training.document["data"]),
        dict(training.document["facts"]),
        hashes,
        hashed,
    )
    if any(count < 0 for count in info.products.values()) or "" in info.products:
        raise ValueError("the table of training images is damaged")
    calibrations = _calibrations(sections[CALIBRATION], settings)
    products = {frozenset(c.products) for c in calibrations} | {frozenset(info.products)}
    if len(products) > 1 or not calibrations:
        raise ValueError("training and calibration name different products")
    preprocessing = model.document["preprocessing"]
    mean, std = (tuple(map(float, preprocessing[key])) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise ValueError("mean and std are not of three channels")
    if not (np.isfinite([*mean, *std]).all() and min(std) > 0 and max(map(abs, mean)) < 1e6):
        raise ValueError("mean and std of the channels are damaged")
    network = str(model.document["network"])
    if calibrations[-1].network != network:
        raise ValueError("the calibration was made for another network")
    if len({calibration.prototypes.centres.shape[1] for calibration in calibrations}) > 1:
        raise ValueError("the prototypes are damaged")
    events = history.from_section(sections[EVENTS]) if EVENTS in sections else ()
    before = previous.from_sections(sections)
    known = {MODEL, TRAINING, CALIBRATION, NETWORK, EVENTS}
    extra = {
        name: section
        for name, section in sections.items()
        if name not in known and not previous.belongs(name)
    }
    return ModelMetadata(
        settings, info, calibrations, mean, std, network, plugins, events, before, extra
    )


def _missing_plugin(plugin: Mapping[str, str]) -> str:
    """Return the message about a plug-in that is not installed."""
    package, version = plugin["package"], plugin.get("version", "")
    return (
        f"it needs the {plugin['kind']} '{plugin['name']}' of the plug-in {package}"
        f"{f' {version}' if version else ''}, which is not installed here: pip install {package}"
    )


def _calibrations(section: Section, settings: Settings) -> list[Calibration]:
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, array in section.arrays.items():
        number, _, key = name.partition(".")
        tables.setdefault(number, {})[key] = array
    calibrations: list[Calibration] = []
    shared: dict[str, np.ndarray] = {}
    for position, document in enumerate(section.document["versions"]):
        arrays = tables.get(str(position), {})
        if document.get("references") is not None:
            shared |= {key: arrays[key] for key in _REFERENCES if key in arrays}
            arrays = {**shared, **arrays}
        calibrations.append(from_document(document, arrays, settings.map))
    return calibrations


def _same_references(one: Calibration, other: Calibration) -> bool:
    a, b = one.references, other.references
    if a is None or b is None:
        return a is b
    return a is b or (a.owners == b.owners and np.array_equal(a.embeddings, b.embeddings))
