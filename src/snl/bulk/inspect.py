"""Inspect one shard: from its images to its rows of results."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snl.bulk.results import Results
from snl.bulk.shards import Columns, Item, Shard, items_of
from snl.errors import DataError, ImageError
from snl.temporary import temporary_folder

if TYPE_CHECKING:
    from snl.decision.calibration import Rates
    from snl.decision.inspection import Inspection
    from snl.runtime.inspector import Inspector

_MEMORY = Path("/dev/shm")
_SINGLE = ("decision", "product", "product_from", "recognised", "score", "calibrated", "p_value",
           "threshold", "threshold_from", "distance", "second_distance", "strangeness",
           "width", "height", "roi", "remarks")  # fmt: skip
"""Values of a result that are columns of the same name."""


@dataclass(frozen=True)
class Work:
    """What is done with every shard; it can be pickled.

    Attributes:
        product: that all images show; None: it is recognised.
        rates: instead of those of the calibration.
        tile: side of tiles; None: as calibrated.
        batch_size: images that the network processes together.
        maps: also store the anomaly maps, float16 at the network's size, as bytes of .npy files.
        columns: of Parquet sources.
    """

    product: str | None = None
    rates: Rates | None = None
    tile: int | None = None
    batch_size: int = 8
    maps: bool = False
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        title: of the shard.
        images, failed: rows written, and how many of them are errors of images.
        error: why the shard was not inspected, one line; empty: it was.
        first_error: of an image.
    """

    title: str
    images: int = 0
    failed: int = 0
    error: str = ""
    first_error: str = ""


def inspect_shard(inspector: Inspector, shard: Shard, results: Results, work: Work) -> Done:
    """Inspect the images of a shard and write their rows, in order.

    An image that cannot be used is a row with its error; of a shard that cannot be read to its end
    nothing is written.

    Raises:
        SnlError: the results cannot be written.
    """
    first_error = ""
    try:
        with results.writing(shard) as writer:
            for row in rows_of(inspector, items_of(shard, work.columns), work):
                writer.add(row)
                first_error = first_error or row.get("error") or ""
    except DataError as error:
        return Done(shard.title, error=str(error))
    return Done(shard.title, writer.count, writer.failed, first_error=first_error)


def rows_of(inspector: Inspector, items: Iterator[Item], work: Work) -> Iterator[dict[str, Any]]:
    """Yield the row of every image, in order, in bounded memory."""
    waiting: dict[int, tuple[Item, str]] = {}
    errors: list[ImageError] = []
    place = _MEMORY if _MEMORY.is_dir() else None
    with temporary_folder("snl-bulk", place) as folder:

        def paths() -> Iterator[str]:
            for number, item in enumerate(items):
                path = item.content
                if isinstance(path, bytes):
                    file = Path(folder, f"{number}{Path(item.name).suffix[:8] or '.img'}")
                    file.write_bytes(path)
                    path = str(file)
                waiting[number] = (Item(item.name, ""), path)
                yield path

        def taken(number: int) -> tuple[Item, str]:
            item, path = waiting.pop(number)
            if path.startswith(str(folder)):
                with suppress(OSError):
                    Path(path).unlink()
            return item, path

        following = itertools.count()

        def rows(result: Inspection) -> Iterator[dict[str, Any]]:
            """Yield the row of a result, after those of the failures before it."""
            for number in iter(following.__next__, result.prediction.index):
                yield _failed(*taken(number), errors)
            item, _ = taken(result.prediction.index)
            yield _row(item.name, result, work.maps)

        last: Inspection | None = None  # the errors before a result are known with the next one
        for result in inspector.stream(
            paths(), work.product, work.rates, work.batch_size, errors.append, tile=work.tile
        ):
            if last is not None:
                yield from rows(last)
            last = result
        if last is not None:
            yield from rows(last)
        for number in sorted(waiting):
            yield _failed(*taken(number), errors)


def _row(name: str, result: Inspection, maps: bool) -> dict[str, Any]:
    record = result.to_dict()
    row = {key: record[key] for key in _SINGLE}
    row["regions"] = [
        {key: region.get(key) for key in ("box", "area", "peak", "peak_at", "p_value")}
        for region in record["regions"]
    ]
    if maps:
        row["map"] = _npy(result)
    return {"id": name, **row}


def _npy(result: Inspection) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, result.prediction.anomaly_map.astype(np.float16))
    return buffer.getvalue()


def _failed(item: Item, path: str, errors: list[ImageError]) -> dict[str, Any]:
    """Return the row of an image whose error is among the errors, from which it is removed."""
    matching = (i for i, error in enumerate(errors) if path in str(error))
    place = next(matching, 0)
    text = str(errors.pop(place)) if errors else "the image cannot be used"
    return {"id": item.name, "error": text.replace(path, item.name)}
