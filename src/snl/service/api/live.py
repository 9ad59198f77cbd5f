"""A stream of what happens, for pages and programs that want to follow."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from snl.service.api.context import Context, Here, Reader
from snl.service.api.inspections import shown
from snl.service.store import Filter, StoreError

routes = APIRouter(tags=["live"])

BEAT_SECONDS = 15.0
"""A stream on which nothing happens says so this often: proxies close silent connections."""
MOST_SECONDS = 900.0
"""A stream ends after this time, and the client comes back: its token may have been revoked."""
MOST_WAITING = 500
"""Events that may wait for a slow client; with more, `reset` replaces them."""
MOST_MISSED = 200
"""Inspections that are sent after a connection was lost."""


@routes.get(
    "/v1/events",
    summary="What happens, as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    context: Here,
    caller: Reader,
    last_event_id: Annotated[str, Header(max_length=40)] = "",
) -> StreamingResponse:
    """`event: inspection` has a new inspection as JSON and its id as the id of the event: with
    `Last-Event-ID` the stream begins with those that were missed. `event: change` names what
    people or jobs changed, `{"what": "review", "id": ...}`. `event: reset`: too much was missed;
    read everything again."""
    return StreamingResponse(
        _stream(context, last_event_id),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},  # nginx would collect events
    )


async def _stream(context: Context, last: str) -> AsyncIterator[str]:
    loop, service = asyncio.get_running_loop(), context.service
    waiting: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def put(kind: str, id: str) -> None:
        if waiting.qsize() < MOST_WAITING:
            waiting.put_nowait((kind, id))
        elif waiting.qsize() == MOST_WAITING:
            waiting.put_nowait(("reset", ""))

    def listen(kind: str, id: str) -> None:
        try:
            loop.call_soon_threadsafe(put, kind, id)
        except RuntimeError:  # the loop has ended
            return

    end = time.monotonic() + MOST_SECONDS
    with service.feed.listening(listen):
        yield "retry: 2000\n: connected\n\n"
        sent = ""
        if last:
            missed = await run_in_threadpool(
                service.store.list, Filter(after=last, newest_first=False), MOST_MISSED + 1
            )
            if len(missed) > MOST_MISSED:
                yield _event("reset", {})
            else:
                for row in missed:
                    yield _inspection(row)
                    sent = row.id
        while time.monotonic() < end:
            try:
                kind, id = await asyncio.wait_for(waiting.get(), BEAT_SECONDS)
            except TimeoutError:
                yield ": beat\n\n"
                continue
            if kind == "reset":
                while not waiting.empty():
                    waiting.get_nowait()
                yield _event("reset", {})
            elif kind != "inspection":
                yield _event("change", {"what": kind, "id": id})
            elif id > sent:
                yield await run_in_threadpool(_inspection_event, context, id)


def _inspection_event(context: Context, id: str) -> str:
    try:
        row = context.service.store.inspection(id)
    except StoreError:
        return _event("reset", {})
    return ": gone\n\n" if row is None else _inspection(row)


def _inspection(row: Any) -> str:
    return _event("inspection", shown(row).model_dump_json(), row.id)


def _event(kind: str, data: dict[str, str] | str, id: str = "") -> str:
    """Return an event; JSON has no line breaks."""
    text = data if isinstance(data, str) else json.dumps(data)
    return f"{f'id: {id}' + chr(10) if id else ''}event: {kind}\ndata: {text}\n\n"
