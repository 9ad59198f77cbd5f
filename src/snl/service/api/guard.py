"""What stands before every request: limits and numbers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from snl.service.access import is_loopback
from snl.service.api.answers import HEADERS, answer
from snl.service.models import Models
from snl.service.service import Service

MOST_BYTES = 64 * 2**20
"""Largest body of a request."""
MOST_MODEL_BYTES = 2**30


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the server.

    Attributes:
        open: whether requests without a token are allowed; only for servers on this machine.
        most_bytes: largest body of a request.
        most_model_bytes: largest model file that may be uploaded.
        seconds: within which a request is answered, if it does not say so itself.
    """

    open: bool = False
    most_bytes: int = MOST_BYTES
    most_model_bytes: int = MOST_MODEL_BYTES
    seconds: float = 30.0


class Metrics:
    """Numbers for Prometheus."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "snl_requests", "Requests by method and status", ["method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "snl_inspection_seconds", "From the image to its row in the store",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10), registry=self.registry,
        )  # fmt: skip
        self.decisions = Counter(
            "snl_inspections", "Inspections by product and decision", ["product", "decision"],
            registry=self.registry,
        )  # fmt: skip
        waiting = Gauge(
            "snl_images_waiting", "Images in the queue", ["model"], registry=self.registry
        )
        models = service.models
        for name in models.names():
            waiting.labels(name).set_function(partial(_waiting, models, name))
        Gauge(
            "snl_shadow_dropped",
            "Inspections that a shadow version left out",
            registry=self.registry,
        ).set_function(lambda: service.shadows.dropped)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's format."""
        return generate_latest(self.registry)


def _waiting(models: Models, name: str) -> float:
    return models.active(name).batcher.length


def guard(app: FastAPI, settings: ServerSettings, metrics: Metrics) -> None:
    """Limit bodies, count requests and set headers."""

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "")
        is_model = request.url.path == "/v1/models"
        most = settings.most_model_bytes if is_model else settings.most_bytes
        if length.isdecimal() and int(length) > most:
            response: Response = answer(413, "too_large", f"the body is larger than {most} bytes")
        elif settings.open and not _is_from_here(request):
            response = answer(
                403, "origin", "without a token only programs of this machine may use the server"
            )
        elif request.method in ("POST", "PUT") and not length.isdecimal():
            response = answer(411, "no_length", "give the Content-Length")
        else:
            response = await go_on(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        metrics.requests.labels(request.method, str(response.status_code)).inc()
        return response


def _is_from_here(request: Request) -> bool:
    """Return whether neither the address that was asked for nor the page that asks is another's: a
    browser on this machine also runs pages of others."""
    origin = request.headers.get("origin")
    hosts = [request.url.hostname, *([] if origin is None else [urlsplit(origin).hostname])]
    return all(host is not None and is_loopback(host) for host in hosts)
