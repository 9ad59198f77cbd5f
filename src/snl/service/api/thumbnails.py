"""Thumbnails of the images of sets and of inspections."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from snl.errors import DataError, ImageError
from snl.service.api.answers import RefusedError
from snl.service.api.context import Here, Reader
from snl.service.api.inspections import found
from snl.service.service import Service

routes = APIRouter(tags=["images"])

Size = Annotated[int, Query(ge=64, le=2048, description="longest side in pixels")]

_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}
_KEEP = {"Cache-Control": "private, max-age=31536000, immutable"}
"""The image of an id never changes."""


@routes.get(
    "/v1/sets/{set}/images/{id}/thumbnail.jpg",
    summary="A thumbnail of an image of a set",
    response_class=Response,
    responses=_JPEG,
)
async def of_set(
    context: Here,
    caller: Reader,
    set: Annotated[str, Path(max_length=100)],
    id: str,
    size: Size = 256,
) -> Response:
    service = context.service
    row = await run_in_threadpool(service.sets.image, set, id)
    level = service.models.limits()[1]
    return await run_in_threadpool(_thumbnail, service, row.image, size, level)


@routes.get(
    "/v1/inspections/{id}/thumbnail.jpg",
    summary="A thumbnail of the image",
    response_class=Response,
    responses=_JPEG,
)
async def of_inspection(context: Here, caller: Reader, id: str, size: Size = 256) -> Response:
    service = context.service
    row = await run_in_threadpool(found, service.store, id)
    if not row.bytes:
        raise RefusedError(404, "gone", "the image of this inspection is no longer kept")
    traits = await run_in_threadpool(service.models.read, row.model)
    return await run_in_threadpool(_thumbnail, service, row.image, size, traits.white_level)


def _thumbnail(service: Service, image: str, size: int, white_level: int) -> Response:
    most = service.models.limits()[0]
    try:
        content = service.thumbnails.jpeg(image, size, max_pixels=most, white_level=white_level)
    except ImageError as error:
        raise RefusedError(422, "bad_image", str(error)) from None
    except DataError as error:
        raise RefusedError(404, "gone", str(error)) from None
    return Response(content, media_type="image/jpeg", headers=_KEEP)
