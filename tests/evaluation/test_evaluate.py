"""From maps to the table: what is counted, what is left out, at which size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

import snl
from snl.data.catalog import Catalog
from snl.errors import DataError
from snl.evaluation.evaluate import METRICS, Evaluation, format_table
from tests.trees import make_flat, make_mvtec


class Darkness:
    """A predictor without a network: the darker a pixel, the more abnormal."""

    image_size = 64

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = 255 - pixels.mean(-1).astype(np.float32)
        return maps, maps.max((1, 2))

    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        image = Image.fromarray(anomaly_map)
        return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_mvtec(tmp_path / "tree")


def by_hand(catalog: Catalog, product: str | None) -> dict[str, float]:
    """The same numbers by scikit-learn from arrays held all at once."""
    scores, labels, maps, masks = [], [], [], []
    for record in catalog.test():
        if product in (None, record.product):
            image = Image.open(record.path).convert("RGB")
            image = image.resize((64, 64), Image.Resampling.BILINEAR)
            anomaly_map = 255 - np.asarray(image).mean(-1)
            scores.append(anomaly_map.max())
            labels.append(record.label == "anomalous")
            if record.mask_known:
                mask = np.zeros((64, 64), bool)
                for file in record.mask:
                    resized = Image.open(file).resize((64, 64), Image.Resampling.NEAREST)
                    mask |= np.asarray(resized) > 0
                maps.append(anomaly_map.astype(np.float32).ravel())
                masks.append(mask.ravel())
    flat, truth = np.concatenate(maps), np.concatenate(masks)
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "pixel_auroc": roc_auc_score(truth, flat),
        "pixel_ap": average_precision_score(truth, flat),
    }


def test_products_mean_and_pooled_agree_with_scikit_learn(tree: Path) -> None:
    catalog = Catalog.read(tree)
    result = snl.evaluate(Darkness(), catalog)
    for product in catalog.products:
        for name, value in by_hand(catalog, product).items():
            assert result.products[product][name] == pytest.approx(value, abs=1e-4), name
    for name, value in by_hand(catalog, None).items():
        assert result.pooled[name] == pytest.approx(value, abs=1e-4), name
    for name in METRICS:
        values = [result.products[p][name] for p in catalog.products]
        assert result.mean[name] == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    assert (result.mean["n_normal"], result.mean["n_anomalous"], result.mean["n_masked"]) == (
        4,
        4,
        8,
    )
    assert len(result.scores) == 8


def test_unknown_masks_are_left_out_and_counted(tree: Path) -> None:
    full = snl.evaluate(Darkness(), tree)
    mask = sorted((tree / "bolt" / "ground_truth").rglob("*.png"))[0]
    mask.unlink()
    result = snl.evaluate(Darkness(), tree)
    assert result.products["bolt"]["n_masked"] == 3
    assert result.products["bolt"]["n_anomalous"] == 2
    assert result.products["bolt"]["image_auroc"] == full.products["bolt"]["image_auroc"]
    assert result.products["plate"] == full.products["plate"]
    for file in (tree / "bolt" / "ground_truth").rglob("*.png"):
        file.unlink()
    none = snl.evaluate(Darkness(), tree)
    assert none.products["bolt"]["pixel_auroc"] is None
    assert none.mean["pixel_auroc"] == none.products["plate"]["pixel_auroc"]
    json.dumps(none.to_dict(), allow_nan=False)
    assert " - " in format_table(none)


def test_pooled_is_not_the_mean(tree: Path) -> None:
    """One threshold for all products: a product whose scores lie higher costs pooled AUROC."""

    class Shifted(Darkness):
        def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            maps, _ = super().predict(pixels)
            plate = pixels[:, 14, 14].mean(-1) > 120  # the corner of a plate, not of a bolt
            return maps + 500 * plate[:, None, None].astype(np.float32), maps.max(
                (1, 2)
            ) + 500 * plate

    result = snl.evaluate(Shifted(), tree)
    assert result.mean["image_auroc"] == 1.0
    assert result.pooled["image_auroc"] < 0.8  # type: ignore[operator]


def test_maps_are_saved_raw_at_the_size_of_the_image(tree: Path, tmp_path: Path) -> None:
    snl.evaluate(Darkness(), tree, save_maps=tmp_path / "maps")
    files = sorted(p.relative_to(tmp_path / "maps") for p in (tmp_path / "maps").rglob("*.npy"))
    images = sorted(p.relative_to(tree) for p in tree.rglob("test/*/*.png"))
    assert [str(f) for f in files] == [f"{i}.npy" for i in images]
    saved = np.load(tmp_path / "maps" / files[0], allow_pickle=False)
    assert saved.shape == (40, 48) and saved.dtype == np.float32


def test_maps_of_images_outside_the_root_stay_inside_the_folder(tmp_path: Path) -> None:
    from tests.trees import save_part

    rows = ["path,label,split"]
    for place in ("a", "b"):
        save_part(tmp_path / place / "000.png", 1)
        rows.append(f"../{place}/000.png,good,test")
        save_part(tmp_path / place / "001.png", 2, defect=True)
        rows.append(f"../{place}/001.png,bad,test")
    (tmp_path / "list").mkdir()
    manifest = tmp_path / "list" / "parts.csv"
    manifest.write_text("\n".join(rows) + "\n")
    out = tmp_path / "deep" / "maps"
    snl.evaluate(Darkness(), manifest, save_maps=out)
    assert len(list(out.rglob("*.npy"))) == len(list(tmp_path.rglob("*.npy"))) == 4


def test_resolution_original_measures_at_the_size_of_the_image(tree: Path) -> None:
    seen = []

    class Watched(Darkness):
        def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
            seen.append(size)
            return super().resize_map(anomaly_map, size)

    at_input = snl.evaluate(Watched(), tree)
    assert set(seen) == {(64, 64)}
    seen.clear()
    original = snl.evaluate(Watched(), tree, resolution="original")
    assert set(seen) == {(40, 48)}
    assert original.pooled["pixel_auroc"] == pytest.approx(at_input.pooled["pixel_auroc"], abs=0.05)


def test_unreadable_test_images_are_left_out_and_told(tree: Path) -> None:
    bad = tree / "bolt" / "test" / "good" / "000.png"
    bad.write_bytes(b"no image")
    result = snl.evaluate(Darkness(), tree)
    assert result.products["bolt"]["n_normal"] == 1
    assert len(result.skipped) == 1 and "000.png" in result.skipped[0]


def test_nothing_to_measure_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no labelled test images.*test/good"):
        snl.evaluate(Darkness(), make_flat(tmp_path))


def test_progress_reaches_the_total(tree: Path) -> None:
    calls: list[tuple[int, int]] = []
    snl.evaluate(Darkness(), tree, batch_size=3, progress=lambda d, t: calls.append((d, t)))
    assert calls == [(done, 8) for done in range(1, 9)]


def test_table_is_aligned() -> None:
    row: dict[str, float | int | None] = dict.fromkeys(METRICS, 0.5)
    row |= {"n_normal": 1, "n_anomalous": 22, "n_masked": 3}
    table = format_table(Evaluation({"a": row, "longer name": row}, row, row, (), (), {}))
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("product") and lines[-1].startswith("pooled")
