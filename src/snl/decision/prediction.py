"""The network's result for one image, before any decision; it can be stored and decided later."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snl.data.bands import resize
from snl.data.image_file import ImageFile
from snl.data.roi import Roi, Window
from snl.decision.maps import resize_map, resize_rows
from snl.errors import DataError
from snl.files import strict_json

_KEY, _FORMAT = "snl.prediction", 1


@dataclass(frozen=True)
class Prediction:
    """What the network computed for one image.

    Attributes:
        anomaly_map: float32 (h, w), raw, of the region of interest; of the network's size, or of
            the region's own size where it was processed in tiles.
        score: raw anomaly score.
        embedding: float32 (D,), by which the product is recognised.
        size: (height, width) of the image.
        path: of the image file, if it came from one.
        outputs: further outputs of the network by name, such as another head's map.
        image: uint8 (H, W, 3), the decoded image, or None if it was not kept; not serialised.
        picture: uint8, the image at the size at which an overlay shows it, or None; not serialised.
        file: reads the image again where it came from a file; not serialised.
        pixels: uint8 (size, size, 3), the network's input, or None in tiles; not serialised.
        index: position among the sources; not serialised.
        remarks: about the image, sentences without subject: `has samples above ...`.
        roi: region of interest that was processed; None: the whole image.
    """

    anomaly_map: np.ndarray = field(repr=False)
    score: float
    embedding: np.ndarray = field(repr=False)
    size: tuple[int, int]
    path: str | None = None
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    picture: np.ndarray | None = field(default=None, repr=False, compare=False)
    file: ImageFile | None = field(default=None, repr=False, compare=False)
    pixels: np.ndarray | None = field(default=None, repr=False, compare=False)
    index: int = field(default=0, compare=False)
    remarks: tuple[str, ...] = ()
    roi: Roi | None = None

    @property
    def window(self) -> Window:
        """The part of the image that the map shows."""
        return Window(0, 0, *self.size) if self.roi is None else self.roi.window(self.size)

    def map_rows(self, first: int, last: int) -> np.ndarray:
        """Return rows `first` to `last - 1` of the map at the size of the image, float32
        (last - first, W); 0 outside the region of interest."""
        if self.roi is None:
            return np.asarray(resize_rows(self.anomaly_map, self.size, first, last), np.float32)
        top, left, bottom, right = self.window
        rows = np.zeros((last - first, self.size[1]), np.float32)
        begin, end = max(first, top), min(last, bottom)
        if begin < end:
            part = resize_rows(self.anomaly_map, self.window.size, begin - top, end - top)
            rows[begin - first : end - first, left:right] = part
        return rows

    def full_map(self) -> np.ndarray:
        """Return the map at the size of the image, float32 (H, W); see `map_rows`."""
        if self.roi is None:
            return resize_map(self.anomaly_map, self.size)
        return self.map_rows(0, self.size[0])

    def map_at(self, width: int, height: int) -> np.ndarray:
        """Return `full_map` resized (bilinear, antialiased), float32 (height, width).

        The map of full size is computed in bands of rows and not kept.
        """
        return resize(self.map_rows, self.size, width, height)

    def to_bytes(self) -> bytes:
        """Serialise all but the image itself, in the safetensors format.

        >>> p = Prediction(np.zeros((2, 2), np.float32), 0.5, np.ones(3, np.float32), (20, 30))
        >>> Prediction.from_bytes(p.to_bytes()).size
        (20, 30)
        """
        from safetensors.numpy import save

        arrays = {"anomaly_map": self.anomaly_map, "embedding": self.embedding}
        arrays |= {f"outputs.{name}": value for name, value in self.outputs.items()}
        arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
        facts: dict[str, Any] = {
            "score": self.score,
            "size": list(self.size),
            "path": self.path,
        }
        if self.roi is not None:
            facts["roi"] = self.roi.to_list()
        if self.remarks:  # without them, earlier versions can read it
            facts["remarks"] = list(self.remarks)
        document = {"format": _FORMAT, "crc32": _checksum(facts, arrays), **facts}
        metadata = {_KEY: json.dumps(document, allow_nan=False)}
        content: bytes = save(arrays, metadata=metadata)
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> Prediction:
        """Inverse of `to_bytes`.

        Raises:
            DataError: the content is damaged or not a prediction.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            header = strict_json(content[8 : 8 + length])
            document = strict_json(header["__metadata__"][_KEY])
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']}, this snl reads {_FORMAT}")
            facts = {name: document[name] for name in ("score", "size", "path")}
            facts |= {name: document[name] for name in ("roi", "remarks") if name in document}
            if document["crc32"] != _checksum(facts, arrays):
                raise ValueError("its checksum does not match")
            height, width = map(int, document["size"])
            prefix = "outputs."
            prediction = cls(
                arrays["anomaly_map"],
                float(document["score"]),
                arrays["embedding"],
                (height, width),
                document["path"],
                {n[len(prefix) :]: a for n, a in arrays.items() if n.startswith(prefix)},
                remarks=tuple(map(str, document.get("remarks", ()))),
                roi=Roi.from_list(document["roi"]) if "roi" in document else None,
            )
            prediction._check()
            return prediction
        except (SafetensorError, ValueError, KeyError, TypeError, ArithmeticError,
                RecursionError) as error:  # fmt: skip
            reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
            raise DataError(f"not a stored prediction, or damaged ({reason})") from None

    def _check(self) -> None:
        """Raise ValueError if a value is of another kind than the attributes say."""
        valid = {
            "map": self.anomaly_map.ndim == 2 and self.anomaly_map.size > 0,
            "embedding": self.embedding.ndim == 1,
            "type": self.anomaly_map.dtype.kind == self.embedding.dtype.kind == "f",
            "score": math.isfinite(self.score),
            "number": bool(
                np.isfinite(self.anomaly_map).all() and np.isfinite(self.embedding).all()
            ),
            "size": min(self.size) > 0,
            "path": self.path is None or isinstance(self.path, str),
        }
        for name, is_valid in valid.items():
            if not is_valid:
                raise ValueError(f"its {name} is not valid")


def _checksum(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the CRC-32 of facts, names, types, shapes and contents of arrays, as hex digits."""
    value = zlib.crc32(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        value = zlib.crc32(f"{name}|{array.dtype.str}|{array.shape}|".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return f"{value:08x}"
