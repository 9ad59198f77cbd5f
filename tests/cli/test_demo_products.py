"""`snl demo --products`, `--size` and `--images-only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import snl
from snl.cli import demo
from snl.cli.main import main
from snl.demo.dataset import PRODUCTS, demo_image, made_with
from snl.demo.generated import MAX_PRODUCTS, part_names
from snl.errors import TrainingError

Capture = pytest.CaptureFixture[str]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of a kind only."""
    make = snl.make_demo

    def fewer(root: Path, **arguments: Any) -> Path:
        return make(root, n_train=1, n_good=1, n_defect=1, **arguments)

    monkeypatch.setattr(snl, "make_demo", fewer, raising=False)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of training, which does not take place."""
    seen: dict[str, Any] = {}

    def train(*_: Any, overrides: dict[str, Any], **__: Any) -> None:
        seen.update(overrides)
        raise TrainingError("not in this test")

    monkeypatch.setattr(snl, "train", train, raising=False)
    return seen


@pytest.mark.parametrize("value", ["0", "-1", "x", "2.5", "", str(MAX_PRODUCTS + 1)])
def test_a_wrong_number_is_one_clear_line(value: str, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        call("demo", f"--products={value}", "--out", tmp_path / "d")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert f"is not a whole number in 1..{MAX_PRODUCTS}" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("few")
def test_images_only(tmp_path: Path, settings: dict[str, Any], capsys: Capture) -> None:
    out = tmp_path / "d"
    arguments = ("demo", "--out", out, "--products", "2", "--seed", "3", "--images-only", "--quiet")
    for _ in range(2):  # the second time nothing is left to do
        assert call(*arguments) == 0
    assert [path.name for path in out.iterdir()] == ["parts"]
    assert sorted(p.name for p in (out / "parts").iterdir()) == ["README.txt", *part_names(2)]
    with Image.open(out / "parts" / "part_001" / "train" / "good" / "000.png") as image:
        expected = demo_image("part_001", split="train", seed=3, size=128).image
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert "using the demo images that exist" in capsys.readouterr().err
    assert not settings


@pytest.mark.usefixtures("few")
def test_hand_made_images_only_of_another_size(tmp_path: Path) -> None:
    out = tmp_path / "d"
    assert call("demo", "--out", out, "--size", "64", "--images-only", "--quiet") == 0
    made = made_with(out / "parts")
    assert (made["products"], made["size"]) == (list(PRODUCTS), 64)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("count", "steps"), [(2, 600), (13, 780)])
def test_training_takes_longer_with_more_products(
    count: int, steps: int, tmp_path: Path, settings: dict[str, Any]
) -> None:
    words = ("--out", tmp_path / "d", "--products", count, "--size", "64", "--quiet")
    assert call("demo", *words) == 2
    assert settings == {"image_size": 128, "training.steps": steps, "training.seed": 0}
    assert made_with(tmp_path / "d" / "parts")["size"] == 64


@pytest.mark.usefixtures("few")
def test_hand_made_products_are_trained_as_before(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert call("demo", "--out", tmp_path / "d", "--size", "64", "--quiet") == 2
    assert settings == {**demo.SETTINGS, "training.seed": 0}


@pytest.mark.usefixtures("few", "settings")
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (("--products", "2"), ("--products", "3"), "(products 2) than those asked for (products 3"),
        (("--products", "2"), ("--products", "2", "--seed", "1"), "(seed 0)"),
        (("--products", "2"), ("--products", "2", "--size", "64"), "(size 128)"),
        (("--products", "2"), (), "(products 2) than those asked for (products hand-made)"),
        (("--size", "64"), ("--products", "2", "--size", "64"), "(products hand-made)"),
        (("--size", "64"), ("--size", "65"), "(size 64)"),
    ],
)
def test_other_images_are_not_used(
    first: tuple[str, ...], second: tuple[str, ...], words: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "d"
    assert call("demo", "--out", out, *first, "--images-only", "--quiet") == 0
    capsys.readouterr()
    for more in ((), ("--images-only",)):
        assert call("demo", "--out", out, *second, *more, "--quiet") == 2
        error = capsys.readouterr().err
        assert words in error and "--out" in error
        assert error.count("\n") == 1


def test_a_readme_that_says_nothing_is_no_set_of_generated_products(
    tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "d" / "parts"
    folder.mkdir(parents=True)
    (folder / "README.txt").write_text("snl.make_demo(root, products=open('x'))")
    assert made_with(folder) == {}
    assert call("demo", "--out", tmp_path / "d", "--products", "2", "--images-only") == 2
    assert "products unknown" in capsys.readouterr().err
