"""Sources: where images come from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from fastapi.concurrency import run_in_threadpool

from snl.service.access import Caller
from snl.service.api import schemas
from snl.service.api.context import Admin, Here, Reader, Reviewer
from snl.service.sinks.kinds import KINDS as SINKS
from snl.service.sources.base import KINDS as SOURCES
from snl.service.sources.manager import Described

routes = APIRouter(tags=["sources"])

Name = Annotated[str, Path(max_length=100)]


@routes.get("/v1/sources", summary="The sources of images")
async def sources(context: Here, caller: Reader) -> list[schemas.Source]:
    return [_source(one, caller) for one in context.service.sources.list()]


@routes.get("/v1/connectors", summary="JSON schemas of the settings of sources and sinks, by kind")
async def connectors(context: Here, caller: Admin) -> dict[str, dict[str, Any]]:
    """Kinds whose package cannot be imported are left out."""
    return await run_in_threadpool(lambda: {"sources": SOURCES.schemas(), "sinks": SINKS.schemas()})


@routes.put("/v1/sources/{name}", summary="Add a source, or replace one")
async def put(context: Here, caller: Admin, name: Name, new: schemas.NewSource) -> schemas.Source:
    """It may only reach addresses and folders that the configuration file allows. It starts at
    once, unless a source of this name is paused."""
    given = {**new.settings, "kind": new.kind}
    put = context.service.sources.put
    return _source(await run_in_threadpool(put, name, given, caller.name), caller)


@routes.delete("/v1/sources/{name}", summary="Remove a source", status_code=204)
async def delete(context: Here, caller: Admin, name: Name) -> None:
    await run_in_threadpool(context.service.sources.remove, name, caller.name)


@routes.post("/v1/sources/{name}/start", summary="Start a source that does not run")
async def start(context: Here, caller: Admin, name: Name) -> schemas.Source:
    start = context.service.sources.start_again
    return _source(await run_in_threadpool(start, name, caller.name), caller)


@routes.post("/v1/sources/{name}/{action}", summary="Pause or resume a source, or take one image")
async def change(
    context: Here, caller: Reviewer, name: Name, action: Literal["pause", "resume", "trigger"]
) -> schemas.Source:
    """A source stays paused after a restart. `trigger` is for cameras and streams whose setting
    `trigger` is `manual`."""
    sources = context.service.sources
    do = {"pause": sources.pause, "resume": sources.resume, "trigger": sources.trigger}[action]
    return _source(await run_in_threadpool(do, name, caller.name), caller)


def _source(one: Described, caller: Caller) -> schemas.Source:
    status = one.status
    return schemas.Source(
        name=one.name,
        kind=one.kind,
        configured=one.configured,
        settings=one.settings if caller.may("admin") else None,
        state=status.state,
        error=status.error,
        images=status.images,
        known=status.known,
        dropped=status.dropped,
        failed=status.failed,
        last_image=status.last,
    )
