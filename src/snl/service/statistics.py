"""Counts and scores of stored inspections."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select

from snl.service.store import Store
from snl.service.tables import InspectionRow


def statistics(
    store: Store, since: datetime, until: datetime | None, hours: bool, offset: int
) -> Sequence[tuple[str, str, str, str | None, int]]:
    """Return counts by time, product, decision and review.

    Args:
        store: of the inspections.
        since, until: times.
        hours: count by hour (`2026-11-28T06`) instead of day (`2026-11-28`).
        offset: minutes by which the local time is ahead of UTC.
    """
    row = InspectionRow
    if store.engine.dialect.name == "sqlite":
        pattern = "%Y-%m-%dT%H" if hours else "%Y-%m-%d"
        when: Any = func.strftime(pattern, row.created, f"{offset:+d} minutes")
    else:
        pattern = 'YYYY-MM-DD"T"HH24' if hours else "YYYY-MM-DD"
        local = func.timezone("UTC", row.created) + timedelta(minutes=offset)
        when = func.to_char(local, pattern)
    when = when.label("time")
    query = (
        select(when, row.product, row.decision, row.review, func.count())
        .where(row.created >= since)
        .group_by("time", row.product, row.decision, row.review)
        .order_by("time")
    )
    if until is not None:
        query = query.where(row.created < until)
    with store.reading() as session:
        return [tuple(found) for found in session.execute(query)]


def scores(store: Store, product: str, since: datetime | None, most: int) -> Sequence[Any]:
    """Return id, score, decision, review and network of a product's newest inspections."""
    row = InspectionRow
    query = (
        select(row.id, row.score, row.decision, row.review, row.network)
        .where(row.product == product)
        .order_by(row.id.desc())
        .limit(most)
    )
    if since is not None:
        query = query.where(row.created >= since)
    with store.reading() as session:
        return session.execute(query).all()
