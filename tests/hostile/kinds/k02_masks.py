"""Kind 2: masks beside and inside, their names and their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.hostile import checks
from tests.hostile.attempt import Attempt, Command, Outcome, Result, refused, right
from tests.hostile.attempt import partial as partly
from tests.hostile.generators.datasets import fill, mask_of, save_array
from tests.hostile.site import Site


def attempts(seed: int) -> Iterator[Attempt]:
    """Yield all attempts of this kind about masks."""
    yield from _beside_images()
    yield from _names()
    yield from _values(seed)
    yield from _warned()


def _beside_images() -> Iterator[Attempt]:
    """A mask beside its image is no image."""
    forms = {
        "GT": (".png", "{}_GT.png"),
        "label-bmp": (".jpg", "{}_label.bmp"),
        "same-stem": (".jpg", "{}.png"),
        "mask": (".png", "{}_mask.png"),
        "dash-mask": (".png", "{}-mask.png"),
        "seg": (".jpg", "{}_seg.png"),
        "gt-lower": (".bmp", "{}_gt.png"),
        "mask-first": (".png", "mask_{}.png"),
        "groundtruth": (".png", "{}_groundtruth.png"),
    }
    trees = {
        "flat": ("bolt", "bolt"),
        "kinds": ("bolt/good", "bolt/bad"),
        "split": ("bolt/train/good", "bolt/test/bad"),
    }
    for form, (suffix, pattern) in forms.items():
        for tree, (normal, defective) in trees.items():
            make = bind(_beside, suffix=suffix, pattern=pattern, normal=normal, bad=defective)
            expected: tuple[Outcome, ...] = (right(bind(_no_mask_is_image, tree=tree)), refused())
            name = f"masks-beside-{form}-{tree}"
            yield Attempt(
                name, 2, make, expected, fast=form in ("GT", "same-stem") and tree != "split"
            )


def _beside(site: Site, suffix: str, pattern: str, normal: str, bad: str) -> Command:
    """Write normal parts with empty masks beside them, and defective parts with theirs."""
    for n, path in enumerate(fill(site / f"data/{normal}", 4, suffix=suffix)):
        if pattern != "{}.png":
            save_array(path.with_name(pattern.format(path.stem)), np.zeros_like(mask_of(n)))
        elif bad == normal:  # only two values tell a mask from a photo with the same name
            save_array(path.with_name(pattern.format(path.stem)), mask_of(200 + n))
    if bad != normal:
        for n, path in enumerate(fill(site / f"data/{bad}", 2, defect=True, suffix=suffix)):
            save_array(path.with_name(pattern.format(path.stem)), mask_of(200 + n))
    (site / "images.json").write_text(json.dumps({"suffix": suffix, "pattern": pattern}))
    return checks.catalog_of(site / "data")


def _no_mask_is_image(site: Site, result: Result, tree: str) -> str | None:
    form = json.loads((site / "images.json").read_text())
    masks = {
        path.with_name(form["pattern"].format(path.stem)).relative_to(site / "data").as_posix()
        for path in (site / "data").rglob(f"[0-9][0-9][0-9]{form['suffix']}")
    }
    used = masks & set(result.value["records"])
    if used:
        return f"{len(used)} masks are images, {sorted(used)[0]} for one"
    attached = {m for r in result.value["records"].values() for m in r["masks"]}
    notes = " ".join(result.value["notes"])
    wanted = {m for m in masks if "bad" in m}
    if not wanted <= attached and "mask" not in notes.lower():
        return f"the masks of defective parts are neither found nor mentioned: {notes[:200]}"
    return None


def _names() -> Iterator[Attempt]:
    """Masks in a mask folder under other names: found, or counted in a warning."""
    patterns = {
        **{s: f"{{}}{s}.png" for s in ("_mask", "_label", "_gt", "-mask", "_GT", "_Mask", "-gt")},
        **{s: f"{{}}{s}.png" for s in ("_seg", "_labels", "_groundtruth", ".mask", " mask")},
        "mask_": "mask_{}.png",
        "gt_": "gt_{}.png",
        "upper-suffix": "{}_mask.PNG",
        "bmp": "{}.bmp",
        "tif": "{}_mask.tif",
        "labelme": "{}.json",
        "unrelated": "region-{}-x.png",
        "shifted": "9{}.png",
    }
    for number, (name, pattern) in enumerate(patterns.items()):
        for folder in ("ground_truth/dent", "masks/dent", "Ground_Truth/DENT", "labels/dent"):
            if folder[0] in "lG" and name not in ("_mask", "_label", "upper-suffix"):
                continue
            make = bind(_named, pattern=pattern, folder=folder)
            check = bind(_found_or_counted, folder=folder)
            short = folder.replace("/", "-")
            fast = folder == "ground_truth/dent" and name in ("_label", "-mask", "labelme")
            yield Attempt(
                f"masks-named-{number:02}-{name.strip('-_. ').lower()}-{short}",
                2,
                make,
                (right(check), refused()),
                fast=fast,
            )


def _named(site: Site, pattern: str, folder: str) -> Command:
    fill(site / "data/bolt/train/good", 4)
    fill(site / "data/bolt/test/good", 2, first=40)
    for n, path in enumerate(fill(site / "data/bolt/test/dent", 3, defect=True)):
        target = site / f"data/bolt/{folder}/{pattern.format(path.stem)}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".json":
            target.write_text(json.dumps(labelme(path, mask_of(200 + n))))
        else:
            save_array(target, mask_of(200 + n))
    return checks.catalog_of(site / "data")


def labelme(image: Path, mask: np.ndarray) -> dict[str, Any]:
    """Return a LabelMe document with the bounding polygon of a mask."""
    ys, xs = np.nonzero(mask)
    left, right_, top, bottom = (int(v) for v in (xs.min(), xs.max(), ys.min(), ys.max()))
    points = [[left, top], [right_, top], [right_, bottom], [left, bottom]]
    shape = {"label": "dent", "points": points, "shape_type": "polygon", "group_id": None}
    return {
        **{"version": "5.4.1", "flags": {}, "shapes": [{**shape, "flags": {}}]},
        **{"imagePath": image.name, "imageData": None},
        **{"imageHeight": mask.shape[0], "imageWidth": mask.shape[1]},
    }


def _found_or_counted(_: Site, result: Result, folder: str) -> str | None:
    records = result.value["records"]
    bad = [r for name, r in records.items() if "/dent/" in name and "/test/" in name]
    if len(bad) != 3 or any(r["label"] != "anomalous" for r in bad):
        return f"{len(bad)} anomalous images of 3"
    if strays := [n for n in records if folder in n]:
        return f"masks are images: {strays[0]}"
    if all(r["masks"] for r in bad):
        return None
    notes = " ".join(result.value["notes"])
    return None if "3" in notes and "mask" in notes.lower() else f"masks lost: {notes[:200]}"


def _values(seed: int) -> Iterator[Attempt]:
    """What the values of a mask mean, whatever stores them."""
    truth = mask_of(200 + seed) > 0

    def grey(value: int) -> Callable[[Path], Any]:
        return lambda path: save_array(path, np.where(truth, value, 0).astype(np.uint8))

    def palette(first: tuple[int, ...], second: tuple[int, ...]) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            image = Image.fromarray(truth.astype(np.uint8), "P")
            image.putpalette([*first, *second] + [77] * 762)
            image.save(path)

        return write

    def deep(path: Path) -> None:
        save_array(path, truth.astype(np.uint16) * 3)

    def one_bit(path: Path) -> None:
        Image.fromarray(truth).save(path)

    def alpha(colour: tuple[int, ...]) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            layers = [np.full(truth.shape, c, np.uint8) for c in colour]
            save_array(path, np.dstack([*layers, np.where(truth, 255, 0).astype(np.uint8)]))

        return write

    def opaque(path: Path) -> None:
        grey_ = np.where(truth, 255, 0).astype(np.uint8)
        save_array(path, np.dstack([grey_] * 3 + [np.full(truth.shape, 255, np.uint8)]))

    def grey_alpha(path: Path) -> None:
        constant = np.full(truth.shape, 255, np.uint8)
        pair = np.dstack([constant, np.where(truth, 255, 0).astype(np.uint8)])
        Image.fromarray(pair, "LA").save(path)

    def red(path: Path) -> None:
        save_array(
            path,
            np.dstack([np.where(truth, 200, 0)] + [np.zeros(truth.shape)] * 2).astype(np.uint8),
        )

    def floating(path: Path) -> None:
        save_array(path, truth.astype(np.float32))

    def lossy(kind: str) -> Callable[[Path], Any]:
        def write(path: Path) -> None:
            big = np.kron(truth, np.ones((4, 4), bool))
            save_array(path, np.where(big, 255, 0).astype(np.uint8), quality=50)

        return write

    cases: dict[str, tuple[str, Callable[[Path], Any]]] = {
        **{f"grey-{v}": ("m.png", grey(v)) for v in (1, 2, 127, 128, 254, 255)},
        "palette-black-white": ("m.png", palette((0, 0, 0), (255, 255, 255))),
        "palette-white-black": ("m.png", palette((255, 255, 255), (0, 0, 0))),
        "palette-black-black": ("m.png", palette((0, 0, 0), (0, 0, 0))),
        "palette-colours": ("m.png", palette((30, 60, 90), (200, 10, 10))),
        "palette-bmp": ("m.bmp", palette((30, 60, 90), (0, 0, 0))),
        "16-bit": ("m.png", deep),
        "1-bit": ("m.png", one_bit),
        "1-bit-bmp": ("m.bmp", one_bit),
        "alpha-over-red": ("m.png", alpha((255, 0, 0))),
        "alpha-over-black": ("m.png", alpha((0, 0, 0))),
        "alpha-over-white": ("m.png", alpha((255, 255, 255))),
        "grey-alpha": ("m.png", grey_alpha),
        "opaque-alpha": ("m.png", opaque),
        "red": ("m.png", red),
        "float": ("m.tif", floating),
        "lossy-jpeg": ("m.jpg", lossy("jpeg")),
        "lossy-webp": ("m.webp", lossy("webp")),
    }
    for name, (file, write) in cases.items():
        make = bind(
            _read_value, file=file, write=write, truth=truth, large=name.startswith("lossy")
        )
        lossy_name = name.startswith("lossy")
        check = bind(_same_mask, share=0.02 if lossy_name else 0.0)
        fast = name in ("palette-white-black", "alpha-over-red", "lossy-webp")
        yield Attempt(f"mask-values-{name}", 2, make, (right(check),), fast=fast)
    for name in ("cut", "text", "bomb"):

        def broken(site: Site, name: str = name) -> Command:
            data = site.data()
            mask = data / "bolt/ground_truth/dent/000_mask.png"
            whole = mask.read_bytes()
            bomb = b"P5\n99999 99999\n255\n"
            mask.write_bytes({"cut": whole[:60], "text": b"mask", "bomb": bomb}[name])
            site.bundle()
            return Command(["evaluate", "parts.snl", "data", "--json", "out.json", "--quiet"])

        expected = (partly("000_mask", status=(1, 2), check=checks.is_json("out.json")),)
        yield Attempt(f"mask-damaged-{name}", 2, broken, expected, ("out.json",))


def _read_value(
    site: Site, file: str, write: Callable[[Path], Any], truth: np.ndarray, large: bool
) -> Command:
    write(site / file)
    wanted = np.kron(truth, np.ones((4, 4), bool)) if large else truth

    def read() -> dict[str, Any]:
        try:
            from snl.data.masks import load_mask
        except ImportError:
            from snl.data.images import load_mask
        mask = load_mask((site / file,))
        if mask.shape != wanted.shape:
            return {"wrong": 1.0}
        return {"wrong": float((mask != wanted).mean())}

    return Command(call=read)


def _same_mask(_: Site, result: Result, share: float) -> str | None:
    wrong = result.value["wrong"]
    return None if wrong <= share else f"{100 * wrong:.1f} % of the mask's pixels are wrong"


def _warned() -> Iterator[Attempt]:
    """Masks that look wrong are warned about by doctor."""

    def inverted(mask: np.ndarray) -> np.ndarray:
        return 255 - mask

    def soft(mask: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(mask.astype(float), 3).astype(np.uint8)

    def picture(mask: np.ndarray) -> np.ndarray:
        return np.random.default_rng(1).integers(0, 256, mask.shape).astype(np.uint8)

    def empty(mask: np.ndarray) -> np.ndarray:
        return np.zeros_like(mask)

    def small(mask: np.ndarray) -> np.ndarray:
        return mask[:20, :20]

    def turned(mask: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(mask.T)

    for change in (inverted, soft, picture, empty, small, turned):

        def make(site: Site, change: Callable[..., Any] = change) -> Command:
            data = site.data()
            for path in (data / "bolt/ground_truth/dent").iterdir():
                save_array(path, change(np.asarray(Image.open(path))))
            return Command(["doctor", "data", "--quiet"])

        said = (partly(r"mask", check=_mentions_mask, status=(0, 1)),)
        yield Attempt(f"mask-warned-{change.__name__}", 2, make, said, fast=change is inverted)


def _mentions_mask(_: Site, result: Result) -> str | None:
    lines = [line for line in result.out.splitlines() if "000_mask" in line or "dent" in line]
    return None if lines else f"nothing about the mask: {result.out[-300:]}"
