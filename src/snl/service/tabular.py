"""Inspections as tables, CSV or Parquet, with the same columns, in pieces of bounded size."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select

from snl.service.store import Filter, Store
from snl.service.tables import InspectionRow, ModelRow, ReviewRow

PAGE = 1000
"""Inspections that are read, and written, at a time."""
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a text that a spreadsheet would take as a formula."""


@dataclass(frozen=True)
class _Source:
    """What a row of the table is made from."""

    row: InspectionRow
    model: ModelRow | None
    review: ReviewRow | None


def _result(name: str) -> Callable[[_Source], Any]:
    return lambda one: one.row.result.get(name)


def _regions(one: _Source) -> str:
    regions = one.row.result.get("regions") or []
    return json.dumps(regions, separators=(",", ":"), ensure_ascii=False)


COLUMNS: Mapping[str, tuple[str, Callable[[_Source], Any]]] = {
    "id": ("text", lambda one: one.row.id),
    "created": ("time", lambda one: one.row.created),
    "name": ("text", lambda one: one.row.name),
    "part": ("text", lambda one: one.row.part),
    "client": ("text", lambda one: one.row.client),
    "product": ("text", lambda one: one.row.product),
    "product_from": ("text", _result("product_from")),
    "decision": ("text", lambda one: one.row.decision),
    "score": ("number", lambda one: one.row.score),
    "p_value": ("number", lambda one: one.row.p_value),
    "threshold": ("number", _result("threshold")),
    "regions": ("text", _regions),
    "model": ("text", lambda one: one.model and one.model.name),
    "version": ("whole", lambda one: one.model and one.model.version),
    "model_id": ("text", lambda one: one.row.model),
    "network": ("text", lambda one: one.row.network),
    "calibration": ("text", lambda one: one.row.calibration),
    "review": ("text", lambda one: one.review and one.review.verdict),
    "review_note": ("text", lambda one: one.review and one.review.note),
    "review_by": ("text", lambda one: one.review and one.review.who),
    "reviewed": ("time", lambda one: one.review and one.review.created),
    "image_sha256": ("text", lambda one: one.row.image),
    "bytes": ("whole", lambda one: one.row.bytes),
}
"""Kind (text, number, whole or time) and value of each column, in their order; None: no value."""

Rows = Sequence[Sequence[Any]]


def pages(store: Store, which: Filter, now: datetime | None = None) -> Iterator[Rows]:
    """Yield the rows of the table, page by page, oldest first; none that came after the begin.

    Args:
        store: of the inspections.
        which: are wanted; their order is not used.
        now: the begin; None: this moment.

    Raises:
        StoreError: it cannot be read now; also after some pages.
    """
    now = now or datetime.now(UTC)
    until = now if which.until is None else min(which.until.astimezone(UTC), now)
    which = replace(which, until=until, newest_first=False)
    while rows := store.list(which, PAGE):
        yield _table(store, rows)
        which = replace(which, after=rows[-1].id)


def _table(store: Store, rows: Sequence[InspectionRow]) -> Rows:
    """Return inspections as rows of the table."""
    ids, versions = [row.id for row in rows], {row.model for row in rows}
    last = select(func.max(ReviewRow.id)).where(
        ReviewRow.inspection.in_(ids), ReviewRow.withdrawn.is_(None)
    )
    newest = select(ReviewRow).where(ReviewRow.id.in_(last.group_by(ReviewRow.inspection)))
    with store.reading() as session:
        models = session.scalars(select(ModelRow).where(ModelRow.id.in_(versions)))
        by_id = {model.id: model for model in models}
        reviews = {review.inspection: review for review in session.scalars(newest)}
    sources = [_Source(row, by_id.get(row.model), reviews.get(row.id)) for row in rows]
    return [[value(one) for _, value in COLUMNS.values()] for one in sources]


def csv_of(tables: Iterable[Rows]) -> Iterator[bytes]:
    """Yield a CSV file (RFC 4180, UTF-8) with a heading.

    A text that a spreadsheet would take as a formula gets an apostrophe before it.
    """
    heading = _lines([list(COLUMNS)])
    kinds = [kind for kind, _ in COLUMNS.values()]
    for rows in tables:
        cells = [[_cell(*one) for one in zip(kinds, row, strict=True)] for row in rows]
        yield heading + _lines(cells)
        heading = b""
    yield heading


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(kind: str, value: Any) -> Any:
    if value is None:
        return ""
    if kind == "time":
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if kind == "text" and value.startswith(_DANGEROUS):
        return f"'{value}"
    return value


def parquet_of(tables: Iterable[Rows]) -> Iterator[bytes]:
    """Yield a Parquet file, a row group for each page. It needs pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "text": pa.string(), "number": pa.float64(), "whole": pa.int64(),
        "time": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    schema = pa.schema([(name, types[kind]) for name, (kind, _) in COLUMNS.items()])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for rows in tables:
            columns = list(zip(*rows, strict=True))
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that is taken piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:
        """Keep the content until `take`."""
        piece = bytes(content)
        self._pieces.append(piece)
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        """Return how much was written."""
        return self._at

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken
