"""`evaluate`: which images count for which metric, at which size, and what cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

import snl
from snl.cli.common import show_evaluation
from snl.cli.main import main
from snl.data.catalog import Catalog
from snl.errors import DataError
from snl.evaluation.decision_counts import decision_counts, format_decisions
from snl.evaluation.image_score import ImageScore
from snl.evaluation.result import (
    COUNTS,
    MAX_PRODUCTS,
    METRICS,
    EvaluatedImage,
    Evaluation,
    format_table,
    mean_of,
    worst_products,
)
from tests.trees import make_flat, make_mvtec, save_part


class Darkness:
    """A model without a network: the darker a pixel, the more abnormal."""

    image_size = 64

    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps = 255 - pixels.mean(-1).astype(np.float32)
        return maps, maps.max((1, 2))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_mvtec(tmp_path / "tree")


def reference(
    catalog: Catalog, product: str | None, size: tuple[int, int] = (64, 64)
) -> dict[str, float]:
    """Metrics by scikit-learn from all arrays at once; `size` (H, W) is that of pixel metrics."""
    scores, labels, maps, masks = [], [], [], []
    for record in catalog.test():
        if product not in (None, record.product):
            continue
        image = Image.open(record.path).convert("RGB")
        image = image.resize((64, 64), Image.Resampling.BILINEAR)
        anomaly_map = (255 - np.asarray(image).mean(-1)).astype(np.float32)
        scores.append(anomaly_map.max())
        labels.append(record.label == "anomalous")
        if record.mask_known:
            mask = np.zeros(size, bool)
            for file in record.mask:
                resized = Image.open(file).resize(size[::-1], Image.Resampling.NEAREST)
                mask |= np.asarray(resized) > 0
            scaled = Image.fromarray(anomaly_map).resize(size[::-1], Image.Resampling.BILINEAR)
            maps.append(np.asarray(scaled).ravel())
            masks.append(mask.ravel())
    values, truth = np.concatenate(maps), np.concatenate(masks)
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "pixel_auroc": roc_auc_score(truth, values),
        "pixel_ap": average_precision_score(truth, values),
    }


def test_products_mean_and_pooled_agree_with_scikit_learn(tree: Path) -> None:
    catalog = Catalog.read(tree)
    result = snl.evaluate(Darkness(), catalog)
    for product in catalog.products:
        for name, value in reference(catalog, product).items():
            assert result.products[product][name] == pytest.approx(value, abs=1e-4), name
    for name, value in reference(catalog, None).items():
        assert result.pooled[name] == pytest.approx(value, abs=1e-4), name
    for name in METRICS:
        values = [result.products[p][name] for p in catalog.products]
        assert result.mean[name] == pytest.approx(np.mean(values))  # type: ignore[arg-type]
    assert [result.mean[name] for name in COUNTS] == [4, 4, 8]
    assert len(result.scores) == 8


def test_images_without_a_mask_count_for_detection_only(tree: Path) -> None:
    full = snl.evaluate(Darkness(), tree)
    mask = sorted((tree / "bolt" / "ground_truth").rglob("*.png"))[0]
    mask.unlink()
    result = snl.evaluate(Darkness(), tree)
    assert result.products["bolt"]["n_masked"] == 3
    assert result.products["bolt"]["n_anomalous"] == 2
    assert result.products["bolt"]["image_auroc"] == full.products["bolt"]["image_auroc"]
    assert result.products["plate"] == full.products["plate"]
    assert result.unusable_masks == ()  # a mask that is not there is not an error
    for file in (tree / "bolt" / "ground_truth").rglob("*.png"):
        file.unlink()
    none = snl.evaluate(Darkness(), tree)
    assert none.products["bolt"]["pixel_auroc"] is None
    assert none.mean["pixel_auroc"] == none.products["plate"]["pixel_auroc"]
    json.dumps(none.to_dict(), allow_nan=False)
    assert " - " in format_table(none)


def test_pooled_is_not_the_mean(tree: Path) -> None:
    """One threshold for all products: a product with higher scores lowers the pooled AUROC."""

    class Shifted(Darkness):
        def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            maps, scores = super().predict(pixels)
            plate = pixels[:, 14, 14].mean(-1) > 120  # the corner of a plate, background of a bolt
            shift = 500 * plate.astype(np.float32)
            return maps + shift[:, None, None], scores + shift

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


def test_maps_of_images_outside_the_root_are_saved_inside_the_folder(tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for folder in ("a", "b"):
        save_part(tmp_path / folder / "000.png", 1)
        rows.append(f"../{folder}/000.png,good,test")
        save_part(tmp_path / folder / "001.png", 2, defect=True)
        rows.append(f"../{folder}/001.png,bad,test")
    (tmp_path / "list").mkdir()
    manifest = tmp_path / "list" / "parts.csv"
    manifest.write_text("\n".join(rows) + "\n")
    out = tmp_path / "deep" / "maps"
    snl.evaluate(Darkness(), manifest, save_maps=out)
    assert len(list(out.rglob("*.npy"))) == len(list(tmp_path.rglob("*.npy"))) == 4


@pytest.mark.parametrize(("resolution", "size"), [("input", (64, 64)), ("original", (40, 48))])
def test_pixels_are_compared_at_the_chosen_resolution(
    tree: Path, resolution: str, size: tuple[int, int]
) -> None:
    visited: list[EvaluatedImage] = []
    catalog = Catalog.read(tree)
    result = snl.evaluate(Darkness(), catalog, resolution=resolution, visit=visited.append)
    assert len(visited) == 8
    for image in visited:
        assert image.mask is not None and image.mask.shape == size
        assert image.mask.any() == (image.result.label == "anomalous")
        assert image.anomaly_map.shape == (64, 64) and image.size == (40, 48)
        assert image.image.shape == (64, 64, 3)
    assert tuple(image.result for image in visited) == result.scores
    for name, value in reference(catalog, None, size).items():
        assert result.pooled[name] == pytest.approx(value, abs=1e-4), name


def test_unreadable_images_are_skipped_and_reported(tree: Path) -> None:
    bad = tree / "bolt" / "test" / "good" / "000.png"
    bad.write_bytes(b"no image")
    calls: list[tuple[int, int]] = []
    result = snl.evaluate(
        Darkness(), tree, progress=lambda done, total: calls.append((done, total))
    )
    assert result.products["bolt"]["n_normal"] == 1
    assert len(result.skipped) == 1 and "000.png" in result.skipped[0]
    assert result.unusable_masks == ()
    assert len(result.scores) == 7 and bad not in {image.path for image in result.scores}
    assert calls[-1] == (8, 8) and max(calls) == (8, 8)


# ---------------------------------------------------------------- unreadable masks


def damage_masks(tree: Path, count: int = 1) -> list[Path]:
    """Overwrite the first masks of the product bolt; return their files."""
    masks = sorted((tree / "bolt" / "ground_truth").rglob("*.png"))[:count]
    for mask in masks:
        mask.write_bytes(b"no image")
    return masks


def test_an_image_with_an_unreadable_mask_counts_once_for_detection(tree: Path) -> None:
    full = snl.evaluate(Darkness(), tree)
    (mask,) = damage_masks(tree)
    calls: list[tuple[int, int]] = []
    visited: list[EvaluatedImage] = []
    result = snl.evaluate(
        Darkness(),
        tree,
        batch_size=3,
        visit=visited.append,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 8) for done in range(1, 9)]
    assert result.skipped == ()
    assert len(result.unusable_masks) == 1 and mask.name in result.unusable_masks[0]
    assert [(i.path, i.score) for i in result.scores] == [(i.path, i.score) for i in full.scores]
    assert sum(image.mask is None for image in visited) == 1 and len(visited) == 8
    bolt, before = result.products["bolt"], full.products["bolt"]
    for name in METRICS[:3]:  # of images
        assert bolt[name] == before[name], name
    assert [bolt[name] for name in COUNTS] == [2, 2, 3]
    assert [result.mean[name] for name in COUNTS] == [4, 4, 7]
    assert result.products["plate"] == full.products["plate"]


@pytest.mark.parametrize("resolution", ["input", "original"])
def test_a_mask_of_another_shape_is_not_stretched(tree: Path, resolution: str) -> None:
    """One of the same shape and another size is resized, as before."""
    masks = sorted((tree / "bolt" / "ground_truth").rglob("*.png"))
    whole = Image.open(masks[0]).convert("L")
    width, height = whole.size
    full = snl.evaluate(Darkness(), tree, resolution=resolution)
    whole.resize((2 * width, 2 * height), Image.Resampling.NEAREST).save(masks[0])
    assert snl.evaluate(Darkness(), tree, resolution=resolution).pooled == full.pooled
    for size in ((width, height // 2), (height, width), (width + 2, height)):
        whole.resize(size).save(masks[0])
        result = snl.evaluate(Darkness(), tree, resolution=resolution)
        (text,) = result.unusable_masks
        assert masks[0].name in text and f"is {size[0]} x {size[1]} pixels but its image is" in text
        assert result.products["bolt"]["n_masked"] == 3
        assert result.products["bolt"]["image_auroc"] == full.products["bolt"]["image_auroc"]


def test_progress_with_unreadable_images_and_masks_ends_at_the_total(tree: Path) -> None:
    damage_masks(tree, 2)
    for name in ("good/000.png", "good/001.png"):
        (tree / "plate" / "test" / name).write_bytes(b"no image")
    calls: list[tuple[int, int]] = []
    result = snl.evaluate(
        Darkness(), tree, batch_size=2, progress=lambda done, total: calls.append((done, total))
    )
    assert (len(result.skipped), len(result.unusable_masks), len(result.scores)) == (2, 2, 6)
    done = [number for number, _ in calls]
    assert done == sorted(done) and done[-1] == 8 and {total for _, total in calls} == {8}


def test_the_command_reports_an_unreadable_mask_once(
    calibrated: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mask,) = damage_masks(tree)
    file = tmp_path / "metrics.json"
    words = ["evaluate", str(calibrated), str(tree), "--json", str(file), "--quiet"]
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if mask.name in line)
    assert line.startswith("mask not used: ")
    assert not any(line.startswith("skipped: ") for line in lines)
    written = json.loads(file.read_text())
    assert [written["products"]["bolt"][name] for name in COUNTS] == [2, 2, 3]
    assert written["about"]["left_out"] == []


def test_no_labelled_test_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no labelled test images.*test/good"):
        snl.evaluate(Darkness(), make_flat(tmp_path))


def test_progress_reaches_the_total(tree: Path) -> None:
    calls: list[tuple[int, int]] = []
    snl.evaluate(
        Darkness(), tree, batch_size=3, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(done, 8) for done in range(1, 9)]


def test_normal_images_that_the_model_has_not_seen_are_measured(
    trained: Path, plant: Path, tmp_path: Path
) -> None:
    """In folders without a split; what it was trained or calibrated with stays out."""
    inspector = snl.load(trained, "cpu")
    known = set(inspector.training.hashes.tolist()) | {
        content for one in inspector.calibration.sets.values() for content in one.hashes.tolist()
    }
    for n in range(10):
        save_part(tmp_path / "bolt" / "good" / f"new{n}.png", 700 + n)
    seen = sorted((plant / "bolt" / "train" / "good").glob("*.png"))[:6]
    assert {inspector.training.content_hash(path) for path in seen} <= known
    for path in seen:
        shutil.copy(path, tmp_path / "bolt" / "good" / f"old{path.name}")
    for n in range(3):
        save_part(tmp_path / "bolt" / "bad" / f"{n}.png", 800 + n, defect=True)
    by_name = Catalog.read(tmp_path)
    chosen = {r.path for r in by_name.test() if r.label == "normal"}
    assert by_name.unsplit == {"bolt"} and 0 < len(chosen) < 10
    evaluation = snl.evaluate(inspector, tmp_path)
    normal = {Path(image.path) for image in evaluation.scores if image.label == "normal"}
    assert normal == chosen | set((tmp_path / "bolt" / "good").glob("new*.png"))
    assert len(normal) >= 10 and evaluation.products["bolt"]["n_anomalous"] == 3
    # a stated split is kept
    explicit = Catalog.for_model(plant, inspector, unseen=True)
    assert explicit == Catalog.read(plant)


def test_table_is_aligned() -> None:
    row: dict[str, float | int | None] = dict.fromkeys(METRICS, 0.5)
    row |= {"n_normal": 1, "n_anomalous": 22, "n_masked": 3}
    table = format_table(Evaluation({"a": row, "longer name": row}, row, row, ()))
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("product") and lines[-1].startswith("pooled")


# ---------------------------------------------------------------- products named like a summary

SUMMARY_NAMES = ("all products", "mean", "overall", "pooled")


@pytest.fixture(scope="module")
def summary_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products with the names of summary rows, all with different results."""
    root = tmp_path_factory.mktemp("names")
    for number, product in enumerate(SUMMARY_NAMES):
        test = root / product / "test"
        for n in range(number + 1):
            save_part(test / "good" / f"{n}.png", n, product="plate")
        save_part(test / "dent" / "0.png", 200 + number, defect=True, product="plate")
        # an undetected defect: a brighter part
        image = np.asarray(Image.open(test / "good" / "0.png"))
        Image.fromarray(np.minimum(image, 200) + np.uint8(20 + number)).save(
            test / "dent" / "1.png"
        )
    return root


def test_products_named_like_a_summary_keep_their_metrics_and_curves(summary_names: Path) -> None:
    catalog = Catalog.read(summary_names)
    assert set(catalog.products) == set(SUMMARY_NAMES)
    result = snl.evaluate(Darkness(), catalog)
    document = json.loads(json.dumps(result.to_dict()))
    assert tuple(result.products) == tuple(document["products"]) == SUMMARY_NAMES
    for number, product in enumerate(SUMMARY_NAMES):
        alone = snl.evaluate(Darkness(), only(catalog, product))
        assert result.products[product] == document["products"][product] == alone.pooled
        assert [alone.pooled[name] for name in COUNTS[:2]] == [number + 1, 2]
        for kind, points in result.curves[product].items():
            for values, expected in zip(points, alone.pooled_curves[kind], strict=True):
                np.testing.assert_array_equal(values, expected)
    assert tuple(result.curves) == SUMMARY_NAMES
    assert [result.pooled[name] for name in COUNTS[:2]] == [10, 8]
    assert document["pooled"] == result.pooled and document["mean"] == result.mean
    scores = [(image.label == "anomalous", image.score) for image in result.scores]
    labels, values = zip(*scores, strict=True)
    assert result.pooled["image_auroc"] == pytest.approx(roc_auc_score(labels, values))
    false_positives, _ = result.pooled_curves["roc"]
    assert len(false_positives) > max(len(result.curves[p]["roc"][0]) for p in SUMMARY_NAMES)


def test_products_named_like_a_summary_keep_their_rows_in_the_table(summary_names: Path) -> None:
    result = snl.evaluate(Darkness(), summary_names)
    lines = format_table(result).splitlines()
    rows = [line for line in lines[1:] if not line.startswith("-")]
    wanted = [*result.products.items(), ("mean", result.mean), ("pooled", result.pooled)]
    assert len(rows) == len(wanted) == 6
    for row, (name, values) in zip(rows, wanted, strict=True):
        assert row.startswith(f"{name} ")
        assert row.split()[-3:] == [str(values[count]) for count in COUNTS]


def test_products_named_like_a_summary_keep_their_decisions(
    calibrated: Path, summary_names: Path
) -> None:
    result = snl.evaluate(snl.load(calibrated, "cpu"), summary_names)
    counts = decision_counts(result.scores)
    assert counts is not None and result.to_dict()["decisions"] == counts
    assert tuple(counts["products"]) == SUMMARY_NAMES
    for number, product in enumerate(SUMMARY_NAMES):
        table = counts["products"][product]
        assert sum(table["normal"].values()) == number + 1
        assert sum(table["anomalous"].values()) == 2
    assert sum(counts["overall"]["normal"].values()) == 10
    rows = format_decisions(result.scores).splitlines()
    named = [row for row in rows if row.startswith("all products ")]
    assert len(named) == 2 and len(rows) == 1 + 4 + 1 + 2  # heading, products, total, rules
    normals = [sum(table["normal"].values()) for table in counts["products"].values()]
    columns = [row.removeprefix("all products").split()[1] for row in named]
    assert columns == [str(normals[0]), str(sum(normals))]


def only(catalog: Catalog, product: str) -> Catalog:
    """Return the records of one product."""
    from dataclasses import replace

    return replace(catalog, records=tuple(r for r in catalog.records if r.product == product))


def test_of_many_products_the_worst_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    scores: list[ImageScore] = []
    products: dict[str, dict[str, float | int | None]] = {}
    for number in range(40):
        name = f"part_{number:02d}"
        value = None if number == 39 else (number * 7 % 40) / 40
        products[name] = {**dict.fromkeys(METRICS, value), **dict.fromkeys(COUNTS, 2)}
        scores += [
            ImageScore(Path(f"{name}.png"), name, label, "", 1.0)
            for label in ("normal", "anomalous")
        ]
    mean = mean_of(list(products.values()))
    evaluation = Evaluation(products, mean, mean, tuple(scores))
    worst = worst_products(evaluation)
    aurocs = [products[name]["image_auroc"] for name in worst]
    assert len(worst) == MAX_PRODUCTS and "part_39" not in worst
    known = [v["image_auroc"] for v in products.values() if v["image_auroc"] is not None]
    assert aurocs == sorted(known)[:MAX_PRODUCTS]
    show_evaluation(evaluation)
    text = capsys.readouterr().out
    table = text.split("\ndetection")[0].splitlines()
    assert [line.split()[0] for line in table[2:32]] == worst
    assert "of 40 products the 30 with the lowest" in text and "--all-products" in text
    assert text.count("part_") == 60  # two tables
    show_evaluation(evaluation, all_products=True)
    text = capsys.readouterr().out
    assert text.count("part_") == 80 and "--all-products" not in text
    assert worst_products(evaluation, 40) == list(products)
