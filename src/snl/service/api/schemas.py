"""What the API takes and returns, as OpenAPI shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Decision = Literal["normal", "uncertain", "anomalous", "unknown product"]
Verdict = Literal["confirmed", "false alarm", "miss"]

Queue = Literal["open", "alarm", "uncertain", "unknown", "unusual"]

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
    "seen": False,
    "model": "0001980f3a5c2b7d1e00a1b2c3d4e5f6",
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
    seen: bool = Field(default=False, description="whether a person has seen or reviewed it")
    model: str = Field(description="id of the version of the model that decided")
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
    withdrawn: datetime | None = Field(default=None, description="when it was taken back")


class Product(BaseModel):
    """A known product."""

    name: str
    held_out_images: int
    threshold: float | None = Field(description="score above which an image is anomalous")
    uncertain_threshold: float | None
    rates: dict[str, float]
    roi: list[int] | None = Field(
        description="x, y, width, height in pixels of the images it was drawn on; null: the whole "
        "image"
    )
    roi_image: list[int] | None = Field(
        description="width and height of the images that `roi` was drawn on"
    )
    rule: Literal["shared-tail", "conformal"] = Field(
        description="how thresholds follow from held-out images"
    )
    mm_per_pixel: float | None = Field(description="scale of the images; null: not known")
    min_region_area: int | None = Field(
        description="smaller regions, in pixels, are not reported; null: all are"
    )
    has_ignore_mask: bool


class Version(BaseModel):
    """A version of a model."""

    id: str
    name: str = Field(description="of the model", examples=["parts"])
    version: int
    state: Literal["candidate", "shadow", "active", "retired"]
    network: str
    created: datetime
    who: str
    why: str
    promoted: datetime | None = Field(description="when it became active, the last time")


class Model(BaseModel):
    """A model: its active version, and all others."""

    name: str
    active: str = Field(description="id of the active version")
    calibration: str = Field(description="time of the calibration in force")
    image_size: int
    products: list[str]
    device: str
    versions: list[Version]


class Reason(BaseModel):
    """Why something is changed, for the history."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"why": "12 of 12 new alarms were right"}]}
    )

    why: str = Field(default="", max_length=1000)


class NewShadow(BaseModel):
    """Whether a version runs in the shadow of the active one."""

    model_config = ConfigDict(extra="forbid")

    on: bool = True
    replay: int = Field(
        default=0, ge=0, le=10_000, description="stored inspections to decide as well, newest first"
    )


class Change(BaseModel):
    """How often two versions decided so."""

    made: Decision = Field(description="decision that was made")
    other: Decision = Field(description="decision of this version")
    count: int


class Comparison(BaseModel):
    """Decisions of a version beside those that were made."""

    inspections: int
    waiting: int = Field(description="inspections that shadows have yet to decide")
    counts: list[Change]
    changed: list[str] = Field(description="ids whose decision or product differs, newest first")
    better: int = Field(description="changed, reviewed, and this version is right")
    worse: int = Field(description="changed, reviewed, and this version is wrong")


class NewCalibration(BaseModel):
    """Rates of a product's decisions, and its values; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"anomalous": 0.02, "why": "line 2"}]}
    )

    anomalous: float | None = Field(default=None, gt=0, lt=1)
    uncertain: float | None = Field(default=None, gt=0, lt=1)
    unknown: float | None = Field(default=None, ge=0, lt=1)
    regions: float | None = Field(default=None, gt=0, lt=1)
    rule: str | None = Field(default=None, max_length=40)
    mm_per_pixel: float | None = Field(
        default=None, ge=0, le=1e6, allow_inf_nan=False, description="0: not known any more"
    )
    min_region_area: int | None = Field(
        default=None, ge=0, le=10**9, description="in pixels; 0: report regions of any size"
    )
    why: str = Field(default="", max_length=1000)


class Drift(BaseModel):
    """Drift of a product."""

    product: str
    alarm: bool
    since: int | None = Field(description="number of the image at which the change began")
    inspection: str | None = Field(description="id of that image's inspection")
    reason: str | None
    images: int
    evidence: float = Field(description="1 or more: alarm")


class Acknowledged(BaseModel):
    """An alarm of drift that somebody has looked at; the product starts again."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="", max_length=100)
    product: str | None = Field(default=None, max_length=200)


class Audit(BaseModel):
    """A change that somebody made."""

    id: int
    created: datetime
    who: str
    action: str
    subject: str
    details: dict[str, Any]


class ImageSet(BaseModel):
    """Images that a job can use."""

    name: str
    images: int
    bytes: int


class SetImage(BaseModel):
    """An image of a set."""

    id: str
    name: str
    created: datetime
    who: str


class NewJob(BaseModel):
    """Work to do: `add` a product, `recalibrate` one, or `train` a new model."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"kind": "add", "product": "gear", "set": "gears-november"},
                {"kind": "add", "product": "nut", "set": "nuts", "roi": [40, 20, 300, 200]},
                {"kind": "recalibrate", "product": "gear", "reviewed": True},
                {"kind": "train", "sets": {"gear": "gears", "bolt": "bolts"}, "steps": 2000},
            ]
        },
    )

    kind: Literal["add", "recalibrate", "train"]
    model: str = Field(default="", max_length=100, description="empty: the first one")
    product: str | None = Field(default=None, max_length=200)
    set: str | None = Field(default=None, max_length=100, description="of images")
    reviewed: bool = Field(
        default=False,
        description="recalibrate with the inspections that were reviewed as normal",
    )
    sets: dict[str, str] | None = Field(default=None, description="train: set of each product")
    replace: bool = Field(default=False, description="add: a new version of a known product")
    quick: bool = Field(default=False, description="add: without training")
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    roi: tuple[int, int, int, int] | None = Field(
        default=None,
        description="add: region of interest, left, top, width and height in pixels of the upright "
        "images; null: the whole image",
    )
    force: bool = False


class Job(BaseModel):
    """Work that runs, or has run, in a process of its own."""

    id: str
    kind: str
    model: str
    settings: dict[str, Any]
    created: datetime
    who: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    started: datetime | None
    finished: datetime | None
    progress: dict[str, Any] = Field(
        examples=[{"task": "training", "done": 120, "total": 200, "seconds_left": 14}]
    )
    error: str
    result: str | None = Field(description="id of the version that it made")


class NewSource(BaseModel):
    """A source of images."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"kind": "folder", "settings": {"folder": "/srv/line-1", "after": "move"}},
                {
                    "kind": "stream",
                    "settings": {"url": "rtsp://10.1.2.3/1", "username": "snl", "password": "..."},
                },
                {"kind": "mqtt", "settings": {"url": "mqtts://broker", "topic": "line-1/images"}},
            ]
        },
    )

    kind: str = Field(max_length=40, examples=["folder", "camera", "stream", "video", "mqtt"])
    settings: dict[str, JsonValue]


class Source(BaseModel):
    """A source of images as it is now; the numbers count since the start of the service."""

    name: str
    kind: str
    configured: bool = Field(description="in the configuration file; the API cannot change it")
    settings: dict[str, Any] | None = Field(
        description="without secrets; null: only administrators see them"
    )
    state: Literal["running", "paused", "reconnecting", "ended", "failed"]
    error: str = Field(description="the last one")
    images: int = Field(description="that were inspected")
    known: int = Field(description="that were in the store already, and not inspected again")
    dropped: int = Field(description="that were left out because the service was busy")
    failed: int = Field(description="that cannot be inspected")
    last_image: datetime | None = Field(description="time of the last inspection")


class Storage(BaseModel):
    """What is stored, and what limits it."""

    files: int | None = Field(description="images and maps; null: they are being counted")
    bytes: int | None = Field(description="of these")
    inspections: int = Field(description="whose image and map are kept")
    oldest: datetime | None = Field(description="time of the oldest of these")
    protected: int = Field(
        description="those that are never deleted: alarms without a review, and what a job needs"
    )
    keep_bytes: int | None = Field(description="limit; null: none")
    keep_days: float | None = Field(description="limit; null: none")
    limits_from: Literal["configuration", "api"] = Field(
        description="`api`: they were set by PUT /v1/storage"
    )
    problem: str = Field(description="why the limit cannot be met; empty: it can")


class Stats(BaseModel):
    """Numbers of inspections."""

    total: int
    by_product: dict[str, dict[str, int]] = Field(examples=[{"bottle": {"normal": 98}}])
