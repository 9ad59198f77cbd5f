"""What the API takes and returns, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Decision = Literal["normal", "uncertain", "anomalous", "unknown product"]
Verdict = Literal["confirmed", "false alarm", "miss"]

_INSPECTION: dict[str, JsonValue] = {
    "id": "01980f3a5c2b7d1e0000a1b2c3d4e5f6",
    "created": "2026-11-28T10:15:30.123456Z",
    "name": "part-0815.png",
    "part": "",
    "decision": "anomalous",
    "product": "bottle",
    "score": 2.31,
    "p_value": 0.004,
    "review": None,
    "network": "8a0e19da41b2c3d4",
    "calibration": "2026-11-20T08:12:09+00:00",
    "links": {
        "self": "/v1/inspections/01980f3a5c2b7d1e0000a1b2c3d4e5f6",
        "image": "/v1/inspections/01980f3a5c2b7d1e0000a1b2c3d4e5f6/image",
        "map": "/v1/inspections/01980f3a5c2b7d1e0000a1b2c3d4e5f6/map.png",
        "overlay": "/v1/inspections/01980f3a5c2b7d1e0000a1b2c3d4e5f6/overlay.png",
    },
    "result": {"decision": "anomalous", "regions": [{"box": [40, 20, 12, 9], "area": 71}]},
}


class Problem(BaseModel):
    """Why a request was refused."""

    code: str = Field(examples=["bad_image"])
    message: str = Field(examples=["part.png is not an image"])


class ProblemAnswer(BaseModel):
    """The answer to a request that was refused."""

    error: Problem


class Inspection(BaseModel):
    """An inspection that is in the store."""

    model_config = ConfigDict(json_schema_extra={"examples": [_INSPECTION]})

    id: str
    created: datetime
    name: str = Field(description="name of the image, as the client gave it")
    part: str = Field(description="physical part that the image shows; empty: not given")
    decision: Decision
    product: str
    score: float
    p_value: float | None
    review: Verdict | None = Field(description="verdict of the last review")
    network: str = Field(description="version of the network")
    calibration: str = Field(description="time of the calibration in force")
    links: dict[str, str]
    result: dict[str, Any] = Field(description="everything, as `snl inspect --json` writes it")


class Inspected(BaseModel):
    """What became of one image of a request."""

    inspection: Inspection | None = None
    error: Problem | None = None


class InspectedAll(BaseModel):
    """What became of the images of a request, in their order."""

    results: list[Inspected]


class Page(BaseModel):
    """A page of inspections."""

    inspections: list[Inspection]
    next: str | None = Field(description="cursor of the next page; null: this is the last one")


class Region(BaseModel):
    """A defect that a person has marked."""

    box: tuple[int, int, int, int] = Field(description="x, y, width, height in pixels")
    label: str = Field(default="", max_length=100)


class NewReview(BaseModel):
    """A review."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"verdict": "false alarm", "note": "a reflection"}]},
    )

    verdict: Verdict
    note: str = Field(default="", max_length=2000)
    regions: list[Region] = Field(default=[], max_length=100)


class Review(NewReview):
    """A review that is in the store."""

    created: datetime
    who: str


class Product(BaseModel):
    """A known product."""

    name: str
    held_out_images: int
    threshold: float | None = Field(description="score above which an image is anomalous")
    uncertain_threshold: float | None
    rates: dict[str, float]
    roi: list[int] | None


class Model(BaseModel):
    """A loaded model."""

    file: str
    network: str
    calibration: str
    image_size: int
    products: list[str]
    device: str


class Stats(BaseModel):
    """Numbers of inspections."""

    total: int
    by_product: dict[str, dict[str, int]] = Field(examples=[{"bottle": {"normal": 98}}])
