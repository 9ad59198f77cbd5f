"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision, down_revision = "001", None
branch_labels, depends_on = None, None


def upgrade() -> None:
    """Create the tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "inspections",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("idempotency_key", sa.String(300)),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("part", sa.String(200), nullable=False),
        sa.Column("product", sa.String(200), nullable=False),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("p_value", sa.Float),
        sa.Column("model", sa.String(32), nullable=False),
        sa.Column("network", sa.String(16), nullable=False),
        sa.Column("calibration", sa.String(40), nullable=False),
        sa.Column("result", sa.JSON, nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("image_type", sa.String(40), nullable=False),
        sa.Column("prediction", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("review", sa.String(20)),
        sa.Column("seen", time),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
        sa.UniqueConstraint("idempotency_key", name="uq_inspections_idempotency_key"),
    )
    for name, columns in (
        ("product", ["product", "id"]),
        ("decision", ["decision", "id"]),
        ("review", ["review", "id"]),
        ("statistics", ["created", "product", "decision", "review"]),
        ("part", ["part", "id"]),
        ("image", ["image"]),
        ("prediction", ["prediction"]),
    ):
        op.create_index(f"ix_inspections_{name}", "inspections", columns)
    kept = sa.text("bytes > 0")
    unreviewed = sa.text("review IS NULL AND decision <> 'normal'")
    for name, where in (("kept", kept), ("open", unreviewed)):
        op.create_index(
            f"ix_inspections_{name}",
            "inspections",
            ["id"],
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("inspection", sa.String(32), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("regions", sa.JSON, nullable=False),
        sa.Column("withdrawn", time),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.ForeignKeyConstraint(["inspection"], ["inspections.id"], name="fk_reviews_inspection"),
    )
    op.create_index("ix_reviews_inspection", "reviews", ["inspection"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("revoked", time),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )

    op.create_table(
        "models",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("file", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("network", sa.String(16), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("promoted", time),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", "version", name="uq_models_name_version"),
    )
    op.create_table(
        "shadows",
        sa.Column("inspection", sa.String(32), nullable=False),
        sa.Column("model", sa.String(32), nullable=False),
        sa.Column("decision", sa.String(20), nullable=False),
        sa.Column("product", sa.String(200), nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("p_value", sa.Float),
        sa.PrimaryKeyConstraint("inspection", "model", name="pk_shadows"),
        sa.ForeignKeyConstraint(["inspection"], ["inspections.id"], name="fk_shadows_inspection"),
        sa.ForeignKeyConstraint(["model"], ["models.id"], name="fk_shadows_model"),
    )
    op.create_index("ix_shadows_model", "shadows", ["model"])
    op.create_table(
        "set_images",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("set", sa.String(100), nullable=False),
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("image_type", sa.String(40), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_set_images"),
        sa.UniqueConstraint("set", "image", name="uq_set_images_set_image"),
    )
    op.create_index("ix_set_images_image", "set_images", ["image"])
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("model", sa.String(100), nullable=False),
        sa.Column("base", sa.String(32)),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("started", time),
        sa.Column("finished", time),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("result", sa.String(32)),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_state", "jobs", ["state"])
    op.create_table(
        "connectors",
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("role", "name", name="pk_connectors"),
    )
    op.create_table(
        "paused",
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("role", "name", name="pk_paused"),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.JSON, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("who", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True,
            nullable=False,
        ),
        sa.Column("sink", sa.String(100), nullable=False),
        sa.Column("inspection", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("dead", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )  # fmt: skip
    op.create_index("ix_outbox_sink", "outbox", ["sink", "dead", "id"])


def downgrade() -> None:
    """Remove the tables."""
    for table in (
        *("outbox", "settings", "paused", "connectors", "jobs", "set_images", "shadows", "models"),
        *("audit", "tokens", "reviews", "inspections"),
    ):
        op.drop_table(table)
