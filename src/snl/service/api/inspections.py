"""Inspect images, and look at what was decided."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import datetime
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from snl.errors import ImageError, SettingsError
from snl.service import events
from snl.service.api import pictures, schemas
from snl.service.api.answers import RefusedError, without_store
from snl.service.api.context import Context, Here, Reader, Sender
from snl.service.api.station_schemas import Nearest
from snl.service.batching import ClosedError, FullError, LateError
from snl.service.models import NoModelError
from snl.service.store import DuplicateError, Filter, Store, StoreError
from snl.service.tables import InspectionRow
from snl.service.upload import Upload

log = logging.getLogger("snl.service")

MOST_IMAGES = 32
"""Images of one request."""
PAGE, MOST_PAGE = 50, 1000
"""Inspections of a page, and the most that a client may ask for."""


_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
        },
    }
}

routes = APIRouter(tags=["inspections"])


@routes.post(
    "/v1/inspections",
    summary="Inspect one or several images",
    openapi_extra=_UPLOAD,
)
async def inspect(
    request: Request,
    context: Here,
    caller: Sender,
    model: Annotated[str, Query(max_length=100, description="empty: the first one")] = "",
    product: Annotated[str | None, Query(description="that the images show")] = None,
    part: Annotated[str, Query(max_length=200, description="physical part")] = "",
    name: Annotated[str, Query(max_length=300, description="of a raw body's image")] = "",
    timeout: Annotated[float | None, Query(gt=0, le=600, description="seconds")] = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=180)] = None,
) -> schemas.InspectedAll:
    """The body is an image file, or a form with one or several files. An answer means that the
    inspections are in the store. A request that is repeated with its `Idempotency-Key` gets
    the inspection of the first one."""
    deadline = time.monotonic() + (timeout or context.settings.seconds)
    key = None if idempotency_key is None else f"{caller.name}/{idempotency_key}"
    admission = context.admission
    try:
        admission.check()  # before the body is read
        images = await images_of(request, name)
        uploads = [
            Upload(
                content,
                called,
                model,
                product or None,
                part,
                None if key is None else f"{key}/{number}",
                caller.name,
                deadline,
            )
            for number, (called, content) in enumerate(images)
        ]
        with admission.admitted(len(uploads)):
            results = await asyncio.gather(  # together, so that they make a batch
                *(
                    run_sync(_inspect, context, upload, limiter=admission.threads)
                    for upload in uploads
                )
            )
    except FullError as error:
        raise _busy(context, model, error) from None
    refused = next((one for one in results if isinstance(one, RefusedError)), None)
    if refused is not None and len(results) == 1:
        raise refused
    return schemas.InspectedAll(
        results=[
            schemas.Inspected(error=schemas.Problem(code=one.code, message=str(one)))
            if isinstance(one, RefusedError)
            else schemas.Inspected(inspection=shown(one))
            for one in results
        ]
    )


@routes.get("/v1/inspections", summary="List inspections, newest first")
async def inspections(
    context: Here,
    caller: Reader,
    product: Annotated[str, Query(max_length=200)] = "",
    decision: schemas.Decision | None = None,
    review: Annotated[str, Query(description="a verdict, or `none`: not reviewed")] = "",
    queue: Annotated[
        schemas.Queue | None, Query(description="what waits for a review; open: all alarms")
    ] = None,
    unseen: Annotated[bool, Query(description="only alarms that nobody has seen")] = False,
    part: Annotated[str, Query(max_length=200)] = "",
    since: datetime | None = None,
    until: datetime | None = None,
    after: Annotated[str, Query(max_length=32, description="cursor of the page")] = "",
    limit: Annotated[int, Query(ge=1, le=MOST_PAGE)] = PAGE,
) -> schemas.Page:
    which = Filter(
        product=product,
        decision=decision or "",
        review=review,
        queue=queue or "",
        unseen=unseen,
        part=part,
        since=since,
        until=until,
        after=after,
    )
    rows = await run_in_threadpool(context.service.store.list, which, limit + 1)
    more = rows[limit - 1].id if len(rows) > limit else None
    return schemas.Page(inspections=[shown(row) for row in rows[:limit]], next=more)


@routes.get("/v1/inspections/{id}", summary="One inspection")
async def inspection(id: str, context: Here, caller: Reader) -> schemas.Inspection:
    return shown(await run_in_threadpool(found, context.service.store, id))


@routes.get("/v1/inspections/{id}/image", summary="The image as it came")
async def image(id: str, context: Here, caller: Reader) -> Response:
    row = await run_in_threadpool(found, context.service.store, id)
    content = await run_in_threadpool(context.service.blobs.get, row.image)
    if content is None:
        raise RefusedError(404, "gone", "the image of this inspection is no longer kept")
    return Response(content, media_type=row.image_type)


@routes.get("/v1/inspections/{id}/map.png", summary="The map, 8 bits")
async def map_png(id: str, context: Here, caller: Reader) -> Response:
    row = await run_in_threadpool(found, context.service.store, id)
    return Response(
        await run_in_threadpool(pictures.map_png, context.service, row), media_type="image/png"
    )


@routes.get("/v1/inspections/{id}/heat.png", summary="The map as a transparent layer of colours")
async def heat(id: str, context: Here, caller: Reader) -> Response:
    row = await run_in_threadpool(found, context.service.store, id)
    return Response(
        await run_in_threadpool(pictures.heat_png, context.service, row), media_type="image/png"
    )


@routes.get("/v1/inspections/{id}/overlay.png", summary="The overlay")
async def overlay(id: str, context: Here, caller: Reader) -> Response:
    row = await run_in_threadpool(found, context.service.store, id)
    return Response(
        await run_in_threadpool(pictures.overlay_png, context.service, row), media_type="image/png"
    )


@routes.get("/v1/inspections/{id}/nearest", summary="The normal image that is most like it")
async def nearest(id: str, context: Here, caller: Reader) -> Nearest:
    """Among the newest stored normal inspections of the same product."""
    row = await run_in_threadpool(found, context.service.store, id)
    other = await run_in_threadpool(context.service.nearest.of, row)
    return Nearest(inspection=None if other is None else shown(other))


def _inspect(context: Context, upload: Upload) -> InspectionRow | RefusedError:
    """Inspect an image, or return why not."""
    service = context.service
    if upload.key is not None and (earlier := service.store.by_key(upload.key)) is not None:
        return earlier
    began = time.perf_counter()
    try:
        row = service.inspect(upload)
    except DuplicateError:
        assert upload.key is not None
        earlier = service.store.by_key(upload.key)
        return earlier or RefusedError(409, "duplicate", "the request is being processed already")
    except NoModelError as error:
        return RefusedError(404, "no_model", str(error))
    except (ImageError, SettingsError) as error:
        return RefusedError(422, "bad_image" if isinstance(error, ImageError) else "bad_request",
                        str(error))  # fmt: skip
    except FullError as error:
        return _busy(context, upload.model, error)
    except LateError as error:
        return RefusedError(408, "late", str(error))
    except ClosedError as error:
        return RefusedError(503, "closing", str(error))
    except StoreError as error:
        return without_store(error)
    except OSError as error:
        log.error("an inspection could not be stored: %s", error)
        return RefusedError(503, "disk", f"the inspection cannot be stored ({error.strerror})")
    context.metrics.seconds.observe(time.perf_counter() - began)
    context.metrics.decisions.labels(row.product, row.decision).inc()
    return row


def _busy(context: Context, model: str, error: FullError) -> RefusedError:
    """Return the refusal while the server is busy, with the time after which it may not be."""
    seconds = max(1, round(context.service.models.active(model).batcher.wait_seconds()))
    return RefusedError(429, "busy", str(error), **{"Retry-After": str(seconds)})


async def images_of(request: Request, name: str) -> list[tuple[str, bytes]]:
    """Return names and contents of the images of a request."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        form = await request.form(max_files=MOST_IMAGES, max_fields=10)
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        images = [(file.filename or "", await file.read()) for file in files]
        await form.close()
    else:
        images = [(name, await request.body())]
    if not images or not any(content for _, content in images):
        raise RefusedError(400, "no_image", "send an image file as the body, or files of a form")
    return images


def found(store: Store, id: str) -> InspectionRow:
    row = store.inspection(id)
    if row is None:
        raise RefusedError(404, "not_found", f"there is no inspection {id[:40]}")
    return row


def shown(row: InspectionRow) -> schemas.Inspection:
    """Return a row as the API shows it."""
    return schemas.Inspection(**events.shown(row))
