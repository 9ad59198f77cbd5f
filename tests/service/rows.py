"""Rows of inspections that no model has made, for tests of what is done with them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from snl.service.ids import first_id
from snl.service.tables import InspectionRow, ModelRow

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def inspection(number: int, **values: Any) -> InspectionRow:
    """An inspection of the minute `number` after START."""
    created = START + timedelta(minutes=number)
    row: dict[str, Any] = {
        "id": f"{first_id(created)}{number:016x}",
        "created": created,
        "idempotency_key": None,
        "client": "line-1",
        "name": f"{number}.png",
        "part": "",
        "product": "bolt",
        "decision": "normal",
        "score": number / 7,
        "p_value": None,
        "model": "m" * 32,
        "network": "n" * 16,
        "calibration": "2026-02-01T00:00:00+00:00",
        "result": {"product_from": "recognised", "threshold": 2.5, "regions": []},
        "image": hashlib.sha256(f"image {number}".encode()).hexdigest(),
        "image_type": "image/png",
        "prediction": hashlib.sha256(f"prediction {number}".encode()).hexdigest(),
        "bytes": 10,
        "review": None,
        "seen": None,
    }
    return InspectionRow(**{**row, **values})


def model(version: int = 1, **values: Any) -> ModelRow:
    """A version of the model `parts`."""
    row: dict[str, Any] = {
        "id": f"{version:032x}",
        "name": "parts",
        "version": version,
        "file": f"{version:064x}.snl",
        "sha256": f"{version:064x}",
        "network": "n" * 16,
        "created": START,
        "who": "local",
        "why": "",
        "state": "retired",
        "promoted": None,
    }
    return ModelRow(**{**row, **values})
