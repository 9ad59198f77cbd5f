"""Generated products of the demo set: determinism, distinct designs, exact masks, errors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from snl.demo.dataset import (
    DEFECTS,
    PRODUCTS,
    demo_image,
    made_with,
    make_demo,
    part_of,
)
from snl.demo.defects import Fault
from snl.demo.generated import (
    GENERATED_SUBTLEST,
    MAX_PRODUCTS,
    draw_design,
    part_names,
    part_number,
)
from snl.demo.generated_shapes import FAMILIES, draw_outline
from snl.demo.generated_surfaces import SURFACES
from snl.errors import SettingsError

NAMES = part_names(40)
STRUCTURAL = {"missing_hole", "misplaced_hole", "missing_print", "wrong_print", "chipped_edge"}

HAND_MADE = {
    "blister": "616fb93b95522ffa",
    "circuit": "1c4d7a1d9fb0066d",
    "gear": "3909d30ca699b3e2",
    "leather": "8ca069779ea3a855",
    "plate": "3f643844d1b213c7",
    "tile": "2382ecbd9ee11108",
    "twill": "5cfe8c1eb881e54a",
    "wood": "141b9895be9390c1",
}
"""Hashes of images and masks from before generated products existed."""


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("product", PRODUCTS)
def test_hand_made_images_have_not_changed(product: str) -> None:
    digest = hashlib.sha256()
    for kind in ("good", *DEFECTS[product]):
        result = demo_image(product, kind, 1, size=64, seed=3)
        digest.update(result.image.tobytes())
        digest.update(result.mask.tobytes())
    assert digest.hexdigest()[:16] == HAND_MADE[product]


def test_names_have_one_width_and_at_least_three_digits() -> None:
    assert part_names(2) == ["part_000", "part_001"]
    assert part_names(1000)[-1] == "part_999"
    assert part_names(1001)[7] == "part_0007"
    names = part_names(MAX_PRODUCTS)
    assert names[-1] == "part_9999"
    assert [part_number(name) for name in names] == list(range(MAX_PRODUCTS))
    assert [part_number(n) for n in ("part_10000", "part_07", "gear", "part_-01", "part_1e3")] == [
        None
    ] * 5


def test_same_call_gives_same_bytes_whatever_the_number_of_products(tmp_path: Path) -> None:
    counts: dict[str, int] = {"size": 64, "n_train": 1, "n_good": 1, "n_defect": 1}
    sets = [
        contents(make_demo(tmp_path / name, products=count, seed=4, **counts))
        for name, count in (("a", 5), ("b", 5), ("c", 8))
    ]
    assert sets[0] == sets[1]
    assert {name.split("/")[0] for name in sets[2]} == {"README.txt", *part_names(8)}
    images = [name for name in sets[0] if name != "README.txt"]
    assert len(images) >= 5 * (2 + 2 * 3)
    assert all(sets[0][name] == sets[2][name] for name in images)
    assert made_with(tmp_path / "c") == {"products": 8, "seed": 4, **counts}


def test_wider_names_mean_the_same_products() -> None:
    kind = next(iter(part_of("part_007", 0).defects))
    a, b = (demo_image(name, kind, 2, size=64) for name in ("part_007", "part_0007"))
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.mask, b.mask)


def test_written_images_equal_those_of_demo_image(tmp_path: Path) -> None:
    from PIL import Image

    make_demo(tmp_path / "set", products=np.int64(3), size=64, n_train=0, n_good=0, n_defect=1)
    for product in part_names(3):
        for kind in part_of(product, 0).defects:
            result = demo_image(product, kind, size=64)
            folder = tmp_path / "set" / product
            with Image.open(folder / "test" / kind / "000.png") as image:
                np.testing.assert_array_equal(np.asarray(image), result.image)
            with Image.open(folder / "ground_truth" / kind / "000_mask.png") as image:
                np.testing.assert_array_equal(np.asarray(image), result.mask)


def test_another_seed_gives_other_products() -> None:
    assert draw_design(0, 3) != draw_design(1, 3)
    assert draw_design(0, 3) == draw_design(0, 3)


def test_every_third_product_is_a_variant_of_the_one_before() -> None:
    for number in range(0, 60, 3):
        other, base, variant = (draw_design(0, number + k) for k in range(3))
        assert variant.outline == base.outline != other.outline
        assert variant.background == base.background != other.background
        assert (variant.holes, variant.marks) != (base.holes, base.marks) or (
            variant.material.color != base.material.color
        )


def test_designs_use_everything_and_have_three_or_four_defects() -> None:
    designs = [draw_design(0, number) for number in range(300)]
    assert {design.outline.family for design in designs} == set(FAMILIES)
    assert {design.material.family for design in designs} == set(SURFACES)
    assert {len(design.defects) for design in designs} == {3, 4}
    kinds = {kind for design in designs for kind in design.defects}
    assert kinds == STRUCTURAL | {
        *("scratch", "dent", "stain", "deposit", "crack", "hair", "cut", "hole")
    }
    for name, design in zip(part_names(300), designs, strict=True):
        painted = part_of(name, 0).defects
        assert tuple(painted) == design.defects
        assert {kind for kind, paint in painted.items() if paint is None} == (
            STRUCTURAL & set(design.defects)
        )
    assert len({design.holes for design in designs}) > 200


def test_holes_and_marks_lie_inside_the_outline() -> None:
    for number in range(200):
        design = draw_design(5, number)
        places = [(hole.u, hole.v) for hole in design.holes]
        places += [p for mark in design.marks if mark.kind != "stripe" for p in mark.circles()]
        for u, v in places:
            assert design.outline.distance(np.array([u]), np.array([v]))[0] < -0.04


def test_outlines_stay_in_the_image_and_are_signed_distances() -> None:
    axis = np.linspace(-1, 1, 81)
    u, v = np.meshgrid(axis, axis)
    rng = np.random.default_rng(0)
    for _ in range(200):
        outline = draw_outline(rng)
        d = outline.distance(u, v)
        inside = d < 0
        assert inside.mean() > 0.1
        if outline.fills_image:
            continue
        assert np.sqrt(u * u + v * v)[inside].max() < 1.25
        assert max(np.abs(u[inside]).max(), np.abs(v[inside]).max()) <= 0.91
        # Near the edge it changes as points do, faster only beside steep teeth.
        near = np.abs(d[1:]) < 0.08
        change = np.abs(np.diff(d, axis=0))[near] / (axis[1] - axis[0])
        assert change.max() < (6 if outline.family == "gear" else 1.7)


@pytest.mark.parametrize("product", NAMES)
def test_images_differ_only_inside_the_mask(product: str) -> None:
    for kind in part_of(product, 0).defects:
        strongest = []
        for index in range(5):
            result = demo_image(product, kind, index, size=96)
            inside = result.mask > 0
            assert 0.0003 < inside.mean() < 0.4, kind
            difference = np.abs(result.image.astype(int) - result.clean).max(2)
            neighbourhood = ndimage.binary_dilation(inside, iterations=3)  # lens blur
            assert difference[~neighbourhood].max() <= 1, kind  # the soft edge, rounded
            strongest.append(difference[inside].max())
        # Subtle defects may be almost invisible, but not all of a kind.
        assert max(strongest) > 12, (kind, strongest)
        assert np.median(strongest) > 4, (kind, strongest)


@pytest.mark.parametrize("size", [64, 150])
def test_obvious_defects_are_visible_at_any_size(size: int) -> None:
    for product in NAMES[:6]:
        for kind in part_of(product, 0).defects:
            results = [demo_image(product, kind, k, size=size) for k in range(5)]
            visible = [
                (np.abs(r.image.astype(int) - r.clean).max(2)[r.mask > 0] > 12).sum()
                for r in results
            ]
            assert max(visible) >= 4, (product, kind)


def test_defects_cover_the_whole_range_of_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = []
    part = part_of("part_001", 0)
    kind = next(kind for kind, paint in part.defects.items() if paint is not None)
    paint = part.defects[kind]
    assert paint is not None

    def record(scene: Any, fault: Fault) -> None:
        levels.append(fault.level)
        paint(scene, fault)

    monkeypatch.setitem(part.defects, kind, record)  # type: ignore[arg-type]
    for index in range(12):
        demo_image("part_001", kind, index, size=64)
    assert min(levels) >= GENERATED_SUBTLEST
    assert min(levels) < GENERATED_SUBTLEST + 0.12
    assert 0.88 < max(levels) <= 1


def test_normal_images_vary_and_have_no_mask() -> None:
    for product in NAMES:
        images = [demo_image(product, index=k, split="train", size=64) for k in range(2)]
        assert not images[0].mask.any()
        np.testing.assert_array_equal(images[0].image, images[0].clean)
        assert (np.abs(images[0].image.astype(int) - images[1].image) > 4).mean() > 0.1


def test_mean_images_recognise_the_products() -> None:
    """Nearest mean of 8 x 8 pixels: most products are right at once, variants are harder."""

    def small(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        return image.reshape(8, 8, 8, 8, 3).mean((1, 3)).ravel()

    train, test = (
        np.array(
            [
                [small(demo_image(p, index=k, split=s, size=64).image) for k in range(count)]
                for p in NAMES
            ]
        )
        for s, count in (("train", 6), ("test", 3))
    )
    centres = train.mean(1)
    distances = np.linalg.norm(test[:, :, None] - centres, axis=-1)
    right = distances.argmin(2) == np.arange(len(NAMES))[:, None]
    assert right.mean() > 0.9
    # The most similar other product is a variant much more often than by chance.
    between = np.linalg.norm(centres[:, None] - centres, axis=-1)
    np.fill_diagonal(between, np.inf)
    variants = np.arange(2, len(NAMES), 3)
    assert (between[variants].argmin(1) == variants - 1).mean() > 0.4


@pytest.mark.parametrize("products", [0, -1, MAX_PRODUCTS + 1, True, ["part_000", "part_10000"]])
def test_a_wrong_number_of_products_is_an_error(tmp_path: Path, products: Any) -> None:
    with pytest.raises(SettingsError, match=r"products is|no product 'part_10000'") as caught:
        make_demo(tmp_path / "set", products=products)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_names_of_both_kinds_of_products_may_be_given(tmp_path: Path) -> None:
    make_demo(
        tmp_path / "set", products=["part_012", "gear"], size=64, n_train=1, n_good=0, n_defect=0
    )
    assert set(contents(tmp_path / "set")) == {
        *("README.txt", "part_012/train/good/000.png", "gear/train/good/000.png")
    }


def test_an_unknown_defect_of_a_generated_product_is_named() -> None:
    with pytest.raises(SettingsError, match="broken_heart"):
        demo_image("part_003", "broken_heart")
