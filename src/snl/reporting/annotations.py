"""Export defect regions for labelling tools: COCO object detection JSON and LabelMe JSON.

COCO: https://cocodataset.org/#format-data. LabelMe: file format version 5 of
https://github.com/wkentaro/labelme. Polygons are the outer contours of `Region`, in coordinates of
pixel corners, as both formats draw them. Image sizes are those after applying the EXIF orientation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from snl.decision.regions import Region
from snl.errors import DataError, SnlError
from snl.files import atomic
from snl.kinds import COCO, labelme_digest
from snl.outputs import Output, check_outputs

CATEGORY = "anomaly"
"""Name of the only category (COCO) and label (LabelMe)."""
_LABELME_VERSION = "5.5.0"
_HEAD: dict[str, Any] = {
    "info": {
        "description": "defect regions detected by snl; the score of an annotation is the highest "
        "raw value of the anomaly map in the region, and p_value is the p-value of this score"
    },
    "licenses": [],
    "categories": [{"id": 1, "name": CATEGORY, "supercategory": "defect"}],
}


class Inspected(Protocol):
    """The part of an inspection that is exported.

    Attributes:
        path: image file; None if the image was not read from a file.
        size: (height, width) of the image in pixels.
        score: raw anomaly score of the image.
        decision: decision about the image.
        product: product of the image; None if unknown.
        regions: defect regions.
        p_value: p-value of the score; None if unknown.
    """

    @property
    def path(self) -> str | None: ...
    @property
    def size(self) -> tuple[int, int]: ...
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
    """Return COCO object detection JSON of all regions; `coco_file` needs less memory.

    Images and annotations are numbered from 1 in input order. An annotation has these values:
    `area`: area of the region without its holes; `score`: the region's peak, a raw value (higher =
    more abnormal, not a probability); `p_value`: p-value of the peak, None if unknown. In addition
    to the format, each image has `product`, `decision`, `score` and `p_value`.

    Args:
        inspections: inspections with regions; iterated once.
        root: file names are relative to this folder if the image lies in it; None: unchanged.
            Images without a file are called `image-1`, `image-2`, ..., by their number.

    Returns:
        JSON values.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for inspection in inspections:
        images.append(_image(inspection, len(images) + 1, root))
        annotations += _annotations(inspection, len(images), len(annotations) + 1)
    return {**_HEAD, "images": images, "annotations": annotations}


class CocoFile:
    """The JSON of `to_coco`, collected one image at a time; only a short record of each is kept.

    Args:
        path: JSON file, which only `save` writes.
        root: as in `to_coco`.

    Raises:
        SnlError: the file exists and is not a COCO file of snl, or there is no space.
    """

    def __init__(self, path: str | Path, root: str | Path | None = None) -> None:
        self.path, self.root = Path(path), root
        check_outputs([Output("the COCO file", self.path, COCO)])
        self._images: list[dict[str, Any]] = []
        self._count = 0
        self._annotations = tempfile.TemporaryFile()  # noqa: SIM115 (has no name, so none remains)

    def __len__(self) -> int:
        return len(self._images)

    def add(self, inspection: Inspected) -> None:
        """Add an inspection; `save` writes it.

        Raises:
            SnlError: the file is closed.
            OSError: there is no space for temporary files; the inspection is not added.
        """
        if self._annotations.closed:
            raise SnlError(f"{self.path}: is already closed; add inspections inside the with block")
        image = _image(inspection, len(self._images) + 1, self.root)
        annotations = _annotations(inspection, image["id"], self._count + 1)
        lines = [json.dumps(annotation, allow_nan=False) for annotation in annotations]
        text = "".join((",\n" if self._count + i else "\n") + x for i, x in enumerate(lines))
        end = self._annotations.seek(0, os.SEEK_END)
        try:
            self._annotations.write(text.encode())
            self._annotations.flush()
        except OSError:
            with suppress(OSError):
                self._annotations.truncate(end)
            raise
        self._images.append(image)
        self._count += len(lines)

    def save(self) -> None:
        """Write all inspections so far; an existing file is replaced.

        Raises:
            SnlError: the file cannot be written.
        """
        with atomic(self.path) as temporary, temporary.open("wb") as file:
            file.write((json.dumps(_HEAD, allow_nan=False)[:-1] + ', "annotations": [').encode())
            self._annotations.seek(0)
            shutil.copyfileobj(self._annotations, file)
            file.write(b'\n], "images": [')
            file.writelines(
                ((",\n" if i else "\n") + json.dumps(image, allow_nan=False)).encode()
                for i, image in enumerate(self._images)
            )
            file.write(b"\n]}\n")

    def close(self) -> None:
        """Release the temporary file."""
        self._annotations.close()


@contextmanager
def coco_file(
    path: str | Path, root: str | Path | None = None
) -> Iterator[Callable[[Inspected], None]]:
    """Write the JSON of `to_coco` one image at a time; see `CocoFile`.

    Args:
        path: JSON file; if the block ends with an error, an existing file stays unchanged.
        root: as in `to_coco`.

    Yields:
        A function that adds the next inspection.

    Raises:
        SnlError: the file cannot or must not be written, or an inspection is added after the block.

    Example:
        with coco_file("regions.json") as add:
            for inspection in inspector.stream(paths):
                add(inspection)
    """
    file = CocoFile(path, root)
    with closing(file):
        yield file.add
        file.save()


def to_labelme(inspection: Inspected, image_path: str | None = None) -> dict[str, Any]:
    """Return LabelMe 5 JSON of one image, without the image data.

    Args:
        inspection: inspection with regions.
        image_path: path of the image relative to the folder of the label file; None: the image is
            in the same folder.

    Returns:
        JSON values. The decision is the image's flag; the `description` of each shape contains
        peak and area. By `snl`, a hash of flags and shapes, snl knows a file that nobody edited.

    Raises:
        DataError: neither `image_path` nor the inspection's path is known.
    """
    if image_path is None:
        if inspection.path is None:
            raise DataError(
                "the inspection has no image file; give image_path, which LabelMe opens"
            )
        image_path = Path(inspection.path).name
    document: dict[str, Any] = {
        "version": _LABELME_VERSION,
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
        "imageHeight": int(inspection.size[0]),
        "imageWidth": int(inspection.size[1]),
    }
    return {**document, "snl": labelme_digest(document)}


def _image(inspection: Inspected, number: int, root: str | Path | None) -> dict[str, Any]:
    """Return the COCO record of an image."""
    height, width = inspection.size
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
    """Return the COCO records of an image's regions, numbered from `first`."""
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
    """Return the path with forward slashes, relative to the root if it lies in it."""
    if path is None:
        return None
    if root is not None:
        absolute, folder = Path(path).resolve(), Path(root).resolve()
        if absolute.is_relative_to(folder):
            return absolute.relative_to(folder).as_posix()
    return Path(path).as_posix()


def _finite(value: float | None) -> float | None:
    """Return None for NaN and infinity, which strict JSON does not have."""
    return float(value) if value is not None and math.isfinite(value) else None
