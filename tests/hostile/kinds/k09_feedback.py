"""Kind 9: feedback that something speaks against is not accepted blindly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Result, refused, right
from tests.hostile.site import Site
from tests.trees import save_part

_MODEL = ("parts.snl",)


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind."""
    yield from _strangers(seed)
    yield from _contradictions()
    yield from _wrong_normals()
    yield from _identical()
    yield from _accepted()


def _strange(site: Site, name: str, number: int) -> None:
    """Write a picture of no product: noise, stripes, one colour, a photo-like gradient."""
    ys, xs = np.mgrid[:40, :48]
    rng = np.random.default_rng(number)
    pictures = [
        rng.integers(0, 256, (40, 48, 3)),
        np.dstack([((xs // 4) % 2) * 255] * 3),
        np.full((40, 48, 3), (0, 255, 0)),
        np.dstack([xs * 5, ys * 6, 255 - xs * 5]),
        np.dstack([(((xs + ys) // 5) % 2) * 255, xs * 0, 255 + xs * 0]),
    ]
    (site / name).parent.mkdir(exist_ok=True)
    Image.fromarray(pictures[number % len(pictures)].astype(np.uint8)).save(site / name)


def _strangers(seed: int) -> Iterator[Attempt]:
    """Images of no known product as false alarms."""
    for number in range(5):
        for how in ("one", "several", "add"):

            def make(site: Site, number: int = number, how: str = how) -> Command:
                site.bundle("parts.snl", "plant.snl")
                _strange(site, "odd/0.png", number + seed)
                shown = site.snl("inspect", "parts.snl", "odd/0.png", "--quiet")
                record = json.loads(shown.out)
                assert record["decision"] in ("unknown product", "anomalous"), record
                for copy in range(1, 3 if how == "several" else 1):
                    _strange(site, f"odd/{copy}.png", number + seed)
                line = ["calibrate", "parts.snl", "--false-alarms", "odd"]
                return Command([*line, "--quiet"])

            # a picture that is called anomalous but of a known product is what the option is for
            def unknown(site: Site, result: Result) -> str | None:
                shown = site.snl("inspect", "parts.snl", "odd/0.png", "--quiet")
                record = json.loads(shown.out)
                return f"joined {record['product']}" if record["unknown_p"] > 0.05 else None

            fast = number == 0 and how == "one"
            name = f"false-alarm-stranger-{number}-{how}"
            yield Attempt(name, 9, make, (refused("product"), right(unknown)), _MODEL, fast=fast)


def _contradictions() -> Iterator[Attempt]:
    """One picture as false alarm and as miss."""

    def same_file(site: Site) -> Sequence[Any]:
        site.image("a.png", 903, defect=True)
        return ["--false-alarms", "a.png", "--misses", "a.png"]

    def same_content(site: Site) -> Sequence[Any]:
        shutil.copy(site.image("a.png", 903, defect=True), site / "b.png")
        return ["--false-alarms", "a.png", "--misses", "b.png"]

    def same_pixels(site: Site) -> Sequence[Any]:
        image = Image.open(site.image("a.png", 903, defect=True))
        image.save(site / "b.bmp")
        return ["--false-alarms", "a.png", "--misses", "b.bmp"]

    def link(site: Site) -> Sequence[Any]:
        site.image("a.png", 903, defect=True)
        (site / "b.png").symlink_to("a.png")
        return ["--false-alarms", "a.png", "--misses", "b.png"]

    def in_folders(site: Site) -> Sequence[Any]:
        shutil.copytree(site.images("a", 3), site / "b")
        return ["--false-alarms", "a", "--misses", "b"]

    def normals_and_miss(site: Site) -> Sequence[Any]:
        site.images("normals/bolt", 4)
        return ["normals", "--add", "--misses", "normals/bolt/000.png"]

    for spoil in (same_file, same_content, same_pixels, link, in_folders, normals_and_miss):
        for given in (False, True):

            def make(site: Site, spoil: Any = spoil, given: bool = given) -> Command:
                site.bundle("parts.snl", "plant.snl")
                product = ["--product", "bolt"] if given and spoil is not normals_and_miss else []
                return Command(["calibrate", "parts.snl", *product, *spoil(site)])

            name = f"contradiction-{spoil.__name__.replace('_', '-')}{'-product' if given else ''}"
            # the same picture in another file is not the same file: to notice it is a bonus
            expected = (
                (refused(),) if spoil is not same_pixels else (refused(), right(status=(0, 1)))
            )
            yield Attempt(
                name,
                9,
                make,
                expected,
                _MODEL,
                fast=spoil is same_content,
            )


def _wrong_normals() -> Iterator[Attempt]:
    """Defects, or another product's images, as normal images."""

    def defects(site: Site) -> None:
        for n in range(6):
            site.image(f"normals/bolt/{n}.png", 950 + n, defect=True)

    def other_product(site: Site) -> None:
        for n in range(6):
            save_part(site / f"normals/bolt/{n}.png", 950 + n, product="plate")

    def mixed(site: Site) -> None:
        for n in range(6):
            site.image(f"normals/bolt/{n}.png", 950 + n, defect=n % 2 == 0)

    def noise(site: Site) -> None:
        for n in range(6):
            _strange(site, f"normals-{n}.png", 5 * n)
            (site / "normals/bolt").mkdir(parents=True, exist_ok=True)
            (site / f"normals-{n}.png").rename(site / f"normals/bolt/{n}.png")

    for spoil in (defects, other_product, mixed, noise):
        for add in (True, False):

            def make(site: Site, spoil: Any = spoil, add: bool = add) -> Command:
                site.bundle("parts.snl", "plant.snl")
                spoil(site)
                return Command(
                    ["calibrate", "parts.snl", "normals", *(["--add"] if add else []), "--quiet"]
                )

            name = f"normals-{spoil.__name__.replace('_', '-')}-{'add' if add else 'replace'}"
            expected = (refused(r"--force|--product"),)
            yield Attempt(name, 9, make, expected, _MODEL, fast=add and spoil is other_product)

            def forced(site: Site, spoil: Any = spoil, add: bool = add) -> Command:
                site.bundle("parts.snl", "plant.snl")
                spoil(site)
                line = ["calibrate", "parts.snl", "normals", *(["--add"] if add else []), "--quiet"]
                first = site.snl(*line)
                way = ["--force"] if "--force" in first.err else ["--product", "bolt"]
                return Command([*line, *way])

            yield Attempt(
                f"{name}-forced", 9, forced, (right(checks.loads("parts.snl")),), ("parts.snl",)
            )


def _identical() -> Iterator[Attempt]:
    """The same calibration again makes no new version."""
    lines: dict[str, Sequence[Any]] = {
        "smallest": ["--smallest", "bolt=3"],
        "scale": ["--mm-per-pixel", "bolt=0.5"],
        "rate": ["--rate", "0.2"],
        "rate-product": ["--rate", "0.2", "--product", "bolt"],
        "tail": ["--tail", "none"],
        "add": ["normals", "--add"],
        "replace": ["normals"],
        "false-alarm": ["--false-alarms", "normals/bolt/000.png", "--product", "bolt"],
        "ignore": ["--ignore", "bolt=mask.png"],
        "ignore-none": ["--ignore", "bolt=none"],
        "tile": ["--tile", "0"],
    }
    for name, line in lines.items():
        for kind in ("snl", "onnx"):

            def make(site: Site, line: Sequence[Any] = line, kind: str = kind) -> Command:
                file = site.bundle("parts.snl", "plant.snl") if kind == "snl" else site.export(kind)
                site.images("normals/bolt", 4)
                mask = np.zeros((40, 48), np.uint8)
                mask[:5] = 255
                Image.fromarray(mask).save(site / "mask.png")
                first = site.snl("calibrate", file.name, *line)
                assert first.status in (0, 1), first.err
                (site / "count").write_text(str(_versions(site, file.name)))
                return Command(["calibrate", file.name, *line])

            def same(site: Site, _: Result, kind: str = kind) -> str | None:
                before, after = int((site / "count").read_text()), _versions(site, f"parts.{kind}")
                if after < 0:
                    return "snl info cannot read the file"
                return None if before == after else f"{before} versions became {after}"

            yield Attempt(
                f"identical-{name}-{kind}",
                9,
                make,
                (right(same), refused(check=same)),
                (f"parts.{kind}",),
                fast=name in ("add", "smallest") and kind == "snl",
            )


def _versions(site: Site, file: str) -> int:
    result = site.snl("info", file, "--json", "-")
    if result.status != 0:
        return -1
    return len(json.loads(result.out)["history"])


def _accepted() -> Iterator[Attempt]:
    """Ordinary feedback still works."""

    def false_alarm(site: Site) -> Sequence[Any]:
        site.image("a.png", 990)
        return ["--false-alarms", "a.png", "--product", "bolt"]

    def miss(site: Site) -> Sequence[Any]:
        site.image("a.png", 991, defect=True)
        return ["--misses", "a.png", "--product", "bolt"]

    def normals(site: Site) -> Sequence[Any]:
        site.images("normals/bolt", 5)
        return ["normals", "--add"]

    for feed in (false_alarm, miss, normals):
        for kind in ("snl", "onnx", "xml"):

            def make(site: Site, feed: Any = feed, kind: str = kind) -> Command:
                file = site.bundle("parts.snl", "plant.snl") if kind == "snl" else site.export(kind)
                return Command(["calibrate", file.name, *feed(site)])

            expected = (right(status=(0, 1)),)
            writes = ("parts.snl", "parts.onnx", "parts.xml")
            yield Attempt(
                f"feedback-{feed.__name__.replace('_', '-')}-{kind}",
                9,
                make,
                expected,
                writes,
                fast=kind == "snl",
            )
