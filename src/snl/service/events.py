"""Inspections as JSON, as the API shows them and sinks deliver them."""

from __future__ import annotations

import json
import math
from typing import Any

from snl.service.tables import InspectionRow


def shown(row: InspectionRow) -> dict[str, Any]:
    """Return an inspection as the API shows it."""
    base = f"/v1/inspections/{row.id}"
    return {
        "id": row.id,
        "created": row.created,
        "name": row.name,
        "part": row.part,
        "decision": row.decision,
        "product": row.product,
        "score": row.score,
        "p_value": row.p_value,
        "review": row.review,
        "seen": row.seen is not None,
        "model": row.model,
        "network": row.network,
        "calibration": row.calibration,
        "links": {
            "self": base,
            "image": f"{base}/image",
            "map": f"{base}/map.png",
            "overlay": f"{base}/overlay.png",
        },
        "result": row.result,
    }


def event_json(id: str, kind: str, created: str, **content: Any) -> str:
    """Return the body of an event, one line of strict JSON.

    Args:
        id: of the event; it stays the same whenever the event is sent again.
        kind: what happened, `inspection` or `test`.
        created: time in ISO format.
        content: what it is about.
    """
    body = {"id": id, "type": kind, "created": created, **content}
    try:
        return json.dumps(body, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(body), allow_nan=False)


def inspection_event(row: InspectionRow) -> str:
    """Return the event of an inspection, whose id is that of the inspection."""
    created = row.created.isoformat().replace("+00:00", "Z")
    inspection = {**shown(row), "created": created}
    return event_json(row.id, "inspection", created, inspection=inspection)


def _finite(value: Any) -> Any:
    """Return a JSON value with null where a number is infinite or none."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
