"""Sessions of browsers, which cannot send a token with an image or a stream."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from snl.service.access import Caller, caller_of
from snl.service.api.answers import RefusedError
from snl.service.api.context import COOKIE, Here, Reader
from snl.service.api.station_schemas import NewSession, Session

routes = APIRouter(tags=["session"])

SESSION_SECONDS = 12 * 3600
"""How long a browser stays signed in: a long shift."""


@routes.post("/v1/session", summary="Sign a browser in")
async def sign_in(
    request: Request, response: Response, context: Here, given: NewSession
) -> Session:
    """The token is kept in a cookie that scripts cannot read and other sites cannot use."""
    token = given.token.strip()
    caller = await run_in_threadpool(caller_of, context.service.store, token)
    if caller is None:
        raise RefusedError(401, "no_access", "this token is not valid; ask for a new one")
    response.set_cookie(
        COOKIE,
        token,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _session(caller, False)


@routes.get("/v1/session", summary="Who is signed in")
async def session(context: Here, caller: Reader) -> Session:
    return _session(caller, context.settings.open)


@routes.delete("/v1/session", summary="Sign a browser out", status_code=204)
async def sign_out(response: Response) -> None:
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def _session(caller: Caller, is_open: bool) -> Session:
    return Session(name=caller.name, role=caller.role, open=is_open)  # type: ignore[arg-type]
