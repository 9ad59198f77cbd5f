"""A network with an image pyramid: trained, saved, loaded and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import snl
from tests.conftest import FILES, TINY
from tests.trees import draw

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
pytest.importorskip("openvino", reason="the extra `openvino` is not installed")


@pytest.fixture(scope="module")
def bundle(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pyramid") / "parts.snl"
    overrides = {
        **TINY,
        "teacher.pyramid_levels": 2,
        "student.bottleneck_size": 2,
        "training.holdout": 0.5,
    }
    snl.train(parts, method="snl", output=path, overrides=overrides, quiet=True, device="cpu")
    return path


def test_a_bundle_knows_its_levels(bundle: Path) -> None:
    inspector = snl.load(bundle, "cpu")
    assert inspector.settings.teacher.pyramid_levels == 2
    assert inspector.settings.student.bottleneck_size == 2


@pytest.mark.parametrize("kind", FILES)
def test_exports_compute_the_same(bundle: Path, kind: str, tmp_path: Path) -> None:
    inspector = snl.load(bundle, "cpu")
    path = tmp_path / f"parts{FILES[kind]}"
    snl.export(inspector, path, format=kind)
    exported = snl.load(path, "cpu")
    images = [draw(n, defect=n % 2 > 0)[0] for n in range(4)]
    for image in images:
        expected, found = inspector.inspect(image), exported.inspect(image)
        np.testing.assert_allclose(
            found.prediction.anomaly_map, expected.prediction.anomaly_map, rtol=1e-3, atol=1e-4
        )
        assert found.score == pytest.approx(expected.score, rel=1e-3)
        assert found.decision == expected.decision
    assert len({exported.inspect(image).score for image in images}) == len(images)
