"""Sinks: where inspections are delivered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool

from snl.service.api import sink_schemas as schemas
from snl.service.api.context import Admin, Here
from snl.service.sinks.base import DeliveryError
from snl.service.sinks.outbox import SinkStatus

routes = APIRouter(tags=["sinks"])

Name = Annotated[str, Path(max_length=100)]


@routes.get("/v1/sinks", summary="The sinks")
async def sinks(context: Here, caller: Admin) -> list[schemas.Sink]:
    return [_sink(one) for one in await run_in_threadpool(context.service.sinks.status)]


@routes.put("/v1/sinks/{name}", summary="Add a sink, or replace one")
async def put(context: Here, caller: Admin, name: Name, new: schemas.NewSink) -> schemas.Sink:
    """It may only reach addresses and folders that the configuration file allows. Inspections from
    now on are delivered to it; what waits for a sink of this name is delivered to the new one."""
    put = context.service.sinks.put
    return _sink(await run_in_threadpool(put, name, new.kind, new.settings, caller.name))


@routes.delete("/v1/sinks/{name}", summary="Remove a sink", status_code=204)
async def delete(
    context: Here,
    caller: Admin,
    name: Name,
    discard: Annotated[bool, Query(description="delete what was not delivered")] = False,
) -> None:
    sinks = context.service.sinks
    await run_in_threadpool(lambda: sinks.delete(name, caller.name, discard=discard))


@routes.post("/v1/sinks/{name}/pause", summary="Pause a sink; events wait")
async def pause(context: Here, caller: Admin, name: Name) -> schemas.Sink:
    return _sink(await run_in_threadpool(context.service.sinks.pause, name, True, caller.name))


@routes.post("/v1/sinks/{name}/resume", summary="Let a sink go on")
async def resume(context: Here, caller: Admin, name: Name) -> schemas.Sink:
    return _sink(await run_in_threadpool(context.service.sinks.pause, name, False, caller.name))


@routes.post("/v1/sinks/{name}/test", summary="Deliver an event of the type `test`")
async def test(context: Here, caller: Admin, name: Name) -> schemas.SinkTest:
    """A file is only opened."""
    try:
        await run_in_threadpool(context.service.sinks.test, name, caller.name)
    except DeliveryError as error:
        return schemas.SinkTest(ok=False, error=str(error))
    return schemas.SinkTest(ok=True, error="")


@routes.get("/v1/sinks/{name}/dead", summary="Dead letters, oldest first")
async def dead(
    context: Here,
    caller: Admin,
    name: Name,
    after: Annotated[int, Query(ge=0, le=2**62, description="id of the last one before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[schemas.DeadLetter]:
    rows = await run_in_threadpool(context.service.sinks.dead, name, after, limit)
    return [
        schemas.DeadLetter(
            id=row.id,
            inspection=row.inspection,
            created=row.created,
            attempts=row.attempts,
            error=row.error,
        )
        for row in rows
    ]


@routes.post("/v1/sinks/{name}/dead/retry", summary="Deliver all dead letters again")
async def retry_dead(context: Here, caller: Admin, name: Name) -> schemas.Events:
    sinks = context.service.sinks
    return schemas.Events(events=await run_in_threadpool(sinks.retry_dead, name, caller.name))


@routes.delete("/v1/sinks/{name}/dead", summary="Delete all dead letters")
async def delete_dead(context: Here, caller: Admin, name: Name) -> schemas.Events:
    sinks = context.service.sinks
    return schemas.Events(events=await run_in_threadpool(sinks.delete_dead, name, caller.name))


def _sink(one: SinkStatus) -> schemas.Sink:
    return schemas.Sink(**vars(one))
