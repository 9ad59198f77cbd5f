"""Kind 10: memory stays bounded; the error of a large image names an option that allows it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import partial as bind
from pathlib import Path

import numpy as np

from tests.conftest import TINY_OPTIONS
from tests.hostile import checks
from tests.hostile.attempt import Attempt, Check, Command, Result, refused, right
from tests.hostile.generators.png import chunk
from tests.hostile.site import Site

SIDE = 12_600
"""Pixels of the side of a large image: just below the limit."""
_GB = 10**9


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    lines: dict[str, tuple[Sequence[str], float]] = {
        "inspect": (("inspect", "parts.snl", "in", "--json", "out.jsonl"), 2.0),
        "inspect-batch-1": (
            ("inspect", "parts.snl", "in", "--json", "out.jsonl", "--batch-size", "1"),
            2.0,
        ),
        "inspect-overlays": (
            ("inspect", "parts.snl", "in", "--json", "out.jsonl", "--out", "overlays"),
            4.0,
        ),
        "inspect-labelme": (
            ("inspect", "parts.snl", "in", "--json", "out.jsonl", "--labelme", "labels"),
            2.0,
        ),
        "train": (("train", "data", "-o", "new.snl", *TINY_OPTIONS), 2.0),
        "doctor": (("doctor", "data"), 2.5),
    }
    for name, (line, limit) in lines.items():
        make = bind(_large, line=line, count=5)
        writes = ("out.jsonl", "overlays/*", "labels/*", "new.snl", "new.snl.*", "new.snl.*/*")
        found = checks.inspected(5, "out.jsonl") if name.startswith("inspect") else None
        check = within(limit) if found is None else checks.every(within(limit), found)
        expected = (right(check, status=(0, 1)),)
        yield Attempt(f"memory-{name}", 10, make, expected, writes, timeout=240, alone=True)
    for verb in ("inspect", "train", "doctor", "calibrate", "evaluate"):
        yield Attempt(
            f"memory-above-limit-{verb}",
            10,
            bind(_above, verb=verb),
            (right(_option_works, status=(0, 1, 2)),),
            ("new.snl", "new.snl.*", "new.snl.*/*", "parts.snl"),
            timeout=120,
            alone=True,
        )
    for name, size in (
        ("wide", (1, 3_000_000)),
        ("tall", (3_000_000, 1)),
        ("line-scan", (60_000, 64)),
    ):

        def odd(site: Site, size: tuple[int, int] = size) -> Command:
            site.bundle()
            (site / "in").mkdir()
            write_large(site / "in/a.png", *size)
            line = [
                "inspect",
                "parts.snl",
                "in",
                "--json",
                "out.jsonl",
                "--out",
                "overlays",
                "--quiet",
            ]
            return Command(line)

        expected = (right(checks.inspected(1, "out.jsonl"), status=(0, 2)), refused())
        yield Attempt(
            f"shape-{name}",
            10,
            odd,
            expected,
            ("out.jsonl", "overlays/*"),
            fast=name == "line-scan",
        )


def write_large(path: Path, height: int, width: int) -> None:
    """Write an RGB PNG with a pattern, row by row; it is small as a file."""
    import struct

    row = np.zeros((width, 3), np.uint8)
    row[::7] = 90
    row[: width // 3] = (180, 170, 150)
    packer = zlib.compressobj(1)
    packed = (
        b"".join(packer.compress(b"\0" + row.tobytes()) for _ in range(height)) + packer.flush()
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def within(gigabytes: float) -> Check:
    """Return the check that the process never held more memory."""

    def check(_: Site, result: Result) -> str | None:
        used = result.memory / _GB
        return f"{used:.1f} GB of at most {gigabytes:g}" if used > gigabytes else None

    return check


def _large(site: Site, line: Sequence[str], count: int) -> Command:
    site.bundle()
    for folder in ("in", "data/bolt/train/good"):
        (site / folder).mkdir(parents=True)
    write_large(site / "in/0.png", SIDE, SIDE)
    for number in range(1, count):
        os.link(site / "in/0.png", site / f"in/{number}.png")
    for number in range(count):
        os.link(site / "in/0.png", site / f"data/bolt/train/good/{number}.png")
    return Command([*line, "--quiet"], real=True)


_ABOVE = {
    "inspect": ["inspect", "parts.snl", "in/0.png"],
    "train": ["train", "data", "-o", "new.snl", *TINY_OPTIONS],
    "doctor": ["doctor", "data"],
    "calibrate": ["calibrate", "parts.snl", "data", "--product", "bolt"],
    "evaluate": ["evaluate", "parts.snl", "data"],
}


def _above(site: Site, verb: str) -> Command:
    site.bundle()
    folder = "data/bolt/test/good" if verb == "evaluate" else "data/bolt/train/good"
    for name in ("in", folder):
        (site / name).mkdir(parents=True)
    write_large(site / "in/0.png", 1_000, 165_000)
    for number in range(2):
        os.link(site / "in/0.png", site / folder / f"{number}.png")
    (site / "verb").write_text(verb)
    return Command([*_ABOVE[verb], "--quiet"])


def _option_works(site: Site, result: Result) -> str | None:
    """Follow the advice of the message, with a number above the size of the image."""
    text = result.err + result.out
    options = [
        o
        for o in re.findall(r"--[a-z][a-z-]+", text)
        if "pixel" in o or "size" in o or "large" in o
    ]
    if not options:
        return f"no option is named: {text[-300:]}"
    verb = (site / "verb").read_text()
    line = [*_ABOVE[verb], options[0], "200000000", "--quiet"]
    again = site.snl(*line)
    if again.status not in (0, 1) or "more than the limit" in again.err + again.out:
        return f"{options[0]} does not help: {again.err[-300:]}"
    return None
