"""LabelMe files: their areas against a test of every pixel's position, and damaged files."""
# ruff: noqa: E501

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snl.data.labelme import is_labelme
from snl.data.masks import load_mask
from snl.errors import ImageError

WIDTH, HEIGHT = 60, 40


def write(path: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    content = {"imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": list(shapes), **more}
    path.write_text(json.dumps(content))
    return path


def shape(kind: str | None, *points: tuple[float, float], **more: Any) -> dict[str, Any]:
    return {"label": "dent", "shape_type": kind, "points": [list(p) for p in points], **more}


YS, XS = np.mgrid[:HEIGHT, :WIDTH]


def test_areas_of_shapes(tmp_path: Path) -> None:
    rectangle = write(tmp_path / "r.json", shape("rectangle", (30, 25), (10, 5)))
    inside = (XS >= 10) & (XS <= 30) & (YS >= 5) & (YS <= 25)
    np.testing.assert_array_equal(load_mask((rectangle,)), inside)
    triangle = write(tmp_path / "t.json", shape("polygon", (10, 5), (50, 5), (10, 35)))
    inside = (XS >= 10) & (YS >= 5) & ((XS - 10) / 40 + (YS - 5) / 30 <= 1)
    assert (load_mask((triangle,)) != inside).sum() <= 40  # the slanted edge
    circle = write(tmp_path / "c.json", shape("circle", (30, 20), (40, 20)))
    distance = np.hypot(XS - 30, YS - 20)
    found = load_mask((circle,))
    assert found[distance < 9].all() and not found[distance > 11].any()
    union = load_mask((rectangle, circle), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(union, load_mask((rectangle,)) | found)


def test_other_shapes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(stream, "PNG")
    text = base64.b64encode(stream.getvalue()).decode()
    path = write(
        tmp_path / "m.json",
        shape("mask", (5, 6), (6, 7), mask=text),
        shape("point", (20, 20)),
        shape("line", (30, 10), (34, 10)),
        shape(None, (50, 30), (55, 30), (55, 35)),
    )
    mask = load_mask((path,))
    assert mask[6, 6] and mask[7, 5] and not mask[6, 5] and mask[20, 20] and mask[10, 30:35].all()
    assert mask[31, 54] and mask.shape == (HEIGHT, WIDTH)
    assert not load_mask((write(tmp_path / "none.json"),)).any()


def test_shapes_outside_the_image_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", shape("rectangle", (-50, -50), (1000, 3)))
    np.testing.assert_array_equal(load_mask((path,)), YS <= 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"shapes": []}',
        "[" * 100_000,
        '{"shapes": [], "imageWidth": 0, "imageHeight": 5}',
        '{"shapes": [], "imageWidth": -5, "imageHeight": -5}',
        '{"shapes": [], "imageWidth": 1e300, "imageHeight": 5}',
        '{"shapes": [], "imageWidth": 400000, "imageHeight": 400000}',
        '{"shapes": [{}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [3], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": {"a": 1}, "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[1, 2, 3]]}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[NaN, 2], [1, 1], [2, 2]]}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [["1", 2], [1, 1], [2, 2]]}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[1e99, 2], [1, 1], [2, 2]]}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[1, 2], [2, 2]], "shape_type": "star"}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[1, 2], [2, 2]], "shape_type": "mask", "mask": "??"}], "imageWidth": 4, "imageHeight": 5}',
        '{"shapes": [{"points": [[1, 2], [2, 2]], "shape_type": "mask", "mask": "AAAA"}], "imageWidth": 4, "imageHeight": 5}',
    ],
)  # fmt: skip
def test_damaged_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ImageError) as caught:
        load_mask((path,))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_recognition(tmp_path: Path) -> None:
    assert is_labelme(write(tmp_path / "a.json"))
    (tmp_path / "b.json").write_text('{"exposure": 3}')
    assert not is_labelme(tmp_path / "b.json")
    assert not is_labelme(tmp_path / "missing.json")
