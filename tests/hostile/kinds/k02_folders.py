"""Kind 2: folders mean what people mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Check, Command, Outcome, Result, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators import names
from tests.hostile.generators.datasets import fill, make_mvtec_2
from tests.hostile.site import Site
from tests.trees import MAKERS

Labels = Mapping[str, str | None]
_ABSENT = "absent"


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind about folders."""
    yield from _pairs(seed)
    yield from _in_test()
    yield from _foreign()
    yield from _unknown_beside_defect()
    yield from _layouts()
    yield from _nothing_unused_in_silence()
    yield from _links_and_devices()


def _attempt(
    name: str,
    build: Callable[[Path], Labels],
    expected: tuple[Outcome, ...] | None = None,
    *,
    fast: bool = False,
    or_refused: bool = False,
) -> Attempt:
    """Return the attempt that reads a tree; `build` makes it and returns the label by folder.

    A label is `normal`, `anomalous`, None for unknown, or `absent`.
    """
    labels: dict[str, str | None] = {}

    def make(site: Site) -> Command:
        labels.update(build(site / "data"))
        return checks.catalog_of(site / "data")

    outcomes = expected or (right(labelled(labels)), *([refused()] if or_refused else []))
    return Attempt(f"folders-{name}", 2, make, outcomes, fast=fast)


def labelled(labels: Labels) -> Check:
    """Return the check that the images of each folder have its label, and none is unmentioned."""

    def check(site: Site, result: Result) -> str | None:
        records, notes = result.value["records"], " ".join(result.value["notes"])
        root = Path(result.value["root"])
        masks = {m for r in records.values() for m in r["masks"]}
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            name = path.relative_to(root).as_posix()
            folder = Path(name).parent.as_posix()
            wanted = labels.get(name, labels.get(folder, _ABSENT))
            actual = records[name]["label"] if name in records else _ABSENT
            if name not in records and name in masks:
                continue
            if wanted != actual:
                return f"{name}: is {actual}, should be {wanted}; notes: {notes[:300]}"
            words = {path.name, path.stem, *Path(folder).parts} - {"."}
            if actual == _ABSENT and not any(word in notes for word in words):
                return f"{name}: not used, and no note says so: {notes[:300]}"
        return None

    return check


def _pairs(seed: int) -> Iterator[Attempt]:
    """`<product>/<normal name>` beside `<product>/<defect name>`: all pairs of one index, and
    random ones."""
    rng = np.random.default_rng([seed, 20])
    pairs = list(zip(names.NORMAL, names.DEFECT, strict=False))
    pairs += [(str(rng.choice(names.NORMAL)), str(rng.choice(names.DEFECT))) for _ in range(20)]
    for number, (normal, defect) in enumerate(dict.fromkeys(pairs)):

        def two(root: Path, normal: str = normal, defect: str = defect) -> Labels:
            fill(root / "bolt" / normal, 5)
            fill(root / "bolt" / defect, 3, defect=True)
            return {f"bolt/{normal}": "normal", f"bolt/{defect}": "anomalous"}

        name = f"{number:02}-{_plain(normal)}-{_plain(defect)}"
        yield _attempt(f"pair-{name}", two, fast=number in (0, 4))
        if number < 12:

            def root_is_product(root: Path, normal: str = normal, defect: str = defect) -> Labels:
                fill(root / normal, 5)
                fill(root / defect, 3, defect=True)
                return {normal: "normal", defect: "anomalous"}

            yield _attempt(f"root-pair-{name}", root_is_product, or_refused=True)

            def split(root: Path, normal: str = normal, defect: str = defect) -> Labels:
                fill(root / "bolt/train" / normal, 5)
                fill(root / "bolt/test" / normal, 2, first=50)
                fill(root / "bolt/test" / defect, 3, defect=True)
                return {
                    f"bolt/train/{normal}": "normal",
                    f"bolt/test/{normal}": "normal",
                    f"bolt/test/{defect}": "anomalous",
                }

            yield _attempt(f"split-pair-{name}", split, fast=number == 1)


def _in_test() -> Iterator[Attempt]:
    """A normal folder in `test` is not a kind of defect."""
    for number, normal in enumerate(names.NORMAL):

        def in_test(root: Path, normal: str = normal) -> Labels:
            fill(root / "bolt/train/good", 4)
            fill(root / "bolt/test/good", 1, first=40)
            fill(root / "bolt/test" / normal, 2, first=60)
            fill(root / "bolt/test/scratch", 2, defect=True)
            return {
                "bolt/train/good": "normal",
                "bolt/test/good": "normal",
                f"bolt/test/{normal}": "normal",
                "bolt/test/scratch": "anomalous",
            }

        fast = normal in ("OK parts", "not_defective")
        yield _attempt(
            f"in-test-{number:02}-{_plain(normal)}", in_test, or_refused=not fast, fast=fast
        )
    for defect in (
        "poke",
        "cut_inner",
        "bent",
        "color",
        "contamination",
        "thread_side",
        "good_hole",
    ):

        def kind(root: Path, defect: str = defect) -> Labels:
            fill(root / "bolt/train/good", 4)
            fill(root / "bolt/test/good", 2, first=40)
            fill(root / "bolt/test" / defect, 2, defect=True)
            return {
                "bolt/train/good": "normal",
                "bolt/test/good": "normal",
                f"bolt/test/{defect}": "anomalous",
            }

        yield _attempt(f"defect-kind-{defect}", kind, or_refused=defect == "good_hole")


def _foreign() -> Iterator[Attempt]:
    """Names in other languages are understood or refused, never trained on."""
    for number, (normal, defect) in enumerate(names.FOREIGN):

        def product(root: Path, normal: str = normal, defect: str = defect) -> Labels:
            fill(root / "bolt" / normal, 5)
            fill(root / "bolt" / defect, 3, defect=True)
            return {f"bolt/{normal}": "normal", f"bolt/{defect}": "anomalous"}

        # a note that nothing is known of these names is one clear line, too
        told = partly_noted(normal, defect)
        expected = (right(either_labelled(normal, defect, told)), refused())
        yield _attempt(f"foreign-{number:02}", product, expected, fast=number in (0, 6))

        def half_known(root: Path, defect: str = defect) -> Labels:
            fill(root / "bolt" / "good", 5)
            fill(root / "bolt" / defect, 3, defect=True)
            return {"bolt/good": "normal", f"bolt/{defect}": "anomalous"}

        yield _attempt(f"foreign-defect-{number:02}", half_known, or_refused=True)


def partly_noted(*words: str) -> Check:
    """Return the check that the notes name each of some folders."""

    def check(_: Site, result: Result) -> str | None:
        notes = " ".join(result.value["notes"])
        missing = [word for word in words if word not in notes]
        return f"no note about {', '.join(missing)}: {notes[:300]}" if missing else None

    return check


def either_labelled(normal: str, defect: str, told: Check) -> Check:
    """Return the check that two folders have their labels, or that a note names both."""
    exact = labelled({f"bolt/{normal}": "normal", f"bolt/{defect}": "anomalous"})

    def check(site: Site, result: Result) -> str | None:
        return exact(site, result) and told(site, result)

    return check


def _unknown_beside_defect() -> Iterator[Attempt]:
    """Where a sibling says `defect`, the other folders get a label or are refused."""
    for other in ("parts", "series A", "camera1", "2024-05-01", "fine", "golden", "reference"):
        for defect in ("bad", "NG", "defect"):

            def beside(root: Path, other: str = other, defect: str = defect) -> Labels:
                fill(root / "bolt" / other, 5)
                fill(root / "bolt" / defect, 3, defect=True)
                return {f"bolt/{other}": "normal", f"bolt/{defect}": "anomalous"}

            yield _attempt(f"beside-{defect}-{_plain(other)}", beside, or_refused=True)


def _layouts() -> Iterator[Attempt]:
    """Known data sets, and products with the names of folders that mean something."""
    for name, maker in MAKERS.items():

        def known(site: Site, maker: Any = maker) -> Command:
            return checks.catalog_of(maker(site / "data"))

        def counted(_: Site, result: Result) -> str | None:
            labels = [r["label"] for r in result.value["records"].values()]
            return None if labels.count("anomalous") == 4 and len(labels) >= 14 else f"{labels}"

        yield Attempt(f"folders-layout-{name}", 2, known, (right(counted),))

    def mvtec_2(root: Path) -> Labels:
        make_mvtec_2(root)
        labels: dict[str, str | None] = {}
        for product in ("can", "vial"):
            labels |= {f"{product}/train/good": "normal", f"{product}/validation/good": "normal"}
            labels |= {f"{product}/test_public/good": "normal"}
            labels |= {f"{product}/test_public/bad": "anomalous"}
        return labels

    def public_masks(_: Site, result: Result) -> str | None:
        records = result.value["records"]
        bad = [r for name, r in records.items() if "test_public/bad" in name]
        if len(bad) != 4 or not all(r["masks"] for r in bad):
            return f"{len(bad)} anomalous images of test_public, with masks {bad}"
        if any(r["split"] != "test" for r in bad):
            return "test_public is not read as test"
        private = [r["label"] for n, r in records.items() if "test_private" in n]
        return f"private images have labels {private}" if any(private) else None

    def unlabelled(site: Site, result: Result) -> str | None:
        known = dict(mvtec_labels(result))
        return labelled(known)(site, result)

    def mvtec_labels(result: Result) -> Labels:
        labels = dict(_MVTEC_2)
        for name in result.value["records"]:
            if "test_private" in name:
                labels[name] = None
        return labels

    yield _attempt(
        "layout-mvtec-2", mvtec_2, (right(checks.every(public_masks, unlabelled)),), fast=True
    )
    for product in ("mask", "masks", "gt", "ground_truth", "test", "good", "bad", "train", "ok"):

        def called(root: Path, product: str = product) -> Labels:
            labels: dict[str, str | None] = {}
            for name in (product, "bolt"):
                fill(root / name / "train" / "good", 4)
                fill(root / name / "test" / "good", 2, first=40)
                fill(root / name / "test" / "bad", 2, defect=True)
                labels |= {f"{name}/{f}/good": "normal" for f in ("train", "test")}
                labels[f"{name}/test/bad"] = "anomalous"
            return labels

        fast = product == "mask"
        yield _attempt(f"product-called-{product}", called, or_refused=not fast, fast=fast)

        def plain(root: Path, product: str = product) -> Labels:
            for name in (product, "bolt", "nut"):
                fill(root / name / "good", 4)
                fill(root / name / "bad", 2, defect=True)
            return plain_labels(product)

        # a folder `train` may be a split: then the others are not used, and a note has to say so
        noted = [right(partly_noted("bolt", "nut"))] if product in ("train", "test") else []
        labels_of: tuple[Outcome, ...] = (
            right(labelled(plain_labels(product))),
            refused(),
            *noted,
        )
        yield _attempt(f"plain-product-called-{product}", plain, labels_of)


def plain_labels(product: str) -> Labels:
    """Return the labels of three products of the folders `good` and `bad`."""
    return {
        f"{name}/{kind}": label
        for name in (product, "bolt", "nut")
        for kind, label in (("good", "normal"), ("bad", "anomalous"))
    }


_MVTEC_2: dict[str, str | None] = {
    f"{product}/{folder}": label
    for product in ("can", "vial")
    for folder, label in (
        ("train/good", "normal"),
        ("validation/good", "normal"),
        ("test_public/good", "normal"),
        ("test_public/bad", "anomalous"),
    )
}


def _nothing_unused_in_silence() -> Iterator[Attempt]:
    """Every image that is not used is reported."""

    def base(root: Path) -> dict[str, str | None]:
        for product in ("bolt", "nut"):
            fill(root / product / "train" / "good", 4)
            fill(root / product / "test" / "good", 2, first=40)
            fill(root / product / "test" / "bad", 2, defect=True)
        return {
            f"{product}/{folder}": "anomalous" if folder == "test/bad" else "normal"
            for product in ("bolt", "nut")
            for folder in ("train/good", "test/good", "test/bad")
        }

    places = {
        "loose-in-root": "loose.png",
        "loose-in-product": "bolt/loose.png",
        "loose-beside-kinds": "bolt/train/loose.png",
        "extra-folder": "extra/loose.png",
        "extra-in-product": "bolt/extra/loose.png",
        "extra-split": "bolt/holdout/good/loose.png",
        "deep": "bolt/raw/2024/05/loose.png",
        "hidden": "bolt/.cache/loose.png",
        "gif": "bolt/train/good/loose.gif",
        "jp2": "bolt/train/good/loose.jp2",
        "heic": "bolt/train/good/loose.HEIC",
        "no-suffix": "bolt/train/good/loose",
        "upper": "bolt/train/good/LOOSE.PNG",
        "video": "bolt/train/good/loose.mp4",
    }
    for name, place in places.items():

        def build(root: Path, place: str = place) -> Labels:
            base(root)
            path = root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((root / "bolt/train/good/000.png").read_bytes())
            return {}

        def told(site: Site, result: Result, place: str = place) -> str | None:
            labels: dict[str, str | None] = {**_BASE, place: _ABSENT}
            if place in result.value["records"]:
                record = result.value["records"][place]
                if "holdout" in place or "raw" in place or "extra" in place:
                    return f"{place} is used as {record['label']} of {record['split']}"
                labels[place] = record["label"]
            return labelled(labels)(site, result)

        # hidden files, videos and files without a suffix are no images of a data set
        silent = name in ("hidden", "video", "no-suffix")
        check = None if silent else told
        expected = (right(check), *([] if name in ("upper", "gif", "jp2") else [refused()]))
        fast = name in ("loose-in-root", "extra-folder")
        yield _attempt(f"unused-{name}", build, expected, fast=fast)

    def beside_products(root: Path) -> Labels:
        for product in ("bolt", "nut"):
            fill(root / product, 4)
        fill(root, 1)
        return {"bolt": "normal", "nut": "normal"}

    yield _attempt("loose-beside-plain-products", beside_products, or_refused=True, fast=True)

    def doctor(site: Site) -> Command:
        base(site / "data")
        fill(site / "data/extra", 2)
        return Command(["doctor", "data", "--quiet"])

    yield Attempt("folders-doctor-says-unused", 2, doctor, (partly("extra"),), fast=True)

    def train(site: Site) -> Command:
        from tests.conftest import TINY_OPTIONS

        base(site / "data")
        fill(site / "data/extra", 2)
        return Command(["train", "data", "-o", "a.snl", *TINY_OPTIONS, "--quiet"])

    writes = ("a.snl", "a.snl.*", "a.snl.*/*")
    yield Attempt("folders-train-says-unused", 2, train, (partly("extra"),), writes)


_BASE: dict[str, str | None] = {
    f"{product}/{folder}": label
    for product in ("bolt", "nut")
    for folder, label in (
        ("train/good", "normal"),
        ("test/good", "normal"),
        ("test/bad", "anomalous"),
    )
}


def _links_and_devices() -> Iterator[Attempt]:
    """Loops of links, pipes, sockets and links to nowhere end in a result or one line."""

    def loop(path: Path) -> None:
        (path / "bolt/loop").symlink_to(path, target_is_directory=True)

    def self_loop(path: Path) -> None:
        (path / "bolt/train/good/self.png").symlink_to("self.png")

    def dangling(path: Path) -> None:
        (path / "bolt/train/good/gone.png").symlink_to("/nowhere/gone.png")

    def pipe(path: Path) -> None:
        os.mkfifo(path / "bolt/train/good/pipe.png")

    def pipe_mask(path: Path) -> None:
        mask = path / "bolt/ground_truth/dent/000_mask.png"
        mask.unlink()
        os.mkfifo(mask)

    def socket(path: Path) -> None:
        import socket as sockets

        with sockets.socket(sockets.AF_UNIX) as one:
            one.bind(os.path.relpath(path / "bolt/train/good/s.png"))

    def folder_named_image(path: Path) -> None:
        (path / "bolt/train/good/folder.png").mkdir()

    def product_link(path: Path) -> None:
        (path / "plate").rename(path.parent / "elsewhere")
        (path / "plate").symlink_to(path.parent / "elsewhere", target_is_directory=True)

    makers = (loop, self_loop, dangling, pipe, pipe_mask, socket, folder_named_image, product_link)
    for spoil in makers:
        for verb in ("doctor", "train", "calibrate", "inspect", "evaluate", "report"):
            make = bind(_spoiled, spoil=spoil, verb=verb)
            expected = (right(status=(0, 1)), partly(r"\S"), refused())
            yield Attempt(
                f"folders-{spoil.__name__.replace('_', '-')}-{verb}",
                8,
                make,
                expected,
                writes=("out*", "out*/*", "parts.snl"),
                timeout=30,
                fast=spoil is pipe and verb in ("calibrate", "inspect"),
            )


def _spoiled(site: Site, spoil: Callable[[Path], None], verb: str) -> Command:
    from tests.conftest import TINY_OPTIONS

    data = site.data()
    site.bundle()
    os.chdir(site.root)
    spoil(data)
    lines = {
        "doctor": ["doctor", "data"],
        "train": ["train", "data", "-o", "out.snl", *TINY_OPTIONS],
        "calibrate": ["calibrate", "parts.snl", "data", "--add"],
        "inspect": ["inspect", "parts.snl", "data", "--json", "out.jsonl"],
        "evaluate": ["evaluate", "parts.snl", "data"],
        "report": ["report", "parts.snl", "data", "-o", "out.html"],
    }
    return Command([*lines[verb], "--quiet"])


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "_" for c in name)
