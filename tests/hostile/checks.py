"""Checks of results that several kinds use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.hostile.attempt import Check, Command, Result
from tests.hostile.site import Site, strict_json


def decoding(path: Path, reference: NDArray[np.uint8]) -> Command:
    """Return the call that decodes an image and reports how far it is from a reference."""

    def decode() -> dict[str, Any]:
        from snl.data.images import load_image

        pixels = load_image(path)
        if pixels.shape != reference.shape:
            return {"shape": pixels.shape, "difference": 255}
        difference = np.abs(pixels.astype(int) - reference)
        return {"shape": pixels.shape, "difference": int(difference.max())}

    return Command(call=decode)


def pixels_within(tolerance: int = 1) -> Check:
    """Return the check that decoded pixels differ from the reference by at most so much."""

    def check(_: Site, result: Result) -> str | None:
        if result.value["difference"] <= tolerance:
            return None
        return f"pixels differ by {result.value['difference']}, shape {result.value['shape']}"

    return check


def inspected_or_said(count: int) -> Check:
    """Return the check that there are so many results, or fewer and a line that names the output.

    Standard output may be a file on the full disk as well; its last line may be cut off there.
    """

    def check(site: Site, result: Result) -> str | None:
        whole = result.out[: result.out.rfind("\n") + 1]
        try:
            found = [strict_json(line) for line in whole.splitlines()]
        except ValueError as error:
            return f"results cannot be read: {error}"
        if len(found) != count and "standard output cannot be written" not in result.err:
            return f"{len(found)} results instead of {count}, and nothing says so"
        return None

    return check


def inspected(count: int, name: str = "") -> Check:
    """Return the check that there are results of so many images, all finite.

    Args:
        count: of results.
        name: JSON-lines file; empty: standard output.
    """

    def check(site: Site, result: Result) -> str | None:
        try:
            text = (site / name).read_text(encoding="utf-8") if name else result.out
            found = [strict_json(line) for line in text.splitlines() if line.startswith("{")]
        except (OSError, ValueError) as error:
            return f"results cannot be read: {error}"
        if len(found) != count:
            return f"{len(found)} results of {count}"
        for record in found:
            if not math.isfinite(record["score"]) or not record["decision"]:
                return f"score {record['score']}, decision {record['decision']}"
        return None

    return check


def every(*checks: Check) -> Check:
    """Return the check that all of several are satisfied."""

    def check(site: Site, result: Result) -> str | None:
        return next((c for one in checks if (c := one(site, result)) is not None), None)

    return check


def is_json(name: str) -> Check:
    """Return the check that a file exists and is strict JSON."""

    def check(site: Site, _: Result) -> str | None:
        try:
            strict_json((site / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{name}: {error}"
        return None

    return check


def exists(*names: str) -> Check:
    """Return the check that files are there and not empty."""

    def check(site: Site, _: Result) -> str | None:
        missing = [n for n in names if not (site / n).is_file() or not (site / n).stat().st_size]
        return f"missing or empty: {', '.join(missing)}" if missing else None

    return check


def loads(name: str) -> Check:
    """Return the check that a model file can be loaded by `snl info`."""

    def check(site: Site, _: Result) -> str | None:
        result = site.snl("info", name, "--json", "-")
        return None if result.status == 0 else f"{name} cannot be read: {result.err.strip()}"

    return check


def catalog_of(path: Path, layout: str = "auto") -> Command:
    """Return the call that reads a data set: records by relative path, and notes."""

    def read() -> dict[str, Any]:
        import snl

        catalog = snl.Catalog.read(path, layout)
        folder = path.parent if path.is_file() else path
        records = {
            catalog.relative(r.path): {
                "label": r.label,
                "split": r.split,
                "product": r.product,
                "masks": sorted(catalog.relative(m) for m in r.mask),
            }
            for r in catalog.records
        }
        return {"records": records, "notes": list(catalog.notes), "root": str(folder)}

    return Command(call=read)


def value_check(test: Callable[[Any], str | None]) -> Check:
    """Return the check of the value of a call."""

    def check(_: Site, result: Result) -> str | None:
        return test(json.loads(json.dumps(result.value)))

    return check
