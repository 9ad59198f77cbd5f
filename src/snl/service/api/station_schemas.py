"""What the routes take and return that were made for the page of the service."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from snl.service.api.schemas import Decision, Inspection, Verdict


class Seen(BaseModel):
    """Alarms that a person has seen."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] = Field(min_length=1, max_length=1000)


class SeenCount(BaseModel):
    """How many of them nobody had seen before."""

    inspections: int


class NewSession(BaseModel):
    """A browser that signs in."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(min_length=1, max_length=200)


class Session(BaseModel):
    """Who uses the server."""

    name: str
    role: Literal["read", "inspect", "review", "admin"]
    open: bool = Field(description="whether it needs no token: only this machine can reach it")


class Nearest(BaseModel):
    """The stored normal image that is most like an inspection."""

    inspection: Inspection | None = Field(description="null: no normal image is stored")


class StatisticsRow(BaseModel):
    """Inspections of an hour, or day, that have product, decision and review in common."""

    time: str = Field(examples=["2026-11-28T06"], description="in the time zone of the request")
    product: str
    decision: Decision
    review: Verdict | None
    count: int


class StoredScores(BaseModel):
    """Scores of stored inspections of a product, by the calibration in force: column by column,
    newest first."""

    ids: list[str]
    scores: list[float]
    p_values: list[float | None]
    decisions: list[Decision] = Field(description="that were made")
    reviews: list[Verdict | None]
    left_out: int = Field(description="of another network, whose scores do not compare")
    more: bool = Field(description="whether there are older ones")
    rates: dict[str, float]
    least_rate: float = Field(description="lower rates have no threshold")
    curve: list[tuple[float, float]] = Field(description="rates with their thresholds")


class Shadowed(BaseModel):
    """What a version would have decided about an inspection."""

    decision: Decision
    product: str
    score: float
    p_value: float | None
