"""Small generated data sets, one function per layout, which returns the path of the data set.

Every data set has two products with 4 training images, 2 normal and 2 anomalous test images of
40 x 48 pixels with masks (`make_folders`: 10 normal and 2 anomalous images without a split).
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 48
TRAIN, TEST_NORMAL, TEST_ANOMALOUS = 4, 2, 2
PRODUCTS = ("bolt", "plate")


def draw(
    seed: int, *, defect: bool = False, product: str = "bolt"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of a part on grey, (H, W, 3) uint8, and its mask, (H, W) of 0 and 255.

    Every seed gives another image.
    """
    rng = np.random.default_rng([seed, *product.encode()])
    image = np.full((HEIGHT, WIDTH, 3), 90, np.int64)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    if product in ("bolt", "01"):
        part = (ys - 20) ** 2 + (xs - 24) ** 2 < 14**2
    else:
        part = (abs(ys - 20) < 13) & (abs(xs - 24) < 17)
    image[part] = (180, 170, 150)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    if defect:
        top, left = int(rng.integers(12, 22)), int(rng.integers(14, 26))
        mask[top : top + 7, left : left + 9] = 255
        image[mask > 0] = (40, 20, 20)
    noisy = image + rng.integers(-6, 7, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def draw_varied(
    seed: int, *, defect: bool = False, product: str = "bolt"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the result of `draw`, shifted by up to 2 pixels and with varying brightness."""
    rng = np.random.default_rng([seed, 1, *product.encode()])
    image, mask = draw(seed, defect=defect, product=product)
    shift = tuple(rng.integers(-2, 3, 2).tolist())
    lit = np.roll(image, shift, (0, 1)) * rng.uniform(0.95, 1.05)
    return np.clip(lit, 0, 255).astype(np.uint8), np.roll(mask, shift, (0, 1))


def save_varied(path: Path, seed: int, *, defect: bool = False, product: str = "bolt") -> Path:
    """Write an image of `draw_varied` and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_varied(seed, defect=defect, product=product)[0]).save(path)
    return path


def save_striped(path: Path, seed: int, *, defect: bool = False) -> Path:
    """Write an image of a product unlike those of `draw`, bright stripes on black."""
    rng = np.random.default_rng([seed, 77])
    image = np.zeros((HEIGHT, WIDTH, 3), np.int64)
    image[:, int(rng.integers(0, 3)) :: 8] = (30, 120, 230)
    if defect:
        image[12:24, 14:30] = (250, 240, 40)
    image += rng.integers(0, 12, image.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


def save_part(path: Path, seed: int, *, defect: bool = False, product: str = "bolt") -> None:
    """Write an image of `draw` in the format of the file extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw(seed, defect=defect, product=product)[0]).save(path)


def save_mask(path: Path, seed: int, *, value: int = 255, product: str = "bolt") -> None:
    """Write the mask of `save_part(..., defect=True)`, with `value` at the defect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = draw(seed, defect=True, product=product)[1]
    Image.fromarray(np.where(mask > 0, value, 0).astype(np.uint8)).save(path)


def make_mvtec(root: Path, products: Sequence[str] = PRODUCTS) -> Path:
    """`<product>/train/good`, `test/<defect>`, `ground_truth/<defect>/<name>_mask.png`."""
    for product in products:
        base = root / product
        for n in range(TRAIN):
            save_part(base / "train" / "good" / f"{n:03}.png", n, product=product)
        for n in range(TEST_NORMAL):
            save_part(base / "test" / "good" / f"{n:03}.png", 100 + n, product=product)
        for n in range(TEST_ANOMALOUS):
            name, seed = f"{n:03}", 200 + n
            save_part(base / "test" / "dent" / f"{name}.png", seed, defect=True, product=product)
            save_mask(base / "ground_truth" / "dent" / f"{name}_mask.png", seed, product=product)
    return root


def make_varied(root: Path, train: int = 40, test: int = 20, anomalous: int = 10) -> Path:
    """The layout of `make_mvtec` with more images, of `draw_varied`."""
    for product in PRODUCTS:
        base = root / product
        for n in range(train):
            save_varied(base / "train" / "good" / f"{n:03}.png", n, product=product)
        for n in range(test):
            save_varied(base / "test" / "good" / f"{n:03}.png", 1000 + n, product=product)
        for n in range(anomalous):
            path, seed = base / "test" / "dent" / f"{n:03}.png", 2000 + n
            save_varied(path, seed, defect=True, product=product)
            mask = base / "ground_truth" / "dent" / f"{n:03}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_varied(seed, defect=True, product=product)[1]).save(mask)
    return root


def make_mvtec_ad_2(root: Path) -> Path:
    """`train/good`, `validation/good`, `test_public/good` and `/bad`, masks in `test_public`."""
    for product in PRODUCTS:
        base = root / product
        for n in range(TRAIN - 1):
            save_part(base / "train" / "good" / f"{n:03}_regular.png", n, product=product)
        save_part(base / "validation" / "good" / "000_regular.png", 50, product=product)
        test = base / "test_public"
        for n in range(TEST_NORMAL):
            save_part(test / "good" / f"{n:03}_regular.png", 100 + n, product=product)
        for n in range(TEST_ANOMALOUS):
            name, seed = f"{n:03}_regular", 200 + n
            save_part(test / "bad" / f"{name}.png", seed, defect=True, product=product)
            save_mask(test / "ground_truth" / "bad" / f"{name}_mask.png", seed, product=product)
    return root


def make_mpdd(root: Path) -> Path:
    """The layout of `make_mvtec` with a kind of defect of MPDD."""
    make_mvtec(root)
    for product in PRODUCTS:
        for part in ("test", "ground_truth"):
            (root / product / part / "dent").rename(root / product / part / "parts_mismatch")
    return root


def make_visa(root: Path, products: Sequence[str] = PRODUCTS) -> Path:
    """`split_csv/1cls.csv` beside `<product>/Data/Images/Normal`; masks hold class ids."""
    lines = [["object", "split", "label", "image", "mask"]]
    for product in products:
        images = root / product / "Data" / "Images"
        for n in range(TRAIN + TEST_NORMAL):
            save_part(images / "Normal" / f"{n:04}.JPG", n, product=product)
            split = "train" if n < TRAIN else "test"
            lines.append([product, split, "normal", f"{product}/Data/Images/Normal/{n:04}.JPG", ""])
        for n in range(TEST_ANOMALOUS):
            mask = root / product / "Data" / "Masks" / "Anomaly" / f"{n:03}.png"
            save_part(images / "Anomaly" / f"{n:03}.JPG", 200 + n, defect=True, product=product)
            save_mask(mask, 200 + n, value=n + 1, product=product)
            image = f"{product}/Data/Images/Anomaly/{n:03}.JPG"
            lines.append([product, "test", "anomaly", image, mask.relative_to(root).as_posix()])
    _write_csv(root / "split_csv" / "1cls.csv", lines)
    return root


def make_btad(root: Path) -> Path:
    """`01/train/ok`, `test/ok`, `test/ko`; masks and images have different extensions."""
    for product, image, mask in (("01", "bmp", "png"), ("02", "png", "bmp")):
        base = root / product
        for n in range(TRAIN):
            save_part(base / "train" / "ok" / f"{n:04}.{image}", n, product=product)
        for n in range(TEST_NORMAL):
            save_part(base / "test" / "ok" / f"{n:04}.{image}", 100 + n, product=product)
        for n in range(TEST_ANOMALOUS):
            name, seed = f"{n:04}", 200 + n
            path = base / "test" / "ko" / f"{name}.{image}"
            save_part(path, seed, defect=True, product=product)
            save_mask(base / "ground_truth" / "ko" / f"{name}.{mask}", seed, product=product)
    return root


def make_loco(root: Path) -> Path:
    """`validation/good`, two kinds of anomalies, several mask files per image."""
    for product in PRODUCTS:
        base = root / product
        for n in range(TRAIN - 1):
            save_part(base / "train" / "good" / f"{n:03}.png", n, product=product)
        save_part(base / "validation" / "good" / "000.png", 50, product=product)
        for n in range(TEST_NORMAL):
            save_part(base / "test" / "good" / f"{n:03}.png", 100 + n, product=product)
        for n, kind in enumerate(("logical_anomalies", "structural_anomalies")):
            seed = 200 + n
            save_part(base / "test" / kind / "000.png", seed, defect=True, product=product)
            masks = base / "ground_truth" / kind / "000"
            save_mask(masks / "000.png", seed, value=200 + n, product=product)
            corner = np.zeros((HEIGHT, WIDTH), np.uint8)
            corner[:3, :3] = 1
            Image.fromarray(corner).save(masks / "001.png")
    return root


def make_real_iad(root: Path) -> Path:
    """`realiad_jsons/<product>.json` beside `realiad_256/<product>/OK` and `/NG`."""
    for product in PRODUCTS:
        base = root / "realiad_256" / product
        splits: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
        for n in range(TRAIN + TEST_NORMAL):
            path = f"OK/S{n:04}/{product}_{n:04}_OK_C1.jpg"
            save_part(base / path, n, product=product)
            splits["train" if n < TRAIN else "test"].append(
                {
                    "category": product,
                    "anomaly_class": "OK",
                    "image_path": path,
                    "mask_path": None,
                }
            )
        for n in range(TEST_ANOMALOUS):
            path = f"NG/BX/S{n:04}/{product}_{n:04}_NG_BX_C1"
            save_part(base / f"{path}.jpg", 200 + n, defect=True, product=product)
            save_mask(base / f"{path}.png", 200 + n, product=product)
            splits["test"].append(
                {
                    "category": product,
                    "anomaly_class": "BX",
                    "image_path": f"{path}.jpg",
                    "mask_path": f"{path}.png",
                }
            )
        meta = {"normal_class": "OK", "prefix": f"{product}/", "pre_transform": [256]}
        file = root / "realiad_jsons" / f"{product}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"meta": meta, **splits}), encoding="utf-8")
    return root


def make_manifest(root: Path) -> Path:
    """`parts.csv` with all six columns beside a folder of images; returns the file."""
    _write_csv(root / "parts.csv", _manifest_lines(root))
    return root / "parts.csv"


def make_parquet(root: Path) -> Path:
    """The table of `make_manifest` as `parts.parquet`; needs pyarrow."""
    import pyarrow
    import pyarrow.parquet as parquet

    names, *rows = _manifest_lines(root)
    table = {name: [row[i] or None for row in rows] for i, name in enumerate(names)}
    parquet.write_table(pyarrow.table(table), root / "parts.parquet")
    return root / "parts.parquet"


def make_folders(root: Path) -> Path:
    """`<product>/OK`, `<product>/NG` and `<product>/masks/NG`: ten normal images, no split."""
    for product in PRODUCTS:
        base = root / product
        for n in range(10):
            save_part(base / "OK" / f"{n:03}.jpg", n, product=product)
        for n in range(TEST_ANOMALOUS):
            save_part(base / "NG" / f"{n:03}.jpg", 200 + n, defect=True, product=product)
            save_mask(base / "masks" / "NG" / f"{n:03}.png", 200 + n, product=product)
    return root


def make_flat(root: Path) -> Path:
    """`<product>/*.jpg`: only normal images."""
    for product in PRODUCTS:
        for n in range(TRAIN):
            save_part(root / product / f"{n:03}.jpg", n, product=product)
    return root


def make_one_product(root: Path) -> Path:
    """Return the folder of one product of `make_mvtec`."""
    return make_mvtec(root) / PRODUCTS[0]


MAKERS: dict[str, Callable[[Path], Path]] = {
    "mvtec": make_mvtec,
    "mvtec-ad-2": make_mvtec_ad_2,
    "mpdd": make_mpdd,
    "visa": make_visa,
    "btad": make_btad,
    "loco": make_loco,
    "real-iad": make_real_iad,
    "manifest": make_manifest,
    "folders": make_folders,
}
"""One function for each of `snl.data.catalog.LAYOUTS`."""


def _manifest_lines(root: Path) -> list[list[str]]:
    lines = [["path", "product", "split", "label", "mask", "defect"]]
    for product in PRODUCTS:
        for n in range(TRAIN + TEST_NORMAL):
            path = f"images/{product}/{n:03}.png"
            save_part(root / path, n, product=product)
            split = "train" if n < TRAIN else "test"
            lines.append([path, product, split, "normal", "", ""])
        for n in range(TEST_ANOMALOUS):
            path, mask = f"images/{product}/bad_{n}.png", f"masks/{product}/bad_{n}.png"
            save_part(root / path, 200 + n, defect=True, product=product)
            save_mask(root / mask, 200 + n, product=product)
            lines.append([path, product, "test", "anomalous", mask, "dent"])
    return lines


def _write_csv(file: Path, lines: list[list[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(lines)


def make_plant(root: Path) -> Path:
    """Write two products with enough images for thresholds."""
    for product in PRODUCTS:
        base = root / product
        for n in range(24):
            save_part(base / "train" / "good" / f"{n:03}.png", n, product=product)
        for n in range(6):
            save_part(base / "test" / "good" / f"{n:03}.png", 100 + n, product=product)
            save_part(base / "test" / "dent" / f"{n:03}.png", 200 + n, defect=True, product=product)
            mask = base / "ground_truth" / "dent" / f"{n:03}_mask.png"
            save_mask(mask, 200 + n, product=product)
    return root


@contextmanager
def readable_folder() -> Iterator[Path]:
    """Yield a temporary folder that every user can read, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def unprivileged(call: Callable[[], str]) -> str:
    """Return what a function returns to a user who is not root, in a forked process if need be."""
    if os.geteuid() != 0:
        return call()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, call().encode())
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as pipe:
        return pipe.read().decode()
