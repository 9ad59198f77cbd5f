"""Calibrations: everything between a prediction and a decision, as editable data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from snl.decision.conformal import Conformal
from snl.decision.products import Prototypes
from snl.decision.sample import PEAKS
from snl.errors import SettingsError
from snl.settings import MapSettings

COUNTED_REGIONS = 4
"""An image with more false regions counts as one with this many: it is one bad image, and a mean
can be bounded only for bounded values."""
UNKNOWN_MARGIN = np.sqrt(2)
"""A defect moves an image away from its product, too. An image is called an unknown product only at
this many times the distance that its p-value alone would require (twice the squared distance)."""


@dataclass(frozen=True)
class Rates:
    """False-alarm rates: upper bounds on shares, in 0..1, of images of normal parts.

    Attributes:
        anomalous: share called anomalous.
        uncertain: share called anomalous or uncertain.
        unknown: share called `unknown product`; with fewer than 99 held-out images it is the
            smallest rate that they allow.
        regions: mean number of regions marked per image; more than 4 count as 4.
    """

    anomalous: float = 0.05
    uncertain: float = 0.1
    unknown: float = 0.01
    regions: float = 0.2

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise SettingsError(f"the {name} rate is {value}; it must be between 0 and 1")
        if self.anomalous > self.uncertain:
            raise SettingsError(
                f"the uncertain rate {self.uncertain:g} is less than the rate {self.anomalous:g} "
                "of anomalous; it counts both, so give as much or more"
            )

    def changed(self, **changes: float | None) -> Rates:
        """Return a copy with the rates that are given; a larger rate of anomalous raises that of
        uncertain, unless that is given, too."""
        given = {name: value for name, value in changes.items() if value is not None}
        if "anomalous" in given:
            given.setdefault("uncertain", max(given["anomalous"], self.uncertain))
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class CalibrationSet:
    """Measurements of a product's n normal images that training did not see.

    Attributes:
        scores: float32 (n,), raw.
        distances: float32 (n,), of the embedding to the nearest prototype of any product.
        peaks: float32 (n, 16), the map's highest local maxima, highest first, padded with -inf.
        hashes: uint64 (n,) of the files, see `snl.files.content_hash`.
    """

    scores: np.ndarray
    distances: np.ndarray
    peaks: np.ndarray
    hashes: np.ndarray

    @classmethod
    def empty(cls) -> CalibrationSet:
        """Return the set of a product without such images."""
        none = np.empty(0, np.float32)
        return cls(none, none, np.empty((0, PEAKS), np.float32), np.empty(0, np.uint64))

    def merge(self, other: CalibrationSet) -> CalibrationSet:
        """Return the images of both; an image in both counts once."""
        new = ~np.isin(other.hashes, self.hashes)
        return CalibrationSet(*(
            np.concatenate([getattr(self, f.name), getattr(other, f.name)[new]])
            for f in dataclasses.fields(self)
        ))  # fmt: skip

    def unique(self) -> CalibrationSet:
        """Return every image once."""
        _, first = np.unique(self.hashes, return_index=True)
        first.sort()
        return CalibrationSet(*(getattr(self, f.name)[first] for f in dataclasses.fields(self)))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Calibration:
    """Everything that a decision needs besides the prediction.

    Attributes:
        sets: calibration set of every known product.
        log_score_stats: mean and standard deviation of the log score on training images, by
            product.
        prototypes: mean embeddings, by which products are recognised.
        scoring: how a score follows from a map.
        map_range: map values at which the overlay's colours begin and end: the 99th percentile of
            the pixels of a median normal image, and twice the largest score of a normal image.
        network: version of the network that the measurements are from.
        rates: of all products.
        product_rates: of single products, instead.
        ignore_masks: bool (size, size) by product: pixels that never count.
        mm_per_pixel: by product, of the images as given.
        min_region_area: by product: smaller regions, in pixels, are not reported.
        tile: side in pixels of the tiles that images are processed in; 0: whole images.
        fit_tail: whether rates below what the images allow come from a fitted tail.
        created, reason: ISO time of this version, and what was changed.
    """

    sets: Mapping[str, CalibrationSet]
    log_score_stats: Mapping[str, tuple[float, float]]
    prototypes: Prototypes
    scoring: MapSettings = field(default_factory=MapSettings)
    map_range: tuple[float, float] = (0.0, 1.0)
    network: str = ""
    rates: Rates = Rates()
    product_rates: Mapping[str, Rates] = field(default_factory=dict)
    ignore_masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    mm_per_pixel: Mapping[str, float] = field(default_factory=dict)
    min_region_area: Mapping[str, int] = field(default_factory=dict)
    tile: int = 0
    fit_tail: bool = False
    created: str = ""
    reason: str = "training"

    @cached_property
    def scores(self) -> Conformal:
        """Distribution of normal scores."""
        scores = {name: data.scores for name, data in self.sets.items()}
        return Conformal(scores, self.log_score_stats, self.fit_tail)

    @cached_property
    def max_scores(self) -> Conformal:
        """Distribution of the maxima of normal maps."""
        maxima = {name: data.peaks[:, 0] for name, data in self.sets.items()}
        return Conformal(maxima, self.log_score_stats, self.fit_tail)

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the known products."""
        return tuple(self.sets)

    def check_product(self, product: str | None) -> None:
        """Check that a product is known; None is allowed.

        Raises:
            SettingsError: it is not.
        """
        if product is not None and product not in self.sets:
            raise SettingsError(
                f"product '{product}' is not known to this inspector; known: "
                f"{', '.join(self.products)}"
            )

    def rates_for(self, product: str | None = None) -> Rates:
        """Return the rates in force for a product; None: those of all products."""
        return self.product_rates.get(product or "", self.rates)

    def check_rates(self, rates: Rates, product: str | None = None) -> None:
        """Check that the held-out images allow rates of anomalous and uncertain.

        Raises:
            SettingsError: the product, or without one all products together, have too few images.
        """
        for name in (product,) if product else self.products[:1]:
            smallest = min(rates.anomalous, rates.uncertain)
            if self.scores.threshold(smallest, name)[0] is not None:
                continue
            of_product = f"{len(self.sets[name])} of '{name}' and " if product else ""
            count = sum(map(len, self.sets.values()))
            possible = self.possible_rate()
            allowed = "" if possible is None else f", which allow {possible:g} and more"
            tail = ", or fit a tail with snl calibrate FILE --tail fit"
            fitted = dataclasses.replace(self, fit_tail=True)
            if self.fit_tail or fitted.scores.threshold(smallest, name)[0] is None:
                tail = ""
            raise SettingsError(
                f"a false-alarm rate of {smallest:g} needs {images_needed(smallest)} held-out "
                f"normal images; there are {of_product}{count} of all products{allowed}: add "
                f"images with snl calibrate FILE NORMALS --add{tail}"
            )

    def possible_rate(self) -> float | None:
        """Return the smallest rate that the held-out images of all products allow, rounded up to
        two digits; None: there are none, so no rate is possible."""
        smallest = self.scores.smallest_rate()
        if smallest >= 1:
            return None
        unit = 10.0 ** (math.floor(math.log10(smallest)) - 1)
        return float(f"{math.ceil(smallest / unit - 1e-9) * unit:.12g}")

    def can_decide(self, rate: float | None = None, product: str | None = None) -> bool:
        """Return whether images can be called normal or anomalous at a rate.

        None: the rate in force.
        """
        name = product or self.products[0]
        rate = self.rates_for(name).anomalous if rate is None else rate
        return self.scores.threshold(rate, name)[0] is not None

    def unknown_p(self, distance: float) -> float | None:
        """Return the p-value of an image of a known product at this distance to its prototype.

        It is the share of held-out images, of all products, that are as far from their prototypes,
        with `UNKNOWN_MARGIN`; None: nothing was held out.
        """
        known = self._distances
        if not len(known):
            return None
        return (1 + int(np.sum(known >= distance / UNKNOWN_MARGIN))) / (1 + len(known))

    def unknown_rate(self, rates: Rates | None = None) -> float:
        """Return the rate of unknown products in force: as set, or the smallest possible one."""
        return max((rates or self.rates).unknown, 1 / (1 + len(self._distances)))

    def region_threshold(self, rate: float, product: str) -> float | None:
        """Return the map value above which a normal image has at most `rate` regions on average.

        A region contains at least one local maximum of the map, so there are at most as many
        regions as maxima above the threshold, and that number falls as the threshold rises. This is
        conformal risk control (Angelopoulos et al., arXiv 2208.02814, theorem 1) with that number,
        at most 4 per image, as the loss. It uses the product's images where they suffice, otherwise
        those of all products, standardised; None where these do not suffice either.
        """
        threshold = _control_risk(self.sets[product].peaks, rate)
        if threshold is not None:
            return threshold
        pooled = _control_risk(self._standardised_peaks, rate)
        if pooled is None:
            return None
        mean, deviation = self.log_score_stats[product]
        return float(np.exp(min(mean + deviation * pooled, np.log(np.finfo(np.float32).max))))

    @cached_property
    def _distances(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *(data.distances for data in self.sets.values())])

    @cached_property
    def _standardised_peaks(self) -> np.ndarray:
        rows = [np.empty((0, PEAKS))]
        for product, data in self.sets.items():
            mean, deviation = self.log_score_stats[product]
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.log(np.maximum(data.peaks, 0))
            rows.append((logs - mean) / deviation)
        return np.concatenate(rows)


_MOST_IMAGES = 1e12
"""A number that stands for more images than anybody has."""


def images_needed(rate: float) -> int:
    """Return how many held-out normal images a false-alarm rate needs: the least n with
    1 / (n + 1) <= rate."""
    return math.ceil(min(1 / rate, _MOST_IMAGES) - 1e-9) - 1


def _control_risk(peaks: np.ndarray, rate: float) -> float | None:
    """Return the smallest threshold t with (sum of min(#peaks > t, 4) + 4) / (n + 1) <= rate."""
    kept = peaks[:, :COUNTED_REGIONS]
    allowed = int(np.floor(rate * (len(kept) + 1) - COUNTED_REGIONS + 1e-9))
    if allowed < 0 or not len(kept):
        return None
    # the sum is the number of kept values above t; t is the (allowed + 1)-th highest of them
    values = np.sort(kept.ravel())[::-1]
    if allowed >= len(values):
        return float("-inf")
    return float(values[allowed])
