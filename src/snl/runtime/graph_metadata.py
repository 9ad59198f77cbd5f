"""What is known beside a network as lines of text, for the metadata of an exported graph.

`snl` has all of it. What a program without snl needs stands beside it in plain words, made of the
same at the same time: `snl.image_size`; and `snl.thresholds`, JSON by product. `snl.sha256` is of
the graph, so that a damaged one, or another network's, is noticed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from snl.errors import BundleError, SettingsError
from snl.runtime import model_metadata as beside
from snl.runtime.model_metadata import Known

KEY, FORMAT = "snl", 1
_SIZE, _THRESHOLDS, _GRAPH = "snl.image_size", "snl.thresholds", "snl.sha256"
KEYS = (KEY, _SIZE, _THRESHOLDS, _GRAPH)


def to_metadata(known: Known, graph: str) -> dict[str, str]:
    """All keys and values; `graph` is the checksum of the graph."""
    return {
        KEY: _to_text(known),
        _SIZE: str(known.settings.image_size),
        _THRESHOLDS: json.dumps(_thresholds(known), ensure_ascii=False, allow_nan=False),
        _GRAPH: graph,
    }


def from_metadata(path: str | Path, metadata: Mapping[str, str], graph: str) -> Known:
    """Inverse of `to_metadata`; `path` is for messages.

    Raises:
        BundleError: no such metadata, damaged, edited, of a newer format, or of another graph.
    """
    if not metadata.get(KEY):
        raise BundleError(f"{path}: was not made by snl export; export a bundle of snl train")
    known = _from_text(path, metadata[KEY])
    if metadata.get(_GRAPH) != graph:
        raise BundleError(
            f"{path}: its network does not match its checksum, so it was damaged or edited, or "
            "another file's .bin lies beside it; copy it again, or export it again"
        )
    return known


def checksum(content: bytes | memoryview) -> str:
    """Of a graph."""
    return hashlib.sha256(content).hexdigest()


def _thresholds(known: Known) -> dict[str, dict[str, float | None]]:
    """Scores above which an image of a product is anomalous, or uncertain at least, for whoever
    looks at whole images and has no calibration but this: without the products of which it takes
    more, tiles or a mask. None: nothing can be promised."""
    calibration = known.calibrations[-1]
    found = {}
    for product in known.facts.products:
        if calibration.tile or product in calibration.ignored:
            continue
        rates = calibration.rates_of(product)
        found[product] = {
            name: calibration.scores.threshold(rate, product)[0]
            for name, rate in (("uncertain", rates.uncertain), ("anomalous", rates.anomalous))
        }
    return found


def _to_text(known: Known) -> str:
    """JSON, arrays as base64, with a checksum over all of it."""
    document, arrays = beside.write(known)
    body = {
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
    return json.dumps({"format": FORMAT, "sha256": _digest(body), **body}, allow_nan=False)


def _from_text(path: str | Path, text: str) -> Known:
    """Inverse of `_to_text`."""
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise BundleError(
                f"{path}: written in format {found['format']}, this snl reads {FORMAT}; export it "
                "again, or update snl: pip install -U snl-ad"
            )
        body = {"document": found["document"], "arrays": found["arrays"]}
        if _digest(body) != found["sha256"]:
            raise ValueError("its checksum does not match")
        arrays = {
            str(name): np.frombuffer(base64.b64decode(one["data"]), np.dtype(one["dtype"]))
            .reshape(one["shape"])
            .copy()
            for name, one in found["arrays"].items()
        }
        return beside.read(found["document"], arrays)
    except (
        SettingsError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        reason = str(error).strip().splitlines()[0][:150] if str(error).strip() else "damaged"
        raise BundleError(
            f"{path}: what snl wrote beside the network cannot be read ({reason}); export it again"
        ) from None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
