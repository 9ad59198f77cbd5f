"""Training finds the white level of images that do not state it; the bundle stores and uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import snl
from snl.cli.main import main
from snl.data.catalog import Catalog
from snl.data.images import load_input
from snl.data.white_level import sample_range
from snl.decision.prediction import Prediction
from snl.errors import SettingsError
from snl.settings import resolve
from tests.conftest import TINY
from tests.data.deep_files import deep_png, deep_tiff, netpbm
from tests.trees import draw

SMALL = {**TINY, "training.steps": 4, "training.holdout": 0.3}


def deep(seed: int, bits: int, *, grey: bool = True) -> NDArray[np.uint16]:
    """Return a part with samples of `bits` bits."""
    image = draw(seed)[0]
    image = image[:, :, 0] if grey else image
    return np.rint(image / 255 * (2**bits - 1)).astype(np.uint16)


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write(path: Path, samples: NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        path.write_bytes(deep_png(samples))
    elif path.suffix == ".tif":
        path.write_bytes(deep_tiff(samples, 1 if samples.ndim == 2 else 2))
    else:
        path.write_bytes(netpbm(samples, 65535))
    return path


def train(root: Path, notes: list[str] | None = None, **overrides: Any) -> snl.Inspector:
    note = (lambda text: None) if notes is None else notes.append
    settings = {**SMALL, **{k.replace("__", "."): v for k, v in overrides.items()}}
    return snl.train(root, overrides=settings, device="cpu", quiet=True, note=note)


@pytest.fixture(scope="module")
def parts12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts with samples of 12 bits in files of 16, of which nothing states it."""
    root = tmp_path_factory.mktemp("parts12")
    for number in range(9):
        write(root / "part" / f"{number}.{('png', 'tif', 'pgm')[number % 3]}", deep(number, 12))
    return root


@pytest.fixture(scope="module")
def bundle12(parts12: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle12") / "a.snl"
    train(parts12).save(path)
    return path


def test_the_white_level_is_found_noted_and_stored(parts12: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    inspector = train(parts12, notes)
    (note,) = [text for text in notes if "white level" in text]
    highest = max(int(deep(n, 12).max()) for n in range(9))
    assert f"values up to {highest}: white level 4095 (12 bits)" in note
    assert "--set white_level=N" in note
    assert inspector.settings.white_level == inspector.white_level == 4095
    assert inspector.training.facts["image_kinds"] == {"12-bit grey": 9}
    inspector.save(tmp_path / "a.snl")
    again = snl.load(tmp_path / "a.snl", "cpu")
    assert again.white_level == 4095 and again.image_kinds == ("12-bit grey",)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("grey", [True, False])
def test_the_same_parts_of_every_depth_give_the_same_inputs(
    bits: int, grey: bool, tmp_path: Path
) -> None:
    for number in range(6):
        name = f"{number}.{('png', 'tif', 'pgm')[number % 3]}"
        write(tmp_path / "deep" / name, deep(number, bits, grey=grey))
        eight = draw(number)[0]
        save(tmp_path / "eight" / f"{number}.png", eight[:, :, 0] if grey else eight)
    records = Catalog.read(tmp_path / "deep").train()
    level = sample_range(records).level
    assert level == 2**bits - 1
    for record in records:
        image = load_input(record.path, 32, white_level=level)
        same = load_input(tmp_path / "eight" / f"{record.path.stem}.png", 32)
        assert np.abs(image.astype(int) - same).max() <= 1


def test_inspection_uses_the_white_level(bundle12: Path, tmp_path: Path) -> None:
    inspector = snl.load(bundle12, "cpu")
    wanted = inspector.inspect(draw(50)[0][:, :, 0]).score
    for name in ("a.png", "a.tif", "a.pgm"):
        result = inspector.inspect(write(tmp_path / name, deep(50, 12)))
        assert result.score == pytest.approx(wanted, rel=0.02)
        assert result.remarks == ()
        assert result.to_dict()["remarks"] == []
    assert inspector.inspect(deep(50, 12)).score == pytest.approx(wanted, rel=0.02)


def test_clipped_samples_and_other_kinds_are_remarked(
    bundle12: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clipped = [write(tmp_path / f"c{n}.png", deep(n, 14)) for n in range(2)]
    save(tmp_path / "eight.png", draw(1)[0][:, :, 0])
    save(tmp_path / "colour.png", draw(1)[0])
    same = tmp_path / "stated.pgm"
    same.write_bytes(netpbm(deep(3, 12), 4095))
    inspector = snl.load(bundle12, "cpu")
    clip = "has samples above the white level 4095, which were clipped"
    kind = "is an 8-bit grey image, but the model was trained on 12-bit grey images"
    assert inspector.inspect(clipped[0], "part").remarks == (clip,)
    assert inspector.inspect(tmp_path / "eight.png", "part").remarks == (kind,)
    assert inspector.inspect(same, "part").remarks == ()
    files = [*clipped, tmp_path / "eight.png", tmp_path / "colour.png", same]
    words = ["inspect", str(bundle12), *map(str, files), "--device", "cpu", "--product", "part"]
    assert main(words) == 0
    captured = capsys.readouterr()
    records = {Path(r["path"]).name: r for r in map(json.loads, captured.out.splitlines())}
    assert records["c0.png"]["remarks"] == records["c1.png"]["remarks"] == [clip]
    assert "8-bit colour" in records["colour.png"]["remarks"][0]
    assert captured.err.count(clip) == 2  # the first image, and the number of images
    assert f"note: {clipped[0]} {clip}" in captured.err and "note: 2 images" in captured.err
    assert captured.err.count(kind) == 1


def test_evaluate_mentions_images_of_another_kind(
    bundle12: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        save(tmp_path / "part" / "test" / "good" / f"{number}.png", draw(number)[0][:, :, 0])
        save(tmp_path / "part" / "test" / "dent" / f"{number}.png", draw(number)[0][:, :, 1])
    assert main(["evaluate", str(bundle12), str(tmp_path), "--device", "cpu", "--quiet"]) == 0
    assert "note: 4 images: each is an 8-bit grey image" in capsys.readouterr().err


def test_a_bundle_without_facts_about_images_remarks_nothing(
    bundle: Path, parts12: Path, tmp_path: Path
) -> None:
    inspector = snl.load(bundle, "cpu")
    image = write(tmp_path / "a.png", deep(1, 12))
    assert "12-bit" not in str(inspector.image_kinds)
    assert (
        "but the model was trained on 8-bit colour" in inspector.inspect(image, "bolt").remarks[0]
    )
    inspector.training.facts.pop("image_kinds")  # type: ignore[attr-defined]
    assert inspector.inspect(image, "bolt").remarks == ()


def test_products_that_use_less_are_named(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "bright" / f"{number}.png", deep(number, 12))
        write(tmp_path / "dark" / f"{number}.png", deep(number, 10))
    notes: list[str] = []
    assert train(tmp_path, notes).white_level == 4095
    (note,) = [text for text in notes if "use less of this range" in text]
    assert "'dark' (up to" in note and "bright" not in note


def test_a_chosen_white_level_is_kept_and_checked(parts12: Path) -> None:
    notes: list[str] = []
    assert train(parts12, notes, white_level=1023).white_level == 1023
    (note,) = [text for text in notes if "white level" in text]
    assert "above the white level 1023 are clipped" in note and "4095 (12 bits) would fit" in note
    notes.clear()
    assert train(parts12, notes, white_level="16383").white_level == 16383
    assert not [text for text in notes if "white level" in text]
    for wrong in (254, -1, 65536, "x", 4095.5):
        with pytest.raises(SettingsError, match="white_level"):
            resolve(overrides={"white_level": wrong})


def test_images_that_state_their_range_need_no_white_level(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        samples = deep(number, 12)
        (tmp_path / "a" / f"{number}.pgm").write_bytes(netpbm(samples, 4095))
        save(tmp_path / "b" / f"{number}.png", draw(number)[0])
        (tmp_path / "a" / f"s{number}.png").write_bytes(deep_png(samples, significant=12))
    found = sample_range(Catalog.read(tmp_path).train())
    assert found.level == 0 and found.highest == {}
    assert found.kinds(0) == {"12-bit grey": 8, "8-bit colour": 4}


def test_stored_predictions_keep_remarks_and_old_ones_load() -> None:
    ones = np.ones((2, 2), np.float32)
    plain = Prediction(ones, 0.5, ones[0], (4, 4))
    remarked = Prediction(ones, 0.5, ones[0], (4, 4), remarks=("is odd", "ü\n"))
    assert b"remarks" not in plain.to_bytes()  # as before there were any
    assert Prediction.from_bytes(plain.to_bytes()).remarks == ()
    assert Prediction.from_bytes(remarked.to_bytes()).remarks == ("is odd", "ü\n")
