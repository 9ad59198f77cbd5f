"""What is known beside a network as one line of text, for the metadata of an exported graph."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from snl.deployment import known as beside
from snl.deployment.known import Known
from snl.errors import BundleError, SettingsError

KEY, FORMAT = "snl", 1


def to_text(known: Known) -> str:
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


def from_text(path: str | Path, text: str | None) -> Known:
    """Inverse of `to_text`; `path` is for messages.

    Raises:
        BundleError: no such text, damaged, edited or of a newer format.
    """
    if not text:
        raise BundleError(f"{path}: was not made by snl export; export a bundle of snl train")
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
    ) as error:
        reason = str(error).strip().splitlines()[0][:150] if str(error).strip() else "damaged"
        raise BundleError(
            f"{path}: what snl wrote beside the network cannot be read ({reason}); export it again"
        ) from None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
