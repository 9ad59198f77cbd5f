"""What the routes get: the service, and who sent the request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.concurrency import run_in_threadpool

from snl.service.access import LOCAL, Caller, caller_of
from snl.service.api.answers import RefusedError
from snl.service.api.guard import Metrics, ServerSettings
from snl.service.service import Service


@dataclass(frozen=True)
class Context:
    """The service with its limits and numbers.

    Attributes:
        service: that the API shows.
        settings: limits.
        metrics: numbers for Prometheus.
    """

    service: Service
    settings: ServerSettings
    metrics: Metrics


def context_of(request: Request) -> Context:
    """Return the context of the application that a request came to."""
    context: Context = request.app.state.context
    return context


def require(role: str) -> Callable[..., Awaitable[Caller]]:
    """Return a dependency: the caller, who must have a role."""

    async def caller(
        request: Request,
        authorization: Annotated[str, Header(description="`Bearer TOKEN`")] = "",
    ) -> Caller:
        context = context_of(request)
        found: Caller | None = LOCAL if context.settings.open and not authorization else None
        kind, _, token = authorization.partition(" ")
        if kind.lower() == "bearer" and token:
            found = await run_in_threadpool(caller_of, context.service.store, token.strip())
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


Here = Annotated[Context, Depends(context_of)]
Reader = Annotated[Caller, Depends(require("read"))]
Sender = Annotated[Caller, Depends(require("inspect"))]
Reviewer = Annotated[Caller, Depends(require("review"))]
Admin = Annotated[Caller, Depends(require("admin"))]
