"""Everything besides the network as lines of text, for the metadata of an exported graph.

The key `snl` holds all of it. Programs without snl find what they need in plain text beside it:
`snl.image_size`, and `snl.thresholds`, JSON by product. `snl.sha256` is the checksum of the graph,
by which damage, or the weights of another network, are noticed. The checksum inside `snl` covers
its own contents and the text of all other keys, also of foreign ones.

Format 2 (before format 3) did not cover the other keys, and in OpenVINO files only the .bin. Its
files can still be read; whatever changes their calibration writes them in format 3.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, PluginError, SettingsError
from snl.files import strict_json
from snl.runtime.convert import sections_of_format_2
from snl.runtime.metadata import ModelMetadata, from_sections, to_sections
from snl.runtime.sections import Section, join_sections, split_sections

KEY, FORMAT = "snl", 3
_SIZE, _THRESHOLDS, _GRAPH = "snl.image_size", "snl.thresholds", "snl.sha256"
KEYS = (KEY, _SIZE, _THRESHOLDS, _GRAPH)


def to_metadata(metadata: ModelMetadata, graph: str) -> dict[str, str]:
    """Return all keys and values; `graph` is the checksum of the graph.

    What only training needs is left out: the network's previous state.
    """
    metadata = replace(metadata, previous=None)
    others = {
        _SIZE: str(metadata.settings.image_size),
        _THRESHOLDS: json.dumps(_thresholds(metadata), ensure_ascii=False, allow_nan=False),
        _GRAPH: graph,
    }
    return {KEY: _to_text(metadata, others), **others}


def from_metadata(
    path: str | Path, table: Mapping[str, str], graph: str, old_graph: str | None = None
) -> ModelMetadata:
    """Inverse of `to_metadata`.

    Args:
        path: for messages.
        table: all keys and values of a file.
        graph: checksum of the graph.
        old_graph: the same as files of format 2 have it; None: as `graph`.

    Raises:
        BundleError: no such metadata, damaged, edited, of a newer format, or of another graph.
        PluginError: a plug-in that the network needs is not installed.
    """
    sections = sections_from_metadata(path, table)
    try:
        metadata = from_sections(sections, exported=True)
    except PluginError as error:
        raise PluginError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    if _format(table) < 3 and old_graph is not None:
        graph = old_graph
    if table.get(_GRAPH) != graph:
        raise BundleError(
            f"{path}: its network does not match its checksum, so it was damaged or edited, or "
            "another file's .bin lies beside it; copy it again, or export it again"
        )
    return metadata


def sections_from_metadata(path: str | Path, table: Mapping[str, str]) -> dict[str, Section]:
    """Return the sections of an exported file of this or the previous format.

    Raises:
        BundleError: no such metadata, damaged, edited or of a newer format.
    """
    if not table.get(KEY):
        raise BundleError(f"{path}: was not made by snl export; export a bundle of snl train")
    try:
        content = strict_json(table[KEY])
        if content["format"] not in range(1, FORMAT + 1):
            raise BundleError(
                f"{path}: written in format {content['format']}, this snl reads {FORMAT}; export "
                "it again, or update snl: pip install -U snl-ad"
            )
        if _digest(content, table) != content["sha256"]:
            raise ValueError("its checksum does not match")
        arrays = {
            str(name): np.frombuffer(base64.b64decode(one["data"]), np.dtype(one["dtype"]))
            .reshape(one["shape"])
            .copy()
            for name, one in content["arrays"].items()
        }
        if content["format"] == 1:
            return sections_of_format_2(content["document"], arrays, table.get(_GRAPH, "")[:16])
        return split_sections(content["document"], arrays)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


def checksum(content: bytes | memoryview) -> str:
    """Return the checksum of a graph."""
    return hashlib.sha256(content).hexdigest()


_DAMAGE = (
    SettingsError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def _unreadable(path: str | Path, error: Exception) -> BundleError:
    reason = str(error).strip().splitlines()[0][:150] if str(error).strip() else "damaged"
    return BundleError(
        f"{path}: what snl wrote beside the network cannot be read ({reason}); export it again"
    )


def _thresholds(metadata: ModelMetadata) -> dict[str, dict[str, float | None]]:
    """Return the scores above which an image of a product is anomalous, or at least uncertain.

    They are for programs that process whole images and have no other calibration, so products that
    need tiles, a mask or a region of interest are missing. None: the held-out images allow no
    threshold.
    """
    calibration = metadata.calibrations[-1]
    thresholds = {}
    for product in calibration.products:
        if calibration.tile or {product} & {*calibration.ignore_masks, *calibration.rois}:
            continue
        rates = calibration.rates_for(product)
        thresholds[product] = {
            name: calibration.scores.threshold(rate, product)[0]
            for name, rate in (("uncertain", rates.uncertain), ("anomalous", rates.anomalous))
        }
    return thresholds


def _to_text(metadata: ModelMetadata, others: Mapping[str, str]) -> str:
    """Return JSON with arrays as base64 and a checksum over all of it and over `others`."""
    document, arrays = join_sections(to_sections(metadata))
    content = {
        "format": FORMAT,
        "document": document,
        "arrays": {
            name: {
                "dtype": value.dtype.str,
                "shape": list(value.shape),
                "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
            }
            for name, value in arrays.items()
        },
    }
    return json.dumps({**content, "sha256": _digest(content, others)}, allow_nan=False)


def _digest(content: Mapping[str, Any], table: Mapping[str, str]) -> str:
    """Return the checksum of contents and, from format 3 on, of all other keys of a file."""
    body = {"document": content["document"], "arrays": content["arrays"]}
    if content["format"] >= 3:
        others = {key: text for key, text in table.items() if key != KEY}
        body |= {"format": content["format"], "others": others}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _format(table: Mapping[str, str]) -> int:
    return int(json.loads(table[KEY])["format"])
