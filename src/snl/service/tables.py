"""The tables of the store, for SQLite and PostgreSQL; `migrations/` has the same as steps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Utc(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        time: datetime = value
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class Base(DeclarativeBase):
    """Base class of all tables."""

    metadata = MetaData(naming_convention=NAMING)


class InspectionRow(Base):
    """An inspection that was accepted: what was decided, and enough to decide it again.

    `id` grows with time: the rows of a page follow one another in it.
    """

    __tablename__ = "inspections"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc)
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    client: Mapped[str] = mapped_column(String(100), default="")
    name: Mapped[str] = mapped_column(String(300), default="")
    part: Mapped[str] = mapped_column(String(200), default="")
    product: Mapped[str] = mapped_column(String(200))
    decision: Mapped[str] = mapped_column(String(20))
    score: Mapped[float] = mapped_column(Float)
    p_value: Mapped[float | None] = mapped_column(Float)
    network: Mapped[str] = mapped_column(String(16))
    calibration: Mapped[str] = mapped_column(String(40))
    result: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The inspection as JSON, as in `snl inspect --json`."""
    image: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the image file, by which it is stored."""
    image_type: Mapped[str] = mapped_column(String(40))
    prediction: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the stored prediction; empty: it is no longer kept."""
    review: Mapped[str | None] = mapped_column(String(20))
    """Verdict of the last review; None: it was not reviewed."""

    __table_args__ = (
        Index("ix_inspections_product", "product", "id"),
        Index("ix_inspections_decision", "decision", "id"),
        Index("ix_inspections_review", "review", "id"),
        Index("ix_inspections_created", "created"),
        Index("ix_inspections_image", "image"),
    )


class ReviewRow(Base):
    """What a person said about an inspection."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    inspection: Mapped[str] = mapped_column(ForeignKey("inspections.id"), index=True)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(20))
    note: Mapped[str] = mapped_column(Text, default="")
    regions: Mapped[list[Any]] = mapped_column(JSON, default=list)


class TokenRow(Base):
    """A token that gives access; only its hash is stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(10))
    hash: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(Utc)
    revoked: Mapped[datetime | None] = mapped_column(Utc)


class AuditRow(Base):
    """A change that somebody made through the service."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(60))
    subject: Mapped[str] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
