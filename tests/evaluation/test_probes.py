"""Probes with predictors whose answers are known: those that see everything, nothing, or colour."""

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
    """Sees every pixel that is not its image's ground, and every ground that is no product's."""

    image_size = SIZE

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ground = np.median(pixels, (1, 2))
        odd = np.abs(pixels - ground[:, None, None]).max(-1)
        known = np.array(list(COLOURS.values()))
        far = np.abs(ground[:, None] - known[None]).max(-1).min(-1)
        return odd.astype(np.float32), (odd.max((1, 2)) + far).astype(np.float32)

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        raise AssertionError("probes are measured at the input's size")


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
    """The brighter the more abnormal; remembers what it was given."""

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


def test_who_sees_everything_gets_100_and_who_sees_nothing_50(tree: Path) -> None:
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
        part = pasted[-8:][:4] if row == "green" else pasted[-4:]
        stack = np.stack(part).astype(int)
        mask = np.abs(stack - COLOURS[column]).max(-1) <= 12
        assert cell.n_cutpaste == 4 and 0 < mask.mean() < 0.2, place
        assert cell.cutpaste == pytest.approx(roc_auc_score(mask.ravel(), stack.mean(-1).ravel()))
    assert any("no visible patch" in note for note in result.notes)


def test_the_same_seed_gives_the_same_whatever_the_batch(tree: Path) -> None:
    first = snl.probe(Bright(), tree, images=7, batch_size=16)
    for batch_size in (1, 3, 100):
        assert snl.probe(Bright(), tree, images=7, batch_size=batch_size) == first
    one, other = Bright(), Bright()
    snl.probe(one, tree, images=7)
    snl.probe(other, tree, images=7, seed=1)
    assert any((a != b).any() for a, b in zip(one.seen, other.seen, strict=True))


def test_a_pair_does_not_depend_on_the_other_products(tree: Path) -> None:
    every = snl.probe(Bright(), tree, images=7)
    some = snl.probe(Bright(), tree, images=7, products=["red", "blue"])
    assert some.columns == ("blue", "red")
    assert set(some.cells) < set(every.cells)


def test_an_inspector_of_one_product_meets_the_same_images(tree: Path) -> None:
    class One(Bright):
        products = ("green", "purple")

    every, one = snl.probe(Bright(), tree, images=7), snl.probe(One(), tree, images=7)
    assert one.rows == ("green",) and one.columns == ("blue", "green", "red")
    assert one.cells == tuple(cell for cell in every.cells if cell.row == "green")
    assert list(one.normals) == ["green"]
    assert one.summary("mixup")["n_pairs"] == 2


def test_an_uneven_share_tells_rows_from_columns(tree: Path) -> None:
    """Mostly green is near green's brightness; both orders differ, as they do not at one half."""

    class One(Bright):
        products = ("green",)

    seen = {}
    for share in (0.5, 0.9):
        predictor = One()
        snl.probe(predictor, tree, products=["green", "red"], images=3, share=share)
        blends = predictor.seen[5 : 5 + 3 + 3]  # after green's normal images: two kinds of blend
        seen[share] = [blend.mean((0, 1)) for blend in blends[-3:]]
    for colour in seen[0.9]:
        wanted = 0.9 * np.array(COLOURS["green"]) + 0.1 * np.array(COLOURS["red"])
        np.testing.assert_allclose(colour, wanted, atol=9)
    for colour in seen[0.5]:
        wanted = (np.array(COLOURS["green"]) + np.array(COLOURS["red"])) / 2
        np.testing.assert_allclose(colour, wanted, atol=9)


def test_training_images_stand_in_only_where_there_are_no_others(tree: Path) -> None:
    shutil.rmtree(tree / "red" / "test" / "good")
    predictor = Bright()
    result = snl.probe(predictor, tree, images=3)
    assert result.normals["red"] == {"split": "train", "n": 2}
    assert result.normals["blue"] == {"split": "test", "n": 5}
    assert len(result.notes) >= 1 and "no normal test images of red:" in result.notes[0]
    shutil.rmtree(tree / "red" / "train")
    with pytest.raises(DataError, match="no normal images of 'red'"):
        snl.probe(Blind(), tree)


def test_images_that_cannot_be_read_are_told(tree: Path) -> None:
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


def test_wrong_input_is_told(tree: Path) -> None:
    class Other(Blind):
        products = ("purple",)

    with pytest.raises(DataError, match=r"none of blue, green, red was taught.*\(purple\)"):
        snl.probe(Other(), tree)
    with pytest.raises(DataError, match="only one product to probe \\('red'\\)"):
        snl.probe(Blind(), Catalog.read(tree).of("red"))
    with pytest.raises(DataError, match="did you mean green"):
        snl.probe(Blind(), tree, products=["red", "gren"])
    for wrong in ({"images": 0}, {"share": 0.0}, {"share": 1.0}, {"seed": -1}):
        with pytest.raises(SettingsError, match="it must be"):
            snl.probe(Blind(), tree, **wrong)  # type: ignore[arg-type]


def made_up(names: list[str]) -> Interference:
    cells = [
        Cell(a, b, 0.4 if a == b else 0.9, None if a == b else 0.8, 1.0, 3, 3 * (a != b))
        for a, b in product(names, names)
    ]
    cells[1] = Cell(names[0], names[1], 0.1, 0.2, 0.3, 3, 3)
    return Interference(tuple(names), tuple(names), tuple(cells), {}, {}, (), ())


def test_the_number_is_over_pairs_of_two_products() -> None:
    result = made_up(["a", "b", "c"])
    found = result.to_dict()
    assert found["mixup"]["mean"] == pytest.approx((5 * 0.9 + 0.1) / 6)
    assert found["mixup"]["worst"] == {"row": "a", "column": "b", "value": 0.1}
    assert found["mixup"]["same_product"] == pytest.approx(0.4)
    assert found["cutpaste"]["same_product"] is None and found["cutpaste"]["n_pairs"] == 6
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("names", [["a", "b"], [f"a long name {n}" for n in range(15)]])
def test_the_table_is_aligned(names: list[str]) -> None:
    lines = format_probes(made_up(names)).splitlines()
    blocks = [line for line in lines if line.startswith((*names, "  "))]
    assert len(blocks) == 2 * (len(names) + 1)
    assert len({len(line) for line in blocks}) == 1
    assert max(map(len, blocks)) < 130
    assert "(" + ", ".join(names[:2]) + ")" in lines[-1]
