"""Held-out images of parts that several images show: whole parts, of all their products."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import snl
from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.settings import Settings, resolve
from snl.training.selection import held_out_count, split
from tests.conftest import TINY
from tests.trees import save_varied

ROOT = Path("data")


def settings(**training: float) -> Settings:
    return resolve(overrides={f"training.{name}": value for name, value in training.items()})


def catalog(*rows: tuple[str, str]) -> Catalog:
    """Return a catalog of normal training images, one for each (product, part)."""
    return Catalog(
        ROOT,
        "manifest",
        tuple(
            Record(ROOT / f"{n:04}.png", product, "train", "normal", (), True, "good", part)
            for n, (product, part) in enumerate(rows)
        ),
    )


def views(product: str, parts: int, count: int) -> list[tuple[str, str]]:
    return [(product, f"{product} {n}") for n in range(parts) for _ in range(count)]


def check_whole(used: list[Record], held: list[Record]) -> None:
    assert not {r.part for r in used if r.part} & {r.part for r in held if r.part}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("parts", "count"), [(100, 5), (60, 3), (8, 5), (2, 5), (30, 1)])
def test_whole_parts_are_held_out(parts: int, count: int, seed: int) -> None:
    data = catalog(*views("bolt", parts, count), *views("nut", 50, 2))
    chosen = settings(seed=seed)
    used, held = split(data, chosen)
    check_whole(used, held)
    assert sorted([*used, *held], key=lambda r: r.path) == list(data.records)
    numbers = Counter(record.product for record in held)
    for product, total in (("bolt", parts * count), ("nut", 100)):
        wanted = held_out_count(total, chosen.training)
        assert abs(numbers[product] - wanted) <= max(count, 2)
        assert numbers[product] > 0


def test_a_part_is_held_out_in_all_its_products() -> None:
    """`top` and `side` are products; some parts have no side view, and some no top view."""
    rows = [("top", f"{n}") for n in range(100)] + [("side", f"{n}") for n in range(40, 140)]
    for seed in range(5):
        used, held = split(catalog(*rows), settings(seed=seed))
        check_whole(used, held)
        numbers = Counter(record.product for record in held)
        # side is first by name; top gets further parts that have no side view
        assert numbers == {"side": 20, "top": 20}


def test_an_image_without_a_part_is_a_part_of_its_own() -> None:
    data = catalog(*[("bolt", "")] * 60, *views("bolt", 20, 2))
    used, held = split(data, settings())
    check_whole(used, held)
    assert len(held) in (20, 21) and {bool(record.part) for record in held} == {True, False}


def test_the_only_part_is_trained_on() -> None:
    used, held = split(catalog(*views("bolt", 1, 30)), settings())
    assert len(used) == 30 and not held


def test_the_seed_determines_the_choice() -> None:
    data = catalog(*views("bolt", 100, 5))
    first, again, other = (split(data, settings(seed=s))[1] for s in (0, 0, 1))
    assert first == again != other


def test_training_never_sees_a_view_of_a_held_out_part(tmp_path: Path) -> None:
    """From files to the bundle; the images are identified by their contents."""
    for part in range(12):
        for view in range(3):
            save_varied(tmp_path / "bolt" / f"{part:02}_{view}.png", 100 * part + view)
    inspector = snl.train(
        tmp_path, overrides=TINY, device="cpu", quiet=True, part_pattern=r"(\d+)_"
    )
    held, trained = inspector.calibration.sets["bolt"].hashes, inspector.training.hashes
    parts: dict[str, set[str]] = {"held": set(), "trained": set()}
    for path in (tmp_path / "bolt").iterdir():
        found = inspector.training.content_hash(path)
        assert (found in held) != (found in trained)
        parts["held" if found in held else "trained"].add(path.name[:2])
    assert len(held) == 12 and len(parts["held"]) == 4 and len(parts["trained"]) == 8


def test_nothing_is_held_out_where_that_is_set() -> None:
    assert split(catalog(*views("bolt", 20, 5)), settings(holdout=0))[1] == []
