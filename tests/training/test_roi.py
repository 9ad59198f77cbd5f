"""Regions of interest: training on a part of the images is training on images of that part."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import snl
from snl.data.catalog import Catalog
from snl.data.doctor import diagnose
from snl.data.roi import Roi
from snl.errors import DataError, ImageError, SettingsError, TrainingError
from snl.runtime.describe import describe
from tests.conftest import TINY, TINY_OPTIONS, Run
from tests.trees import save_striped, save_varied

X, Y = 70, 33
SCENE = (200, 150)
"""(width, height) of the pictures that the parts are in."""


def scene(part: Path, target: Path, seed: int, size: tuple[int, int] = SCENE) -> Path:
    """Write a picture with other background every time, and the part at (X, Y) of SCENE."""
    rng = np.random.default_rng([seed, 5])
    picture = Image.fromarray(rng.integers(0, 256, (SCENE[1], SCENE[0], 3), np.uint8))
    picture.paste(Image.open(part), (X, Y))
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.resize(size, Image.Resampling.NEAREST).save(target)
    return target


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two products: as parts alone (`alone`), and bolts in scenes (`scenes`)."""
    root = tmp_path_factory.mktemp("parts")
    for n in range(24):
        bolt = save_varied(root / "alone" / "bolt" / f"{n:03}.png", n)
        scene(bolt, root / "scenes" / "bolt" / f"{n:03}.png", n)
        for where in ("alone", "scenes"):
            save_striped(root / where / "gear" / f"{n:03}.png", n)
    return root


def box(parts: Path) -> tuple[int, int, int, int]:
    with Image.open(parts / "alone" / "bolt" / "000.png") as image:
        return (X, Y, *image.size)


@pytest.fixture(scope="module")
def models(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles trained on the parts alone, and on the scenes with a region of interest."""
    folder = tmp_path_factory.mktemp("models")
    for name, rois in (("alone", None), ("scenes", {"bolt": box(parts)})):
        snl.train(
            parts / name, output=folder / f"{name}.snl", overrides=TINY, rois=rois, quiet=True
        )
    return {name: folder / f"{name}.snl" for name in ("alone", "scenes")}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A part with a defect, alone and in a scene."""
    part = save_varied(tmp_path / "bolt" / "part.png", 900, defect=True)
    return part, scene(part, tmp_path / "bolt" / "scene.png", 900)


# --- the reference: images that are cropped before ---


@pytest.mark.parametrize("given", ["bolt", None])
def test_a_region_is_inspected_like_an_image_of_it(
    models: dict[str, Path], pair: tuple[Path, Path], given: str | None
) -> None:
    alone, scenes = (snl.load(models[name], "cpu") for name in ("alone", "scenes"))
    expected, found = alone.inspect(pair[0], given), scenes.inspect(pair[1], given)
    assert found.verdict().product == "bolt" and expected.product == "bolt"
    assert found.score == pytest.approx(expected.score, rel=1e-6)
    assert found.decision == expected.decision
    assert found.p_value == expected.p_value and found.strangeness == expected.strangeness
    width, height = box(parts_of(pair))[2:]
    np.testing.assert_allclose(
        found.anomaly_map[Y : Y + height, X : X + width], expected.anomaly_map, rtol=1e-6
    )
    outside = found.anomaly_map.copy()
    outside[Y : Y + height, X : X + width] = 0
    assert not outside.any() and found.anomaly_map.shape == (SCENE[1], SCENE[0])


def parts_of(pair: tuple[Path, Path]) -> Path:
    """Return a root such that `box` finds the part."""
    root = pair[0].parent.parent
    target = root / "alone" / "bolt" / "000.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(pair[0].read_bytes())
    return root


def test_regions_and_peak_are_in_the_coordinates_of_the_image(
    models: dict[str, Path], pair: tuple[Path, Path]
) -> None:
    alone, scenes = (snl.load(models[name], "cpu") for name in ("alone", "scenes"))
    for inspector in (alone, scenes):
        snl.calibrate(inspector, regions_rate=0.5)
    expected, found = alone.inspect(pair[0], "bolt"), scenes.inspect(pair[1], "bolt")
    one, other = expected.to_dict(), found.to_dict()
    assert other["peak"] == [one["peak"][0] + X, one["peak"][1] + Y]
    assert (other["width"], other["height"]) == SCENE
    assert other["roi"] == [X, Y, *box(parts_of(pair))[2:]] and one["roi"] is None
    assert len(other["regions"]) == len(one["regions"]) > 0
    for region, reference in zip(other["regions"], one["regions"], strict=True):
        left, top, *size = reference["box"]
        assert region["box"] == [left + X, top + Y, *size]
        assert region["peak_at"] == [reference["peak_at"][0] + X, reference["peak_at"][1] + Y]
        assert region["polygon"] == [[x + X, y + Y] for x, y in reference["polygon"]]
        assert region["area"] == reference["area"]


def test_the_map_at_another_size_is_the_whole_map_resized(
    models: dict[str, Path], pair: tuple[Path, Path]
) -> None:
    result = snl.load(models["scenes"], "cpu").inspect(pair[1], "bolt")
    whole = Image.fromarray(np.asarray(result.anomaly_map, np.float32))
    expected = np.asarray(whole.resize((50, 40), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(result.map_at(50, 40), expected, rtol=1e-5, atol=1e-7)


def test_an_image_of_another_size_but_the_same_shape_is_scaled(
    models: dict[str, Path], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    large = scene(pair[0], tmp_path / "large.png", 900, (2 * SCENE[0], 2 * SCENE[1]))
    inspector = snl.load(models["scenes"], "cpu")
    result, usual = inspector.inspect(large, "bolt"), inspector.inspect(pair[1], "bolt")
    assert result.roi == tuple(2 * n for n in usual.roi or ())
    assert result.score == pytest.approx(usual.score, rel=0.3)


def test_an_image_of_another_shape_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    inspector = snl.load(models["scenes"], "cpu")
    other = tmp_path / "wide.png"
    Image.new("RGB", (300, 100)).save(other)
    with pytest.raises(ImageError, match=r"wide\.png has 300 x 100 pixels, but .* 200 x 150"):
        inspector.inspect(other, "bolt")


def test_an_unknown_product_is_looked_for_in_every_region(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """A gear fills its image; a bolt is in its region; both are recognised, in one stream."""
    inspector = snl.load(models["scenes"], "cpu")
    gear = save_striped(tmp_path / "gear.png", 901)
    bolt = scene(save_varied(tmp_path / "b.png", 902), tmp_path / "bolt.png", 902)
    results = inspector.inspect([gear, bolt, gear, bolt])
    assert [r.product for r in results] == ["gear", "bolt"] * 2
    assert [r.roi is None for r in results] == [True, False] * 2
    assert [Path(r.path or "").name for r in results] == ["gear.png", "bolt.png"] * 2
    array = np.asarray(Image.open(bolt))
    assert inspector.inspect(array).score == pytest.approx(results[1].score, rel=1e-5)


def test_stored_predictions_are_decided_again(
    models: dict[str, Path], pair: tuple[Path, Path]
) -> None:
    inspector = snl.load(models["scenes"], "cpu")
    result = inspector.inspect(pair[1])
    stored = snl.Prediction.from_bytes(result.prediction.to_bytes())
    again = snl.decide(stored, inspector.calibration)
    assert again.to_dict() == result.to_dict() and again.roi == result.roi


def test_the_image_is_read_again_and_drawn(
    models: dict[str, Path], pair: tuple[Path, Path]
) -> None:
    inspector = snl.load(models["scenes"], "cpu")
    (result,) = inspector.inspect([pair[1]])
    assert result.image.shape == (SCENE[1], SCENE[0], 3)
    overlay = np.asarray(result.overlay())
    assert overlay.std() > 0
    scene(pair[0], pair[1], 1)  # another background: the region shows the same
    assert result.image.shape == (SCENE[1], SCENE[0], 3)
    Image.new("RGB", SCENE).save(pair[1])
    with pytest.raises(ImageError, match="has changed since"):
        _ = result.image


# --- where regions come from ---


def manifest(parts: Path, target: Path, **rois: str) -> Path:
    """Write a manifest of the scenes, with a region in the first row of some products."""
    rows: list[dict[str, Any]] = []
    for product in ("bolt", "gear"):
        files = sorted((parts / "scenes" / product).glob("*.png"))
        rows += [{"path": str(f), "product": product, "roi": ""} for f in files]
        if product in rois:
            rows[-len(files)]["roi"] = rois[product]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "product", "roi"])
        writer.writeheader()
        writer.writerows(rows)
    return target


def test_a_manifest_states_regions(
    parts: Path, models: dict[str, Path], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    x, y, w, h = box(parts)
    table = manifest(parts, tmp_path / "m.csv", bolt=f"{x} {y} {w} {h}")
    inspector = snl.train(table, overrides=TINY, quiet=True)
    assert inspector.calibration.rois == {"bolt": Roi(x, y, w, h, SCENE)}
    assert inspector.inspect(pair[1], "bolt").roi == (x, y, w, h)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "X,Y,W,H"),
        ("a,b,c,d", "X,Y,W,H"),
        ("-5,0,50,50", "X,Y,W,H"),
        ("0,0,4,50", "at least 16"),
        ("150,100,80,60", "ends outside"),
        ("10000000000,0,50,50", "X,Y,W,H"),
    ],
)
def test_a_wrong_region_is_named(parts: Path, tmp_path: Path, text: str, message: str) -> None:
    table = manifest(parts, tmp_path / "m.csv", bolt=text)
    with pytest.raises(DataError, match=message):
        snl.train(table, overrides=TINY, quiet=True)
    with pytest.raises(DataError, match=message):
        snl.train(parts / "scenes", overrides=TINY, rois={"bolt": text}, quiet=True)


def test_regions_that_contradict_each_other_are_refused(parts: Path, tmp_path: Path) -> None:
    table = manifest(parts, tmp_path / "m.csv", bolt="0 0 50 50")
    text = table.read_text().replace(",bolt,\n", ",bolt,1 1 50 50\n", 1)
    table.write_text(text)
    with pytest.raises(DataError, match="different regions of interest"):
        snl.train(table, overrides=TINY, quiet=True)


def test_the_doctor_names_images_of_another_shape(parts: Path, tmp_path: Path) -> None:
    table = manifest(parts, tmp_path / "m.csv", bolt="70 33 48 40")
    Image.new("RGB", (300, 100), (90, 20, 30)).save(tmp_path / "wide.png")
    with table.open("a", newline="") as file:
        csv.writer(file).writerow([str(tmp_path / "wide.png"), "bolt", ""])
    problems = diagnose(Catalog.read(table)).problems
    (found,) = [p for p in problems if p.kind == "outside the region of interest"]
    assert found.severity == "error" and found.where.endswith("wide.png")
    assert found.what.startswith("has 300 x 100 pixels, but the region of interest was drawn on")


def test_a_region_of_no_product_is_refused(parts: Path) -> None:
    with pytest.raises(DataError, match=r"'nut': no such product; there are bolt, gear"):
        snl.train(parts / "scenes", overrides=TINY, rois={"nut": (0, 0, 50, 50)}, quiet=True)


def test_a_mask_ignores_what_it_does_not_mark(parts: Path, tmp_path: Path) -> None:
    x, y, w, h = box(parts)
    mask = Image.new("L", SCENE)
    ImageDraw.Draw(mask).ellipse((x, y, x + w - 1, y + h - 1), fill=255)
    mask.save(tmp_path / "mask.png")
    rois = {"bolt": tmp_path / "mask.png"}
    inspector = snl.train(parts / "scenes", overrides=TINY, rois=rois, quiet=True)
    assert inspector.calibration.rois["bolt"] == Roi(x, y, w, h, SCENE)
    ignored = inspector.calibration.ignore_masks["bolt"]
    side = TINY["image_size"]
    assert ignored.shape == (side, side)
    assert ignored[0, 0] and not ignored[side // 2, side // 2]
    part = save_varied(tmp_path / "p.png", 900, defect=True)
    result = inspector.inspect(scene(part, tmp_path / "s.png", 900), "bolt")
    assert not result.anomaly_map[:y].any() and result.anomaly_map[y + h // 2, x + w // 2] > 0
    assert result.anomaly_map[y, x] == 0  # a corner of the rectangle


def test_masks_that_mark_nothing_or_are_missing_are_refused(parts: Path, tmp_path: Path) -> None:
    Image.new("L", SCENE).save(tmp_path / "black.png")
    for value, message in ((tmp_path / "black.png", "marks no pixel"), ("no.png", "no such file")):
        with pytest.raises(DataError, match=message):
            snl.train(parts / "scenes", overrides=TINY, rois={"bolt": value}, quiet=True)


# --- files, exports, further products ---


def test_another_region_is_another_training(
    parts: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "a.snl"
    target.write_bytes(models["scenes"].read_bytes())
    same = {"bolt": box(parts)}
    arguments: dict[str, Any] = {"output": target, "overrides": TINY, "quiet": True}
    notes: list[str] = []
    snl.train(parts / "scenes", rois=same, resume=True, note=notes.append, **arguments)
    assert any("already trained" in note for note in notes)
    with pytest.raises(TrainingError, match="exists already"):
        snl.train(parts / "scenes", rois={"bolt": (0, 0, 64, 64)}, resume=True, **arguments)


def test_an_export_decides_alike(
    models: dict[str, Path], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    inspector = snl.load(models["scenes"], "cpu")
    snl.export(inspector, tmp_path / "a.onnx")
    exported = snl.load(tmp_path / "a.onnx")
    expected, found = inspector.inspect(pair[1]), exported.inspect(pair[1])
    assert found.roi == expected.roi and found.product == expected.product
    assert found.score == pytest.approx(expected.score, rel=1e-3)
    assert found.decision == expected.decision


def test_evaluation_uses_masks_of_the_whole_image(
    models: dict[str, Path], parts: Path, tmp_path: Path
) -> None:
    """The same metrics as on the parts alone, up to the resolution of the map."""
    roots = {name: tmp_path / name for name in ("alone", "scenes")}
    for n in range(12):
        part = save_varied(tmp_path / "p" / f"{n}.png", 300 + n, defect=n % 2 == 1)
        kind = "bad" if n % 2 else "good"
        for name, root in roots.items():
            target = root / "bolt" / "test" / kind / f"{n}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            if name == "scenes":
                scene(part, target, n)
            else:
                target.write_bytes(part.read_bytes())
            if n % 2:
                mark = Image.new("L", Image.open(part).size)
                ImageDraw.Draw(mark).rectangle((10, 10, 30, 30), fill=255)
                whole = Image.new("L", SCENE) if name == "scenes" else mark
                if name == "scenes":
                    whole.paste(mark, (X, Y))
                file = root / "bolt" / "ground_truth" / "bad" / f"{n}_mask.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                whole.save(file)
        (root / "bolt" / "train" / "good").mkdir(parents=True, exist_ok=True)
        Image.open(target).save(root / "bolt" / "train" / "good" / "0.png")
    found = {
        name: snl.evaluate(
            snl.load(models[name], "cpu"), root, products_given=True, resolution="original"
        )
        for name, root in roots.items()
    }
    one, other = (found[name].products["bolt"] for name in roots)
    assert other["image_auroc"] == one["image_auroc"]
    assert other["n_masked"] == one["n_masked"] == 12
    # the region's normal pixels are a part of the image's: the others have the lowest values
    assert other["pixel_auroc"] >= one["pixel_auroc"] - 1e-9


def test_a_product_with_a_region_is_added(
    parts: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    first = tmp_path / "gears.snl"
    snl.train(Catalog.read(parts / "scenes").of("gear"), output=first, overrides=TINY, quiet=True)
    new = parts / "scenes" / "bolt"
    rois = {"bolt": box(parts)}
    more = snl.add(first, new, product="bolt", rois=rois, steps=4, quiet=True)
    assert more.calibration.rois == {"bolt": Roi(*rois["bolt"], SCENE)}
    part = save_varied(tmp_path / "p.png", 905)
    result = snl.load(first, "cpu").inspect(scene(part, tmp_path / "s.png", 905))
    assert result.product == "bolt" and result.roi == rois["bolt"]
    # a new version of the product keeps the region
    again = snl.add(first, new, product="bolt", replace=True, steps=2, force=True, quiet=True)
    assert again.calibration.rois == more.calibration.rois
    snl.remove(again, "bolt")
    assert not again.calibration.rois


def test_calibrating_with_more_images_uses_the_region(
    models: dict[str, Path], tmp_path: Path
) -> None:
    inspector = snl.load(models["scenes"], "cpu")
    for n in range(8):
        part = save_varied(tmp_path / "p" / f"{n}.png", 700 + n)
        scene(part, tmp_path / "more" / f"{n}.png", 700 + n)
    before = len(inspector.calibration.sets["bolt"])
    snl.calibrate(inspector, tmp_path / "more", product="bolt", add=True)
    held_out = inspector.calibration.sets["bolt"]
    assert len(held_out) == before + 8
    assert held_out.scores[before:].max() < 3 * held_out.scores[:before].max()


def test_a_region_is_cut_into_tiles(parts: Path, pair: tuple[Path, Path]) -> None:
    """In tiles, too, it is as if the images had been cropped before."""
    overrides = {**TINY, "tile": 32}
    alone = snl.train(parts / "alone", overrides=overrides, quiet=True)
    rois = {"bolt": box(parts)}
    scenes = snl.train(parts / "scenes", overrides=overrides, rois=rois, quiet=True)
    for given in ("bolt", None):
        expected, found = alone.inspect(pair[0], given), scenes.inspect(pair[1], given)
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        x, y, w, h = found.roi or (0, 0, 0, 0)
        np.testing.assert_allclose(
            found.anomaly_map[y : y + h, x : x + w], expected.anomaly_map, rtol=1e-4
        )


# --- command line ---


def test_commands(parts: Path, tmp_path: Path, run_snl: Run) -> None:
    text = ",".join(map(str, box(parts)))
    done = run_snl(
        "train", parts / "scenes", "-o", tmp_path / "a.snl", *TINY_OPTIONS, "--roi", f"bolt={text}"
    )
    assert done.returncode == 0, done.stderr
    product = next(p for p in describe(tmp_path / "a.snl")["products"] if p["name"] == "bolt")
    assert product["roi"] == {"box": list(box(parts)), "image": list(SCENE)}
    shown = run_snl("info", tmp_path / "a.snl")
    assert text in shown.stdout
    listed = run_snl("calibrate", tmp_path / "a.snl")
    assert f"regions of interest: bolt {text}" in listed.stdout + listed.stderr
    refused = run_snl(
        *("train", parts / "scenes", "-o", tmp_path / "b.snl", *TINY_OPTIONS),
        *("--roi", f"nut={text}"),
    )
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "b.snl").exists()


def test_the_option_finds_names_with_equals_signs(tmp_path: Path) -> None:
    from snl.cli.rois import rois_of

    file = tmp_path / "a=b.png"
    Image.new("L", SCENE, 255).save(file)
    assert rois_of(["a=b=1,2,30,40", f"c={file}"]) == {"a=b": "1,2,30,40", "c": str(file)}
    assert rois_of(["1,2,30,40"], "gear") == {"gear": "1,2,30,40"}
    for wrong in ("bolt", "=1,2,30,40", "bolt="):
        with pytest.raises(SettingsError, match="write --roi PRODUCT=X,Y,W,H"):
            rois_of([wrong])
    with pytest.raises(SettingsError, match="already; give one"):
        rois_of(["a=1,2,30,40", "a=1,2,30,41"])
