"""Generated data sets with the classes of MVTec AD and VisA, and finished results."""

from __future__ import annotations

from pathlib import Path

import pytest

from snl.bench.published import BENCHMARKS
from snl.cli.main import main
from tests.trees import make_mvtec, make_visa

TINY = [
    *("--preset", "compact", "--image-size", "64", "--steps", "2", "--batch-size", "4"),
    *("--set", "training.precision=fp32", "--device", "cpu", "--quiet"),
]
TWO_CLASSES = ["--classes", "bottle,cable"]


@pytest.fixture(scope="session")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All classes of MVTec AD; tests must not change them."""
    return make_mvtec(tmp_path_factory.mktemp("mvtec"), BENCHMARKS["mvtec"].classes)


@pytest.fixture(scope="session")
def visa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All classes of VisA in its layout, with the table that lies in each; do not change them."""
    root = make_visa(tmp_path_factory.mktemp("visa"), BENCHMARKS["visa"].classes)
    for name in BENCHMARKS["visa"].classes:
        (root / name / "image_anno.csv").write_text("image,label,mask\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def done(mvtec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two seeds on two classes; tests must not change them."""
    out = tmp_path_factory.mktemp("done") / "out"
    words = ["bench", "mvtec", str(mvtec), "-o", str(out), "--seeds", "2", *TINY, *TWO_CLASSES]
    assert main(words) == 0
    return out
