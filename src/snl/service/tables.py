"""The tables of the store, for SQLite and PostgreSQL; `migrations/` has the same as steps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
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
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


_OPEN = "review IS NULL AND decision <> 'normal'"
"""What waits for a review."""


class Utc(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        try:
            return value.astimezone(UTC)
        except OverflowError:  # the first or the last day of the calendar, in another time zone
            return value.replace(tzinfo=UTC)

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
    idempotency_key: Mapped[str | None] = mapped_column(String(300), unique=True)
    client: Mapped[str] = mapped_column(String(100), default="")
    """Name of the token, or `source:NAME`."""
    name: Mapped[str] = mapped_column(String(300), default="")
    part: Mapped[str] = mapped_column(String(200), default="")
    product: Mapped[str] = mapped_column(String(200))
    decision: Mapped[str] = mapped_column(String(20))
    score: Mapped[float] = mapped_column(Float)
    p_value: Mapped[float | None] = mapped_column(Float)
    model: Mapped[str] = mapped_column(String(32))
    """Version of the model that decided: `ModelRow.id`."""
    network: Mapped[str] = mapped_column(String(16))
    calibration: Mapped[str] = mapped_column(String(40))
    result: Mapped[dict[str, Any]] = mapped_column(JSON)
    """The inspection as JSON, as in `snl inspect --json`."""
    image: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the image file, by which it is stored."""
    image_type: Mapped[str] = mapped_column(String(40))
    prediction: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the stored prediction."""
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Size of both files; 0: they are no longer kept."""
    review: Mapped[str | None] = mapped_column(String(20))
    """Verdict of the last review; None: it was not reviewed."""
    seen: Mapped[datetime | None] = mapped_column(Utc)
    """When a person first looked at it; None: nobody has said so."""

    __table_args__ = (
        Index("ix_inspections_product", "product", "id"),
        Index("ix_inspections_decision", "decision", "id"),
        Index("ix_inspections_review", "review", "id"),
        Index("ix_inspections_statistics", "created", "product", "decision", "review"),
        Index("ix_inspections_part", "part", "id"),
        Index(
            "ix_inspections_open", "id", sqlite_where=text(_OPEN), postgresql_where=text(_OPEN)
        ),
        Index("ix_inspections_image", "image"),
        Index("ix_inspections_prediction", "prediction"),
        Index(
            "ix_inspections_kept", "id", sqlite_where=text("bytes > 0"),
            postgresql_where=text("bytes > 0"),
        ),
    )  # fmt: skip


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
    withdrawn: Mapped[datetime | None] = mapped_column(Utc)
    """When it was taken back; None: it is in force."""


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


class ModelRow(Base):
    """A version of a model. `name` is a place in the service, such as the line it inspects for."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    version: Mapped[int] = mapped_column(Integer)
    file: Mapped[str] = mapped_column(String(100))
    """Name of its file in the folder of models."""
    sha256: Mapped[str] = mapped_column(String(64))
    network: Mapped[str] = mapped_column(String(16))
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))
    why: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[str] = mapped_column(String(10))
    """`candidate`, `shadow`, `active` or `retired`."""
    promoted: Mapped[datetime | None] = mapped_column(Utc)
    """When it became active, the last time."""

    __table_args__ = (UniqueConstraint("name", "version", name="uq_models_name_version"),)


class ShadowRow(Base):
    """What a version that is not active would have decided."""

    __tablename__ = "shadows"

    inspection: Mapped[str] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True, index=True)
    decision: Mapped[str] = mapped_column(String(20))
    product: Mapped[str] = mapped_column(String(200))
    score: Mapped[float] = mapped_column(Float)
    p_value: Mapped[float | None] = mapped_column(Float)


class SetImageRow(Base):
    """An image of a set that a job can use."""

    __tablename__ = "set_images"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    set: Mapped[str] = mapped_column(String(100))
    name: Mapped[str] = mapped_column(String(300))
    image: Mapped[str] = mapped_column(String(64), index=True)
    image_type: Mapped[str] = mapped_column(String(40))
    bytes: Mapped[int] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))

    __table_args__ = (UniqueConstraint("set", "image", name="uq_set_images_set_image"),)


class JobRow(Base):
    """Work that runs in a process of its own and makes a new version of a model."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    """`add`, `recalibrate` or `train`."""
    model: Mapped[str] = mapped_column(String(100))
    base: Mapped[str | None] = mapped_column(String(32))
    """Version that it starts from."""
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))
    state: Mapped[str] = mapped_column(String(10), index=True)
    """`queued`, `running`, `done`, `failed` or `cancelled`."""
    started: Mapped[datetime | None] = mapped_column(Utc)
    finished: Mapped[datetime | None] = mapped_column(Utc)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    error: Mapped[str] = mapped_column(Text, default="")
    result: Mapped[str | None] = mapped_column(String(32))
    """Version that it made."""


class ConnectorRow(Base):
    """A source or a sink that was set up through the API, not in the configuration."""

    __tablename__ = "connectors"

    role: Mapped[str] = mapped_column(String(10), primary_key=True)
    """`source` or `sink`."""
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))


class PausedRow(Base):
    """A source or sink that was paused by a person; it stays so after a restart."""

    __tablename__ = "paused"

    role: Mapped[str] = mapped_column(String(10), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)


class SettingRow(Base):
    """A setting that was changed through the API; it comes before that of the configuration."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(Utc)
    who: Mapped[str] = mapped_column(String(100))


class OutboxRow(Base):
    """An event that a sink has not yet delivered, in the order of `id`; then it is deleted."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    sink: Mapped[str] = mapped_column(String(100))
    inspection: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)
    """JSON, as the sink sends it."""
    created: Mapped[datetime] = mapped_column(Utc)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    error: Mapped[str] = mapped_column(Text, default="")
    dead: Mapped[bool] = mapped_column(default=False)
    """Whether it was given up; it stays until somebody tries it again or deletes it."""

    __table_args__ = (Index("ix_outbox_sink", "sink", "dead", "id"),)
