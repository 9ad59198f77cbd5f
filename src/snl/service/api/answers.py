"""Refusals: every error is answered with a code and a message, and none with internals."""

import logging
import time

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from snl.errors import SnlError
from snl.service.api import schemas
from snl.service.store import NotThereError, StoreError

log = logging.getLogger("snl.service")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every answer."""


class RefusedError(Exception):
    """An answer with a status and a message."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


def without_store(error: StoreError) -> RefusedError:
    """Return the refusal while the store cannot be used; the log has the reason, which may name a
    host or a path, at most every ten seconds."""
    global _logged
    if time.monotonic() - _logged > 10:
        _logged = time.monotonic()
        log.error("%s", error)
    text = "the store cannot be used now; try again later"
    return RefusedError(503, "store", text, **{"Retry-After": "5"})


_logged = -float("inf")


def handle_errors(app: FastAPI) -> None:
    """Answer every error with a code and a message, and none with internals."""

    @app.exception_handler(RefusedError)
    async def problem(_: Request, error: RefusedError) -> JSONResponse:
        return answer(error.status, error.code, str(error), error.headers)

    @app.exception_handler(StarletteHTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        codes = {400: "bad_request", 404: "not_found", 405: "method"}
        code = codes.get(error.status_code, "refused")
        return answer(error.status_code, code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        texts = [
            f"{'.'.join(str(place) for place in one['loc'])}: {one['msg']}"
            for one in error.errors()[:3]
        ]
        return answer(422, "bad_request", "; ".join(texts))

    @app.exception_handler(StoreError)
    async def no_store(_: Request, error: StoreError) -> JSONResponse:
        refused = without_store(error)
        return answer(refused.status, refused.code, str(refused), refused.headers)

    @app.exception_handler(ClientDisconnect)
    async def cut(_: Request, error: ClientDisconnect) -> JSONResponse:
        return answer(400, "cut", "the connection ended before the body did")  # nobody reads it

    @app.exception_handler(NotThereError)
    async def missing(_: Request, error: NotThereError) -> JSONResponse:
        return answer(404, "not_found", str(error))

    @app.exception_handler(SnlError)
    async def refused(_: Request, error: SnlError) -> JSONResponse:
        return answer(422, "bad_request", str(error))

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        log.exception("a defect", exc_info=error)
        return answer(500, "defect", "the server has a defect; its log has the details")


def answer(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    text = " ".join(message.split())[:500]
    answer = schemas.ProblemAnswer(error=schemas.Problem(code=code, message=text))
    return JSONResponse(answer.model_dump(), status, headers={**HEADERS, **(headers or {})})
