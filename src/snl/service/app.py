"""The HTTP API: FastAPI over one line (a model with its store)."""

# no postponed annotations: FastAPI could not resolve those of the routes, which are local

import asyncio
import logging
import time
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from snl import __version__
from snl.errors import ImageError, SettingsError
from snl.service import pictures, schemas
from snl.service.access import Caller
from snl.service.answers import RefusedError, handle_errors
from snl.service.batching import ClosedError, FullError, LateError
from snl.service.guard import Access, Metrics, ServerSettings, guard
from snl.service.inspecting import Line, Upload
from snl.service.store import DuplicateError, Filter, Store, StoreError
from snl.service.tables import InspectionRow, ReviewRow

log = logging.getLogger("snl.service")

MOST_IMAGES = 32
"""Images of one request."""
PAGE, MOST_PAGE = 50, 1000
"""Inspections of a page, and the most that a client may ask for."""


def make_app(line: Line, settings: ServerSettings | None = None) -> FastAPI:
    """Return the application.

    Args:
        line: that inspects; it and its store belong to the caller.
        settings: limits.
    """
    settings = settings or ServerSettings()
    store = line.store

    app = FastAPI(
        title="snl inspection service",
        version=__version__,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        responses={
            status: {"model": schemas.ProblemAnswer}
            for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)
        },
    )
    metrics = Metrics(line)
    handle_errors(app)
    guard(app, settings, metrics)
    access = Access(store, settings)

    @app.get("/", include_in_schema=False)
    async def root() -> dict[str, str]:
        return {"service": f"snl {__version__}", "api": "/v1/openapi.json", "ready": "/readyz"}

    @app.get("/healthz", tags=["operation"], summary="Whether the process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], summary="Whether requests can be served")
    async def readyz() -> dict[str, str]:
        await run_in_threadpool(store.check)
        return {"status": "ready"}

    @app.get("/metrics", tags=["operation"], summary="Numbers for Prometheus")
    async def show_metrics(caller: Annotated[Caller, Depends(access("read"))]) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post(
        "/v1/inspections",
        tags=["inspections"],
        summary="Inspect one or several images",
        openapi_extra=_UPLOAD,
    )
    async def inspect(
        request: Request,
        caller: Annotated[Caller, Depends(access("inspect"))],
        product: Annotated[str | None, Query(description="that the images show")] = None,
        part: Annotated[str, Query(max_length=200, description="physical part")] = "",
        name: Annotated[str, Query(max_length=300, description="of a raw body's image")] = "",
        timeout: Annotated[float | None, Query(gt=0, le=600, description="seconds")] = None,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=180)] = None,
    ) -> schemas.InspectedAll:
        """The body is an image file, or a form with one or several files. An answer means that the
        inspections are in the store. A request that is repeated with its `Idempotency-Key` gets
        the inspection of the first one."""
        deadline = time.monotonic() + (timeout or settings.seconds)
        images = await _images(request, name)
        uploads = [
            Upload(
                content,
                called,
                product or None,
                part,
                None if idempotency_key is None else f"{caller.name}/{idempotency_key}/{number}",
                caller.name,
                deadline,
            )
            for number, (called, content) in enumerate(images)
        ]
        results = await asyncio.gather(  # together, so that they make a batch
            *(run_in_threadpool(_inspect, line, upload, metrics) for upload in uploads)
        )
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

    @app.get("/v1/inspections", tags=["inspections"], summary="List inspections, newest first")
    async def inspections(
        caller: Annotated[Caller, Depends(access("read"))],
        product: Annotated[str, Query(max_length=200)] = "",
        decision: schemas.Decision | None = None,
        review: Annotated[str, Query(description="a verdict, or `none`: not reviewed")] = "",
        since: datetime | None = None,
        until: datetime | None = None,
        after: Annotated[str, Query(max_length=32, description="cursor of the page")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_PAGE)] = PAGE,
    ) -> schemas.Page:
        which = Filter(product, decision or "", review, since, until, after)
        rows = await run_in_threadpool(store.list, which, limit + 1)
        more = rows[limit - 1].id if len(rows) > limit else None
        return schemas.Page(inspections=[shown(row) for row in rows[:limit]], next=more)

    @app.get("/v1/inspections/{id}", tags=["inspections"], summary="One inspection")
    async def inspection(
        id: str, caller: Annotated[Caller, Depends(access("read"))]
    ) -> schemas.Inspection:
        return shown(await run_in_threadpool(_found, store, id))

    @app.get("/v1/inspections/{id}/image", tags=["inspections"], summary="The image as it came")
    async def image(id: str, caller: Annotated[Caller, Depends(access("read"))]) -> Response:
        row = await run_in_threadpool(_found, store, id)
        content = await run_in_threadpool(line.blobs.get, row.image)
        if content is None:
            raise RefusedError(404, "gone", "the image of this inspection is no longer kept")
        return Response(content, media_type=row.image_type)

    @app.get("/v1/inspections/{id}/map.png", tags=["inspections"], summary="The map, 8 bits")
    async def map_png(id: str, caller: Annotated[Caller, Depends(access("read"))]) -> Response:
        row = await run_in_threadpool(_found, store, id)
        return Response(
            await run_in_threadpool(pictures.map_png, line, row), media_type="image/png"
        )

    @app.get("/v1/inspections/{id}/overlay.png", tags=["inspections"], summary="The overlay")
    async def overlay(id: str, caller: Annotated[Caller, Depends(access("read"))]) -> Response:
        row = await run_in_threadpool(_found, store, id)
        return Response(
            await run_in_threadpool(pictures.overlay_png, line, row), media_type="image/png"
        )

    @app.post("/v1/inspections/{id}/review", tags=["reviews"], summary="Review an inspection")
    async def review(
        id: str, new: schemas.NewReview, caller: Annotated[Caller, Depends(access("review"))]
    ) -> schemas.Review:
        row = ReviewRow(
            inspection=id,
            created=datetime.now().astimezone(),
            who=caller.name,
            verdict=new.verdict,
            note=new.note,
            regions=[region.model_dump(mode="json") for region in new.regions],
        )
        if not await run_in_threadpool(store.review, row):
            raise RefusedError(404, "not_found", f"there is no inspection {id[:40]}")
        return schemas.Review(**new.model_dump(), created=row.created, who=row.who)

    @app.get("/v1/inspections/{id}/reviews", tags=["reviews"], summary="Reviews, oldest first")
    async def reviews(
        id: str, caller: Annotated[Caller, Depends(access("read"))]
    ) -> list[schemas.Review]:
        await run_in_threadpool(_found, store, id)
        return [
            schemas.Review(
                verdict=row.verdict,  # type: ignore[arg-type]
                note=row.note,
                regions=[schemas.Region(**region) for region in row.regions],
                created=row.created,
                who=row.who,
            )
            for row in await run_in_threadpool(store.reviews, id)
        ]

    @app.get("/v1/products", tags=["models"], summary="The known products")
    async def products(
        caller: Annotated[Caller, Depends(access("read"))],
    ) -> list[schemas.Product]:
        return [_product(line, name) for name in line.inspector.products]

    @app.get("/v1/models", tags=["models"], summary="The loaded models")
    async def models(caller: Annotated[Caller, Depends(access("read"))]) -> list[schemas.Model]:
        inspector = line.inspector
        return [
            schemas.Model(
                file=line.name,
                network=inspector.calibration.network,
                calibration=inspector.calibration.created,
                image_size=inspector.image_size,
                products=list(inspector.products),
                device=inspector.engine.device,
            )
        ]

    @app.get("/v1/stats", tags=["operation"], summary="Numbers of inspections")
    async def stats(
        caller: Annotated[Caller, Depends(access("read"))], since: datetime | None = None
    ) -> schemas.Stats:
        counts = await run_in_threadpool(store.counts, since)
        by_product: dict[str, dict[str, int]] = {}
        for (product, decision), count in counts.items():
            by_product.setdefault(product, {})[decision] = count
        return schemas.Stats(total=sum(counts.values()), by_product=by_product)

    return app


# --- what the routes share ---


def _inspect(line: Line, upload: Upload, metrics: Metrics) -> InspectionRow | RefusedError:
    """Inspect an image, or return why not."""
    if upload.key is not None and (earlier := line.store.by_key(upload.key)) is not None:
        return earlier
    began = time.perf_counter()
    try:
        row = line.inspect(upload)
    except DuplicateError:
        assert upload.key is not None
        earlier = line.store.by_key(upload.key)
        return earlier or RefusedError(409, "duplicate", "the request is being processed already")
    except (ImageError, SettingsError) as error:
        return RefusedError(422, "bad_image" if isinstance(error, ImageError) else "bad_request",
                        str(error))  # fmt: skip
    except FullError as error:
        seconds = max(1, round(line.batcher.wait_seconds()))
        return RefusedError(429, "busy", str(error), **{"Retry-After": str(seconds)})
    except (LateError, ClosedError) as error:
        return RefusedError(503, "late" if isinstance(error, LateError) else "closing", str(error))
    except StoreError as error:
        return RefusedError(503, "store", str(error))
    except OSError as error:
        log.error("an inspection could not be stored: %s", error)
        return RefusedError(503, "disk", f"the inspection cannot be stored ({error.strerror})")
    metrics.seconds.observe(time.perf_counter() - began)
    metrics.decisions.labels(row.product, row.decision).inc()
    return row


async def _images(request: Request, name: str) -> list[tuple[str, bytes]]:
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


def _found(store: Store, id: str) -> InspectionRow:
    row = store.inspection(id)
    if row is None:
        raise RefusedError(404, "not_found", f"there is no inspection {id[:40]}")
    return row


def shown(row: InspectionRow) -> schemas.Inspection:
    """Return a row as the API shows it."""
    base = f"/v1/inspections/{row.id}"
    return schemas.Inspection(
        id=row.id,
        created=row.created,
        name=row.name,
        part=row.part,
        decision=row.decision,  # type: ignore[arg-type]
        product=row.product,
        score=row.score,
        p_value=row.p_value,
        review=row.review,  # type: ignore[arg-type]
        network=row.network,
        calibration=row.calibration,
        links={
            "self": base,
            "image": f"{base}/image",
            "map": f"{base}/map.png",
            "overlay": f"{base}/overlay.png",
        },
        result=row.result,
    )


def _product(line: Line, name: str) -> schemas.Product:
    calibration = line.inspector.calibration
    rates = calibration.rates_for(name)
    thresholds = (
        calibration.scores.threshold(rate, name)[0] for rate in (rates.anomalous, rates.uncertain)
    )
    threshold, uncertain = thresholds
    roi = calibration.rois.get(name)
    return schemas.Product(
        name=name,
        held_out_images=len(calibration.sets[name]),
        threshold=threshold,
        uncertain_threshold=uncertain,
        rates=vars(rates),
        roi=None if roi is None else [roi.x, roi.y, roi.width, roi.height],
    )


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
