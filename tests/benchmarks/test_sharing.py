"""The loss from sharing: own models against one model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import snl
from benchmarks import sharing
from snl.errors import SnlError
from tests.conftest import TINY

SETTINGS = TINY | {"teacher.stages": [1, 2], "training.steps": 4}  # as JSON has them


@pytest.fixture(scope="module")
def results(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sharing") / "sharing.json"
    sharing.run(parts, ["rd"], [0, 1], SETTINGS, path, "cpu")
    return path


def test_every_product_is_seen_equally_often(results: Path, parts: Path) -> None:
    runs = json.loads(results.read_text("utf-8"))["runs"]
    products = snl.Catalog.read(parts).products
    for seed in (0, 1):
        found = {r["product"]: r for r in runs if r["seed"] == seed}
        assert set(found) == {"", *products}
        assert found[""]["set"]["training.steps"] == 4 and set(found[""]["products"]) == {*products}
        for product in products:
            assert found[product]["set"]["training.steps"] == 4 // len(products)  # equal numbers
            assert set(found[product]["products"]) == {product}


def test_a_complete_benchmark_does_nothing_and_an_interrupted_one_resumes(
    results: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, ...]] = []
    train = snl.train

    def counted(catalog: snl.Catalog, **options: object) -> snl.Inspector:
        trained.append(catalog.products)
        return train(catalog, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(snl, "train", counted)
    document = json.loads(results.read_text("utf-8"))
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(document), "utf-8")
    sharing.run(parts, ["rd"], [0, 1], SETTINGS, copy, "cpu")
    assert not trained
    document["runs"] = [r for r in document["runs"] if (r["seed"], r["product"]) != (1, "plate")]
    copy.write_text(json.dumps(document), "utf-8")
    sharing.run(parts, ["rd"], [0, 1], SETTINGS, copy, "cpu")
    assert trained == [("plate",)]
    assert len(json.loads(copy.read_text("utf-8"))["runs"]) == 6


@pytest.mark.parametrize(("own_steps", "steps"), [("images", [3, 1]), ("equal", [2, 2])])
def test_steps_of_own_models(
    varied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_steps: str,
    steps: list[int],
) -> None:
    catalog = snl.Catalog.read(varied)
    train = catalog.train()
    plates = [record for record in train if record.product == "plate"]
    left_out = plates[: len(plates) - len(plates) // 3]  # a quarter of the rest are plates
    records = tuple(record for record in catalog.records if record not in left_out)
    assert [r.product for r in records if r in train].count("bolt") == 40
    smaller = dataclasses.replace(catalog, records=records)
    monkeypatch.setattr(snl.Catalog, "read", lambda *_: smaller)
    path = tmp_path / "x.json"
    settings = {**SETTINGS, "training.batch_size": 1}
    sharing.run(varied, ["rd"], [0], settings, path, "cpu", own_steps)
    runs = json.loads(path.read_text("utf-8"))["runs"]
    assert [r["set"]["training.steps"] for r in runs if r["product"]] == steps


def made_up(method: str, product: str, seed: int, **values: float | None) -> dict[str, object]:
    metrics = {
        name: {"image_auroc": value, "pixel_auroc": None, "aupro": value}
        for name, value in values.items()
    }
    return {"name": method, "product": product, "seed": seed, "products": metrics}


RUNS = [
    made_up("rd", "", 0, a=0.8, b=0.7),
    made_up("rd", "a", 0, a=0.9),
    made_up("rd", "b", 0, b=0.8),
    made_up("rd", "", 1, a=0.8, b=0.9),
    made_up("rd", "a", 1, a=0.9),
    made_up("rd", "b", 1, b=0.6),
    made_up("snl", "", 0, a=0.8, b=None),
    made_up("snl", "a", 0, a=0.75),
    made_up("snl", "", 1, a=0.8),  # its own models are not done yet
]


def test_losses_are_paired_by_product_and_seed(tmp_path: Path) -> None:
    found = sharing.losses(RUNS, "image_auroc")
    assert found["rd"]["a"] == {0: pytest.approx((90, 80)), 1: pytest.approx((90, 80))}
    assert found["rd"]["b"] == {0: pytest.approx((80, 70)), 1: pytest.approx((60, 90))}
    assert found["snl"] == {"a": {0: pytest.approx((75, 80))}}
    assert sharing.losses(RUNS, "pixel_auroc") == {}
    rows = sharing.means_by_seed(found["rd"])
    assert rows[0] == pytest.approx([85, 75, 10]) and rows[1] == pytest.approx([75, 85, -10])


def test_table_and_picture(results: Path, tmp_path: Path) -> None:
    text = sharing.table(results)
    runs = json.loads(results.read_text("utf-8"))["runs"]
    shared = [r["mean"]["image_auroc"] for r in runs if not r["product"]]
    assert f"| {100 * sum(shared) / 2:.1f} ± " in text and text.count("| rd |") == 4
    sharing.picture(results, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_needs_a_complete_product(results: Path, tmp_path: Path) -> None:
    document = json.loads(results.read_text("utf-8"))
    document["runs"] = [r for r in document["runs"] if not r["product"]]
    path = tmp_path / "part.json"
    path.write_text(json.dumps(document), "utf-8")
    with pytest.raises(SnlError, match="no product has both models yet"):
        sharing.table(path)
