"""Kind 11: advice that works: every message that proposes an option is followed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial as bind
from typing import Any

from tests.conftest import TINY_OPTIONS
from tests.hostile.attempt import Attempt, Command, Result, refused, right
from tests.hostile.site import Site

_WRITES = ("*.snl", "*.snl.*", "*.snl.*/*", "*.json", "*.jsonl")


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    for count in (1, 2, 3, 4, 5, 8, 12, 20, 40):
        make = bind(_train, count=count)
        expected = (right(_follow_training, status=(0, 1)), refused())
        yield Attempt(f"advice-few-images-{count}", 11, make, expected, _WRITES, fast=count == 2)
    for count in (1, 2, 5, 12, 20):
        for rate in ("0.0001", "0.01", "0.05", "0.2", "0.5", "0.99"):
            for option in ("--rate", "--uncertain-rate"):
                for verb in ("inspect", "calibrate"):
                    if verb == "calibrate" and (count, option) not in (
                        (1, "--rate"),
                        (12, "--rate"),
                    ):
                        continue
                    make = bind(_rate, count=count, rate=rate, option=option, verb=verb)
                    name = f"advice-rate-{verb}{option}-{rate}-{count}"
                    fast = (count, rate, option) == (5, "0.0001", "--rate")
                    expected = (right(), refused(check=_follow_rate))
                    yield Attempt(name, 11, make, expected, _WRITES, fast=fast)
    yield from _spelling()
    yield from _follow_flags()
    yield from _add_normals()


def _train(site: Site, count: int) -> Command:
    for n in range(count):
        site.image(f"data/bolt/{n:03}.png", n)
    return Command(["train", "data", "-o", "new.snl", *TINY_OPTIONS, "--quiet"])


def _follow_training(site: Site, result: Result) -> str | None:
    """Follow every proposal of the training: a rate for `inspect`, settings, more images."""
    site.image("one.png", 900)
    for rate in re.findall(r"--rate ([0-9.]+\d)", result.err):
        shown = site.snl("inspect", "new.snl", "one.png", "--rate", rate, "--quiet")
        if shown.status != 0:
            return f"--rate {rate} is proposed and refused: {shown.err.strip()[-300:]}"
        if json.loads(shown.out)["threshold"] is None:
            return f"--rate {rate} is proposed and without effect: no threshold"
    for setting in re.findall(r"--set (\w+\.\w+=[0-9.]+\d)", result.err):
        line = ["train", "data", "-o", "again.snl", *TINY_OPTIONS, "--set", setting, "--quiet"]
        again = site.snl(*line)
        if again.status != 0:
            return f"--set {setting} is proposed and refused: {again.err.strip()[-300:]}"
        held = [re.findall(r"(\d+) normal images? w", r.err) for r in (result, again)]
        if held[0] == held[1] and held[0]:
            return f"--set {setting} is proposed and without effect: {again.err.strip()[-300:]}"
    return None


def _rate(site: Site, count: int, rate: str, option: str, verb: str) -> Command:
    _train(site, count)
    first = site.snl("train", "data", "-o", "new.snl", *TINY_OPTIONS, "--quiet")
    if first.status != 0:
        return Command(["info", "nothing.snl"])
    site.image("one.png", 900)
    lines = {
        "inspect": ["inspect", "new.snl", "one.png", "--quiet"],
        "calibrate": ["calibrate", "new.snl"],
    }
    line = [*lines[verb], option, rate]
    (site / "line").write_text(json.dumps([lines[verb], option]))
    return Command(line)


def _follow_rate(site: Site, result: Result) -> str | None:
    """Follow the rate that a refusal proposes."""
    if not (site / "line").is_file():
        return None
    line, option = json.loads((site / "line").read_text())
    proposals = re.findall(rf"{option} ([0-9.]+\d)", result.err)
    proposals += re.findall(r"(?:at least|smallest|or more|above|from) ([0-9.]+\d)", result.err)
    for rate in proposals:
        again = site.snl(*line, option, rate)
        if again.status != 0:
            return f"{rate} is proposed and refused: {again.err.strip()[-300:]}"
    return None


def _spelling() -> Iterator[Attempt]:
    """`did you mean X`: X works."""
    lines: dict[str, Sequence[str]] = {
        "product": ("inspect", "parts.snl", "in", "--product", "{}"),
        "layout": ("doctor", "data", "--layout", "{}"),
        "setting": ("train", "data", "-o", "new.snl", *TINY_OPTIONS, "--set", "{}=4"),
        "method": ("train", "data", "-o", "new.snl", *TINY_OPTIONS, "--method", "{}"),
        "verb": ("{}",),
    }
    words = {
        "product": "blot",
        "layout": "mvtek",
        "setting": "training.batchsize",
        "method": "snll",
        "verb": "inspct",
    }
    for name, line in lines.items():

        def make(site: Site, line: Sequence[str] = line, word: str = words[name]) -> Command:
            site.bundle()
            site.data()
            site.images("in", 1)
            (site / "line").write_text(json.dumps(line))
            return Command([part.replace("{}", word) for part in line])

        def follow(site: Site, result: Result) -> str | None:
            line = json.loads((site / "line").read_text())
            meant = re.search(r"did you mean '?([\w.-]+\w)'?\?", result.err)
            if meant is None or line == ["{}"]:
                return None
            again = site.snl(*[part.replace("{}", meant.group(1)) for part in line])
            return (
                None if again.status in (0, 1) else f"{meant.group(1)}: {again.err.strip()[-200:]}"
            )

        yield Attempt(f"advice-spelling-{name}", 11, make, (refused(check=follow),), _WRITES)


def _follow_flags() -> Iterator[Attempt]:
    """Refusals that name one flag: with it the command goes on."""

    def overwrite(site: Site) -> Sequence[Any]:
        site.data()
        site.bundle("new.snl")
        return ["train", "data", "-o", "new.snl", *TINY_OPTIONS, "--quiet"]

    def format_of_export(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["export", "parts.snl", "-o", "new.xml", "--format", "onnx", "--quiet"]

    def int8_without_data(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["export", "parts.snl", "-o", "new.onnx", "--precision", "int8", "--quiet"]

    def add_alone(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["calibrate", "parts.snl", "--add"]

    def undo_nothing(site: Site) -> Sequence[Any]:
        site.bundle()
        return ["calibrate", "parts.snl", "--undo"]

    def tile_monitor(site: Site) -> Sequence[Any]:
        site.bundle()
        site.images("in", 2)
        return ["inspect", "parts.snl", "in", "--tile", "64", "--monitor", "s.json", "--quiet"]

    def stranger_in_normals(site: Site) -> Sequence[Any]:
        site.bundle()
        for n in range(3):
            site.image(f"normals/{n}.png", n)
        return ["calibrate", "parts.snl", "normals", "--quiet"]

    for spoil in (
        overwrite,
        format_of_export,
        int8_without_data,
        add_alone,
        undo_nothing,
        tile_monitor,
        stranger_in_normals,
    ):

        def make(site: Site, spoil: Any = spoil) -> Command:
            line = [str(part) for part in spoil(site)]
            (site / "line").write_text(json.dumps(line))
            return Command(line)

        def follow(site: Site, result: Result) -> str | None:
            line = json.loads((site / "line").read_text())
            flags = [f for f in re.findall(r"--[a-z][a-z-]+", result.err) if f not in line]
            known = [f for f in flags if f in ("--overwrite", "--force")]
            for flag in known:
                again = site.snl(*line, flag)
                if again.status not in (0, 1):
                    return f"{flag} is proposed and refused: {again.err.strip()[-300:]}"
            return None

        expected = (refused(check=follow), right(status=(0, 1)))
        name = f"advice-{spoil.__name__.replace('_', '-')}"
        yield Attempt(
            name,
            11,
            make,
            expected,
            ("*.snl", "*.xml", "*.bin", "*.onnx", "*.json"),
            fast=spoil is overwrite,
        )


def _add_normals() -> Iterator[Attempt]:
    """Too few held-out images: adding normal images, as proposed, makes decisions possible."""
    for count in (20, 40):

        def make(site: Site, count: int = count) -> Command:
            site.bundle()
            site.image("one.png", 900)
            for n in range(count):
                site.image(f"normals/bolt/{n}.png", 1000 + n)
                site.image(f"normals/plate/{n}.png", 1000 + n, product="plate")
            note = site.snl("inspect", "parts.snl", "one.png", "--quiet")
            assert "--add" in note.err, note.err
            return Command(["calibrate", "parts.snl", "normals", "--add", "--quiet"])

        def decided(site: Site, _: Result) -> str | None:
            shown = site.snl("inspect", "parts.snl", "one.png", "--quiet")
            threshold = json.loads(shown.out)["threshold"]
            return None if threshold is not None else "there is still no threshold"

        yield Attempt(f"advice-add-normals-{count}", 11, make, (right(decided),), _WRITES)
