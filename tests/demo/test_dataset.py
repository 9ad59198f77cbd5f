"""The demo set: layout, determinism, exact masks, errors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from snl.demo.dataset import DEFECTS, PRODUCTS, demo_image, make_demo
from snl.errors import DataError, SettingsError

SIZE = 96
KINDS = [(product, kind) for product in PRODUCTS for kind in DEFECTS[product]]


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "deep" / "set"
    return make_demo(root, size=64, n_train=2, n_good=1, n_defect=1)


def test_layout_is_that_of_mvtec_ad(small: Path) -> None:
    expected = {"README.txt"}
    for product in PRODUCTS:
        expected |= {f"{product}/train/good/{k:03d}.png" for k in range(2)}
        expected |= {f"{product}/test/good/000.png"}
        for kind in DEFECTS[product]:
            expected |= {
                f"{product}/test/{kind}/000.png",
                f"{product}/ground_truth/{kind}/000_mask.png",
            }
    assert set(contents(small)) == expected
    assert len(PRODUCTS) >= 6
    assert all(len(kinds) >= 3 for kinds in DEFECTS.values())


def test_file_formats(small: Path) -> None:
    for path in small.rglob("*.png"):
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.size == (64, 64)
            assert image.mode == ("L" if path.stem.endswith("_mask") else "RGB")
            pixels = np.asarray(image)
        if path.stem.endswith("_mask"):
            assert set(np.unique(pixels)) == {0, 255}
        else:
            assert pixels.std() > 3


def test_readme_names_call_seed_and_licence(small: Path) -> None:
    text = (small / "README.txt").read_text(encoding="utf-8")
    for word in ("make_demo", "seed=0", "size=64", "n_train=2", "CC0", "generated"):
        assert word in text


def test_same_seed_gives_same_bytes_also_for_a_subset(small: Path, tmp_path: Path) -> None:
    subset = contents(
        make_demo(
            tmp_path / "subset",
            size=64,
            n_train=1,
            n_good=2,
            n_defect=1,
            products=["wood", "circuit", "gear"],
        )
    )
    full = contents(small)
    shared = [n for n in subset if n != "README.txt" and not n.endswith("test/good/001.png")]
    assert len(shared) == 3 * 2 + 2 * sum(len(DEFECTS[p]) for p in ("wood", "circuit", "gear"))
    assert all(subset[name] == full[name] for name in shared)


def test_another_seed_gives_other_images() -> None:
    for product in PRODUCTS:
        a, b = (demo_image(product, seed=seed, size=64).image for seed in (0, 1))
        assert (a != b).mean() > 0.3


def test_written_images_equal_those_of_demo_image(small: Path) -> None:
    kind = DEFECTS["twill"][0]
    result = demo_image("twill", kind, 0, size=64)
    for file, pixels in (
        (f"test/{kind}/000.png", result.image),
        (f"ground_truth/{kind}/000_mask.png", result.mask),
    ):
        with Image.open(small / "twill" / file) as image:
            np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(("product", "kind"), KINDS)
def test_images_differ_only_inside_the_mask(product: str, kind: str) -> None:
    for index in range(4):
        result = demo_image(product, kind, index, size=SIZE)
        inside = result.mask > 0
        assert 0.0005 < inside.mean() < 0.4
        difference = np.abs(result.image.astype(int) - result.clean).max(2)
        neighbourhood = ndimage.binary_dilation(inside, iterations=3)  # soft edge and lens blur
        assert not difference[~neighbourhood].any()
        # A considerable part of the mask differs visibly, by more than rounding.
        assert (difference[inside] > 3).mean() > 0.2
        assert difference[inside].max() > 12


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_good_image_has_no_defect(product: str) -> None:
    result = demo_image(product, size=64)
    assert not result.mask.any()
    np.testing.assert_array_equal(result.image, result.clean)


@pytest.mark.parametrize(("product", "kind"), KINDS)
def test_defects_vary(product: str, kind: str) -> None:
    masks = [demo_image(product, kind, k, size=64).mask for k in range(3)]
    assert any((masks[0] != mask).any() for mask in masks[1:])


def test_normal_images_vary_less_than_products() -> None:
    """Colour and texture distinguish products; pose, light and noise do not change them much."""

    def feature(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        pixels = image.astype(float) / 255
        fine = pixels - ndimage.gaussian_filter(pixels, (2, 2, 0))
        return np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1)), 3 * fine.std((0, 1))])

    sets = {
        p: [demo_image(p, index=k, split="train", size=SIZE).image for k in range(5)]
        for p in PRODUCTS
    }
    for images in sets.values():
        for a, b in itertools.pairwise(images):
            assert (np.abs(a.astype(int) - b) > 4).mean() > 0.1
    features_of = {p: np.array([feature(i) for i in images]) for p, images in sets.items()}
    centres = {p: f.mean(0) for p, f in features_of.items()}
    for p, features in features_of.items():
        for vector in features:
            nearest = min(centres, key=lambda q: float(np.linalg.norm(centres[q] - vector)))
            assert nearest == p


def test_train_and_test_are_different_samples_of_one_distribution() -> None:
    for product in PRODUCTS:
        split = {
            s: np.array(
                [demo_image(product, index=k, split=s, size=64).image.mean() for k in range(6)]
            )
            for s in ("train", "test")
        }
        assert not set(split["train"]) & set(split["test"])
        assert abs(split["train"].mean() - split["test"].mean()) < 12


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"products": ["gear", "banana"]}, "banana"),
        ({"products": []}, "products"),
        ({"products": "gear"}, "products"),
        ({"products": ["gear", "gear"]}, "twice"),
        ({"size": 63}, "size"),
        ({"size": 100.0}, "size"),
        ({"n_train": -1}, "n_train"),
        ({"n_good": -2}, "n_good"),
        ({"n_defect": True}, "n_defect"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_named_in_the_error(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(SettingsError, match=word) as caught:
        make_demo(tmp_path / "set", **change)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_unknown_defect_and_split_are_named_in_the_error() -> None:
    with pytest.raises(SettingsError, match="broken_heart"):
        demo_image("gear", "broken_heart")
    with pytest.raises(SettingsError, match="validation"):
        demo_image("gear", split="validation")


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        make_demo(tmp_path, size=64, n_train=1, n_good=0, n_defect=0)
    with pytest.raises(DataError, match="not a folder"):
        make_demo(tmp_path / "mine.txt")
    assert contents(tmp_path) == {"mine.txt": b"precious"}


def test_an_empty_folder_is_filled_and_progress_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    calls: list[tuple[int, int]] = []
    result = make_demo(
        root,
        size=64,
        n_train=3,
        n_good=1,
        n_defect=0,
        products=["tile"],
        progress=lambda done, total: calls.append((done, total)),
    )
    assert result == root
    assert calls == [(k, 4) for k in range(1, 5)]
    assert len(contents(root)) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    make_demo(tmp_path / "link", size=64, n_train=1, n_good=0, n_defect=0, products=["wood"])
    assert (tmp_path / "link").is_symlink()
    assert len(contents(tmp_path / "real")) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_call_leaves_no_files(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    root = tmp_path / "set"
    if existing:
        root.mkdir()

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise error

    with pytest.raises(error):
        make_demo(root, size=64, n_train=8, n_good=0, n_defect=0, progress=stop)
    assert not contents(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == (["set"] if existing else [])


def test_an_unwritable_folder_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        make_demo(tmp_path / "file" / "set", size=64, n_train=1, products=["tile"])
