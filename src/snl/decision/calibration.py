"""Calibrations: everything between a prediction and a decision, as editable data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from snl.data.roi import Roi
from snl.decision.conformal import TAIL_MINIMUM, Conformal
from snl.decision.products import Prototypes
from snl.decision.references import References, score_factor
from snl.decision.sample import PEAKS
from snl.decision.shared_tail import SharedTail
from snl.errors import SettingsError
from snl.settings import MapSettings

SHARED_TAIL, CONFORMAL = "shared-tail", "conformal"
RULES = (SHARED_TAIL, CONFORMAL)
"""How thresholds follow from held-out images: see `snl.decision.shared_tail` and
`snl.decision.conformal`."""
TRAINED = "training"
"""Reason of the calibration that a training ends with."""
COUNTED_REGIONS = 4
"""An image with more false regions counts as one with this many: it is one bad image, and a mean
can be bounded only for bounded values."""
CLEAR = 0.65
"""An image is clearly of a product if its distance to it is less than this share of that to any
other. On five products it was at most 0.51 for all normal images, and at least 0.82 for 99 % of the
images of a product that was left out; this is between the two."""
ENOUGH = 10
"""Held-out images of a product that tell what is usual for it."""
_EQUIVALENT, _LEAST_DEVIATION = 20, 0.1
"""Images that the deviation over all products counts as in that of a product; the least one, of the
logarithm of a distance."""
UNKNOWN_MARGIN = math.sqrt(2)
"""A defect moves an image away from its product, too. Where nothing else tells defects from
strangers, an image is called an unknown product only at this many times the distance that its
p-value alone would require (twice the squared distance)."""


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
        neighbours: float32 (n,), distance to the product's references, see
            `snl.decision.references`; nan: not measured.
        names: str (n,), folder and name of each file; empty: not known.
    """

    scores: np.ndarray
    distances: np.ndarray
    peaks: np.ndarray
    hashes: np.ndarray
    names: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    neighbours: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        if not len(self.neighbours):
            unknown = np.full(len(self.hashes), np.nan, np.float32)
            object.__setattr__(self, "neighbours", unknown)
        if not len(self.names):
            object.__setattr__(self, "names", np.full(len(self.hashes), "", np.str_))

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
        return self.select(first)

    def select(self, rows: np.ndarray) -> CalibrationSet:
        """Return some of the images, by indices or bool (n,)."""
        return CalibrationSet(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Retired:
    """Measurements of a product that was removed, without names and hashes of its images.

    How far normal scores reach above their centre is learned from all products. The measurements of
    a removed one stay, so that the decisions about the others do not change.

    Attributes:
        data: scores (raised, see `Calibration.raised`), distances and peaks.
        log_score_stats: see `Calibration`.
        conformal: whether the product was decided by its own images alone.
    """

    data: CalibrationSet
    log_score_stats: tuple[float, float]
    conformal: bool = False


@dataclass(frozen=True)
class Calibration:
    """Everything that a decision needs besides the prediction.

    Attributes:
        sets: calibration set of every known product.
        log_score_stats: mean and standard deviation of the log score on training images, by
            product.
        prototypes: mean embeddings, by which products are recognised.
        references: embeddings of training images, by which an image as a whole is compared; None:
            it is not, as in files of earlier versions.
        scoring: how a score follows from a map.
        map_range: map values at which the overlay's colours begin and end: the 99th percentile of
            the pixels of a median normal image, and twice the largest score of a normal image.
        network: version of the network that the measurements are from.
        rates: of all products.
        product_rates: of single products, instead.
        rule: how thresholds follow from the held-out images, one of RULES.
        product_rules: of single products, instead.
        ignore_masks: bool (size, size) by product: pixels that never count.
        rois: regions of interest by product; the others' images are processed whole.
        mm_per_pixel: by product, of the images as given.
        min_region_area: by product: smaller regions, in pixels, are not reported.
        tile: side in pixels of the tiles that images are processed in; 0: whole images.
        fit_tail: whether rates below what the images allow come from a fitted tail.
        created, reason: ISO time of this version, and what was changed.
        retired: measurements of products that were removed.
    """

    sets: Mapping[str, CalibrationSet]
    log_score_stats: Mapping[str, tuple[float, float]]
    prototypes: Prototypes
    scoring: MapSettings = field(default_factory=MapSettings)
    map_range: tuple[float, float] = (0.0, 1.0)
    network: str = ""
    rates: Rates = Rates()
    product_rates: Mapping[str, Rates] = field(default_factory=dict)
    rule: str = SHARED_TAIL
    product_rules: Mapping[str, str] = field(default_factory=dict)
    ignore_masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    rois: Mapping[str, Roi] = field(default_factory=dict)
    mm_per_pixel: Mapping[str, float] = field(default_factory=dict)
    min_region_area: Mapping[str, int] = field(default_factory=dict)
    tile: int = 0
    fit_tail: bool = False
    created: str = ""
    reason: str = TRAINED
    references: References | None = None
    retired: tuple[Retired, ...] = ()

    @cached_property
    def scores(self) -> SharedTail:
        """Distribution of normal scores."""
        scores = {name: self.raised_scores(name) for name in self.sets}
        scores |= {name: one.data.scores for name, one in self._retired.items()}
        conformal = [name for name in self.sets if self.rule_for(name) == CONFORMAL]
        conformal += [name for name, one in self._retired.items() if one.conformal]
        return SharedTail(scores, self._all_stats, self.fit_tail, conformal)

    @cached_property
    def max_scores(self) -> Conformal:
        """Distribution of the maxima of normal maps."""
        maxima = {name: data.peaks[:, 0] for name, data in self._all_sets.items()}
        return Conformal(maxima, self._all_stats, self.fit_tail)

    @cached_property
    def held_out(self) -> dict[int, str]:
        """The product of each held-out image by its content hash."""
        return {
            content: product
            for product, images in self.sets.items()
            for content in images.hashes.tolist()
        }

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

    def with_sets(self, sets: Mapping[str, CalibrationSet]) -> Calibration:
        """Return a copy of this version with the calibration sets of some products replaced."""
        return dataclasses.replace(self, sets={**self.sets, **sets})

    def rule_for(self, product: str) -> str:
        """Return the rule in force for a product."""
        return self.product_rules.get(product, self.rule)

    def check_rates(self, rates: Rates, product: str | None = None) -> None:
        """Check that the held-out images allow rates of anomalous and uncertain.

        Raises:
            SettingsError: the product, or without one all products together, have too few images.
        """
        for name in (product,) if product else self.products:
            smallest = min(rates.anomalous, rates.uncertain)
            if self.scores.threshold(smallest, name)[0] is not None:
                continue
            of_product = f"{len(self.sets[name])} of '{name}' and " if product else ""
            count = sum(map(len, self.sets.values()))
            possible = self.possible_rate()
            allowed = "" if possible is None else f", which allow {possible:g} and more"
            fitted = dataclasses.replace(self, fit_tail=True)
            tail = ", or fit a tail with snl calibrate FILE --tail fit"
            if self.fit_tail:
                tail = f"; a tail is fitted to {TAIL_MINIMUM} images or more"
            elif fitted.scores.threshold(smallest, name)[0] is None:
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
        return None if smallest >= 1 else rounded_up(smallest)

    def can_decide(self, rate: float | None = None, product: str | None = None) -> bool:
        """Return whether images can be called normal or anomalous at a rate.

        None: the rate in force.
        """
        name = product or self.products[0]
        rate = self.rates_for(name).anomalous if rate is None else rate
        return self.scores.threshold(rate, name)[0] is not None

    def strangeness(self, product: str, embedding: np.ndarray) -> float | None:
        """Return how unlike the normal images of a product an image as a whole is.

        Args:
            product: that it shows.
            embedding: (D,).

        Returns:
            Robust standard deviations of the log distance to the product's references, beyond the
            median held-out image; None: fewer than 10 such images, no references, or an ignore
            mask, because what it hides is part of the embedding.
        """
        usual = self._usual(product)
        if self.references is None or usual is None:
            return None
        distance = float(self.references.distances(embedding[None], product)[0])
        return (math.log(distance) - usual[0]) / usual[1]

    def raised(self, score: float, product: str, embedding: np.ndarray) -> float:
        """Return the score of an image of a product, raised where the image as a whole is unlike
        the normal ones."""
        return score * score_factor(self.strangeness(product, embedding))

    def raised_scores(self, product: str) -> np.ndarray:
        """Return the scores, float32 (n,), of the held-out images of a product, raised as those of
        new images are."""
        data, usual = self.sets[product], self._usual(product)
        if usual is None:
            return data.scores
        strangeness = (np.log(data.neighbours.astype(np.float64)) - usual[0]) / usual[1]
        factors = [score_factor(None if math.isnan(s) else s) for s in strangeness.tolist()]
        raised: np.ndarray = (data.scores * np.array(factors)).astype(np.float32)
        return raised

    def unusual_p(self, product: str, distance: float) -> float | None:
        """Return the p-value of an image of a product at this distance to its nearest prototype.

        Distances are compared in units of the median of the product's held-out images, those of all
        products together, so that products with more variety count alike. None: nothing was held
        out.
        """
        known = self._relative_distances
        if not len(known):
            return None
        relative = distance / self._distance_scale(product)
        return (1 + int(np.sum(known >= relative))) / (1 + len(known))

    def unknown_p(self, product: str, distance: float, second: float = math.inf) -> float | None:
        """Return the p-value by which an image is called an unknown product.

        It is 1 where the image is clearly closer to the product than to any other (`CLEAR`): it is
        of that product, however unusual. Otherwise it is `unusual_p`, and where nothing else
        distinguishes a stranger from a defective part, because there is only one product or there
        are too few images for the rate, that of a distance reduced by `UNKNOWN_MARGIN`.

        Args:
            product: that the image is nearest to.
            distance: to its nearest prototype.
            second: to the nearest prototype of any other product; infinite: not known.
        """
        if math.isfinite(second) and distance < CLEAR * second:
            return None if not len(self._relative_distances) else 1.0
        return self.unusual_p(product, distance / self._margin)

    def unknown_distance(self, product: str, rates: Rates | None = None) -> float | None:
        """Return the distance above which an image that is nearest to the product, but not clearly,
        is called an unknown product; None: nothing was held out."""
        known = self._relative_distances
        if not len(known):
            return None
        allowed = int(self.unknown_rate(rates) * (1 + len(known)) + 1e-9)
        limit = np.sort(known)[len(known) - allowed] if allowed <= len(known) else 0.0
        return float(limit) * self._margin * self._distance_scale(product)

    def unknown_rate(self, rates: Rates | None = None) -> float:
        """Return the rate of unknown products in force: as set, or the smallest possible one."""
        return max((rates or self.rates).unknown, 1 / (1 + len(self._relative_distances)))

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

    @property
    def _retired(self) -> dict[str, Retired]:
        """By names that no product can have."""
        return {f"\0removed {number}": one for number, one in enumerate(self.retired)}

    @cached_property
    def _all_sets(self) -> dict[str, CalibrationSet]:
        return {**self.sets, **{name: one.data for name, one in self._retired.items()}}

    @cached_property
    def _all_stats(self) -> dict[str, tuple[float, float]]:
        retired = {name: one.log_score_stats for name, one in self._retired.items()}
        return {**self.log_score_stats, **retired}

    def _usual(self, product: str) -> tuple[float, float] | None:
        return None if product in self.ignore_masks else self._usual_neighbours.get(product)

    @cached_property
    def _usual_neighbours(self) -> dict[str, tuple[float, float]]:
        """Median and deviation of the log distance of held-out images to the references, of
        products with enough of them."""
        logs: dict[str, np.ndarray] = {}
        for product, data in self._all_sets.items():
            measured = data.neighbours[np.isfinite(data.neighbours)].astype(np.float64)
            if self.references is not None and len(measured) >= ENOUGH:
                logs[product] = np.log(measured)
        medians = {name: float(np.median(values)) for name, values in logs.items()}
        residuals = {name: np.abs(values - medians[name]) for name, values in logs.items()}
        if not logs:
            return {}
        common = float(np.median(np.concatenate([*residuals.values()])))
        usual = {}
        for name, values in residuals.items():
            own = len(values) * float(np.median(values)) ** 2
            square = (own + _EQUIVALENT * common**2) / (len(values) + _EQUIVALENT)
            deviation = max(1.4826 * math.sqrt(square), _LEAST_DEVIATION)
            usual[name] = (medians[name], deviation)
        return usual

    @property
    def _margin(self) -> float:
        few = 1 / (1 + len(self._relative_distances)) > Rates.unknown
        return UNKNOWN_MARGIN if few or len(self.sets) == 1 else 1.0

    def _distance_scale(self, product: str) -> float:
        """Return the median distance of a product's held-out images; of a product without images
        the median over the others."""
        own = self._distance_scales.get(product)
        return float(np.median([*self._distance_scales.values()])) if own is None else own

    @cached_property
    def _distance_scales(self) -> dict[str, float]:
        return {
            product: max(float(np.median(data.distances)), 1e-9)
            for product, data in self._all_sets.items()
            if len(data)
        }

    @cached_property
    def _relative_distances(self) -> np.ndarray:
        """Of every held-out image, its distance over the median of the others of its product."""
        rows = [np.empty(0)]
        for data in self._all_sets.values():
            d = data.distances.astype(np.float64)
            if len(d) > 1:
                medians = [np.median(np.delete(d, i)) for i in range(len(d))]
                rows.append(d / np.maximum(medians, 1e-9))
            else:
                rows.append(np.ones(len(d)))
        return np.concatenate(rows)

    @cached_property
    def _standardised_peaks(self) -> np.ndarray:
        rows = [np.empty((0, PEAKS))]
        for product, data in self._all_sets.items():
            mean, deviation = self._all_stats[product]
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.log(np.maximum(data.peaks, 0))
            rows.append((logs - mean) / deviation)
        return np.concatenate(rows)


_MOST_IMAGES = 1e12
"""A number that stands for more images than anybody has."""


def rounded_up(rate: float) -> float:
    """Return a rate with two significant digits, not smaller than it was.

    >>> rounded_up(0.02439), rounded_up(0.05)
    (0.025, 0.05)
    """
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return float(f"{math.ceil(rate / unit - 1e-9) * unit:.12g}")


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
