"""Images that are not kept give the same results and overlays; --max-pixels does what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli.main import main
from snl.data import bands
from snl.data.images import load_image
from snl.decision import plateaus
from snl.drawing.panel import LONGEST
from snl.errors import ImageError, SettingsError
from snl.reporting.annotations import to_coco, to_labelme
from tests.trees import save_part


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        save_part(file, 300 + number, defect=number > 0)
    return files


def test_one_image_is_kept_and_several_are_read_again(
    inspector: snl.Inspector, paths: list[Path]
) -> None:
    one = inspector.inspect(paths[0])
    assert one.prediction.image is not None and one.image is one.prediction.image
    several = inspector.inspect(paths)
    for result, path in zip(several, paths, strict=True):
        assert result.prediction.image is None and result.prediction.picture is None
        np.testing.assert_array_equal(result.image, load_image(path))
    (kept,) = inspector.stream(paths[:1], keep_images=True)
    assert kept.prediction.image is not None
    arrays = [load_image(path) for path in paths]
    for result, array in zip(inspector.inspect(arrays), arrays, strict=True):
        assert np.shares_memory(result.image, array)  # nothing could read it again
    (drawn,) = inspector.inspect([Image.open(paths[0])])
    np.testing.assert_array_equal(drawn.image, arrays[0])


@pytest.mark.parametrize("tile", [0, 32])
def test_overlays_do_not_depend_on_what_is_kept(
    inspector: snl.Inspector, paths: list[Path], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, drawn, again = (
        list(inspector.stream(paths, tile=tile, **options))
        for options in ({"keep_images": True}, {"overlays": True}, {})
    )
    for a, b, c in zip(kept, drawn, again, strict=True):
        assert b.prediction.image is None and b.prediction.picture is not None
        wanted = np.asarray(a.overlay())
        np.testing.assert_array_equal(np.asarray(c.overlay()), wanted)
        Path(str(b.path)).unlink()
        np.testing.assert_array_equal(np.asarray(b.overlay()), wanted)
        assert "anomaly_map" not in b.__dict__
        with pytest.raises(ImageError, match="does not exist"):
            _ = b.image
        with pytest.raises(ImageError, match="does not exist"):
            c.overlay()


def test_a_picture_has_the_size_of_a_panel(inspector: snl.Inspector, tmp_path: Path) -> None:
    """And is what the whole image resized to it shows."""
    path = tmp_path / "a.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (900, 2000, 3), np.uint8)).save(path)
    (result,) = inspector.stream([path], overlays=True)
    picture = result.prediction.picture
    assert picture is not None and picture.shape == (461, LONGEST, 3)
    np.testing.assert_array_equal(picture, result.image_at(LONGEST, 461))
    wanted = Image.fromarray(result.image).resize((LONGEST, 461), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(picture, np.asarray(wanted))
    levels = Image.fromarray(result.anomaly_map)
    np.testing.assert_array_equal(
        result.map_at(LONGEST, 461), np.asarray(levels.resize((LONGEST, 461), 2))
    )


def test_another_image_in_the_file_is_an_error(inspector: snl.Inspector, paths: list[Path]) -> None:
    results = inspector.inspect(paths)
    paths[0].write_bytes(paths[1].read_bytes())
    for use in (lambda: results[0].image, results[0].overlay):
        with pytest.raises(ImageError, match=r"0\.png has changed since it was inspected"):
            use()


def test_json_and_labels_need_neither_image_nor_map(
    inspector: snl.Inspector, paths: list[Path]
) -> None:
    results = inspector.inspect(paths)
    for path in paths:
        path.unlink()
    for result in results:
        assert result.to_dict()["width"] == result.size[1]
        assert to_labelme(result)["imageHeight"] == result.size[0]
        assert "anomaly_map" not in result.__dict__
    assert [image["width"] for image in to_coco(results)["images"]] == [48] * 3


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_a_large_map_is_resized_in_bands(
    inspector: snl.Inspector, paths: list[Path], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = inspector.inspect(paths[1])
    wanted = Image.fromarray(result.anomaly_map).resize((30, 40), 2).resize((30, 20), 2)
    monkeypatch.setattr(bands, "WHOLE", 0)
    monkeypatch.setattr(bands, "BAND", 48 * rows)
    np.testing.assert_array_equal(result.map_at(30, 20), np.asarray(wanted))


def test_peaks_of_large_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bands of any height they are those of the whole map, plateaus over many bands too."""
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, top, (23, 9)).astype(np.float32) for top in (2, 3, 5, 100)]
    maps += [np.zeros((12, 5), np.float32), np.repeat(rng.random((1, 9), np.float32), 20, 0)]
    for levels in maps:
        ignored = rng.random(levels.shape) < 0.2
        for mask in (None, ignored, np.ones_like(ignored)):
            monkeypatch.setattr(plateaus, "_BAND", 2**21)
            wanted = np.sort(plateaus.plateaus(levels, mask))
            for band in (1, 20, 61):
                monkeypatch.setattr(plateaus, "_BAND", band)
                np.testing.assert_array_equal(np.sort(plateaus.plateaus(levels, mask)), wanted)


# --- the limit of pixels ---


def test_the_limit_of_an_inspector(trained: Path, paths: list[Path]) -> None:
    limited = snl.load(trained, "cpu", max_pixels=1919)
    with pytest.raises(ImageError, match="--max-pixels 1920"):
        limited.inspect(paths[0])
    limited.predictor.max_pixels = 1920
    assert limited.max_pixels == 1920
    assert limited.inspect(paths[0]).size == (40, 48)
    with pytest.raises(SettingsError, match="max_pixels 0"):
        limited.predictor.max_pixels = 0
    with pytest.raises(SettingsError, match="max_pixels -1"):
        snl.load(trained, "cpu", max_pixels=-1)


def test_every_verb_accepts_what_its_error_names(
    trained: Path,
    plant: Path,
    paths: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the number of the message the same command succeeds."""
    product = next(path.name for path in sorted(plant.iterdir()) if path.is_dir())
    verbs: dict[str, list[Any]] = {
        "inspect": [trained, paths[0]],
        "calibrate": [trained, *paths[:1], "--product", product, "-o", tmp_path / "c.snl"],
        "evaluate": [trained, plant],
        "report": [trained, plant, "-o", tmp_path / "r.html"],
        "doctor": [plant],
        "probe": [trained, plant, "--images", "2"],
    }
    for verb, arguments in verbs.items():
        command = [verb, *map(str, arguments), "--quiet", "--max-pixels"]
        assert main([*command, "1919"]) in (1, 2), verb
        refused = "".join(capsys.readouterr())
        named = re.search(r"--max-pixels (\d+) \(max_pixels in Python\)", refused)
        assert named is not None, (verb, refused)
        assert main([*command, named[1]]) in (0, 1), verb
        assert "more than the limit" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("value", ["0", "-5", "1e6", "many", ""])
def test_wrong_limits_are_refused(
    value: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(trained), "a.png", f"--max-pixels={value}"])
    assert stop.value.code == 2 and "--max-pixels" in capsys.readouterr().err


def test_training_has_the_limit(plant: Path, tmp_path: Path) -> None:
    from tests.conftest import TINY

    overrides = {**TINY, "training.steps": 1}
    with pytest.raises(snl.SnlError, match="--max-pixels 1920"):
        snl.train(plant, overrides=overrides, quiet=True, max_pixels=1919)
    inspector = snl.train(plant, overrides=overrides, quiet=True, max_pixels=1920)
    assert inspector.max_pixels == 1920
    inspector.save(tmp_path / "a.snl")
    assert snl.load(tmp_path / "a.snl", "cpu").max_pixels == 160_000_000  # of this machine only


def test_overlays_of_the_command(
    trained: Path, paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(trained), *map(str, paths), "--out", str(tmp_path / "o")]) == 0
    inspector = snl.load(trained, "cpu")
    for line, path in zip(capsys.readouterr().out.splitlines(), paths, strict=True):
        picture = Image.open(json.loads(line)["overlay"])
        wanted = inspector.inspect(path).overlay()
        # a batch of another size is rounded differently
        np.testing.assert_allclose(
            np.asarray(picture, float), np.asarray(wanted, float), rtol=0, atol=1
        )
