"""Model files as named sections, the same in a bundle and in the metadata of an exported graph.

A section is a JSON document and arrays; in the file an array's name begins with its section's. This
version writes `model`, `training`, `calibration`, `history` and, in a bundle, `network`, and
perhaps the sections of the state before the last change of the network. Sections that it does not
know are kept and written back, so that a file of a later version survives a change by this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NETWORK, MODEL, TRAINING, CALIBRATION = "network", "model", "training", "calibration"
EVENTS = "history"


@dataclass(frozen=True)
class Section:
    """One part of a model file.

    Attributes:
        document: JSON values.
        arrays: by name, without the section's name.
    """

    document: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def join_sections(sections: Mapping[str, Section]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the document and the arrays of a file with these sections."""
    document = {"sections": {name: dict(s.document) for name, s in sections.items()}}
    arrays = {f"{name}/{key}": a for name, s in sections.items() for key, a in s.arrays.items()}
    return document, arrays


def split_sections(
    document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, Section]:
    """Inverse of `join_sections`.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: the document is damaged.
    """
    tables: dict[str, dict[str, np.ndarray]] = {str(name): {} for name in document["sections"]}
    for name, array in arrays.items():
        section, slash, key = name.partition("/")
        if not slash or section not in tables:
            raise ValueError(f"array '{name}' belongs to no section")
        tables[section][key] = array
    return {
        str(name): Section(dict(part), tables[str(name)])
        for name, part in document["sections"].items()
    }
