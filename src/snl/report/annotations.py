"""Defect regions for labelling tools: COCO object detection JSON and LabelMe JSON.

COCO: https://cocodataset.org/#format-data; LabelMe: the files of version 5 of
https://github.com/wkentaro/labelme. Polygons are outer contours in coordinates of pixel corners, as
`Region` has them, which is what both formats draw; sizes are those of the image upright, as its
EXIF orientation says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from snl.decision.regions import Region
from snl.errors import DataError, SnlError
from snl.files import atomic

CATEGORY = "anomaly"
"""The only category (COCO) and label (LabelMe)."""
_LABELME = "5.5.0"
_HEAD: dict[str, Any] = {
    "info": {
        "description": "defect regions found by snl; the score of an annotation is the highest "
        "value of the anomaly map in it, raw, p_value is that of this value"
    },
    "licenses": [],
    "categories": [{"id": 1, "name": CATEGORY, "supercategory": "defect"}],
}


class Inspected(Protocol):
    """What is asked of an inspection here.

    Attributes:
        path: of the image; None if it came from no file.
        image: uint8 (H, W, 3).
        score: of the image, raw.
        decision: about the image.
        product: its class; None if not known.
        regions: of the image.
        p_value: of the score; None if not known.
    """

    @property
    def path(self) -> str | None: ...
    @property
    def image(self) -> np.ndarray: ...
    @property
    def score(self) -> float: ...
    @property
    def decision(self) -> str: ...
    @property
    def product(self) -> str | None: ...
    @property
    def regions(self) -> Sequence[Region]: ...
    @property
    def p_value(self) -> float | None: ...


def to_coco(inspections: Iterable[Inspected], root: str | Path | None = None) -> dict[str, Any]:
    """COCO object detection JSON of all regions; `coco_file` does the same in little memory.

    Images and annotations are numbered from 1 in the order given. An annotation's `area` is that
    of the region, without its holes; its `score` is the region's peak, raw: always there, the
    higher the more abnormal, not a probability; `p_value` stands beside it, None if not known.
    Beyond the format an image carries `product`, `decision`, `score` and `p_value`.

    Args:
        inspections: with regions; read once.
        root: folder that file names are relative to where the image lies below it; None: as given.
            An image from no file is called `image-` and its number.

    Returns:
        JSON values.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for inspection in inspections:
        images.append(_image(inspection, len(images) + 1, root))
        annotations += _annotations(inspection, len(images), len(annotations) + 1)
    return {**_HEAD, "images": images, "annotations": annotations}


@contextmanager
def coco_file(
    path: str | Path, root: str | Path | None = None
) -> Iterator[Callable[[Inspected], None]]:
    """What `to_coco` gives, written one image at a time; kept is one short record an image.

    Args:
        path: of the file; whole, or as it was before if the block ends with an error.
        root: as in `to_coco`.

    Yields:
        A function that takes the next inspection.

    Raises:
        SnlError: the file cannot be written.

    Example:
        with coco_file("regions.json") as add:
            for inspection in inspector.stream(paths):
                add(inspection)
    """
    images: list[dict[str, Any]] = []
    number = 0
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        head = json.dumps(_HEAD, allow_nan=False)
        file.write(head[:-1] + ', "annotations": [')

        def add(inspection: Inspected) -> None:
            nonlocal number
            image = _image(inspection, len(images) + 1, root)
            found = _annotations(inspection, len(images) + 1, number + 1)
            lines = [json.dumps(annotation, allow_nan=False) for annotation in found]
            if file.closed:
                raise SnlError(f"{path}: is finished; add inspections inside the with block")
            file.writelines((",\n" if number + i else "\n") + line for i, line in enumerate(lines))
            images.append(image)
            number += len(lines)

        yield add
        file.write('\n], "images": [')
        file.writelines(
            (",\n" if i else "\n") + json.dumps(image, allow_nan=False)
            for i, image in enumerate(images)
        )
        file.write("\n]}\n")


def to_labelme(inspection: Inspected, image_path: str | None = None) -> dict[str, Any]:
    """LabelMe 5 JSON of one image; the image itself is not in it.

    Args:
        inspection: with regions.
        image_path: of the image as seen from the folder of the label file; None: beside it, by
            the name of its file.

    Returns:
        JSON values; the decision is the image's flag, peak and area stand in the `description`
        of each shape.

    Raises:
        DataError: neither `image_path` nor the path of the inspection is known.
    """
    if image_path is None:
        if inspection.path is None:
            raise DataError("image from no file; give image_path, LabelMe opens the image by it")
        image_path = Path(inspection.path).name
    return {
        "version": _LABELME,
        "flags": {inspection.decision: True},
        "shapes": [
            {
                "label": CATEGORY,
                "points": [list(point) for point in region.polygon],
                "group_id": None,
                "description": f"peak {region.peak:.6g}, area {region.area} px",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for region in inspection.regions
        ],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": int(inspection.image.shape[0]),
        "imageWidth": int(inspection.image.shape[1]),
    }


def _image(inspection: Inspected, number: int, root: str | Path | None) -> dict[str, Any]:
    """COCO's record of an image."""
    height, width = inspection.image.shape[:2]
    return {
        "id": number,
        "file_name": _file_name(inspection.path, root) or f"image-{number}",
        "width": int(width),
        "height": int(height),
        "product": inspection.product,
        "decision": inspection.decision,
        "score": _finite(inspection.score),
        "p_value": _finite(inspection.p_value),
    }


def _annotations(inspection: Inspected, image: int, first: int) -> list[dict[str, Any]]:
    """COCO's records of the regions of an image, numbered from `first`."""
    return [
        {
            "id": first + i,
            "image_id": image,
            "category_id": 1,
            "bbox": [float(value) for value in region.box],
            "segmentation": [[value for point in region.polygon for value in point]],
            "area": region.area,
            "iscrowd": 0,
            "score": region.peak,
            "p_value": _finite(region.p_value),
        }
        for i, region in enumerate(inspection.regions)
    ]


def _file_name(path: str | None, root: str | Path | None) -> str | None:
    """Below the root where it is there, with forward slashes."""
    if path is None:
        return None
    if root is not None:
        whole, above = Path(path).resolve(), Path(root).resolve()
        if whole.is_relative_to(above):
            return whole.relative_to(above).as_posix()
    return Path(path).as_posix()


def _finite(value: float | None) -> float | None:
    """None for what strict JSON has no word for."""
    return float(value) if value is not None and math.isfinite(value) else None
