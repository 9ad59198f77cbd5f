"""The decision on one image, and the result that a user gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from snl.data.bands import resize_array
from snl.decision.maps import highest_pixel
from snl.decision.prediction import Prediction
from snl.decision.references import STRANGE
from snl.decision.regions import Region, find_regions_resized

if TYPE_CHECKING:
    import PIL.Image

    from snl.data.image_file import ImageFile
    from snl.decision.conformal import Conformal

NORMAL, UNCERTAIN, ANOMALOUS, UNKNOWN = "normal", "uncertain", "anomalous", "unknown product"

_WEAK = "the map stays below the threshold of regions"
"""Why an image has no region."""


@dataclass(frozen=True)
class Verdict:
    """The decision on one image, and what it is based on.

    Attributes:
        decision: `normal`, `uncertain`, `anomalous` or `unknown product`.
        product: whose calibration was used.
        product_from: `given` or `recognised`.
        recognised: the product with the nearest prototype.
        distance: of the embedding to that prototype.
        second_distance: to the nearest prototype of any other product; None: there is no other.
        unknown_distance: distance above which the image is an unknown product, unless it is clearly
            closer to `recognised` than to any other product; None where no images were held out.
        unknown_p: p-value by which the image is called an unknown product; 1 if it is clearly of
            the recognised one. None where no images were held out.
        unusual_p: p-value of an image of the recognised product at this distance: how unusual the
            image is. None where no images were held out.
        strangeness: how unlike the normal images of the product the image as a whole is, in robust
            standard deviations beyond a typical held-out image; None: not known.
        score: of the map, times a factor above 1 where `strangeness` is above 6.5 (`STRANGE`).
        calibrated: z-score of the log score, by its mean and standard deviation on the product's
            training images: comparable over products.
        p_value: share of the product's normal images with at least this score; None where no images
            were held out.
        p_value_from: what it rests on, in the words of `threshold_from`.
        threshold, uncertain_threshold: scores above which an image is anomalous, or at least
            uncertain; None where too few images were held out.
        threshold_from: what the rate of anomalous rests on: `shared tail` (measured; see
            `snl.decision.shared_tail`), `product` (guaranteed by its own images), `all products`
            (guaranteed by the pooled images) or `tail fit` (an extrapolation).
        region_threshold: map values above it are marked.
    """

    decision: str
    product: str
    product_from: str
    recognised: str
    distance: float
    second_distance: float | None
    unknown_distance: float | None
    unknown_p: float | None
    unusual_p: float | None
    strangeness: float | None
    score: float
    calibrated: float
    p_value: float | None
    p_value_from: str
    threshold: float | None
    uncertain_threshold: float | None
    threshold_from: str
    region_threshold: float | None


@dataclass(frozen=True, kw_only=True)
class Inspection(Verdict):
    """The result for one image: the verdict, and on access the map, regions and overlay.

    Attributes:
        prediction: of the network; its map is 0 where the product's mask ignores pixels.
        map_range: map values at which the overlay's colours begin and end.
        min_region_area: smaller regions, in pixels, are not reported.
        mm_per_pixel: scale of the image; None: unknown.
        maxima: distribution of the maxima of normal maps, for the p-values of regions.
    """

    prediction: Prediction = field(repr=False)
    map_range: tuple[float, float] = field(default=(0.0, 1.0), repr=False)
    min_region_area: int = field(default=1, repr=False)
    mm_per_pixel: float | None = field(default=None, repr=False)
    maxima: Conformal | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> str | None:
        """Path of the image, if it came from a file."""
        return self.prediction.path

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.prediction.size

    @property
    def roi(self) -> tuple[int, int, int, int] | None:
        """The part of the image that was inspected, as x, y, width, height in pixels; None: all of
        it."""
        if self.prediction.roi is None:
            return None
        top, left, bottom, right = self.prediction.window
        return left, top, right - left, bottom - top

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual about the image, for example that samples were clipped, and about the
        decision."""
        remarks = [*self.prediction.remarks, *_remarks(self)]
        if note := self.regions_note:
            advice = "; a higher snl calibrate FILE --regions-rate marks weaker ones"
            remarks.append(
                f"is {self.decision} without a marked region: {note}"
                + (advice if note == _WEAK else "")
            )
        return tuple(remarks)

    @property
    def image(self) -> np.ndarray:
        """uint8 (H, W, 3), upright RGB, the image that was inspected.

        If it was not kept (see `Inspector.stream`), its file is read again each time.

        Raises:
            ImageError: the file can no longer be read, or shows another image now.
            ValueError: it was neither kept nor read from a file.
        """
        if self.prediction.image is not None:
            return self.prediction.image
        return self._file.image()

    def image_at(self, width: int, height: int) -> np.ndarray:
        """Return the image resized (bilinear, antialiased), uint8 (height, width, 3).

        Raises:
            ImageError, ValueError: as `image`.
        """
        kept, picture = self.prediction.image, self.prediction.picture
        if picture is not None and picture.shape[:2] == (height, width):
            return picture
        if kept is not None:
            return resize_array(kept, width, height)
        return self._file.resized(width, height)

    @property
    def _file(self) -> ImageFile:
        if self.prediction.file is None:
            raise ValueError("the image was not kept with this prediction")
        return self.prediction.file

    @cached_property
    def anomaly_map(self) -> np.ndarray:
        """float32 (H, W) at the size of the image, raw; 0 where pixels are ignored and outside the
        region of interest."""
        return self.prediction.full_map()

    def map_at(self, width: int, height: int) -> np.ndarray:
        """Return `anomaly_map` resized (bilinear, antialiased), float32 (height, width).

        The map of full size is computed in bands of rows and not kept.
        """
        return self.prediction.map_at(width, height)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Regions where the map is above `region_threshold`, highest peak first."""
        if self.region_threshold is None:
            return ()
        top, left, _, _ = self.prediction.window
        found = find_regions_resized(
            self.prediction.anomaly_map,
            self.prediction.window.size,
            self.region_threshold,
            smallest=self.min_region_area,
            mm_per_pixel=self.mm_per_pixel,
            p_value=self._p_value if self.maxima else None,
        )
        return tuple(region.shifted(left, top) for region in found) if top or left else found

    @cached_property
    def regions_note(self) -> str | None:
        """Why an anomalous image has no region; None: it has one, or is not anomalous."""
        if self.decision != ANOMALOUS or self.regions:
            return None
        if self.region_threshold is None:
            return "there are too few held-out images for a threshold of regions"
        if (self.strangeness or 0.0) > STRANGE:
            return "the image as a whole differs from normal images"
        if self.min_region_area > 1 and self.prediction.anomaly_map.max() > self.region_threshold:
            return f"all are smaller than {self.min_region_area} px"
        return _WEAK

    def _p_value(self, peak: float) -> float | None:
        return self.maxima.p_value(peak, self.product) if self.maxima else None

    def verdict(self) -> Verdict:
        """Return the verdict without prediction, map and image."""
        return Verdict(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Verdict)})

    def overlay(self, outline_normal: bool = False) -> PIL.Image.Image:
        """Draw the image beside its map in colours, with contours, score bar and decision.

        Args:
            outline_normal: outline regions also where the decision is normal.
        """
        from snl.drawing.overlay import draw

        return draw(self, outline_normal)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: everything but image and map, the region of interest (x, y, width,
        height; None: the whole image), and the map's highest pixel (x, y)."""
        top, left, _, _ = self.prediction.window
        x, y = highest_pixel(self.prediction.anomaly_map, self.prediction.window.size)
        height, width = self.prediction.size
        return {
            "path": self.path,
            **vars(self.verdict()),
            "width": width,
            "height": height,
            "roi": None if self.roi is None else list(self.roi),
            "peak": [x + left, y + top],
            "regions": [region.to_dict() for region in self.regions],
            "remarks": list(self.remarks),
        }


def _remarks(verdict: Verdict) -> Iterator[str]:
    """Yield what a person should know about a decision."""
    if verdict.decision == UNKNOWN and verdict.unknown_distance is not None:
        yield (
            f"is an unknown product: the nearest is {verdict.recognised}, at the distance "
            f"{verdict.distance:.3g} (limit {verdict.unknown_distance:.3g}); a new product is "
            "added with snl add FILE IMAGES --product NAME; if such images are of "
            f"{verdict.recognised}, add normal ones: snl calibrate FILE IMAGES --product "
            f"{verdict.recognised} --add"
        )
    elif verdict.threshold is not None and verdict.threshold == verdict.uncertain_threshold:
        yield f"is normal or anomalous, since both thresholds of {verdict.product} are equal"
    strangeness = verdict.strangeness or 0.0
    if verdict.decision != UNKNOWN and strangeness > STRANGE:
        yield (
            f"is as a whole unlike every normal image of {verdict.product} "
            f"({strangeness:.1f} deviations, limit {STRANGE:g}): a part may be missing, or "
            "camera and light differ; if such images are normal, add some: snl calibrate FILE "
            f"IMAGES --product {verdict.product} --add"
        )
    if verdict.p_value_from == "all products":
        yield f"has a p-value from the images of all products, not of {verdict.product} alone"
