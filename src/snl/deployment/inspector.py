"""The runtime: load a bundle once, then images in, inspections out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from snl import device as devices
from snl.data.images import load_image, to_input
from snl.decision.calibration import DEFAULT_RATE, threshold
from snl.deployment import bundle
from snl.errors import SettingsError
from snl.model.anomaly import resize
from snl.model.network import Network

if TYPE_CHECKING:
    import PIL.Image

    Source = str | Path | PIL.Image.Image | np.ndarray


@dataclass(frozen=True)
class Inspection:
    """The result for one image.

    Attributes:
        score: raw anomaly score, higher is more abnormal.
        decision: `normal`, `anomalous`, or `uncertain` where there is no threshold.
        threshold: a score above it is anomalous; None where too few normal images were held back.
        threshold_from: whose normal images gave it, `product` or `all products`.
        anomaly_map: float32 (H, W) at the size of the image given, raw.
        image: uint8 (H, W, 3), upright RGB, what was looked at.
        product: as given by the caller; None if it was not given.
        path: of the image, if it came from a file.
        map_range: map values at which the overlay's colours begin and end.
    """

    score: float
    decision: str
    threshold: float | None
    threshold_from: str
    anomaly_map: np.ndarray = field(repr=False)
    image: np.ndarray = field(repr=False)
    product: str | None = None
    path: str | None = None
    map_range: tuple[float, float] = field(default=(0.0, 1.0), repr=False)

    def overlay(self) -> PIL.Image.Image:
        """The image, its map in colours over it, contour, score bar and decision, side by side."""
        from snl.report.overlay import draw

        return draw(self)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but image and map, and where the map is highest (x, y)."""
        y, x = np.unravel_index(int(self.anomaly_map.argmax()), self.anomaly_map.shape)
        return {
            "path": self.path,
            "product": self.product,
            "score": self.score,
            "threshold": self.threshold,
            "threshold_from": self.threshold_from,
            "decision": self.decision,
            "width": self.image.shape[1],
            "height": self.image.shape[0],
            "peak": [int(x), int(y)],
        }


class Inspector:
    """A trained network with its thresholds, ready to look at images.

    Args:
        network: trained.
        facts: about its products and training.
        calibration: scores of held-back normal images by product.
        device: see `snl.device.choose`.
    """

    def __init__(
        self,
        network: Network,
        facts: bundle.Facts,
        calibration: Mapping[str, np.ndarray],
        device: str = "auto",
    ) -> None:
        self.device = devices.choose(device)
        self.network = network.to(self.device).eval()
        self.facts = facts
        self.calibration = dict(calibration)

    def __repr__(self) -> str:
        s = self.network.settings
        products = ", ".join(self.products)
        return f"Inspector({s.method}, {s.teacher.name}, {s.image_size} px: {products})"

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the taught products."""
        return tuple(self.facts.products)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.network.settings.image_size

    @torch.inference_mode()
    def predict(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (B, size, size, 3) to maps float32 (B, size, size) and scores float32 (B,)."""
        maps, scores = self.network(torch.from_numpy(pixels).to(self.device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    @torch.inference_mode()
    def resize_map(self, anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """One map (h, w) to `size` (H, W), bilinear."""
        return resize(torch.from_numpy(anomaly_map)[None], size)[0].numpy()

    def threshold(self, product: str | None = None, rate: float = DEFAULT_RATE) -> float | None:
        """The score that at most a share `rate` of normal images exceeds; None: too few images.

        Of the product where enough of its own images were held back, of all products else.

        Raises:
            SettingsError: a product that was not taught, a rate outside 0..1.
        """
        return self._threshold(product, rate)[0]

    def _threshold(self, product: str | None, rate: float) -> tuple[float | None, str]:
        """The threshold and whose scores gave it."""
        if product is not None and product not in self.products:
            raise SettingsError(
                f"product '{product}' was not taught; taught: {', '.join(self.products)}"
            )
        if not 0 < rate < 1:
            raise SettingsError(f"the false-alarm rate is {rate}; it must be between 0 and 1")
        return threshold(self.calibration, product, rate)

    @overload
    def inspect(
        self,
        source: list[Any] | tuple[Any, ...],
        product: str | None = None,
        rate: float = DEFAULT_RATE,
    ) -> list[Inspection]: ...

    @overload
    def inspect(
        self, source: Source, product: str | None = None, rate: float = DEFAULT_RATE
    ) -> Inspection: ...

    def inspect(
        self,
        source: Source | list[Any] | tuple[Any, ...],
        product: str | None = None,
        rate: float = DEFAULT_RATE,
    ) -> Inspection | list[Inspection]:
        """Look at one image, or at a list of them (then a list comes back).

        Args:
            source: path, PIL image or uint8 array (H, W, 3) RGB or (H, W) grey.
            product: whose threshold is to be used, if enough of its own normal images were held
                back for the rate; else, and for None, the one pooled over all products.
            rate: false-alarm rate of the threshold.

        Raises:
            ImageError: an image that cannot be used.
            SettingsError: an unknown product or rate.
        """
        if isinstance(source, list | tuple):
            return list(self.stream(source, product, rate))
        return next(self.stream([source], product, rate))

    def stream(
        self,
        sources: Sequence[Source],
        product: str | None = None,
        rate: float = DEFAULT_RATE,
        batch_size: int = 8,
    ) -> Iterator[Inspection]:
        """As `inspect` of a list, one result at a time, in order and in bounded memory."""
        limit, whose = self._threshold(product, rate)
        for first in range(0, len(sources), batch_size):
            group = sources[first : first + batch_size]
            images = [load_image(source) for source in group]
            pixels = np.stack([to_input(image, self.image_size) for image in images])
            results = zip(group, images, *self.predict(pixels), strict=True)
            for source, image, anomaly_map, score in results:
                yield Inspection(
                    score=float(score),
                    decision=decide(float(score), limit),
                    threshold=limit,
                    threshold_from=whose,
                    anomaly_map=self.resize_map(anomaly_map, (image.shape[0], image.shape[1])),
                    image=image,
                    product=product,
                    path=str(source) if isinstance(source, str | Path) else None,
                    map_range=self.facts.map_range,
                )

    def save(self, path: str | Path) -> None:
        """Write the bundle, whole or not at all."""
        bundle.save(path, self.network, self.facts, self.calibration)


def decide(score: float, limit: float | None) -> str:
    """`normal`, `anomalous` (score above the limit), or `uncertain` where there is none."""
    if limit is None or math.isnan(score):
        return "uncertain"
    return "anomalous" if score > limit else "normal"


def load(path: str | Path, device: str = "auto") -> Inspector:
    """An inspector from a bundle.

    Args:
        path: of the file that `snl train` or `Inspector.save` wrote.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        BundleError: missing, damaged, foreign or newer file.
        SettingsError: a device that is not there.
    """
    devices.choose(device)
    return Inspector(*bundle.load(path), device=device)
