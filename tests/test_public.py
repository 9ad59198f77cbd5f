"""Every public name is documented with an example, and all examples run as printed."""

from __future__ import annotations

import doctest
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.settings import resolve
from tests.conftest import TINY
from tests.trees import PRODUCTS, save_part, save_striped

ROOT = Path(__file__).parent.parent
FUNCTIONS = (
    *("train", "load", "evaluate", "probe", "calibrate", "decide", "export", "report"),
    *("add", "remove", "undo", "history"),
)
CLASSES = ("DriftMonitor", "Prediction")
PAGES = (
    *("README.md", "docs/decisions.md", "docs/deploy.md", "docs/drift.md", "docs/probes.md"),
    "docs/products.md",
)


@pytest.fixture
def folder(parts: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the examples use; training is tiny."""
    shutil.copytree(parts, tmp_path / "parts")
    shutil.copy(bundle, tmp_path / "parts.snl")
    for product in PRODUCTS:
        for n in range(12):
            save_part(tmp_path / "normals" / product / f"{n}.png", 500 + n, product=product)
    save_part(tmp_path / "new.png", 700, product=PRODUCTS[0])
    save_part(tmp_path / "new.jpg", 700, product=PRODUCTS[0])
    for n in range(8):
        save_striped(tmp_path / "new" / f"{n}.png", n)
    monkeypatch.chdir(tmp_path)

    def tiny(method: str, preset: str, overrides: Any) -> snl.Settings:
        return resolve(method, preset, {**TINY, "training.holdout": 0.5, **(overrides or {})})

    import snl.training.train

    monkeypatch.setattr(snl.training.train, "resolve", tiny)
    return tmp_path


def test_the_public_names_are_complete() -> None:
    for name in snl.__all__:
        assert getattr(snl, name) is not None
    assert {*FUNCTIONS, *CLASSES, "make_demo", "Inspector", "Catalog"} <= set(snl.__all__)
    for name in ("export", "report", "train"):
        assert callable(getattr(snl, name)), f"a package hides snl.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snl.nothing


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES, "make_demo"])
def test_examples_of_docstrings(name: str, folder: Path) -> None:
    thing = getattr(snl, name)
    texts = [thing.__doc__]
    if inspect.isclass(thing):
        texts += [member.__doc__ for member in vars(thing).values() if callable(member)]
    module = inspect.getmodule(thing)
    if name == "make_demo":
        texts.append(module.__doc__ if module else "")
    names = {"snl": snl, "np": np, **vars(module)}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    examples = 0
    for text in filter(None, texts):
        test = parser.get_doctest(inspect.cleandoc(text), names, name, None, None)
        examples += len(test.examples)
        runner.run(test, clear_globs=False)
    assert examples > 0, f"snl.{name} has no example"
    assert runner.failures == 0


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_of_pages(page: str, folder: Path) -> None:
    """One page is one program; `inspector` is there where a page does not make it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.S | re.M)
    names: dict[str, Any] = {"snl": snl, "np": np, "inspector": snl.load("parts.snl")}
    if page == "README.md":
        Path("parts.snl").unlink()
    if page == "docs/deploy.md":
        snl.export(names["inspector"], "parts.onnx")
    if page == "docs/decisions.md":  # whose product is a bottle
        blocks = [block.replace('"bottle"', repr(PRODUCTS[0])) for block in blocks]
        names["inspector"].recalibrate(snl.calibrate(names["inspector"], "normals/"))
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)
