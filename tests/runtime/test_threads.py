"""Sixteen threads share one inspector: every result is the one of a single thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import snl
from tests.trees import draw

THREADS, ROUNDS = 16, 6
LOADERS: dict[str, Callable[[Path, dict[str, Path]], snl.Inspector]] = {
    "torch": lambda file, exported: snl.load(file, "cpu"),
    "torch, one thread": lambda file, exported: snl.load(file, "cpu", threads=1),
    "torch, two threads": lambda file, exported: snl.load(file, "cpu", threads=2),
    "torch, bf16": lambda file, exported: snl.load(file, "cpu", precision="bf16"),
    "onnx": lambda file, exported: snl.load(exported["onnx"], "cpu", threads=1),
    "openvino": lambda file, exported: snl.load(exported["openvino"], "cpu", threads=1),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_threads_share_an_inspector(
    trained: Path, exported: dict[str, Path], load: Callable[..., snl.Inspector]
) -> None:
    inspector = load(trained, exported)
    images = [draw(n, defect=n % 2 > 0, product=("bolt", "plate")[n % 3 > 0])[0]
              for n in range(THREADS)]  # fmt: skip
    expected = [inspector.inspect(image) for image in images]
    assert len({result.score for result in expected}) == THREADS
    before = torch.get_num_threads()
    start = threading.Barrier(THREADS)

    def work(number: int) -> list[snl.Inspection]:
        start.wait()
        return [inspector.inspect(images[(number + turn) % THREADS]) for turn in range(ROUNDS)]

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(work, range(THREADS)))
    assert torch.get_num_threads() == before
    for number, of_thread in enumerate(results):
        for turn, result in enumerate(of_thread):
            wanted = expected[(number + turn) % THREADS]
            assert result.to_dict() == wanted.to_dict()
            np.testing.assert_array_equal(
                result.prediction.anomaly_map, wanted.prediction.anomaly_map
            )
            np.testing.assert_array_equal(result.prediction.embedding, wanted.prediction.embedding)
    inspector.close()
    inspector.close()


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_batches_of_different_sizes_at_once(
    trained: Path, exported: dict[str, Path], load: Callable[..., snl.Inspector]
) -> None:
    inspector = load(trained, exported)
    side = inspector.image_size
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n % 5 + 1, side, side, 3), np.uint8) for n in range(40)]
    expected = [inspector.predict(batch).maps for batch in batches]
    with ThreadPoolExecutor(THREADS) as pool:
        maps = list(pool.map(lambda batch: inspector.predict(batch).maps, batches))
    for left, right in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(left, right)


def test_inspectors_with_other_numbers_of_threads_run_at_once(trained: Path) -> None:
    """PyTorch has one number of threads for the whole process; it is the same afterwards."""
    images = [draw(n)[0] for n in range(4)]
    inspectors = [snl.load(trained, "cpu", threads=count) for count in (1, 2, 3)]
    expected = [[i.inspect(image).score for image in images] for i in inspectors]
    before = torch.get_num_threads()
    with ThreadPoolExecutor(12) as pool:
        futures = [
            pool.submit(lambda i=inspector: [i.inspect(image).score for image in images])
            for inspector in inspectors * 4
        ]
        assert [future.result() for future in futures] == expected * 4
    assert torch.get_num_threads() == before


def test_an_error_leaves_the_number_of_threads(trained: Path) -> None:
    inspector = snl.load(trained, "cpu", threads=3)
    before = torch.get_num_threads()
    with pytest.raises(Exception):  # noqa: B017  # of PyTorch, for a wrong number of channels
        inspector.predict(np.zeros((1, 64, 64, 5), np.uint8))
    assert torch.get_num_threads() == before
    assert inspector.predict(np.zeros((1, 64, 64, 3), np.uint8)).scores.shape == (1,)
