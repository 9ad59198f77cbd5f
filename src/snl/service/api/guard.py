"""What stands before every request: limits and numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snl.service.access import is_loopback
from snl.service.api.answers import HEADERS, RefusedError, answer
from snl.service.api.limits import RateLimit
from snl.service.models import Models
from snl.service.service import Service
from snl.service.store import StoreError

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
        body_seconds: within which a body must have come.
        requests_per_second: of one address, on average; 0: any number.
        burst: requests of one address at once.
    """

    open: bool = False
    most_bytes: int = MOST_BYTES
    most_model_bytes: int = MOST_MODEL_BYTES
    seconds: float = 30.0
    body_seconds: float = 60.0
    requests_per_second: float = 0.0
    burst: int = 200


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
        models = service.models
        self.registry.register(_QueueNumbers(models))
        Gauge(
            "snl_shadow_dropped",
            "Inspections that a shadow version left out",
            registry=self.registry,
        ).set_function(lambda: service.shadows.dropped)
        self.registry.register(_SinkNumbers(service))

    def text(self) -> bytes:
        """Return all numbers in Prometheus's format."""
        return generate_latest(self.registry)


class _SinkNumbers(Collector):
    """Numbers of the sinks there are when they are asked for."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers; none while the store cannot be used."""
        waiting = GaugeMetricFamily(
            "snl_sink_waiting", "Events that a sink has not delivered yet", labels=["sink"]
        )
        dead = GaugeMetricFamily("snl_sink_dead", "Dead letters of a sink", labels=["sink"])
        with suppress(StoreError):
            for name, counts in self.service.sinks.counts().items():
                for family, count in zip((waiting, dead), counts, strict=True):
                    family.add_metric([name], count)
        yield from (waiting, dead)


class _QueueNumbers(Collector):
    """Numbers of the models there are when they are asked for."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers."""
        waiting = GaugeMetricFamily("snl_images_waiting", "Images in the queue", labels=["model"])
        for name in self.models.names():
            waiting.add_metric([name], self.models.active(name).batcher.length)
        yield waiting


class Guard:
    """ASGI middleware: limits requests, counts them, and sets the headers of every answer.

    Args:
        app: that answers.
        settings: limits.
        metrics: that count.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._rates = RateLimit(settings.requests_per_second, settings.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self.metrics.requests.labels(scope["method"], str(message["status"])).inc()
            await send(message)

        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self.app(scope, self._in_time(receive), send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return why a request is not looked at; None: it is."""
        settings = self.settings
        length = request.headers.get("content-length", "")
        is_model = request.url.path == "/v1/models"
        most = settings.most_model_bytes if is_model else settings.most_bytes
        client = request.client.host if request.client is not None else ""
        if seconds := self._rates.wait(client):
            retry = {"Retry-After": str(max(1, round(seconds)))}
            return answer(429, "rate", "too many requests; try again later", retry)
        if length.isdecimal() and int(length) > most:
            return answer(413, "too_large", f"the body is larger than {most} bytes")
        if settings.open and not _is_from_here(request):
            return answer(
                403, "origin", "without a token only programs of this machine may use the server"
            )
        if request.method in ("POST", "PUT", "PATCH") and not length.isdecimal():
            return answer(411, "no_length", "give the Content-Length")
        return None

    def _in_time(self, receive: Receive) -> Receive:
        """Return a `receive` that ends bodies which come too slowly."""
        end = time.monotonic() + self.settings.body_seconds
        complete = False

        async def receive_in_time() -> Message:
            nonlocal complete
            if complete:  # what follows is the end of the connection
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                complete = True
                raise RefusedError(
                    408, "slow", "the body came too slowly", Connection="close"
                ) from None
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        return receive_in_time


def _is_from_here(request: Request) -> bool:
    """Return whether neither the address that was asked for nor the page that asks is another's: a
    browser on this machine also runs pages of others."""
    origin = request.headers.get("origin")
    try:
        hosts = [request.url.hostname, *([] if origin is None else [urlsplit(origin).hostname])]
    except ValueError:
        return False
    return all(host is not None and is_loopback(host) for host in hosts)
