"""What the routes of settings and products take and return."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from snl.service.api.schemas import Product

Role = Literal["read", "inspect", "review", "admin"]


class NewToken(BaseModel):
    """A token to create."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "line-1", "role": "inspect"}]}
    )

    name: str = Field(min_length=1, max_length=100)
    role: Role = Field(description="it may also do what those before it may")


class Token(BaseModel):
    """A token; its text is not stored."""

    id: str
    name: str
    role: Role
    created: datetime
    revoked: datetime | None = Field(description="null: it is in use")


class CreatedToken(Token):
    """A new token with its text, which is not shown again."""

    token: str = Field(description="for `Authorization: Bearer TOKEN`")
    needs_restart: bool = Field(
        description="the server was started without tokens, and asks for them after a restart"
    )


class NewLimits(BaseModel):
    """How long images and maps are kept; both limits are given, null: none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"keep_gigabytes": 500, "keep_days": None, "why": "a larger disk"}]
        },
    )

    keep_gigabytes: float | None = Field(gt=0, le=1e9, allow_inf_nan=False)
    keep_days: float | None = Field(gt=0, le=36_500, allow_inf_nan=False)
    why: str = Field(default="", max_length=1000)


class HeldOut(BaseModel):
    """A held-out image: a normal one that training did not see."""

    score: float = Field(description="to be compared with `threshold` and `uncertain_threshold`")
    name: str | None = Field(description="of the file; null: not known")
    set: str | None = Field(description="set that has the image; null: none")
    image: str | None = Field(description="id of the image in this set")
    inspection: str | None = Field(description="id of an inspection of this image; null: none")


class VersionProduct(Product):
    """A product of a version of a model, with its held-out images."""

    scores: list[float] = Field(description="of the held-out images, lowest first")
    held_out: list[HeldOut] = Field(description="in the order of `scores`")


class Finding(BaseModel):
    """A sentence about a set of images."""

    level: Literal["error", "warning", "note"]
    message: str
    image: str | None = Field(description="id of the image that it is about; null: the set")


class OddImage(BaseModel):
    """An image that looks unlike the others of its set."""

    id: str
    name: str
    why: str
    z: float = Field(description="robust standard deviations beyond the median image")


class SetCheck(BaseModel):
    """What there is to say about a set of images."""

    images: int = Field(description="of the set")
    checked: int = Field(description="images that were decoded and checked, 200 at most")
    compared: int = Field(description="images that were compared with one another")
    model: str = Field(description="id of the version whose network compared them")
    findings: list[Finding] = Field(description="errors first, then warnings, then notes")
    odd: list[OddImage] = Field(description="12 at most, the most unlike first")
