"""Expected records of the generated trees, and helpers for tests of catalogs."""

from __future__ import annotations

from pathlib import Path

import pytest

from snl.data.catalog import Catalog
from snl.data.records import Record
from snl.errors import DataError
from tests import trees


def normal(path: Path, product: str, split: str) -> Record:
    return Record(path, product, split, "normal", (), True, "good")  # type: ignore[arg-type]


def anomalous(path: Path, product: str, defect: str, *masks: Path) -> Record:
    return Record(path, product, "test", "anomalous", masks, bool(masks), defect)


def by_path(records: list[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.path.as_posix()))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def summary(root: Path, catalog: Catalog) -> dict[str, tuple[str, str, str | None, str]]:
    return {
        r.path.relative_to(root).as_posix(): (r.product, r.split, r.label, r.defect)
        for r in catalog.records
    }


def fails(root: Path, layout: str = "auto") -> str:
    with pytest.raises(DataError) as caught:
        Catalog.read(root, layout)
    message = str(caught.value)
    assert "\n" not in message
    return message


def expected(layout: str, root: Path) -> list[Record]:
    """Return the records of a generated tree, written out from the description of its data set."""
    records: list[Record] = []
    for product in ("01", "02") if layout == "btad" else trees.PRODUCTS:
        p = root / product
        if layout in ("mvtec", "mpdd"):
            kind = {"mvtec": "dent", "mpdd": "parts_mismatch"}[layout]
            records += [
                *(normal(p / f"train/good/00{n}.png", product, "train") for n in range(4)),
                *(normal(p / f"test/good/00{n}.png", product, "test") for n in range(2)),
                *(
                    anomalous(
                        p / f"test/{kind}/00{n}.png",
                        product,
                        kind,
                        p / f"ground_truth/{kind}/00{n}_mask.png",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "mvtec-ad-2":
            test = p / "test_public"
            records += [
                *(normal(p / f"train/good/00{n}_regular.png", product, "train") for n in range(3)),
                normal(p / "validation/good/000_regular.png", product, "train"),
                *(normal(test / f"good/00{n}_regular.png", product, "test") for n in range(2)),
                *(
                    anomalous(
                        test / f"bad/00{n}_regular.png",
                        product,
                        "bad",
                        test / f"ground_truth/bad/00{n}_regular_mask.png",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "btad":
            image, mask = ("bmp", "png") if product == "01" else ("png", "bmp")
            records += [
                *(normal(p / f"train/ok/000{n}.{image}", product, "train") for n in range(4)),
                *(normal(p / f"test/ok/000{n}.{image}", product, "test") for n in range(2)),
                *(
                    anomalous(
                        p / f"test/ko/000{n}.{image}",
                        product,
                        "ko",
                        p / f"ground_truth/ko/000{n}.{mask}",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "loco":
            records += [
                *(normal(p / f"train/good/00{n}.png", product, "train") for n in range(3)),
                normal(p / "validation/good/000.png", product, "train"),
                *(normal(p / f"test/good/00{n}.png", product, "test") for n in range(2)),
            ]
            for kind in ("logical_anomalies", "structural_anomalies"):
                masks = [p / f"ground_truth/{kind}/000/00{n}.png" for n in range(2)]
                records.append(anomalous(p / f"test/{kind}/000.png", product, kind, *masks))
        elif layout == "visa":
            images = p / "Data/Images"
            records += [
                *(normal(images / f"Normal/000{n}.JPG", product, "train") for n in range(4)),
                *(normal(images / f"Normal/000{n}.JPG", product, "test") for n in (4, 5)),
                *(
                    anomalous(
                        images / f"Anomaly/00{n}.JPG",
                        product,
                        "",
                        p / f"Data/Masks/Anomaly/00{n}.png",
                    )
                    for n in range(2)
                ),
            ]
        elif layout == "real-iad":
            q = root / "realiad_256" / product
            for n in range(6):
                path = q / f"OK/S000{n}/{product}_000{n}_OK_C1.jpg"
                records.append(normal(path, product, "train" if n < 4 else "test"))
            for n in range(2):
                stem = f"NG/BX/S000{n}/{product}_000{n}_NG_BX_C1"
                records.append(anomalous(q / f"{stem}.jpg", product, "BX", q / f"{stem}.png"))
        elif layout == "manifest":
            images = root / "images" / product
            records += [
                *(normal(images / f"00{n}.png", product, "train") for n in range(4)),
                *(normal(images / f"00{n}.png", product, "test") for n in (4, 5)),
                *(
                    anomalous(
                        images / f"bad_{n}.png",
                        product,
                        "dent",
                        root / f"masks/{product}/bad_{n}.png",
                    )
                    for n in range(2)
                ),
            ]
        else:
            # The two with the smallest SHA-256 of their names (sha256sum of `OK/000.jpg`, ...).
            held_out = {"OK/008.jpg", "OK/002.jpg"}
            for n in range(10):
                name = f"OK/00{n}.jpg"
                split = "test" if name in held_out else "train"
                records.append(normal(p / name, product, split))
            for n in range(2):
                mask = p / f"masks/NG/00{n}.png"
                records.append(anomalous(p / f"NG/00{n}.jpg", product, "NG", mask))
    return records
