"""The HTTP API as a FastAPI application."""

from __future__ import annotations

from fastapi import FastAPI

from snl import __version__
from snl.service.api import (
    administration,
    inspections,
    jobs,
    live,
    models,
    operation,
    products,
    reviews,
    schemas,
    session,
    sinks,
    sources,
    statistics,
    tabular,
    thumbnails,
)
from snl.service.api.answers import handle_errors
from snl.service.api.context import Context
from snl.service.api.guard import Guard, Metrics, ServerSettings
from snl.service.api.limits import Admission
from snl.service.service import Service


def make_app(service: Service, settings: ServerSettings | None = None) -> FastAPI:
    """Return the application.

    Args:
        service: that it shows; it belongs to the caller.
        settings: limits.
    """
    settings = settings or ServerSettings()
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
    metrics = Metrics(service)
    app.state.context = Context(
        service, settings, metrics, Admission(service.models.options.waiting)
    )
    handle_errors(app)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    parts = (statistics, live, session)
    for part in (operation, tabular, reviews, inspections, models, jobs, sources, sinks, *parts):
        app.include_router(part.routes)
    for part in (products, thumbnails, administration):
        app.include_router(part.routes)
    return app
