"""Small pictures of stored images, kept in memory while there is room."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

from PIL import Image

from snl.data.upright import decoded
from snl.errors import DataError, ImageError
from snl.service.blobs import Blobs

MOST_BYTES = 32 * 2**20
"""Of all thumbnails that are kept in memory."""
QUALITY = 82
MOST_DECODING = 2
"""Images that are decoded at a time, beside those that are inspected: these do not wait."""

_decoding = threading.BoundedSemaphore(MOST_DECODING)


class Thumbnails:
    """Makes JPEG files of images, and keeps the last ones.

    Args:
        blobs: of the images.
        most_bytes: that are kept.
    """

    def __init__(self, blobs: Blobs, most_bytes: int = MOST_BYTES) -> None:
        self.blobs, self.most_bytes = blobs, most_bytes
        self.bytes = 0
        """Of those that are kept."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()

    def jpeg(self, image: str, size: int, *, max_pixels: int, white_level: int) -> bytes:
        """Return a thumbnail: the upright image in 8 bits, as the overlay shows it.

        Args:
            image: SHA-256 of the image file.
            size: longest side in pixels; a smaller image is not enlarged.
            max_pixels, white_level: see `snl.data.upright.decoded`.

        Raises:
            DataError: the image is no longer kept.
            ImageError: it cannot be decoded.
        """
        key = (image, size, white_level)
        with self._lock:
            if (content := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return content
        content = self._made(image, size, max_pixels, white_level)
        with self._lock:
            if key not in self._kept and len(content) <= self.most_bytes:
                self._kept[key] = content
                self.bytes += len(content)
            while self.bytes > self.most_bytes:
                self.bytes -= len(self._kept.popitem(last=False)[1])
        return content

    def _made(self, image: str, size: int, max_pixels: int, white_level: int) -> bytes:
        path = self.blobs.path(image)
        if not path.is_file():
            raise DataError("the image is no longer kept")
        try:
            with _decoding, decoded(path, max_pixels=max_pixels, white_level=white_level) as found:
                height, width = found.size
                scale = min(1.0, size / max(height, width))
                small = found.resized(max(1, round(width * scale)), max(1, round(height * scale)))
        except ImageError as error:
            raise ImageError(str(error).replace(str(path), "the image")) from None
        buffer = io.BytesIO()
        Image.fromarray(small).save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()
