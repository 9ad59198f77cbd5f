"""Inspections as tables for spreadsheets and programs of analysis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Send

from snl.dependencies import require
from snl.errors import DependencyError
from snl.service import tabular
from snl.service.api import schemas
from snl.service.api.answers import RefusedError
from snl.service.api.context import Context, Here, Reader
from snl.service.store import Filter, StoreError

log = logging.getLogger("snl.service")

routes = APIRouter(tags=["inspections"])

_CSV = {"text/csv": {"schema": {"type": "string"}}}
_PARQUET = {"application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}}}


class _Table(StreamingResponse):
    """A file that is made while it is sent.

    If the store fails in the middle, the connection is closed without the end of the body, so that
    no client takes a part for the whole.
    """

    async def stream_response(self, send: Send) -> None:
        """Send all pieces."""
        try:
            await super().stream_response(send)
        except StoreError as error:
            log.error("an export was broken off: %s", error)


def wanted(
    product: Annotated[str, Query(max_length=200)] = "",
    decision: schemas.Decision | None = None,
    review: Annotated[str, Query(description="a verdict, or `none`: not reviewed")] = "",
    since: datetime | None = None,
    until: datetime | None = None,
    model: Annotated[str, Query(max_length=100, description="name, or id of a version")] = "",
    part: Annotated[str, Query(max_length=200)] = "",
) -> Filter:
    return Filter(product, decision or "", review, since, until, model=model, part=part)


Wanted = Annotated[Filter, Depends(wanted)]


@routes.get(
    "/v1/inspections.csv",
    summary="Inspections as CSV, oldest first",
    response_class=_Table,
    responses={200: {"content": _CSV}},
)
async def as_csv(context: Here, caller: Reader, which: Wanted) -> StreamingResponse:
    """Times are in UTC. Texts that a spreadsheet would take as formulas get an apostrophe first."""
    return await _sent(context, which, tabular.csv_of, "text/csv; charset=utf-8", "csv")


@routes.get(
    "/v1/inspections.parquet",
    summary="Inspections as Parquet, oldest first",
    response_class=_Table,
    responses={200: {"content": _PARQUET}},
)
async def as_parquet(context: Here, caller: Reader, which: Wanted) -> StreamingResponse:
    """The columns of the CSV file, with types."""
    try:
        require(("pyarrow",), "parquet", "Parquet")
    except DependencyError as error:
        raise RefusedError(501, "no_pyarrow", f"the server lacks a package: {error}") from None
    kind = "application/vnd.apache.parquet"
    return await _sent(context, which, tabular.parquet_of, kind, "parquet")


async def _sent(
    context: Context,
    which: Filter,
    form: Callable[[Iterable[tabular.Rows]], Iterator[bytes]],
    kind: str,
    suffix: str,
) -> StreamingResponse:
    """Return the answer; its first piece is made before, so that a refusal has a status."""
    pieces = form(tabular.pages(context.service.store, which))
    first = await run_in_threadpool(next, pieces)

    def rest() -> Iterator[bytes]:
        yield first
        yield from pieces

    name = {"Content-Disposition": f'attachment; filename="inspections.{suffix}"'}
    return _Table(rest(), media_type=kind, headers=name)
