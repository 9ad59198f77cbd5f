"""Find the range of sample values that a data set uses, where its files do not state it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from snl.data.budget import Budget
from snl.data.records import Record
from snl.data.samples import FULL_SCALE, Samples, samples_of
from snl.data.source import opened
from snl.data.upright import decoded
from snl.errors import ImageError
from snl.limits import MAX_PIXELS

LEVELS = (255, 1023, 4095, 16383, FULL_SCALE)
"""Largest values of samples of 8, 10, 12, 14 and 16 bits."""
_DECODED_BYTES = 2**30


@dataclass(frozen=True)
class SampleRange:
    """What is known about the samples of the images of a data set.

    Attributes:
        headers: what the header of every readable image says.
        highest: by product, the largest sample of the images of more than 8 bits whose files do
            not state their range; products without such images are missing.
    """

    headers: tuple[Samples, ...]
    highest: Mapping[str, int]

    @property
    def level(self) -> int:
        """The white level of the data set: the largest of all products; 0: none is needed."""
        return max(map(level_of, self.highest.values()), default=0)

    def kinds(self, white_level: int) -> dict[str, int]:
        """Return the number of images of each kind, such as `12-bit grey`."""
        counts = Counter(samples.kind(white_level) for samples in self.headers)
        return dict(sorted(counts.items()))


def level_of(highest: int) -> int:
    """Return the smallest usual white level that is at least the largest sample."""
    return next(level for level in LEVELS if level >= highest)


def bits_of(level: int) -> str:
    """Return a white level with its number of bits, for messages."""
    return f"{level} ({level.bit_length()} bits)" if level in LEVELS else str(level)


def sample_range(
    records: Sequence[Record],
    *,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleRange:
    """Return the range of sample values that images use.

    All headers are read. Only images of more than 8 bits per sample whose files do not state their
    range are decoded. Unreadable images are left out.

    Args:
        records: of the images.
        max_pixels: largest allowed height times width; larger images are left out.
        workers: number of decoding threads; None: one per core, at most 8.
        progress: called with (done, total) while images are decoded.
    """
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        headers = list(pool.map(lambda r: _header(r, max_pixels), records))
        unstated = [r for r, header in zip(records, headers, strict=True) if header and header.open]
        highest: dict[str, int] = {}
        numbered = enumerate(_highest(pool, unstated, max_pixels), start=1)
        for done, (record, value) in numbered:
            if value is not None:
                highest[record.product] = max(highest.get(record.product, 0), value)
            if progress:
                progress(done, len(unstated))
    return SampleRange(tuple(header for header in headers if header), dict(sorted(highest.items())))


def describe(found: SampleRange, chosen: int = 0) -> list[str]:
    """Return sentences about the white level of a data set; none if all files state it.

    Args:
        found: in the data set.
        chosen: the white level that the user chose; 0: the one that was found.
    """
    if not found.highest:
        return []
    highest = max(found.highest.values())
    if chosen:
        if highest <= chosen:
            return []
        return [
            f"samples above the white level {chosen} are clipped, and images use values up to "
            f"{highest}; {bits_of(found.level)} would fit"
        ]
    notes = [
        f"images use values up to {highest}: white level {bits_of(found.level)}; change it with "
        "--set white_level=N"
    ]
    lower = {p: v for p, v in found.highest.items() if level_of(v) < found.level}
    if lower:
        each = ", ".join(f"'{product}' (up to {value})" for product, value in lower.items())
        notes.append(f"products that use less of this range, so their images are darker: {each}")
    return notes


def _header(record: Record, max_pixels: int) -> Samples | None:
    try:
        with opened(record.path, max_pixels=max_pixels) as image:
            return samples_of(image)
    except ImageError:
        return None


def _highest(
    pool: ThreadPoolExecutor, records: Sequence[Record], max_pixels: int
) -> Iterator[tuple[Record, int | None]]:
    """Yield the largest sample of each image, None if it cannot be decoded, in bounded memory."""
    budget = Budget(_DECODED_BYTES)

    def highest(number: int) -> int | None:
        try:
            with decoded(
                records[number].path,
                max_pixels=max_pixels,
                admit=lambda size, _: budget.admit(number, size),
            ) as image:
                return image.highest
        except ImageError:
            return None
        finally:
            budget.settle(number)

    futures = [pool.submit(highest, number) for number in range(len(records))]
    try:
        for number, future in enumerate(futures):
            budget.wait_for(number)
            yield records[number], future.result()
    finally:
        budget.close()
        for future in futures:
            future.cancel()
