"""`snl demo --quick`: what it does, without the training, which `tests/packaging` does once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import snl
from snl.cli import demo
from snl.cli.main import main
from snl.demo.dataset import PRODUCTS, made_with
from snl.errors import TrainingError
from snl.settings import resolve

Capture = pytest.CaptureFixture[str]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of 64 pixels, one of a kind."""
    few = {"size": 64, "n_train": 1, "n_good": 1, "n_defect": 1}
    monkeypatch.setattr(demo, "QUICK_IMAGES", {**demo.QUICK_IMAGES, **few})


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of training, which does not take place."""
    seen: dict[str, Any] = {}

    def train(*_: Any, overrides: dict[str, Any], **__: Any) -> None:
        seen.update(overrides)
        raise TrainingError("not in this test")

    monkeypatch.setattr(snl, "train", train, raising=False)
    return seen


def test_the_settings_exist_and_are_fewer_than_those_of_the_demo() -> None:
    assert set(demo.QUICK_IMAGES["products"]) < set(PRODUCTS)
    quick, full = resolve(overrides=demo.QUICK_SETTINGS), resolve(overrides=demo.SETTINGS)
    assert quick.image_size <= full.image_size
    assert quick.training.steps < full.training.steps / 4


def test_it_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("demo", "--quick", "--seed", "3", "--quiet") == 2  # ends where training begins
    assert [path.name for path in tmp_path.iterdir()] == ["demo-quick"]
    assert settings == {**demo.QUICK_SETTINGS, "training.seed": 3}
    made = made_with(tmp_path / "demo-quick" / "parts")
    assert made["products"] == list(demo.QUICK_IMAGES["products"])
    assert (made["size"], made["n_train"], made["seed"]) == (64, 1, 3)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--products", "2"), "--products"),
        (("--size", "64"), "--size"),
        (("--size", "64", "--products", "2", "--images-only"), "--products and --size"),
    ],
)
def test_options_that_contradict_it_are_one_clear_line(
    more: tuple[str, ...], named: str, tmp_path: Path, capsys: Capture
) -> None:
    assert call("demo", "--quick", *more, "--out", tmp_path / "d") == 2
    error = capsys.readouterr().err
    assert f"leave out {named}, or --quick" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_images_of_the_other_demo_are_not_used(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "d"
    words = ("demo", "--out", out, "--images-only", "--quiet")
    for _ in range(2):  # the second time nothing is left to do
        assert call(*words, "--quick") == 0
    assert "using the demo images that exist" in capsys.readouterr().err
    for other in ((), ("--products", "2")):
        assert call(*words, *other) == 2
        error = capsys.readouterr().err
        assert "holds other demo images (products blister, gear, leather, wood" in error
        assert "--out" in error and error.count("\n") == 1


def test_a_full_demo_is_not_taken_for_a_quick_one(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "d"
    snl.make_demo(out / "parts", size=64, n_train=1, n_good=1, n_defect=1)
    assert call("demo", "--quick", "--out", out, "--quiet") == 2
    assert "(products hand-made) than those asked for (products blister" in capsys.readouterr().err
