"""The same products among others: which are joined, what is measured, the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import snl
from benchmarks.many_products import joined, run, table
from snl.errors import SnlError
from tests.conftest import TINY
from tests.trees import make_mvtec


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Two data sets with other products; the second one has a product of the first, too."""
    first, second = make_mvtec(tmp_path / "first"), make_mvtec(tmp_path / "second")
    names = sorted(path.name for path in second.iterdir() if path.is_dir())
    (second / names[0]).rename(second / "zebra")
    return first, second


def test_products_are_joined(data: tuple[Path, Path]) -> None:
    first, second = data
    own, other = (snl.Catalog.read(path).products for path in data)
    alone = joined(first, None, 1, 1)
    assert alone.products == own[:1]
    both = joined(first, second, len(own), len(own) + 1)
    assert set(both.products) == {*own, "zebra"} and len(other) == len(own)
    assert {r.path.is_relative_to(second) for r in both.records if r.product == "zebra"} == {True}
    assert {r.path.is_relative_to(first) for r in both.records if r.product != "zebra"} == {True}
    with pytest.raises(SnlError, match="products are asked for"):
        joined(first, None, 1, len(own) + 1)


def test_a_run_and_its_table(data: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = data
    own = snl.Catalog.read(first).products
    output = tmp_path / "many.json"
    settings = json.loads(json.dumps(TINY))  # as they are read from the results
    del settings["training.steps"]
    for _ in range(2):  # the second time everything is done
        counts = (len(own), len(own) + 1)
        run(first, second, len(own), counts, "snl", (0,), 4, settings, output)
    runs = json.loads(output.read_text())["runs"]
    assert [one["count"] for one in runs] == [len(own), len(own) + 1]
    for one in runs:
        assert set(one["products"]) == set(own) and set(one["decisions"]["products"]) == set(own)
        assert one["training"]["steps"] == 4 * one["count"]
        assert one["training"]["peak_mib"] > 100 and one["bundle_mib"] > 0
    images = [sum(one["all_products"]["normal"].values()) for one in runs]
    assert images[1] > images[0]
    lines = table(output).splitlines()
    rows = [line for line in lines if line.startswith("| snl")]
    assert len(rows) == 2 and f"{len(own) + 1} products" in rows[1]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
