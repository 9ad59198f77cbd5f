"""What the routes get: the service, and who sent the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from snl.service.access import LOCAL, Caller, caller_of
from snl.service.api.answers import RefusedError
from snl.service.api.guard import Metrics, ServerSettings
from snl.service.api.limits import Admission
from snl.service.service import Service

COOKIE = "snl_session"
"""Cookie of a browser that has signed in; its value is the token."""
_BEARER = HTTPBearer(
    auto_error=False,
    description="of `snl token create`; a server without a token, which only this machine can "
    "reach, needs none",
)


@dataclass(frozen=True)
class Context:
    """The service with its limits and numbers.

    Attributes:
        service: that the API shows.
        settings: limits.
        metrics: numbers for Prometheus.
        admission: bounds the images that are inspected at a time.
    """

    service: Service
    settings: ServerSettings
    metrics: Metrics
    admission: Admission


def context_of(request: Request) -> Context:
    """Return the context of the application that a request came to."""
    context: Context = request.app.state.context
    return context


def require(role: str) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency: the caller, who must have a role."""

    async def caller(
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> Caller:
        context = context_of(request)
        has_none = not request.headers.get("authorization")
        found: Caller | None = LOCAL if context.settings.open and has_none else None
        token = given.credentials.strip() if given is not None else ""
        if has_none and not context.settings.open and (token := request.cookies.get(COOKIE, "")):
            _check_origin(request)
        if token:
            found = await run_in_threadpool(caller_of, context.service.store, token)
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


def _check_origin(request: Request) -> None:
    """Check that a change comes from a page of this server: a browser adds cookies by itself.

    Raises:
        RefusedError: it may come from a page of somebody else.
    """
    if request.method in ("GET", "HEAD"):
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    own = urlsplit(origin).netloc == request.headers.get("host") if origin else False
    if not own or site not in (None, "same-origin"):
        raise RefusedError(403, "origin", "only the pages of this server may use a session")


Here = Annotated[Context, Depends(context_of)]
Reader = Annotated[Caller, Depends(require("read"))]
Sender = Annotated[Caller, Depends(require("inspect"))]
Reviewer = Annotated[Caller, Depends(require("review"))]
Admin = Annotated[Caller, Depends(require("admin"))]
