"""What administrators set up while the service runs: tokens, retention, backups."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from snl.errors import SnlError
from snl.service import access
from snl.service.api import schemas
from snl.service.api import settings_schemas as shown
from snl.service.api.answers import RefusedError
from snl.service.api.context import Admin, Context, Here
from snl.service.download import BusyError, Download
from snl.service.retention import Limits
from snl.service.store import LastAdminError, NotThereError, StoreError
from snl.service.tables import TokenRow

log = logging.getLogger("snl.service")

routes = APIRouter(tags=["settings"])

_TAR = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}


# --- tokens ---


@routes.get("/v1/tokens", summary="The tokens, oldest first")
async def tokens(context: Here, caller: Admin) -> list[shown.Token]:
    return [_token(row) for row in await run_in_threadpool(context.service.store.tokens)]


@routes.post("/v1/tokens", summary="Create a token", status_code=201)
async def create_token(context: Here, caller: Admin, new: shown.NewToken) -> shown.CreatedToken:
    """Its text is in this answer alone: the store keeps its hash."""
    store = context.service.store
    text = await run_in_threadpool(access.create, store, new.name, new.role, caller.name)
    row = await run_in_threadpool(store.token, text.split("_")[1])
    assert row is not None
    return shown.CreatedToken(
        **_token(row).model_dump(), token=text, needs_restart=context.settings.open
    )


@routes.delete("/v1/tokens/{id}", summary="Revoke a token", status_code=204)
async def revoke_token(context: Here, caller: Admin, id: str) -> None:
    """The last token with the role admin cannot be revoked, unless the server needs no token."""
    keep, store = not context.settings.open, context.service.store

    def revoke() -> bool:
        return store.revoke(id, caller.name, keep_admin=keep)

    try:
        done = await run_in_threadpool(revoke)
    except LastAdminError as error:
        raise RefusedError(409, "last_admin", str(error)) from None
    if not done:
        raise NotThereError(f"no token in use has the id {id[:40]}")


def _token(row: TokenRow) -> shown.Token:
    return shown.Token(
        id=row.id,
        name=row.name,
        role=row.role,  # type: ignore[arg-type]
        created=row.created,
        revoked=row.revoked,
    )


# --- retention ---


@routes.put("/v1/storage", summary="Change how much is kept")
async def change_limits(context: Here, caller: Admin, new: shown.NewLimits) -> schemas.Storage:
    """At once, and also after a restart: from now on these limits count, not the configuration's.
    What is beyond them is deleted, see `GET /v1/storage`."""
    size = None if new.keep_gigabytes is None else int(new.keep_gigabytes * 1e9)
    return await _limit(context, Limits(size, new.keep_days), caller.name, new.why)


@routes.delete("/v1/storage/limits", summary="Use the limits of the configuration again")
async def reset_limits(
    context: Here, caller: Admin, why: Annotated[str, Query(max_length=1000)] = ""
) -> schemas.Storage:
    return await _limit(context, None, caller.name, why)


async def _limit(context: Context, limits: Limits | None, who: str, why: str) -> schemas.Storage:
    retention = context.service.retention
    await run_in_threadpool(retention.limit, limits, who, why)
    return schemas.Storage(**vars(await run_in_threadpool(retention.storage)))


# --- backups ---


class _Backup(StreamingResponse):
    """A backup that is made while it is sent.

    If it cannot be made to its end, the connection is closed without the end of the body, so that
    no client takes a part for the whole.
    """

    def __init__(self, download: Download, first: bytes) -> None:
        self._download = download
        name = {"Content-Disposition": f'attachment; filename="{download.name}"'}
        super().__init__(self._pieces(first), media_type="application/x-tar", headers=name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; nothing is left of it when the client goes away."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._download.stop()

    async def stream_response(self, send: Send) -> None:
        """Send all pieces."""
        try:
            await super().stream_response(send)
        except (SnlError, OSError) as error:
            log.error("a backup was broken off: %s", error)

    async def _pieces(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        while (piece := await run_in_threadpool(self._download.read)) is not None:
            yield piece


@routes.get(
    "/v1/backup",
    summary="Download a backup",
    response_class=StreamingResponse,
    responses={200: {"content": _TAR}},
)
async def backup(context: Here, caller: Admin) -> StreamingResponse:
    """The file that `snl backup FILE` writes, made while it is sent; `snl backup --check FILE`
    reads all of it. One at a time."""
    try:
        download = await run_in_threadpool(context.service.downloads.start, caller.name)
    except BusyError as error:
        raise RefusedError(409, "busy", str(error)) from None
    try:
        first = await run_in_threadpool(download.read)
    except BaseException as error:
        download.stop()
        if isinstance(error, StoreError) or not isinstance(error, SnlError | OSError):
            raise
        text = "the backup cannot be made; the log of the server has the reason"
        raise RefusedError(503, "backup", text) from None
    return _Backup(download, first or b"")
