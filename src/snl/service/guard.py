"""What stands before every request: limits, tokens and numbers."""

# no postponed annotations: FastAPI could not resolve those of the dependencies, which are local

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from snl.service.access import LOCAL, Caller, caller_of, is_loopback
from snl.service.answers import HEADERS, RefusedError, answer
from snl.service.inspecting import Line
from snl.service.store import Store

MOST_BYTES = 64 * 2**20
"""Largest body of a request."""


@dataclass(frozen=True)
class ServerSettings:
    """Limits of the server.

    Attributes:
        open: whether requests without a token are allowed; only for servers on this machine.
        most_bytes: largest body of a request.
        seconds: within which a request is answered, if it does not say so itself.
    """

    open: bool = False
    most_bytes: int = MOST_BYTES
    seconds: float = 30.0


class Access:
    """Returns dependencies that require a role."""

    def __init__(self, store: Store, settings: ServerSettings) -> None:
        self.store, self.settings = store, settings

    def __call__(self, role: str) -> Callable[..., Awaitable[Caller]]:
        async def caller(
            authorization: Annotated[str, Header(description="`Bearer TOKEN`")] = "",
        ) -> Caller:
            found: Caller | None = LOCAL if self.settings.open and not authorization else None
            kind, _, token = authorization.partition(" ")
            if kind.lower() == "bearer" and token:
                found = await run_in_threadpool(caller_of, self.store, token.strip())
            if found is None:
                raise RefusedError(
                    401,
                    "no_access",
                    "give a valid token: Authorization: Bearer TOKEN",
                    **{"WWW-Authenticate": "Bearer"},
                )
            if not found.may(role):
                raise RefusedError(
                    403, "role", f"this needs the role {role}; the token has {found.role}"
                )
            return found

        return caller


class Metrics:
    """Numbers for Prometheus."""

    def __init__(self, line: Line) -> None:
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
        waiting = Gauge("snl_images_waiting", "Images in the queue", registry=self.registry)
        waiting.set_function(lambda: line.batcher.length)

    def text(self) -> bytes:
        return generate_latest(self.registry)


def guard(app: FastAPI, settings: ServerSettings, metrics: Metrics) -> None:
    """Limit bodies, count requests and set headers."""

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > settings.most_bytes:
            response: Response = answer(
                413, "too_large", f"the body is larger than {settings.most_bytes} bytes"
            )
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
