"""From raw scores to decisions: data beside the network, never part of it, and always editable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from snl.decision.conformal import Conformal
from snl.errors import SettingsError

NORMAL, UNCERTAIN, ANOMALOUS, UNKNOWN = "normal", "uncertain", "anomalous", "unknown product"
PEAKS = 16
"""Local maxima of a map that are kept of every held-back image."""
REGIONS_COUNTED = 4
"""An image with more false regions than this counts as one with so many: it is one bad image, and
a mean can only be promised of something bounded."""
MARGIN = np.sqrt(2)
"""A defect, too, moves an image away from its product. So an image is of no taught product only if
it is this many times as far away as its p-value alone would ask (twice the squared distance)."""


@dataclass(frozen=True)
class Rates:
    """False-alarm rates, each a share in 0..1 of images of normal parts (regions: a number per
    image), at most."""

    anomalous: float = 0.05
    """Called anomalous."""
    uncertain: float = 0.1
    """Called anomalous or uncertain."""
    unknown: float = 0.01
    """Images of taught products called `unknown product`; where fewer than 99 are held back it is
    the least rate that they can promise."""
    regions: float = 0.2
    """Regions marked in an image of a normal part, on average; more than 4 count as 4."""

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
        """With the rates that are given; a larger rate of anomalous lifts that of uncertain, if
        that is not given."""
        given = {name: value for name, value in changes.items() if value is not None}
        if "anomalous" in given:
            given.setdefault("uncertain", max(given["anomalous"], self.uncertain))
        return dataclasses.replace(self, **given)


@dataclass(frozen=True)
class Normals:
    """A product's normal images that training did not see, n of them.

    Attributes:
        scores: (n,) float32, raw.
        distances: (n,) float32, of the embedding to the product's nearest prototype.
        peaks: (n, 16) float32, the map's highest local maxima, highest first, -inf where there are
            fewer.
        hashes: (n,) uint64 of the files, see `snl.files.content_hash`.
    """

    scores: np.ndarray
    distances: np.ndarray
    peaks: np.ndarray
    hashes: np.ndarray

    @classmethod
    def none(cls) -> Normals:
        """Of a product without such images."""
        empty = np.empty(0, np.float32)
        return cls(empty, empty, np.empty((0, PEAKS), np.float32), np.empty(0, np.uint64))

    def and_also(self, other: Normals) -> Normals:
        """Both; an image that is in both counts once."""
        new = ~np.isin(other.hashes, self.hashes)
        return Normals(*(
            np.concatenate([getattr(self, f.name), getattr(other, f.name)[new]])
            for f in dataclasses.fields(self)
        ))  # fmt: skip

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Verdict:
    """What was decided of one image, and why.

    Attributes:
        decision: `normal`, `uncertain`, `anomalous` or `unknown product`.
        product: whose calibration was used.
        product_from: `given` or `recognised`.
        recognised: the product whose prototype is nearest.
        distance: of the embedding to that prototype.
        unknown_p: share of images of taught products that are as far from their prototypes; None
            where nothing was held back.
        score: raw.
        calibrated: deviations of the log score over the product's mean on training images: one
            scale for all products.
        p_value: share of the product's normal images that score as high; None where nothing was
            held back.
        threshold, uncertain_threshold: scores above which an image is anomalous, or uncertain at
            least; None where too few images were held back.
        threshold_from: who promises the rate of anomalous: `product`, `all products` (of its own
            images too few were held back) or `tail fit`.
        region_threshold: map values above it are marked.
    """

    decision: str
    product: str
    product_from: str
    recognised: str
    distance: float
    unknown_p: float | None
    score: float
    calibrated: float
    p_value: float | None
    threshold: float | None
    uncertain_threshold: float | None
    threshold_from: str
    region_threshold: float | None


@dataclass(frozen=True)
class Calibration:
    """Everything between a score and a decision.

    Attributes:
        normals: by taught product.
        usual: mean and deviation of the log score on training images, by product.
        rates: of all products.
        own_rates: of single products, instead.
        ignored: bool (size, size) by product: where it may look as it likes.
        mm_per_pixel: by product, of the images as they are.
        smallest: by product: regions of fewer pixels are not reported.
        tile: side in pixels of the pieces that images are looked at in; 0: whole.
        tail: rates below what the images can promise come from a fitted tail.
        made, why: ISO time, and what was done, of this version.
    """

    normals: Mapping[str, Normals]
    usual: Mapping[str, tuple[float, float]]
    rates: Rates = Rates()
    own_rates: Mapping[str, Rates] = field(default_factory=dict)
    ignored: Mapping[str, np.ndarray] = field(default_factory=dict)
    mm_per_pixel: Mapping[str, float] = field(default_factory=dict)
    smallest: Mapping[str, int] = field(default_factory=dict)
    tile: int = 0
    tail: bool = False
    made: str = ""
    why: str = "training"

    @cached_property
    def scores(self) -> Conformal:
        """The law of normal scores."""
        return Conformal({k: n.scores for k, n in self.normals.items()}, self.usual, self.tail)

    @cached_property
    def tops(self) -> Conformal:
        """The law of the highest values of normal maps."""
        tops = {k: n.peaks[:, 0] for k, n in self.normals.items()}
        return Conformal(tops, self.usual, self.tail)

    @property
    def products(self) -> tuple[str, ...]:
        """The taught products."""
        return tuple(self.normals)

    def rates_of(self, product: str | None = None) -> Rates:
        """The rates that hold for a product."""
        return self.own_rates.get(product or "", self.rates)

    def check(self, rates: Rates, product: str | None = None) -> None:
        """Refuse rates of anomalous and uncertain that nobody can promise.

        Raises:
            SettingsError: the product, or where none is given all together, has too few images.
        """
        for name in (product,) if product else self.products[:1]:
            wanted = min(rates.anomalous, rates.uncertain)
            if self.scores.threshold(wanted, name)[0] is not None:
                continue
            own = f"{len(self.normals[name])} of '{name}' and " if product else ""
            count = sum(map(len, self.normals.values()))
            raise SettingsError(
                f"a false-alarm rate of {wanted:g} needs {int(np.ceil(1 / wanted - 1e-9)) - 1} "
                f"held-back normal images; there are {own}{count} of all products, which can "
                f"promise {self.scores.smallest_rate():.2g} and more: add images by snl calibrate "
                "FILE NORMALS --add, or let a tail be fitted by snl calibrate FILE --tail fit"
            )

    def judge(
        self,
        score: float,
        distances: Mapping[str, float],
        product: str | None = None,
        rates: Rates | None = None,
    ) -> Verdict:
        """The decision for one image.

        Args:
            score: raw, of a map without what is ignored of the product.
            distances: of its embedding to every product's nearest prototype.
            product: the product, if it is known; else it is recognised, and may be of no taught
                product.
            rates: instead of those of the product.
        """
        recognised = min(distances, key=distances.__getitem__)
        name = product or recognised
        rates = rates or self.rates_of(name)
        p = self.scores.p_value(score, name)
        unknown = self.unknown_p(distances[recognised])
        foreign = not product and unknown is not None and unknown <= self.unknown_rate(rates)
        threshold, basis = self.scores.threshold(rates.anomalous, name)
        uncertain, _ = self.scores.threshold(rates.uncertain, name)
        return Verdict(
            decision=UNKNOWN if foreign else decide(p, rates, threshold),
            product=name,
            product_from="given" if product else "recognised",
            recognised=recognised,
            distance=distances[recognised],
            unknown_p=unknown,
            score=score,
            calibrated=self.scores.standardise(score, name),
            p_value=p,
            threshold=threshold,
            uncertain_threshold=uncertain,
            threshold_from=basis,
            region_threshold=self.region_threshold(rates.regions, name),
        )

    def unknown_p(self, distance: float) -> float | None:
        """The share of held-back images, of all products, that are as far from their prototypes as
        an image at this distance to its nearest one, by `MARGIN`."""
        known = self._distances
        if not len(known):
            return None
        return (1 + int(np.sum(known >= distance / MARGIN))) / (1 + len(known))

    def unknown_rate(self, rates: Rates | None = None) -> float:
        """The rate of unknown products that holds: as asked, or the least that can be promised."""
        return max((rates or self.rates).unknown, 1 / (1 + len(self._distances)))

    def region_threshold(self, rate: float, product: str) -> float | None:
        """The map value above which at most `rate` regions are marked in a normal image, on
        average.

        A region holds at least one local maximum of the map, so there are at most as many regions
        as maxima above the threshold, and that number falls as it rises: conformal risk control
        (Angelopoulos et al., arXiv 2208.02814, theorem 1) with that number, at most 4 an image, as
        the loss. By the product's own images where they suffice, by those of all products
        standardised where not; None where these do not either.
        """
        own = _control(self.normals[product].peaks, rate)
        if own is not None:
            return own
        pooled = _control(self._standardised_peaks, rate)
        if pooled is None:
            return None
        mean, deviation = self.usual[product]
        return float(np.exp(min(mean + deviation * pooled, np.log(np.finfo(np.float32).max))))

    @cached_property
    def _distances(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *(n.distances for n in self.normals.values())])

    @cached_property
    def _standardised_peaks(self) -> np.ndarray:
        rows = [np.empty((0, PEAKS))]
        for product, normals in self.normals.items():
            mean, deviation = self.usual[product]
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.log(np.maximum(normals.peaks, 0))
            rows.append((logs - mean) / deviation)
        return np.concatenate(rows)


def decide(p: float | None, rates: Rates, threshold: float | None) -> str:
    """The decision from the p-value; without a threshold of anomalous nothing is promised."""
    if p is None or threshold is None:
        return UNCERTAIN
    if p <= rates.anomalous:
        return ANOMALOUS
    return UNCERTAIN if p <= rates.uncertain else NORMAL


def _control(peaks: np.ndarray, rate: float) -> float | None:
    """The least threshold t for which (sum of min(#peaks > t, 4) + 4) / (n + 1) <= rate."""
    kept = peaks[:, :REGIONS_COUNTED]
    allowed = int(np.floor(rate * (len(kept) + 1) - REGIONS_COUNTED + 1e-9))
    if allowed < 0 or not len(kept):
        return None
    # the sum is the number of kept values over t; t is the (allowed + 1)-th highest of them
    values = np.sort(kept.ravel())[::-1]
    if allowed >= len(values):
        return float("-inf")
    return float(values[allowed])
