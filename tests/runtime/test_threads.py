"""Sixteen threads share one inspector: every result is the one of a single thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
import torch

import snl
from snl.errors import SettingsError
from tests.trees import draw

if TYPE_CHECKING:
    from snl.runtime.openvino_engine import OpenvinoEngine
    from snl.runtime.torch_engine import TorchEngine

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


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_a_process_receives_signals_after_engines_are_closed(
    exported: dict[str, Path], order: tuple[int, int]
) -> None:
    """OpenVINO leaves a thread without a signal stack if cores are released in a wrong order."""
    program = f"""
import faulthandler, gc, os, signal, threading
import snl

received = []
faulthandler.enable()  # as pytest and many servers do
signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
files = [{str(exported["openvino"])!r}, {str(exported["onnx"])!r}, {str(exported["openvino"])!r}]
inspectors = [snl.load(file, "cpu", threads=1) for file in files]
loading = [threading.Thread(target=snl.load, args=(file, "cpu")) for file in files]
[thread.start() for thread in loading]
[thread.join() for thread in loading]
ends = [inspectors.pop(), inspectors.pop(0)]
for number in {order!r}:
    ends[number].close()
    ends[number] = None
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(received))
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=240
    )
    assert (process.returncode, process.stdout) == (0, "2\n"), process.stderr


@pytest.fixture(scope="session")
def fixed(exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenVINO export with a graph for two images."""
    import openvino

    from snl.runtime.openvino_engine import write_openvino

    metadata = snl.load(exported["openvino"], "cpu").metadata
    model = openvino.Core().read_model(exported["openvino"])
    model.reshape({"pixels": [2, 64, 64, 3]})
    path = tmp_path_factory.mktemp("fixed") / "parts.xml"
    write_openvino(model, path, metadata)
    return path


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_streams_and_tiles_at_once(
    trained: Path, exported: dict[str, Path], load: Callable[..., snl.Inspector]
) -> None:
    inspector = load(trained, exported)
    images = [draw(n, defect=n % 2 > 0)[0] for n in range(5)]

    def results(tile: int) -> list[dict[str, object]]:
        return [r.to_dict() for r in inspector.stream(images, "bolt", batch_size=3, tile=tile)]

    expected = {tile: results(tile) for tile in (0, 32)}
    with ThreadPoolExecutor(THREADS) as pool:
        tiles = [0, 32] * (THREADS // 2)
        for tile, found in zip(tiles, pool.map(results, tiles), strict=True):
            assert found == expected[tile]


@pytest.mark.parametrize("batch", ["any", "fixed"])
def test_openvino_is_never_busy(exported: dict[str, Path], fixed: Path, batch: str) -> None:
    """Eight threads got "Infer Request is busy" in most calls of one request."""
    inspector = snl.load(exported["openvino"] if batch == "any" else fixed, "cpu", threads=1)
    engine = cast("OpenvinoEngine", inspector.engine)
    assert engine.batch == (None if batch == "any" else 2)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (n % 4 + 1, 64, 64, 3), np.uint8) for n in range(24)]
    expected = [inspector.predict(pixels) for pixels in batches]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(inspector.predict, batches * 20))
    for result, wanted in zip(results, expected * 20, strict=True):
        for name in ("maps", "scores", "embeddings"):
            np.testing.assert_array_equal(getattr(result, name), getattr(wanted, name))


def test_many_short_threads_share_few_requests(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    engine = cast("OpenvinoEngine", snl.load(exported["openvino"], "cpu", threads=1).engine)
    requests = engine._requests
    assert requests is not None
    compiled, made = requests._compiled, list[object]()

    class Counted:
        def create_infer_request(self) -> object:
            made.append(compiled.create_infer_request())
            return made[-1]

    requests._compiled = Counted()
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    for _ in range(20):
        threads = [threading.Thread(target=engine.predict, args=(pixels,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 <= len(made) <= 3 and len(requests._idle) == len(made)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_closing_while_others_predict(
    trained: Path, exported: dict[str, Path], load: Callable[..., snl.Inspector]
) -> None:
    """Every call gets its result, or one clear line; afterwards all get the line."""
    inspector = load(trained, exported)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    expected = inspector.predict(pixels).maps
    started = threading.Barrier(THREADS + 1)

    def work(_: int) -> int:
        started.wait()
        for count in range(1000):
            try:
                np.testing.assert_array_equal(inspector.predict(pixels).maps, expected)
            except SettingsError as error:
                assert "was closed; load its file again" in str(error)
                return count
        return -1

    with ThreadPoolExecutor(THREADS) as pool:
        counts = pool.map(work, range(THREADS))
        started.wait()
        inspector.predict(pixels)
        inspector.close()
        assert all(0 <= count < 1000 for count in counts)
    with pytest.raises(SettingsError, match="was closed"):
        inspector.inspect(draw(1)[0])


def test_a_number_of_threads_does_not_reach_other_inspectors(trained: Path) -> None:
    """Rounding depends on the number, so a call without one never runs beside a call with one."""
    plain, numbered = (snl.load(trained, "cpu", threads=count) for count in (0, 3))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    before, seen = torch.get_num_threads(), set[tuple[str, int, int]]()
    active = Counter[str]()
    lock = threading.Lock()

    def watch(name: str, inspector: snl.Inspector) -> None:
        engine = cast("TorchEngine", inspector.engine)
        forward = engine._fast
        assert forward is not None

        def watched(*inputs: torch.Tensor) -> object:
            with lock:
                active[name] += 1
                seen.add((name, torch.get_num_threads(), active["numbered"]))
            result = forward(*inputs)
            with lock:
                active[name] -= 1
            return result

        engine._fast = watched  # type: ignore[assignment]

    watch("plain", plain)
    watch("numbered", numbered)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: (plain, numbered)[n % 2].predict(pixels), range(80)))
    assert seen == {("plain", before, 0), ("numbered", 3, 1)}
    assert torch.get_num_threads() == before


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
