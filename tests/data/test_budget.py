"""The budget of decoded bytes: it is kept, images come in order, and nothing waits for ever."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from snl.data import stream
from snl.data.budget import Budget
from snl.data.images import load_image, to_input
from snl.data.stream import Loaded, batches, read
from snl.data.tiles import tiles_of
from snl.errors import ImageError

pytestmark = pytest.mark.timeout(60)
SIDES = (8, 40, 16, 64, 24, 8, 120, 32)
"""Images of 256 bytes to 58 kB as Pillow holds them."""
LIMIT = 20_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("budget")
    rng = np.random.default_rng(0)
    paths = []
    for number, side in enumerate(SIDES * 3):
        paths.append(folder / f"{number:02}.png")
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(paths[-1])
    damaged = folder / "damaged.png"
    damaged.write_bytes(paths[6].read_bytes()[:3000])
    header = folder / "header.png"
    header.write_bytes(b"not an image")
    return [*paths[:5], damaged, *paths[5:12], header, *paths[12:], folder / "missing.png"]


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[Budget]:
    """Every budget that a reader makes."""
    made: list[Budget] = []

    def make(limit: int) -> Budget:
        made.append(Budget(limit))
        return made[-1]

    monkeypatch.setattr(stream, "Budget", make)
    return made


def test_a_budget_is_kept_and_given_back() -> None:
    budget = Budget(100)
    budget.admit(0, 60)
    budget.admit(1, 40)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(budget.admit, 2, 1)
        time.sleep(0.05)
        assert not third.done()
        budget.settle(0)
        third.result(5)
    assert budget.most_used == 100


def test_an_image_above_the_budget_runs_alone() -> None:
    budget = Budget(100)
    budget.admit(0, 500)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(budget.admit, 1, 1)
        time.sleep(0.05)
        assert not second.done()
        budget.settle(0)
        second.result(5)


def test_images_are_admitted_in_order() -> None:
    """A later one that fits does not take what an earlier one is waiting for."""
    budget = Budget(100)
    budget.admit(0, 90)
    with ThreadPoolExecutor(2) as pool:
        large, small = pool.submit(budget.admit, 1, 80), pool.submit(budget.admit, 2, 5)
        time.sleep(0.05)
        assert not large.done() and not small.done()
        budget.settle(0)
        large.result(5)
        small.result(5)


def test_an_image_that_is_never_admitted_does_not_block_others() -> None:
    budget = Budget(100)
    budget.settle(1)  # its header was damaged
    budget.settle(0)
    budget.admit(2, 10)


def test_what_was_kept_counts_until_it_is_freed() -> None:
    budget = Budget(100)
    budget.admit(0, 50)
    kept: np.ndarray | None = np.zeros(90, np.uint8)
    budget.settle(0, kept)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.admit, 1, 20)
        time.sleep(0.05)
        assert not waiting.done()
        kept = None
        waiting.result(5)
    assert budget.most_used == 90


def test_the_consumer_may_keep_everything() -> None:
    """What it waits for is admitted although it holds the whole budget."""
    budget = Budget(100)
    budget.admit(0, 100)
    kept = np.zeros(100, np.uint8)
    budget.settle(0, kept)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.admit, 1, 100)
        time.sleep(0.05)
        assert not waiting.done()
        budget.wait_for(1)
        waiting.result(5)
    assert kept.size == 100


def test_closing_ends_the_waiting() -> None:
    budget = Budget(10)
    budget.admit(0, 10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(budget.admit, 1, 10)
        budget.close()
        with pytest.raises(ImageError, match="stopped"):
            waiting.result(5)


def names(results: Iterator[Loaded | ImageError]) -> list[str]:
    """Names of the files, in order; of the unreadable ones with `error: `."""

    def name(item: Loaded | ImageError) -> str:
        if isinstance(item, Loaded):
            return str(item.source.name)
        return f"error: {Path(str(item).split()[0]).name}"

    return [name(item) for item in results]


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("whole", [False, True])
def test_order_and_results_do_not_depend_on_the_budget(
    files: list[Path], workers: int, whole: bool
) -> None:
    results = list(read(files, 16, workers, whole=whole, budget=1))
    bad = ("damaged.png", "header.png", "missing.png")
    wanted = [f"error: {p.name}" if p.name in bad else p.name for p in files]
    assert names(iter(results)) == wanted
    for item, path in zip(results, files, strict=True):
        if isinstance(item, Loaded):
            image = load_image(path)
            np.testing.assert_array_equal(item.pixels, to_input(image, 16))
            assert item.original == image.shape[:2] and (item.image is not None) == whole
            if item.image is not None:
                np.testing.assert_array_equal(item.image, image)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_use_of_a_reader_ends(
    files: list[Path], budgets: list[Budget], data: st.DataObject
) -> None:
    """Images, tiles, arrays and errors in any order; a consumer that keeps, drops or stops."""
    number = data.draw(st.integers(1, 12))
    sources: list[Any] = []
    for path in data.draw(st.lists(st.sampled_from(files), min_size=number, max_size=number)):
        kind = data.draw(st.sampled_from(["image", "tiles", "array"]))
        if kind == "tiles":
            sources += tiles_of([path], 32).tiles
        else:
            sources.append(path if kind == "image" else np.zeros((9, 7, 3), np.uint8))
    options = {
        "workers": data.draw(st.integers(1, 5)),
        "whole": data.draw(st.booleans()),
        "budget": data.draw(st.sampled_from([1, LIMIT, 2**30])),
    }
    stop = data.draw(st.integers(0, len(sources)))
    keep = data.draw(st.booleans())
    before = threading.active_count()
    kept = []
    reader: Any = read(sources, 16, **options)
    with closing(reader):
        for count, item in enumerate(reader):
            if keep:
                kept.append(item)
            if count == stop:
                break
    assert threading.active_count() == before
    if stop == len(sources) and keep:
        assert [i.index for i in kept if isinstance(i, Loaded)] == sorted(
            i.index for i in kept if isinstance(i, Loaded)
        )


def test_read_ahead_stays_within_the_budget(files: list[Path], budgets: list[Budget]) -> None:
    """With 8 threads and a slow consumer: the budget, or the largest image alone."""
    for item in read(files * 3, 16, 8, budget=LIMIT):
        time.sleep(0.001)
        del item
    assert budgets[0].most_used == 120 * 120 * 4
    for _ in read([p for p in files if "06" not in p.name] * 3, 16, 8, budget=100_000):
        pass
    assert 50_000 < budgets[1].most_used <= 100_000


def test_whole_images_count_while_they_are_used(files: list[Path], budgets: list[Budget]) -> None:
    held = []
    for item in read(files[:5] * 4, 16, 8, whole=True, budget=LIMIT):
        held.append(item)
        if len(held) == 2:
            held.clear()
        del item
    # two of at most 64 x 64 pixels are held, and what is being decoded is beyond the budget once
    assert budgets[0].most_used <= LIMIT + 64 * 64 * 7


def test_groups_end_early_when_they_hold_whole_images(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "DECODED_BYTES", 3 * 64 * 64)
    errors: list[ImageError] = []
    paths = files[:4] * 3
    groups = [group for group, _ in batches(read(paths, 16, whole=True), 8, errors)]
    assert [item.index for group in groups for item in group] == list(range(12))
    assert [len(group) for group in groups] == [4, 4, 4]
    assert [len(group) for group, _ in batches(read(paths, 16), 8, errors)] == [8, 4]


def test_an_exception_in_the_consumer_stops_the_threads(files: list[Path]) -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), closing(read(files * 5, 16, 4, budget=1)) as reader:  # type: ignore[type-var]
        for _ in reader:
            raise ZeroDivisionError
    assert threading.active_count() == before


def test_an_exception_in_the_sources_stops_the_threads(files: list[Path]) -> None:
    def sources() -> Iterator[Path]:
        yield from files[:20]
        raise KeyError("no more")

    before = threading.active_count()
    with pytest.raises(KeyError):
        list(read(sources(), 16, 2, budget=1))
    assert threading.active_count() == before


def test_an_error_does_not_keep_the_image(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are collected for the end of a run; the image that was being read is freed."""

    class Large:
        """An image that cannot be converted."""

        size = (8, 8)

        def resized(self, width: int, height: int) -> np.ndarray:
            raise ImageError("x.png is damaged") from ValueError("why")

    alive: list[Any] = []

    @contextmanager
    def decoded(source: Any, **options: Any) -> Iterator[Large]:
        import weakref

        image = Large()
        alive.append(weakref.ref(image))
        yield image

    monkeypatch.setattr(stream, "decoded", decoded)
    gc.disable()
    try:
        errors = list(read(files[:3], 16, 1))
        assert len(errors) == 3 and all(isinstance(error, ImageError) for error in errors)
        assert [reference() for reference in alive] == [None] * 3
    finally:
        gc.enable()
