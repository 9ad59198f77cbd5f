"""Sixteen threads share one inspector of each exported runtime, and every result is the same."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import snl
from tests.trees import draw

THREADS, ROUNDS = 16, 4


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_threads_share_one_inspector(kind: str, exported: dict[str, Path]) -> None:
    inspector = snl.load(exported[kind], "cpu", threads=1)
    images = [draw(seed, defect=seed % 2 > 0)[0] for seed in range(24)]
    expected = [inspector.inspect(image) for image in images]
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(inspector.inspect, images * ROUNDS))
    for result, wanted in zip(results, expected * ROUNDS, strict=True):
        assert result.to_dict() == wanted.to_dict()
        np.testing.assert_array_equal(result.prediction.anomaly_map, wanted.prediction.anomaly_map)
    inspector.close()


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_batches_of_different_sizes_at_once(kind: str, exported: dict[str, Path]) -> None:
    inspector = snl.load(exported[kind], "cpu", threads=1)
    side = inspector.image_size
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n % 5 + 1, side, side, 3), np.uint8) for n in range(40)]
    expected = [inspector.predict(batch).maps for batch in batches]
    with ThreadPoolExecutor(THREADS) as pool:
        maps = list(pool.map(lambda batch: inspector.predict(batch).maps, batches))
    for left, right in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(left, right)
