"""Whether the service works, and what it has done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.concurrency import run_in_threadpool

from snl.service.api import schemas
from snl.service.api.context import Admin, Here, Reader, Reviewer
from snl.service.store import audit

routes = APIRouter(tags=["operation"])


@routes.get("/healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@routes.get("/readyz", summary="Whether requests can be served")
async def readyz(context: Here) -> dict[str, str]:
    await run_in_threadpool(context.service.store.check)
    return {"status": "ready"}


@routes.get("/metrics", summary="Numbers for Prometheus")
async def show_metrics(context: Here, caller: Reader) -> Response:
    text = await run_in_threadpool(context.metrics.text)
    return Response(text, media_type="text/plain; version=0.0.4")


@routes.get("/v1/stats", summary="Numbers of inspections")
async def stats(context: Here, caller: Reader, since: datetime | None = None) -> schemas.Stats:
    counts = await run_in_threadpool(context.service.store.counts, since)
    by_product: dict[str, dict[str, int]] = {}
    for (product, decision), count in counts.items():
        by_product.setdefault(product, {})[decision] = count
    return schemas.Stats(total=sum(counts.values()), by_product=by_product)


@routes.get("/v1/storage", summary="What is stored, and what limits it")
async def storage(context: Here, caller: Reader) -> schemas.Storage:
    return schemas.Storage(**vars(await run_in_threadpool(context.service.retention.storage)))


@routes.get("/v1/drift", summary="Drift of the products of a model")
async def drift(
    context: Here, caller: Reader, model: Annotated[str, Query(max_length=100)] = ""
) -> list[schemas.Drift]:
    status = await run_in_threadpool(context.service.drift.status, model)
    return [
        schemas.Drift(
            product=one.product,
            alarm=one.alarm,
            since=one.since,
            inspection=one.since_when,
            reason=one.reason,
            images=one.images,
            evidence=one.evidence,
        )
        for one in status.values()
    ]


@routes.post("/v1/drift/acknowledge", summary="Start a product again after an alarm")
async def acknowledge(
    context: Here, caller: Reviewer, what: schemas.Acknowledged
) -> list[schemas.Drift]:
    service = context.service

    def do() -> None:
        service.drift.reset(what.model, what.product)
        with service.store.writing() as session:
            session.add(audit(caller.name, "drift acknowledge", what.product or "all products"))

    await run_in_threadpool(do)
    return await drift(context, caller, what.model)


@routes.get("/v1/audit", summary="Changes that people made, newest first")
async def audits(
    context: Here,
    caller: Admin,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="id of the last row before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[schemas.Audit]:
    rows = await run_in_threadpool(context.service.store.audits, after, limit)
    return [
        schemas.Audit(
            id=row.id,
            created=row.created,
            who=row.who,
            action=row.action,
            subject=row.subject,
            details=row.details,
        )
        for row in rows
    ]
