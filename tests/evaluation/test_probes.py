"""Probes with predictors of known behaviour: those that see everything, nothing, or colour."""

from __future__ import annotations

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import snl
from snl.data.catalog import Catalog
from snl.errors import DataError, SettingsError
from snl.evaluation.probe_results import MEASURES, Cell, Interference, format_probes

SIZE = 32
COLOURS = {"blue": (20, 40, 200), "green": (30, 190, 40), "red": (220, 30, 20)}


class Seeing:
    """Sees every pixel that differs from the background, and every background of no product."""

    image_size = SIZE

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        background = np.median(pixels, (1, 2))
        odd = np.abs(pixels - background[:, None, None]).max(-1)
        known = np.array(list(COLOURS.values()))
        far = np.abs(background[:, None] - known[None]).max(-1).min(-1)
        return odd.astype(np.float32), (odd.max((1, 2)) + far).astype(np.float32)

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        raise AssertionError("probes are measured at the size of the input")


class Blind(Seeing):
    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(pixels.shape[:3], np.float32), np.zeros(len(pixels), np.float32)


class Guessing(Seeing):
    """Noise that depends on each image alone."""

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        noise = [np.random.default_rng([3, int(p.sum())]).random((SIZE, SIZE)) for p in pixels]
        maps = np.array(noise, np.float32)
        return maps, maps[:, 0, 0]


class Bright(Seeing):
    """Scores brightness; records its input."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.seen += list(pixels)
        maps = pixels.mean(-1, dtype=np.float32)
        return maps, maps.mean((1, 2))


def paint(folder: Path, colour: tuple[int, ...], count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *colour])
    for n in range(count):
        image = np.array(colour) + rng.integers(-8, 9) + rng.integers(-4, 5, (SIZE, SIZE, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{n}.png")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        paint(tmp_path / "tree" / name / "train" / "good", colour, 2, seed=1)
        paint(tmp_path / "tree" / name / "test" / "good", colour, 5)
        paint(tmp_path / "tree" / name / "test" / "bad", (9, 9, 9), 1)
    return tmp_path / "tree"


def off_diagonal(result: Interference, measure: str) -> np.ndarray:
    return result.table(measure)[~np.eye(len(result.rows), dtype=bool)]


def test_seeing_everything_gives_100_percent_and_seeing_nothing_50(tree: Path) -> None:
    seeing, blind = (snl.probe(p, tree, images=6) for p in (Seeing(), Blind()))
    assert seeing.rows == seeing.columns == ("blue", "green", "red")
    for measure in MEASURES:
        np.testing.assert_allclose(off_diagonal(seeing, measure), 1, atol=1e-6)
        np.testing.assert_array_equal(off_diagonal(blind, measure), 0.5)
        assert blind.summary(measure)["mean"] == 0.5
    guessing = snl.probe(Guessing(), tree, images=6)
    np.testing.assert_allclose(off_diagonal(guessing, "cutpaste"), 0.5, atol=0.1)


def test_mixup_agrees_with_scikit_learn_over_all_blends(tree: Path) -> None:
    result = snl.probe(Bright(), tree, images=25)  # as many as there are pairs of 5 and 5 images
    images = {
        name: [
            np.asarray(Image.open(path), float)
            for path in sorted((tree / name).glob("test/good/*"))
        ]
        for name in COLOURS
    }
    for cell in result.cells:
        normal = [image.mean() for image in images[cell.row]]
        pairs = list(product(images[cell.row], images[cell.column]))
        if cell.row == cell.column:
            pairs = [(a, b) for a, b in pairs if a.sum() < b.sum()]
        blends = [np.rint((a + b) / 2).mean() for a, b in pairs]
        labels = [0] * len(normal) + [1] * len(blends)
        assert cell.n_mixup == len(blends)
        assert cell.mixup == pytest.approx(roc_auc_score(labels, normal + blends), abs=0.01)
    assert result.normals["red"] == {"split": "test", "n": 5}


def test_cutpaste_agrees_with_scikit_learn(tree: Path) -> None:
    predictor = Bright()
    result = snl.probe(predictor, tree, products=["green", "red"], images=4)
    pasted = predictor.seen[-16:]  # of the pairs green-green, green-red, red-green, red-red
    for place, (row, column) in enumerate(product(("green", "red"), repeat=2)):
        cell = result.cells[2 * result.rows.index(row) + result.columns.index(column)]
        assert (cell.row, cell.column) == (row, column)
        if row == column:  # noise on noise is no anomaly
            assert (cell.cutpaste, cell.n_cutpaste) == (None, 0)
            continue
        images = pasted[-8:][:4] if row == "green" else pasted[-4:]
        stack = np.stack(images).astype(int)
        mask = np.abs(stack - COLOURS[column]).max(-1) <= 12
        assert cell.n_cutpaste == 4 and 0 < mask.mean() < 0.2, place
        assert cell.cutpaste == pytest.approx(roc_auc_score(mask.ravel(), stack.mean(-1).ravel()))
    assert any("no visible patch" in note for note in result.notes)


def test_results_depend_on_the_seed_but_not_on_the_batch_size(tree: Path) -> None:
    first = snl.probe(Bright(), tree, images=7, batch_size=16)
    for batch_size in (1, 3, 100):
        assert snl.probe(Bright(), tree, images=7, batch_size=batch_size) == first
    zero, one = Bright(), Bright()
    snl.probe(zero, tree, images=7)
    snl.probe(one, tree, images=7, seed=1)
    assert any((a != b).any() for a, b in zip(zero.seen, one.seen, strict=True))


def test_a_pair_does_not_depend_on_the_other_products(tree: Path) -> None:
    complete = snl.probe(Bright(), tree, images=7)
    subset = snl.probe(Bright(), tree, images=7, products=["red", "blue"])
    assert subset.columns == ("blue", "red")
    assert set(subset.cells) < set(complete.cells)


def test_an_inspector_of_one_product_gets_the_same_images(tree: Path) -> None:
    class One(Bright):
        products = ("green", "purple")

    complete, one = snl.probe(Bright(), tree, images=7), snl.probe(One(), tree, images=7)
    assert one.rows == ("green",) and one.columns == ("blue", "green", "red")
    assert one.cells == tuple(cell for cell in complete.cells if cell.row == "green")
    assert list(one.normals) == ["green"]
    assert one.summary("mixup")["n_pairs"] == 2


def test_an_unequal_share_distinguishes_rows_from_columns(tree: Path) -> None:
    """At 0.9 a blend is close to the row's colour; at 0.5 both orders give the same blends."""

    class One(Bright):
        products = ("green",)

    seen = {}
    for share in (0.5, 0.9):
        predictor = One()
        snl.probe(predictor, tree, products=["green", "red"], images=3, share=share)
        blends = predictor.seen[5 : 5 + 3 + 3]  # after green's normal images: two kinds of blend
        seen[share] = [blend.mean((0, 1)) for blend in blends[-3:]]
    for colour in seen[0.9]:
        expected = 0.9 * np.array(COLOURS["green"]) + 0.1 * np.array(COLOURS["red"])
        np.testing.assert_allclose(colour, expected, atol=9)
    for colour in seen[0.5]:
        expected = (np.array(COLOURS["green"]) + np.array(COLOURS["red"])) / 2
        np.testing.assert_allclose(colour, expected, atol=9)


def test_training_images_are_used_only_where_there_are_no_test_images(tree: Path) -> None:
    shutil.rmtree(tree / "red" / "test" / "good")
    predictor = Bright()
    result = snl.probe(predictor, tree, images=3)
    assert result.normals["red"] == {"split": "train", "n": 2}
    assert result.normals["blue"] == {"split": "test", "n": 5}
    assert len(result.notes) >= 1 and "no normal test images of red:" in result.notes[0]
    shutil.rmtree(tree / "red" / "train")
    with pytest.raises(DataError, match="no normal images of 'red'"):
        snl.probe(Blind(), tree)


def test_unreadable_images_are_reported(tree: Path) -> None:
    good = tree / "red" / "test" / "good"
    (good / "0.png").write_bytes(b"torn")
    calls: list[tuple[int, int]] = []
    result = snl.probe(Blind(), tree, images=9, progress=lambda d, t: calls.append((d, t)))
    assert len(result.skipped) == 1 and "0.png" in result.skipped[0]
    assert result.normals["red"]["n"] == 4
    assert calls[-1][0] == calls[-1][1] == 15 + 9 * (6 + 9)
    assert calls == sorted(calls)
    for path in good.iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(DataError, match="no normal image drawn from 'red' can be read"):
        snl.probe(Blind(), tree)


def test_wrong_input_is_reported(tree: Path) -> None:
    class Other(Blind):
        products = ("purple",)

    with pytest.raises(
        DataError,
        match=r"none of blue, green, red is one of .* products \(purple\); give data that",
    ):
        snl.probe(Other(), tree)
    with pytest.raises(DataError, match="only one product to probe \\('red'\\)"):
        snl.probe(Blind(), Catalog.read(tree).of("red"))
    with pytest.raises(DataError, match="did you mean green"):
        snl.probe(Blind(), tree, products=["red", "gren"])
    for wrong in ({"images": 0}, {"share": 0.0}, {"share": 1.0}, {"seed": -1}):
        with pytest.raises(SettingsError, match="it must be"):
            snl.probe(Blind(), tree, **wrong)  # type: ignore[arg-type]


def synthetic(names: list[str]) -> Interference:
    cells = [
        Cell(a, b, 0.4 if a == b else 0.9, None if a == b else 0.8, 1.0, 3, 3 * (a != b))
        for a, b in product(names, names)
    ]
    cells[1] = Cell(names[0], names[1], 0.1, 0.2, 0.3, 3, 3)
    return Interference(tuple(names), tuple(names), tuple(cells), {}, {}, (), ())


def test_the_summary_is_over_pairs_of_two_products() -> None:
    result = synthetic(["a", "b", "c"])
    values = result.to_dict()
    assert values["mixup"]["mean"] == pytest.approx((5 * 0.9 + 0.1) / 6)
    assert values["mixup"]["worst"] == {"row": "a", "column": "b", "value": 0.1}
    assert values["mixup"]["same_product"] == pytest.approx(0.4)
    assert values["cutpaste"]["same_product"] is None and values["cutpaste"]["n_pairs"] == 6
    assert json.loads(json.dumps(values, allow_nan=False)) == values


@pytest.mark.parametrize("names", [["a", "b"], [f"a long name {n}" for n in range(15)]])
def test_the_table_is_aligned(names: list[str]) -> None:
    lines = format_probes(synthetic(names)).splitlines()
    blocks = [line for line in lines if line.startswith((*names, "  "))]
    assert len(blocks) == 2 * (len(names) + 1)
    assert len({len(line) for line in blocks}) == 1
    assert max(map(len, blocks)) < 130
    assert "(" + ", ".join(names[:2]) + ")" in lines[-1]
