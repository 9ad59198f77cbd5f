"""From an inspector and a catalog to the data of the page."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import snl
from snl.reporting.collect import report


def test_the_page_names_the_part_of_each_image(bundle: Path, parts: Path, tmp_path: Path) -> None:
    inspector, path = snl.load(bundle, "cpu"), tmp_path / "report.html"
    catalog = snl.Catalog.read(parts, part_pattern=r"t\w+/\w+/\d+")
    evaluation = report(inspector, catalog, path)
    (text,) = re.findall('id="data">(.*?)</script>', path.read_text("utf-8"))
    content = json.loads(text)
    assert content["images"]["part"] == [image.part for image in evaluation.scores]
    assert content["metrics"]["parts"] == evaluation.to_dict()["parts"]
    assert content["notes"][0].startswith("by part (2 normal, 2 anomalous): ")


def test_the_page_says_where_normal_images_lie_further_than_held_out_ones(
    calibrated: Path, varied: Path, tmp_path: Path
) -> None:
    def notes() -> list[str]:
        report(inspector, varied, path)
        (text,) = re.findall('id="data">(.*?)</script>', path.read_text("utf-8"))
        found: list[str] = json.loads(text)["notes"]
        return [note for note in found if "lie further" in note]

    inspector, path = snl.load(calibrated, "cpu"), tmp_path / "report.html"
    assert notes() == []
    before = inspector.calibration.sets["bolt"]
    nearer = dataclasses.replace(before, distances=np.zeros_like(before.distances))
    inspector.recalibrate(inspector.calibration.with_sets({"bolt": nearer}))
    (note,) = notes()
    assert note.startswith("bolt: ") and note.endswith("snl calibrate FILE NORMALS")


def test_the_page_has_tables_curves_and_rates_by_product_and_pooled(
    bundle: Path, parts: Path, tmp_path: Path
) -> None:
    inspector, catalog = snl.load(bundle, "cpu"), snl.Catalog.read(parts)
    path = tmp_path / "report.html"
    evaluation = report(inspector, catalog, path)
    blocks = re.findall(
        '<script type="application/json" id="(.*?)">(.*?)</script>', path.read_text("utf-8")
    )
    content = json.loads(dict(blocks)["data"])
    products = sorted(inspector.products)
    assert content["products"] == sorted(content["curves"]) == sorted(content["least_rates"])
    assert content["products"] == sorted(content["metrics"]["products"]) == products
    assert set(content["metrics"]["decisions"]) == {"products", "overall"}
    assert sorted(content["metrics"]["decisions"]["products"]) == products
    rates = json.loads(json.dumps(evaluation.detection_rates.to_dict()))
    assert content["metrics"]["detection_rates"] == rates
    shown_kinds = {k for k in content["images"]["defect"] if k}
    assert shown_kinds == {k for row in rates["products"].values() for k in row["kinds"]}
    for shown, computed in (
        *((content["curves"][name], evaluation.curves[name]) for name in products),
        (content["pooled_curves"], evaluation.pooled_curves),
    ):
        x, y = computed["roc"]  # few images, so no point is thinned out
        np.testing.assert_allclose(shown["roc"], [x, y], atol=1e-6)
        assert shown["pro"][0][0] == 0 and len(shown["pro"][0]) == len(shown["pro"][1])
    counts = {name: len(scores) for name, scores in content["calibration"].items()}
    together = 1 / (sum(counts.values()) + 1)
    assert content["least_rates"] == pytest.approx(dict.fromkeys(counts, together))
    assert content["pooled_least_rate"] == pytest.approx(together)
    assert len(content["images"]["path"]) == len(evaluation.scores)
    assert set(dict(blocks)) == {"data", *(f"p{n}" for n in range(len(evaluation.scores)))}
