"""What the routes of sinks take and return."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class NewSink(BaseModel):
    """A receiver of inspections."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "kind": "webhook",
                    "settings": {
                        "url": "https://mes.plant:8443/inspections",
                        "secret": "a text that both sides know",
                        "decisions": ["anomalous", "unknown product"],
                    },
                },
                {"kind": "mqtt", "settings": {"url": "mqtts://broker", "topic": "snl/{product}"}},
                {"kind": "csv", "settings": {"path": "/srv/results/line-1.csv"}},
            ]
        },
    )

    kind: str = Field(max_length=40, examples=["webhook", "mqtt", "jsonl", "csv"])
    settings: dict[str, JsonValue]


class Sink(BaseModel):
    """A sink as it is now."""

    name: str
    kind: str
    configured: bool = Field(description="in the configuration file; the API cannot change it")
    settings: dict[str, Any] = Field(description="without secrets")
    state: Literal["running", "retrying", "paused", "failed", "absent"] = Field(
        description="failed: it cannot be made; absent: there are events, but no longer a sink"
    )
    waiting: int = Field(description="events that are not delivered yet")
    dead: int = Field(description="events that the receiver has refused for good")
    bytes: int = Field(description="about how large all of these are")
    oldest: datetime | None = Field(description="time of the event that has waited longest")
    last_error: str = Field(description="of a delivery since the start")
    last_delivery: datetime | None = Field(description="since the start")


class SinkTest(BaseModel):
    """Whether a sink could deliver an event of the type `test`."""

    ok: bool
    error: str


class DeadLetter(BaseModel):
    """An event that a receiver has refused for good."""

    id: int
    inspection: str
    created: datetime
    attempts: int
    error: str


class Events(BaseModel):
    """How many events were changed."""

    events: int
