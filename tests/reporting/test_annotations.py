"""COCO and LabelMe files: checked against the published formats and with the COCO reader."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.measure import label

from snl.decision.regions import find_regions
from snl.errors import DataError, SnlError
from snl.reporting.annotations import coco_file, to_coco, to_labelme

LEVEL = 0.05


def inspection(seed: int, path: str | None = "parts/a.png", **changes: Any) -> SimpleNamespace:
    height, width = 90 + seed, 130
    rng = np.random.default_rng(seed)
    levels = gaussian_filter(rng.normal(size=(height, width)), 4).astype(np.float32)
    values = {
        "path": path,
        "size": (height, width),
        "anomaly_map": levels,
        "score": 1.5,
        "decision": "anomalous",
        "product": "bolt",
        "p_value": 0.01,
        "regions": find_regions(levels, LEVEL, smallest=5, p_value=lambda peak: 0.02),
    }
    return SimpleNamespace(**{**values, **changes})


def masks(levels: np.ndarray) -> dict[tuple[int, int, int, int], np.ndarray]:
    """Return the components of at least five pixels by bounding box, labelled by scikit-image."""
    labels = label(levels > LEVEL, connectivity=2)
    components = {}
    for i in range(1, labels.max() + 1):
        ys, xs = np.nonzero(labels == i)
        box = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        components[tuple(map(int, box))] = labels == i
    return {box: mask for box, mask in components.items() if mask.sum() >= 5}


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())


def coco_reader(document: dict[str, Any], folder: Path) -> Any:
    coco = pytest.importorskip("pycocotools.coco")
    (folder / "coco.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
    return coco.COCO(str(folder / "coco.json"))


def test_coco_follows_the_format() -> None:
    several = [inspection(1), inspection(2, regions=()), inspection(3, "b.png", product=None)]
    document = to_coco(several)
    assert document.keys() == {"info", "licenses", "images", "annotations", "categories"}
    assert [c["name"] for c in document["categories"]] == ["anomaly"]
    assert [i["id"] for i in document["images"]] == [1, 2, 3]
    sizes = [(i["file_name"], i["height"], i["width"]) for i in document["images"]]
    assert sizes == [("parts/a.png", 91, 130), ("parts/a.png", 92, 130), ("b.png", 93, 130)]
    ids = [a["id"] for a in document["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert [a["image_id"] for a in document["annotations"]] == (
        [1] * len(several[0].regions) + [3] * len(several[2].regions)
    )
    for annotation in document["annotations"]:
        assert annotation["category_id"] == 1 and annotation["iscrowd"] == 0
        (flat,) = annotation["segmentation"]
        assert len(flat) >= 6 and len(flat) % 2 == 0
        x, y, width, height = annotation["bbox"]
        assert x - 1 <= min(flat[::2]) and max(flat[::2]) <= x + width + 1
        assert y - 1 <= min(flat[1::2]) and max(flat[1::2]) <= y + height + 1
        assert annotation["p_value"] == 0.02
    peaks = [a["score"] for a in document["annotations"]]
    assert peaks == [r.peak for i in several for r in i.regions]
    assert json.loads(json.dumps(document, allow_nan=False)) == document == to_coco(several)


def test_the_coco_reader_returns_the_masks(tmp_path: Path) -> None:
    several = [inspection(seed) for seed in range(4)]
    reader = coco_reader(to_coco(several), tmp_path)
    assert len(reader.getImgIds()) == 4 and reader.getCatIds(catNms=["anomaly"]) == [1]
    count = 0
    for number, example in enumerate(several, 1):
        expected = masks(example.anomaly_map)
        annotations = reader.loadAnns(reader.getAnnIds(imgIds=number))
        assert len(annotations) == len(expected)
        for annotation in annotations:
            mask = expected[tuple(map(int, annotation["bbox"]))]
            assert annotation["area"] == mask.sum()
            assert overlap(reader.annToMask(annotation) > 0, binary_fill_holes(mask)) > 0.9
            count += 1
    assert count > 10


def test_coco_results_can_be_loaded_as_detections(tmp_path: Path) -> None:
    document = to_coco([inspection(1)])
    reader = coco_reader(document, tmp_path)
    assert len(reader.loadRes(document["annotations"]).anns) == len(document["annotations"])


def test_file_names_are_relative_to_the_root(tmp_path: Path) -> None:
    inside, outside = str(tmp_path / "x" / "a.png"), "elsewhere/b.png"
    several = [inspection(1, inside), inspection(1, outside), inspection(1, None)]
    names = [i["file_name"] for i in to_coco(several, tmp_path)["images"]]
    assert names == ["x/a.png", "elsewhere/b.png", "image-3"]


def test_values_that_json_does_not_have_are_null() -> None:
    (image,) = to_coco([inspection(1, score=math.nan, p_value=None)])["images"]
    assert image["score"] is None and image["p_value"] is None


@pytest.mark.parametrize("count", [0, 1, 4])
def test_coco_file_equals_to_coco(count: int, tmp_path: Path) -> None:
    several = [inspection(s, regions=()) if s == 0 else inspection(s) for s in range(count)]
    with coco_file(tmp_path / "new" / "c.json", "parts") as add:
        for example in several:
            add(example)
    text = (tmp_path / "new" / "c.json").read_text(encoding="utf-8")
    assert json.loads(text) == to_coco(several, "parts")
    with pytest.raises(
        SnlError, match=r"c\.json: is already closed; add inspections inside the with block"
    ):
        add(inspection(1))


def test_an_error_leaves_the_existing_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with coco_file(path):
        pass
    before = path.read_text()
    with pytest.raises(RuntimeError), coco_file(path) as add:
        add(inspection(1))
        raise RuntimeError
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["c.json"]
    with pytest.raises(SnlError, match="cannot be written"), coco_file(path / "below.json"):
        pass


def test_labelme_follows_the_format() -> None:
    example = inspection(5, "parts/ü/a b.png")
    document = to_labelme(example)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    # the keys that labelme 5 reads; it keeps all others when it saves
    assert document.keys() - {"snl"} == {
        "version",
        "flags",
        "shapes",
        "imagePath",
        "imageData",
        "imageHeight",
        "imageWidth",
    }
    assert document["version"].split(".")[0] == "5" and document["imageData"] is None
    assert document["flags"] == {"anomalous": True}
    assert (document["imagePath"], document["imageHeight"], document["imageWidth"]) == (
        "a b.png",
        95,
        130,
    )
    expected = list(masks(example.anomaly_map).values())
    assert len(document["shapes"]) == len(expected) > 2
    for shape in document["shapes"]:
        assert shape["label"] == "anomaly" and shape["shape_type"] == "polygon"
        assert shape["flags"] == {} and shape["group_id"] is None
        assert all(len(point) == 2 for point in shape["points"]) and len(shape["points"]) >= 3
        # drawn at eight times the size, because PIL's polygons include their outline
        fine = Image.new("L", (130 * 8, 95 * 8))
        corners = [(x * 8 - 0.5, y * 8 - 0.5) for x, y in shape["points"]]
        ImageDraw.Draw(fine).polygon(corners, fill=1)
        drawn = np.asarray(fine).reshape(95, 8, 130, 8).mean((1, 3)) > 0.5
        assert max(overlap(drawn, binary_fill_holes(mask)) for mask in expected) > 0.9


def test_labelme_needs_an_image_path() -> None:
    with pytest.raises(DataError, match="image_path"):
        to_labelme(inspection(1, None))
    assert to_labelme(inspection(1, None), "../a.png")["imagePath"] == "../a.png"
