"""Numbers of what was inspected and reviewed, and what other rates would have decided."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool

from snl.errors import SettingsError
from snl.service import statistics as stored
from snl.service.api.context import Context, Here, Reader
from snl.service.api.station_schemas import StatisticsRow, StoredScores

routes = APIRouter(tags=["statistics"])

MOST_SCORES = 20_000
CURVE_POINTS = 60
"""Rates of the curve of thresholds, from 0.1 % to 50 %."""


@routes.get("/v1/statistics", summary="Counts by time, product, decision and review")
async def statistics(
    context: Here,
    caller: Reader,
    since: datetime,
    until: datetime | None = None,
    by: Literal["hour", "day"] = "day",
    offset: Annotated[
        int, Query(ge=-900, le=900, description="minutes by which local time is ahead of UTC")
    ] = 0,
) -> list[StatisticsRow]:
    rows = await run_in_threadpool(
        stored.statistics, context.service.store, since, until, by == "hour", offset
    )
    names = ("time", "product", "decision", "review", "count")
    return [StatisticsRow.model_validate(dict(zip(names, row, strict=True))) for row in rows]


@routes.get("/v1/products/{name:path}/scores", summary="Scores of a product's inspections")
async def scores(
    context: Here,
    caller: Reader,
    name: str,
    model: Annotated[str, Query(max_length=100)] = "",
    since: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_SCORES)] = 5000,
) -> StoredScores:
    """With them a client can say what other rates would have decided: an image is anomalous if its
    p-value is at most the rate of anomalous, else uncertain if it is at most that of uncertain;
    what was called an unknown product stays so."""
    return await run_in_threadpool(_scores, context, name, model, since, limit)


def _scores(
    context: Context, name: str, model: str, since: datetime | None, limit: int
) -> StoredScores:
    calibration = context.service.models.active(model).calibration
    if name not in calibration.products:
        raise SettingsError(f"there is no product {name[:100]}")
    found = stored.scores(context.service.store, name, since, limit + 1)
    rows = [row for row in found[:limit] if row.network == calibration.network]
    known: dict[float, float | None] = {}
    for row in rows:
        if row.score not in known:
            known[row.score] = calibration.scores.p_value(row.score, name)
    rates = np.geomspace(0.001, 0.5, CURVE_POINTS).tolist()
    curve = [
        (rate, threshold)
        for rate in rates
        if (threshold := calibration.scores.threshold(rate, name)[0]) is not None
    ]
    return StoredScores(
        ids=[row.id for row in rows],
        scores=[row.score for row in rows],
        p_values=[known[row.score] for row in rows],
        decisions=[row.decision for row in rows],
        reviews=[row.review for row in rows],
        left_out=min(len(found), limit) - len(rows),
        more=len(found) > limit,
        rates=vars(calibration.rates_for(name)),
        least_rate=curve[0][0] if curve else 1.0,
        curve=curve,
    )
