"""The report as a file: valid JSON, self-contained, written atomically, small."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snl.errors import SnlError
from snl.reporting import page
from snl.reporting.page import Shown, render, write_page
from snl.reporting.thumbnails import mask_thumbnail, thumbnail
from tests.reporting.made_up import HOSTILE, demo_report, many, report


def block(text: str, name: str) -> Any:
    """Return the content of a JSON block of the page, parsed strictly."""
    blocks = re.findall(f'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert len(blocks) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(blocks[0], parse_constant=refuse)


def shown(**changes: Any) -> Shown:
    """Return an image of the report with some fields replaced."""
    _, images = many(1)
    return dataclasses.replace(next(images), **changes)


def test_the_page_contains_all_values_and_pictures_unchanged() -> None:
    data, stream = many(40)
    images = list(stream)
    text = render(data, images)
    content = block(text, "data")
    columns = content["images"]
    for n, image in enumerate(images):
        assert content["products"][columns["product"][n]] == image.product
        assert columns["p_value"][n] == image.p_value and columns["score"][n] == image.score
        assert (columns["path"][n], columns["label"][n]) == (image.path, image.label)
        pictures = [c and base64.b64decode(c) for c in block(text, f"p{n}")]
        assert pictures == [image.image, image.overlay, image.mask]
        assert columns["mask"][n] == (image.mask is not None)
    assert content["rates"] == data.rates and content["metrics"] == data.metrics
    assert content["calibration"] == {k: sorted(v) for k, v in data.calibration_scores.items()}


def test_write_page_and_render_give_the_same_content(tmp_path: Path) -> None:
    data, stream = many(20)
    images = list(stream)
    path = write_page(tmp_path / "sub" / "report.html", data, iter(images))
    assert path.read_bytes().decode() == render(data, images)
    assert list(path.parent.iterdir()) == [path]


def test_the_page_is_self_contained() -> None:
    data, images = many(3)
    text = render(data, images)
    policy = re.search('Content-Security-Policy" content="([^"]+)"', text)
    assert policy and policy[1].startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    addresses = set(re.findall(r"\w+://[^\s\"'`)]*", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the namespace of SVG, never fetched
    assert not re.search(r"<link(?! rel=\"icon\" href=\"data:,\")|<script src|@import|url\(", text)
    assert not re.search(r"\bon\w+=\"|innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_hostile_names_cannot_end_a_block_or_start_a_tag() -> None:
    image = shown(path=HOSTILE, product=HOSTILE, defect=HOSTILE, recognised=HOSTILE)
    data = report([image], {HOSTILE: [1.0, 2.0]}, title=HOSTILE, notes=[HOSTILE])
    text = render(data, [image])
    assert "<img" not in text
    content = block(text, "data")
    escaped = HOSTILE.replace("\udcff", "\\udcff")
    assert content["products"] == content["notes"] == content["images"]["path"] == [escaped]


def test_values_that_json_does_not_have_are_converted() -> None:
    image = shown(score=float("nan"), calibrated=float("inf"), p_value=None)
    provenance = {
        "array": np.arange(3),
        "number": np.float32(0.5),
        "infinite": float("-inf"),
        "path": Path("parts"),
        "tuple": (1, None, True),
        3: {"deep": {"deeper": [{"a": 1}]}},
    }
    content = block(render(report([], {}, provenance=provenance), [image]), "data")
    assert content["images"]["score"] == content["images"]["calibrated"] == [None]
    assert content["provenance"] == {
        "array": [0, 1, 2],
        "number": 0.5,
        "infinite": None,
        "path": "parts",
        "tuple": [1, None, True],
        "3": {"deep": {"deeper": [{"a": 1}]}},
    }


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    x = np.linspace(0, 1, 100_000)
    y = np.minimum(1, x * 50)
    curves = {"roc": [list(x), list(y)], "pro": [[0.0, 1.0], [0.0, 1.0]]}
    data = report([], {}, curves={"gear": curves}, pooled_curves=curves)
    content = block(render(data, []), "data")
    for thinned in (content["curves"]["gear"], content["pooled_curves"]):
        xs, ys = map(np.asarray, thinned["roc"])
        assert len(xs) <= page.CURVE_POINTS + 2
        assert (xs[0], ys[0], xs[-1], ys[-1]) == (0, 0, 1, 1)
        np.testing.assert_allclose(np.interp(x, xs, ys), y, atol=0.01)
        assert thinned["pro"] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    "shape", [(300, 200), (200, 300), (50, 60), (1, 900), (900, 1), (144, 144)]
)
def test_thumbnails_keep_the_aspect_ratio(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    small = Image.open(io.BytesIO(thumbnail(rng.integers(0, 255, (*shape, 3), np.uint8), 100)))
    mask = Image.open(io.BytesIO(mask_thumbnail(np.ones(shape, bool), 100)))
    assert small.format == "WEBP" and mask.format == "PNG" and mask.mode == "1"
    assert small.size == mask.size
    width, height = small.size
    assert max(width, height) == min(100, max(shape))
    assert (
        abs(width / height - shape[1] / shape[0]) <= 0.51 * shape[1] / shape[0] or 1 in small.size
    )


def test_thin_defects_stay_visible_in_a_mask_thumbnail() -> None:
    for shape in ((1000, 1000), (777, 1501)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 3, shape[1] // 2] = True
        assert np.asarray(Image.open(io.BytesIO(mask_thumbnail(mask)))).any()
    assert not np.asarray(Image.open(io.BytesIO(mask_thumbnail(np.zeros((99, 9), bool))))).any()


def test_the_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    data, stream = many(5)
    path = write_page(tmp_path / "report.html", data, stream)
    before = path.read_bytes()

    def broken() -> Iterator[Shown]:
        yield shown()
        raise KeyError("out of images")

    with pytest.raises(KeyError):
        write_page(path, data, broken())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(
        SnlError,
        match=r"^a\.png: a thumbnail is neither WebP, JPEG nor PNG; make it with thumbnail",
    ):
        write_page(path, data, [shown(path="a.png", overlay=b"<svg>")])
    with pytest.raises(SnlError, match="cannot be written"):
        write_page(path / "below.html", data, [])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_pictures_are_not_kept_in_memory(tmp_path: Path) -> None:
    content = b"RIFF" + bytes(40_000)
    template = shown(mask=None)
    images = (dataclasses.replace(template, image=content, overlay=content) for _ in range(1000))
    tracemalloc.start()
    path = write_page(tmp_path / "report.html", report([], {}), images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 100e6 and peak < 10e6


def test_a_report_on_270_demo_images_is_smaller_than_5_megabytes() -> None:
    """One image of each kind represents the 12 normal images and the 6 of each defect."""
    data, images = demo_report(n_good=1, n_defect=1)
    bare = len(render(data, []))
    size = sum((len(render(data, [i])) - bare) * (12 if i.label == "normal" else 6) for i in images)
    assert sum(12 if i.label == "normal" else 6 for i in images) == 270
    assert 2e6 < bare + size < 5e6


def test_assets_are_part_of_the_package() -> None:
    folder = resources.files("snl.reporting")
    for name in ("page.html", "page.css", "page.js", *(f"page_{n}.js" for n in page._SCRIPTS)):
        text = folder.joinpath(name).read_text(encoding="utf-8")
        assert "</script" not in text or name == "page.html"
        assert len(text.splitlines()) < 300
