"""Kind 5: no work is lost: names are checked first, what is done is kept, the rest goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import TINY_OPTIONS
from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Result, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators.environments import after, file_size, grown
from tests.hostile.site import Site, strict_json

_SIGNALS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _names()
    yield from _signals()
    yield from _one_output_fails()


def _names() -> Iterator[Attempt]:
    """A name that cannot be used is refused before the training."""
    steps = ["--steps", "1000000"]
    names = ("a.onnx", "a.xml", "A.ONNX", "dir.snl", "a.snl/b.snl", "", "a.bin")
    for name in names:

        def make(site: Site, name: str = name) -> Command:
            site.data()
            (site / "dir.snl").mkdir()
            (site / "a.snl").write_bytes(b"not a folder")
            return Command(["train", "data", "-o", name, *TINY_OPTIONS, *steps, "--quiet"])

        shown = name.replace(".", "-").replace("/", "-") or "empty"
        yield Attempt(
            f"train-name-{shown}", 5, make, (refused(),), timeout=20, fast=name == "a.onnx"
        )
    for name in ("a.txt", "a", "a.pt", "a.safetensors"):

        def odd(site: Site, name: str = name) -> Command:
            site.data()
            return Command(["train", "data", "-o", name, *TINY_OPTIONS, "--quiet"])

        writes = (name, f"{name}.*", f"{name}.*/*")
        shown = name.replace(".", "-")
        yield Attempt(f"train-name-{shown}", 5, odd, (right(checks.loads(name)), refused()), writes)
    for verb, line in {
        "export": ["export", "parts.snl", "-o", "a.txt"],
        "export-no-suffix": ["export", "parts.snl", "-o", "a.snl"],
        "calibrate-onnx": ["calibrate", "parts.snl", "--smallest", "bolt=2", "-o", "a.onnx"],
        "calibrate-xml": ["calibrate", "parts.snl", "--smallest", "bolt=2", "-o", "a.xml"],
    }.items():

        def wrong(site: Site, line: Sequence[str] = line) -> Command:
            site.bundle()
            return Command(line)

        yield Attempt(f"name-{verb}", 5, wrong, (refused(),))


def _signals() -> Iterator[Attempt]:
    """A stopped `inspect` keeps its results; a stopped `train` continues."""
    for number, status in _SIGNALS.items():
        for where in ("json", "stdout", "all"):
            for moment in ("early", "late"):

                def make(
                    site: Site,
                    number: signal.Signals = number,
                    where: str = where,
                    moment: str = moment,
                ) -> Command:
                    site.bundle()
                    _many(site, 3000)
                    line: list[str] = ["inspect", "parts.snl", "in", "--quiet"]
                    if where != "stdout":
                        line += ["--json", "out.jsonl"]
                    if where == "all":
                        line += ["--coco", "coco.json", "--monitor", "state.json"]
                        line += ["--labelme", "labels"]
                    place = (None, "out") if where == "stdout" else (site.root, "*out.jsonl*")
                    condition = grown(*place, delay=0.0 if moment == "early" else 0.5)
                    return Command(line, stop=(number, condition))

                def kept(site: Site, result: Result, where: str = where) -> str | None:
                    text = result.out
                    if where != "stdout":
                        if not (site / "out.jsonl").is_file():
                            return "out.jsonl is not there"
                        text = (site / "out.jsonl").read_text()
                    try:
                        lines = [strict_json(x) for x in text.splitlines() if x.startswith("{")]
                    except ValueError as error:
                        return f"a broken line: {error}"
                    if not lines:
                        return "no result was kept"
                    if where == "all":
                        coco = strict_json((site / "coco.json").read_text())
                        if len(coco["images"]) != len(lines):
                            return f"{len(coco['images'])} images in coco.json, {len(lines)} lines"
                        if not (site / "state.json").is_file():
                            return "the drift state is not there"
                    return None

                writes = ("out.jsonl", "coco.json", "state.json", "labels/*")
                name = f"signal-{number.name.lower()}-inspect-{where}-{moment}"
                expected = (partly(check=kept, status=(status,)),)
                fast = (where, moment) == ("all", "early") and number != signal.SIGINT
                yield Attempt(name, 5, make, expected, writes, fast=fast)
        for verb in ("evaluate", "report", "calibrate", "doctor"):

            def other(site: Site, number: signal.Signals = number, verb: str = verb) -> Command:
                site.bundle()
                data = site / "data/bolt/train/good"
                _many(site, 1500, data)
                lines = {
                    "evaluate": ["evaluate", "parts.snl", "data", "--json", "new.json"],
                    "report": ["report", "parts.snl", "data", "-o", "new.html"],
                    "calibrate": ["calibrate", "parts.snl", "data", "--add"],
                    "doctor": ["doctor", "data", "--json", "new.json"],
                }
                if verb in ("evaluate", "report"):
                    data.parent.parent.joinpath("test").mkdir()
                    data.rename(data.parent.parent / "test/good")
                return Command([*lines[verb], "--quiet"], stop=(number, after(0.6)))

            # a fast machine is done before the signal comes
            expected = (partly(status=(status,)), right(status=(0, 1)))
            name = f"signal-{number.name.lower()}-{verb}"
            yield Attempt(name, 5, other, expected, ("new.*", "parts.snl"))

        def train(site: Site, number: signal.Signals = number) -> Command:
            site.data()
            line = ["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--steps", "300"]
            line += ["--checkpoint-every", "0", "--quiet"]
            (site / "line").write_text("\n".join(line))
            return Command(line, stop=(number, grown(site.root, "a.snl.run/*", 1000, patience=30)))

        def resumed(site: Site, _: Result) -> str | None:
            line = (site / "line").read_text().splitlines()
            result = site.snl(*line, "--resume")
            if result.status != 0:
                return f"--resume ends with {result.status}: {result.err[-300:]}"
            return checks.loads("a.snl")(site, result)

        writes = ("a.snl", "a.snl.*", "a.snl.*/*")
        expected = (partly("--resume", check=resumed, status=(status,)),)
        name = f"signal-{number.name.lower()}-train"
        yield Attempt(name, 5, train, expected, writes, timeout=90, fast=number == signal.SIGTERM)


def _many(site: Site, count: int, folder: Path | None = None) -> None:
    """Write a few images and many names for them."""
    folder = folder or site / "in"
    first = [site.image(f"first/{n}.png", 900 + n) for n in range(5)]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        os.link(first[number % 5], folder / f"{number:05}.png")


def _one_output_fails() -> Iterator[Attempt]:
    """An output that cannot be written is reported; the others are complete."""

    def overlay_folder(site: Site) -> list[Any]:
        (site / "overlays/001.png").mkdir(parents=True)
        return ["--out", "overlays"]

    def labels_folder(site: Site) -> list[Any]:
        (site / "labels/001.json").mkdir(parents=True)
        return ["--labelme", "labels"]

    def overlay_loop(site: Site) -> list[Any]:
        (site / "overlays").mkdir()
        (site / "overlays/001.png").symlink_to("001.png")
        return ["--out", "overlays"]

    def overlay_dead_link(site: Site) -> list[Any]:
        (site / "overlays").mkdir()
        (site / "overlays/001.png").symlink_to("/nowhere/x.png")
        return ["--out", "overlays"]

    def long_names(site: Site) -> list[Any]:
        name = "x" * 249 + ".jpeg"
        (site / "in/003.png").rename(site / f"in/{name}")
        Image.new("RGB", (48, 40)).save(site / f"in/{name}")
        return ["--labelme", "labels", "--out", "overlays"]

    for spoil in (overlay_folder, labels_folder, overlay_loop, overlay_dead_link, long_names):

        def make(site: Site, spoil: Any = spoil) -> Command:
            site.bundle()
            site.images("in", 4)
            line = ["inspect", "parts.snl", "in", "--json", "out.jsonl", "--coco", "coco.json"]
            return Command([*line, *spoil(site), "--quiet"])

        def rest(site: Site, result: Result) -> str | None:
            complaint = checks.inspected(4, "out.jsonl")(site, result)
            return complaint or checks.is_json("coco.json")(site, result)

        names = spoil.__name__.replace("_", "-")
        expected = (
            partly(r"001|x{20}", check=rest, status=(0, 1, 2)),
            refused(r"001|x{20}|overlays|labels"),
            *([right(rest)] if spoil is long_names else []),
        )
        writes = ("out.jsonl", "coco.json", "overlays/*", "labels/*")
        yield Attempt(
            f"one-output-{names}", 5, make, expected, writes, fast=spoil is overlay_folder
        )
    for option in ("--out", "--labelme", "--json", "--coco", "--monitor"):

        def full(site: Site, option: str = option) -> Command:
            site.bundle()
            rng = np.random.default_rng(1)
            for n in range(6):
                pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
                (site / "in").mkdir(exist_ok=True)
                Image.fromarray(pixels).save(site / f"in/{n}.png")
            target = {"--out": "dir", "--labelme": "dir", "--json": "new.jsonl"}.get(
                option, "new.json"
            )
            line = ["inspect", "parts.snl", "in", option, target, "--quiet"]
            limit = {"--out": 20_000, "--monitor": 4_000}.get(option, 1_500)
            return Command(line, before=file_size(limit))

        whole = () if option == "--json" else (right(checks.inspected(6)),)
        check = None if option == "--json" else checks.inspected_or_said(6)
        expected = (partly(r"error|cannot", check=check, status=(1, 2)), *whole)
        writes = ("new.json", "new.jsonl", "dir/*")
        yield Attempt(f"disk-full-inspect{option}", 5, full, expected, writes)
