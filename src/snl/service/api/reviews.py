"""What people say about inspections."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from snl.service.api import schemas
from snl.service.api.answers import RefusedError
from snl.service.api.context import Here, Reader, Reviewer
from snl.service.api.inspections import found, shown
from snl.service.api.station_schemas import Seen, SeenCount
from snl.service.tables import ReviewRow

routes = APIRouter(tags=["reviews"])


@routes.post("/v1/inspections/{id}/review", summary="Review an inspection")
async def review(
    id: str, new: schemas.NewReview, context: Here, caller: Reviewer
) -> schemas.Review:
    row = ReviewRow(
        inspection=id,
        created=datetime.now().astimezone(),
        who=caller.name,
        verdict=new.verdict,
        note=new.note,
        regions=[region.model_dump(mode="json") for region in new.regions],
    )
    if not await run_in_threadpool(context.service.store.review, row):
        raise RefusedError(404, "not_found", f"there is no inspection {id[:40]}")
    return schemas.Review(**new.model_dump(), created=row.created, who=row.who)


@routes.delete("/v1/inspections/{id}/review", summary="Take the last review back")
async def undo(id: str, context: Here, caller: Reviewer) -> schemas.Inspection:
    """The inspection has the verdict of the review before it, or none."""
    await run_in_threadpool(found, context.service.store, id)
    if await run_in_threadpool(context.service.store.undo_review, id, caller.name) is None:
        raise RefusedError(409, "no_review", "this inspection has no review")
    return shown(await run_in_threadpool(found, context.service.store, id))


@routes.post("/v1/inspections/seen", summary="Say that alarms were seen")
async def seen(context: Here, caller: Reviewer, what: Seen) -> SeenCount:
    """They are still to be reviewed."""
    count = await run_in_threadpool(context.service.store.see, what.ids, caller.name)
    return SeenCount(inspections=count)


@routes.get("/v1/inspections/{id}/reviews", summary="Reviews, oldest first")
async def reviews(id: str, context: Here, caller: Reader) -> list[schemas.Review]:
    await run_in_threadpool(found, context.service.store, id)
    return [
        schemas.Review(
            verdict=row.verdict,  # type: ignore[arg-type]
            note=row.note,
            regions=[schemas.Region(**region) for region in row.regions],
            created=row.created,
            who=row.who,
            withdrawn=row.withdrawn,
        )
        for row in await run_in_threadpool(context.service.store.reviews, id)
    ]
