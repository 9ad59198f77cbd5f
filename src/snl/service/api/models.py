"""Models and their versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from snl.service.api import schemas
from snl.service.api.context import Admin, Here, Reader
from snl.service.api.station_schemas import Shadowed
from snl.service.ids import new_id
from snl.service.serving import Serving
from snl.service.store import NotThereError
from snl.service.tables import ModelRow

routes = APIRouter(tags=["models"])

Name = Annotated[str, Query(max_length=100, description="of a model; empty: the first one")]


@routes.get("/v1/models", summary="The models with their versions")
async def models(context: Here, caller: Reader) -> list[schemas.Model]:
    service = context.service
    rows = await run_in_threadpool(service.models.rows)
    return [
        _model(service.models.active(name), [row for row in rows if row.name == name])
        for name in service.models.names()
    ]


@routes.get("/v1/versions", summary="The versions of all models, newest first")
async def versions(context: Here, caller: Reader) -> list[schemas.Version]:
    rows = await run_in_threadpool(context.service.models.rows)
    return [_version(row) for row in sorted(rows, key=lambda row: row.created, reverse=True)]


@routes.post("/v1/models", summary="Upload a version: a bundle or an ONNX file as the body")
async def add(
    context: Here,
    caller: Admin,
    request: Request,
    name: Name = "",
    suffix: Annotated[str, Query(pattern=r"^\.(snl|onnx)$", description="of the file")] = ".snl",
    why: Annotated[str, Query(max_length=1000)] = "",
) -> schemas.Version:
    """It is a candidate: it decides nothing until it is promoted."""
    service = context.service
    content = await request.body()

    def do() -> ModelRow:
        path: Path = service.models.folder / f"incoming-{new_id()}{suffix}"
        try:
            path.write_bytes(content)
            return service.models.add(
                path, name or service.models.first or "parts", caller.name, why, shown="the file"
            )
        finally:
            path.unlink(missing_ok=True)

    return _version(await run_in_threadpool(do))


@routes.get("/v1/models/{id}/comparison", summary="What a version would have decided")
async def comparison(context: Here, caller: Reader, id: str) -> schemas.Comparison:
    shadows = context.service.shadows
    found = await run_in_threadpool(shadows.compare, id)
    return schemas.Comparison(
        inspections=found.inspections,
        waiting=shadows.waiting,
        counts=[
            schemas.Change(made=made, other=other, count=count)  # type: ignore[arg-type]
            for (made, other), count in sorted(found.counts.items())
        ],
        changed=list(found.changed),
        better=found.better,
        worse=found.worse,
    )


@routes.get("/v1/models/{id}/decisions/{inspection}", summary="What a version would have decided")
async def decision(context: Here, caller: Reader, id: str, inspection: str) -> Shadowed:
    row = await run_in_threadpool(context.service.shadows.decision, id, inspection)
    if row is None:
        raise NotThereError("this version has not decided this inspection")
    return Shadowed(
        decision=row.decision,  # type: ignore[arg-type]
        product=row.product,
        score=row.score,
        p_value=row.p_value,
    )


@routes.post("/v1/models/{id}/shadow", summary="Run a version in the shadow of the active one")
async def shadow(context: Here, caller: Admin, id: str, what: schemas.NewShadow) -> schemas.Version:
    service = context.service

    def do() -> ModelRow:
        row = service.models.set_shadow(id, what.on, caller.name)
        if what.on and what.replay:
            service.shadows.replay(id, what.replay)
        return row

    return _version(await run_in_threadpool(do))


@routes.post("/v1/models/{id}/promote", summary="Make a version active")
async def promote(context: Here, caller: Admin, id: str, reason: schemas.Reason) -> schemas.Version:
    promote = context.service.models.promote
    return _version(await run_in_threadpool(promote, id, caller.name, reason.why))


@routes.post("/v1/models/{id}/discard", summary="Set a version aside that was never active")
async def discard(context: Here, caller: Admin, id: str, reason: schemas.Reason) -> schemas.Version:
    """It stays in the history and can still be promoted."""
    discard = context.service.models.discard
    return _version(await run_in_threadpool(discard, id, caller.name, reason.why))


@routes.post("/v1/rollback", summary="Make the version active that was active before")
async def rollback(
    context: Here, caller: Admin, reason: schemas.Reason, model: Name = ""
) -> schemas.Version:
    service = context.service
    name = service.models.active(model).name
    return _version(await run_in_threadpool(service.models.rollback, name, caller.name, reason.why))


def _model(serving: Serving, rows: list[ModelRow]) -> schemas.Model:
    inspector = serving.inspector
    return schemas.Model(
        name=serving.name,
        active=serving.id,
        calibration=inspector.calibration.created,
        image_size=inspector.image_size,
        products=list(inspector.products),
        device=inspector.engine.device,
        versions=[_version(row) for row in rows],
    )


def _version(row: ModelRow) -> schemas.Version:
    return schemas.Version(
        id=row.id,
        name=row.name,
        version=row.version,
        state=row.state,  # type: ignore[arg-type]
        network=row.network,
        created=row.created,
        who=row.who,
        why=row.why,
        promoted=row.promoted,
    )
