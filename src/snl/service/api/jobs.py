"""Sets of images, and the jobs that use them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from snl.errors import SettingsError
from snl.service.api import schemas, settings_schemas
from snl.service.api.answers import RefusedError
from snl.service.api.context import Admin, Here, Reader
from snl.service.api.inspections import images_of
from snl.service.set_check import BusyError
from snl.service.tables import JobRow

routes = APIRouter(tags=["jobs"])

SetName = Annotated[str, Path(max_length=100)]


@routes.get("/v1/sets", summary="The sets of images")
async def sets(context: Here, caller: Reader) -> list[schemas.ImageSet]:
    found = await run_in_threadpool(context.service.sets.list)
    return [schemas.ImageSet(name=one.name, images=one.images, bytes=one.bytes) for one in found]


@routes.post("/v1/sets/{set}/images", summary="Add images: a file as the body, or a form of files")
async def add_images(
    context: Here,
    caller: Admin,
    set: SetName,
    request: Request,
    name: Annotated[str, Query(max_length=300, description="of a raw body's image")] = "",
) -> list[schemas.SetImage]:
    """Nothing is added if one of the files is no image; images that are there already stay once."""
    images = await images_of(request, name)
    rows = await run_in_threadpool(context.service.sets.add, set, images, caller.name)
    return [
        schemas.SetImage(id=row.id, name=row.name, created=row.created, who=row.who) for row in rows
    ]


@routes.get("/v1/sets/{set}/images", summary="The images of a set")
async def set_images(context: Here, caller: Reader, set: SetName) -> list[schemas.SetImage]:
    rows = await run_in_threadpool(context.service.sets.images, set)
    return [
        schemas.SetImage(id=row.id, name=row.name, created=row.created, who=row.who) for row in rows
    ]


@routes.get("/v1/sets/{set}/images/{id}", summary="An image of a set")
async def set_image(context: Here, caller: Reader, set: SetName, id: str) -> Response:
    sets = context.service.sets
    row = await run_in_threadpool(sets.image, set, id)
    content = await run_in_threadpool(sets.content, row)
    return Response(content, media_type=row.image_type)


@routes.get("/v1/sets/{set}/check", summary="Whether a set is fit to be learned from")
async def check_set(
    context: Here,
    caller: Reader,
    set: SetName,
    model: Annotated[str, Query(max_length=100, description="empty: the first one")] = "",
) -> settings_schemas.SetCheck:
    """What `snl doctor` says of its images, and images that look unlike the others. It takes up to
    a minute; of a large set evenly spaced images are looked at. One at a time."""
    try:
        found = await run_in_threadpool(context.service.set_checks.check, set, model)
    except BusyError as error:
        raise RefusedError(429, "busy", str(error), **{"Retry-After": "10"}) from None
    return settings_schemas.SetCheck(
        images=found.images,
        checked=found.checked,
        compared=found.compared,
        model=found.model,
        findings=[settings_schemas.Finding(**vars(one)) for one in found.findings],
        odd=[settings_schemas.OddImage(**vars(one)) for one in found.odd],
    )


@routes.delete("/v1/sets/{set}", summary="Delete a set", status_code=204)
async def delete_set(context: Here, caller: Admin, set: SetName) -> None:
    await run_in_threadpool(context.service.sets.delete, set, caller.name)


@routes.delete("/v1/sets/{set}/images/{id}", summary="Delete an image of a set", status_code=204)
async def delete_image(context: Here, caller: Admin, set: SetName, id: str) -> None:
    await run_in_threadpool(context.service.sets.delete, set, caller.name, id)


@routes.post("/v1/jobs", summary="Start a job", status_code=202)
async def submit(context: Here, caller: Admin, new: schemas.NewJob) -> schemas.Job:
    """Jobs run one after another, in processes of their own. What a job makes is a candidate."""
    if new.kind != "train" and not new.product:
        raise SettingsError(f"{new.kind}: give the product")
    settings = new.model_dump(exclude={"kind", "model"}, exclude_none=True)
    return _job(
        await run_in_threadpool(
            context.service.jobs.submit, new.kind, new.model, settings, caller.name
        )
    )


@routes.get("/v1/jobs", summary="The newest jobs")
async def jobs(
    context: Here, caller: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[schemas.Job]:
    return [_job(row) for row in await run_in_threadpool(context.service.jobs.newest, limit)]


@routes.get("/v1/jobs/{id}", summary="A job")
async def job(context: Here, caller: Reader, id: str) -> schemas.Job:
    return _job(await run_in_threadpool(context.service.jobs.row, id))


@routes.get("/v1/jobs/{id}/log", summary="What a job wrote")
async def job_log(context: Here, caller: Admin, id: str) -> Response:
    text = await run_in_threadpool(context.service.jobs.log, id)
    return Response(text, media_type="text/plain; charset=utf-8")


@routes.post("/v1/jobs/{id}/cancel", summary="Cancel a job")
async def cancel(context: Here, caller: Admin, id: str) -> schemas.Job:
    return _job(await run_in_threadpool(context.service.jobs.cancel, id, caller.name))


def _job(row: JobRow) -> schemas.Job:
    return schemas.Job(
        id=row.id,
        kind=row.kind,
        model=row.model,
        settings=row.settings,
        created=row.created,
        who=row.who,
        state=row.state,  # type: ignore[arg-type]
        started=row.started,
        finished=row.finished,
        progress=row.progress,
        error=row.error,
        result=row.result,
    )
