"""Drift monitor: raises an alarm when a product's images no longer match the calibration images.

For each product there is one test martingale per statistic of an image (anomaly score, distance to
the product's prototypes), computed over the ranks of its values, and one test martingale over the
share of rejected images. `martingale.py` defines the bets; docs/drift.md states the guarantee.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from snl.errors import SnlError
from snl.files import write_text
from snl.kinds import BUNDLE, DRIFT
from snl.monitoring.product_stream import Stream
from snl.monitoring.state_file import (
    read_count,
    read_list,
    read_map,
    read_number,
    read_numbers,
    read_text,
)
from snl.outputs import Output, check_outputs

KIND, FORMAT = "drift", 2


@dataclass(frozen=True)
class Drift:
    """The drift status of one product.

    Attributes:
        product: name of the product.
        alarm: True from the alarm until `reset`.
        since: estimated number, from 1, of the image at which the change began: the last minimum of
            the bet that fits the change best. Rejected images are counted too. None: no alarm.
        since_when: the `when` of that image.
        reason: which statistic changed and in which direction; None: no alarm.
        images: number of images of this product since the start or the last `reset`.
        evidence: the highest capital of any test so far, divided by the capital that raises an
            alarm, in [0, 1e12]; 1 or more means alarm.
    """

    product: str
    alarm: bool
    since: int | None
    since_when: str | None
    reason: str | None
    images: int
    evidence: float


class DriftMonitor:
    """Monitors the inspections of each product for a change of the images' distribution.

    For each product, the probability that a false alarm EVER occurs is at most `false_alarm`, on
    two premises: the accepted (not rejected) images are exchangeable with the baseline, and each
    image is rejected with a conditional probability of at most `rejected`, given all images before
    it. With fewer than 15 baseline values (`product_stream.MIN_BASELINE`) the baseline is not used,
    and the premise is only that the images of the stream are exchangeable with each other: a change
    is detected within the stream, not between calibration and stream. docs/drift.md has the exact
    statement.

    Args:
        baseline: product to float (n, statistics): values of held-out calibration images strictly
            below the thresholds that reject images in production. A product without an entry gets
            an empty baseline when its first image arrives.
        statistics: names of an image's values.
        false_alarm: probability of ever raising a false alarm for one product, in (0, 1).
        rejected: share of rejected images that does not count as drift, in (0, 1).
        seed: seed of the random tie-breaking among equal values, at least 0.
        own_share: products whose share of rejected images is compared with that of the earlier
            images of the stream instead of `rejected`, because the calibration images do not show
            that it is below `rejected`. Always so with fewer than 15 baseline values.

    Raises:
        SnlError: a setting is out of its range, or a baseline has a wrong shape or values that are
            not finite.

    Example:
        >>> monitor = DriftMonitor({"nut": np.zeros((0, 1))}, statistics=["score"])
        >>> monitor.update("nut", [0.3], when="Monday").alarm
        False
    """

    def __init__(
        self,
        baseline: Mapping[str, np.ndarray],
        *,
        statistics: Sequence[str] = ("score", "distance"),
        false_alarm: float = 0.01,
        rejected: float = 0.25,
        seed: int = 0,
        own_share: Collection[str] = (),
    ) -> None:
        self.statistics = tuple(statistics)
        if isinstance(statistics, str) or not 0 < len(set(self.statistics)) == len(self.statistics):
            raise SnlError(f"statistics is {statistics!r}; give at least one name, each only once")
        for name, value in (("false_alarm", false_alarm), ("rejected", rejected)):
            if not 0 < value < 1:
                raise SnlError(f"{name} is {value}; give a number above 0 and below 1")
        if seed < 0:
            raise SnlError(f"seed is {seed}; give 0 or more")
        self.false_alarm, self.rejected, self.seed = float(false_alarm), float(rejected), int(seed)
        # log capital that raises an alarm: (tests / false_alarm), by the union bound
        self._log_limit = math.log(len(self.statistics) + 1) - math.log(self.false_alarm)
        self._streams = {
            name: self._stream(name, rows, name in own_share) for name, rows in baseline.items()
        }

    def update(
        self,
        product: str,
        values: Sequence[float],
        *,
        rejected: bool = False,
        when: str | None = None,
    ) -> Drift:
        """Update the monitor with one image and return the drift status of its product.

        Args:
            product: product of the image.
            values: (statistics,) finite numbers; ignored for a rejected image.
            rejected: True if the decision was `anomalous` or `unknown product`.
            when: time or name of the image; returned as `Drift.since_when`.

        Raises:
            SnlError: wrong number of values, or a value is not finite; the monitor is unchanged.
        """
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != len(self.statistics) or not all(map(math.isfinite, numbers)):
            raise SnlError(
                f"{product}: an image has the values {' '.join(repr(values).split())[:80]}; "
                f"give one finite number each for {', '.join(self.statistics)}"
            )
        if product not in self._streams:
            self._streams[product] = self._stream(product, np.empty((0, len(self.statistics))))
        stream = self._streams[product]
        stream.step(numbers, rejected, self.rejected, when)
        stream.check_alarm(self._log_limit, self.statistics, self.rejected)
        return self._drift(product)

    def status(self) -> dict[str, Drift]:
        """Return the drift status by product; products with a baseline come first."""
        return {product: self._drift(product) for product in self._streams}

    @property
    def uncompared(self) -> list[str]:
        """Products with too few baseline values to compare their images with the calibration."""
        return [product for product, stream in self._streams.items() if not stream.compared]

    @property
    def baseline(self) -> dict[str, np.ndarray]:
        """Product to float64 (n, statistics), as given; no rows for products added later."""
        return {product: stream.baseline for product, stream in self._streams.items()}

    def reset(self, product: str | None = None) -> None:
        """Restart one product, or all products, from the baseline.

        The false-alarm guarantee starts again too: each restart adds to the total probability of a
        false alarm.

        Args:
            product: name of a product; None for all.

        Raises:
            SnlError: the monitor has no such product.
        """
        if product is not None and product not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise SnlError(f"{product}: no such product in the drift monitor; it has: {known}")
        for name in self._streams if product is None else [product]:
            self._streams[name].restart()

    def to_dict(self) -> dict[str, Any]:
        """Return settings and state as JSON values; `from_dict` continues exactly from there."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "statistics": list(self.statistics),
            "false_alarm": self.false_alarm,
            "rejected": self.rejected,
            "seed": self.seed,
            "products": {
                name: {"baseline": stream.baseline.tolist(), **stream.to_dict()}
                for name, stream in self._streams.items()
            },
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Self:
        """Return the monitor that `to_dict` described.

        Raises:
            SnlError: not the state of a drift monitor, a key is missing, a type or value is wrong,
                or the format is newer than this version.
        """
        return cls._read(d, "drift state")

    def save(self, path: str | Path) -> None:
        """Write the state to a JSON file; an existing file is replaced atomically.

        Raises:
            SnlError: the file cannot be written, or is not the state of a drift monitor.
        """
        check_outputs([Output("the state", Path(path), DRIFT)])
        state = self.to_dict()
        state = {**state, "sha256": _digest(state)}
        write_text(path, json.dumps(state, allow_nan=False) + "\n", durable=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the monitor that `save` wrote.

        Raises:
            SnlError: the file is missing, truncated or damaged, is not the state of a drift
                monitor, or has a newer format.
        """
        if Path(path).exists() and not Path(path).is_file():  # reading a pipe would wait forever
            raise SnlError(
                f"{path}: is not a regular file; give the state file of a drift monitor, or the "
                "name of a new one"
            )
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SnlError(
                f"{path}: cannot be read ({error.strerror or error}); give the state file of a "
                "drift monitor, or start a new monitor"
            ) from None
        except (ValueError, RecursionError):
            if BUNDLE.is_replaceable(Path(path)):
                raise SnlError(
                    f"{path}: is a bundle, not the state of a drift monitor; give the file that "
                    "snl inspect --monitor writes"
                ) from None
            raise SnlError(_unreadable(str(path), "truncated, damaged or not JSON")) from None
        return cls._read(document, str(path), checksum=True)

    @classmethod
    def _read(cls, document: Any, where: str, checksum: bool = False) -> Self:
        """Return the monitor of a JSON document; `where` names the document in errors."""
        try:
            state = dict(read_map(document, "the document"))
            if state.get("kind") != KIND:
                raise ValueError("not written by a drift monitor of snl")
            if read_count(state["format"], "format") > FORMAT:
                raise SnlError(
                    f"{where}: drift state of format {state['format']}, but this version of snl "
                    f"reads format {FORMAT}; update snl: pip install -U snl-ad"
                )
            if checksum and state.pop("sha256", None) != _digest(state):
                raise ValueError("its content does not match its checksum")
            monitor = cls(
                {},
                statistics=[
                    read_text(name, "statistics")
                    for name in read_list(state["statistics"], "statistics")
                ],
                false_alarm=read_number(state["false_alarm"], "false_alarm"),
                rejected=read_number(state["rejected"], "rejected"),
                seed=read_count(state["seed"], "seed", 2**200),
            )
            for product, content in read_map(state["products"], "products").items():
                rows = read_list(read_map(content, product)["baseline"], "baseline")
                width = len(monitor.statistics)
                numbers = [read_numbers(row, "baseline", width) for row in rows]
                stream = monitor._stream(product, np.array(numbers).reshape(-1, width))
                stream.restore(content)
                monitor._streams[product] = stream
        except KeyError as error:
            raise SnlError(_unreadable(where, f"the key {error} is missing")) from None
        except (ValueError, TypeError, OverflowError) as error:
            raise SnlError(_unreadable(where, str(error).splitlines()[0][:100])) from None
        return monitor

    def _stream(self, product: str, baseline: Any, own_share: bool = False) -> Stream:
        try:
            rows = np.asarray(baseline, dtype=np.float64)
        except (TypeError, ValueError):
            rows = np.full((1, 1), np.nan)
        width = len(self.statistics)
        if rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
            raise SnlError(
                f"{product}: baseline has shape {rows.shape} or values that are not finite; give "
                f"finite numbers of shape (images, {width}) with the columns "
                + ", ".join(self.statistics)
            )
        seed = np.random.SeedSequence([self.seed, *product.encode("utf-8", "surrogatepass")])
        return Stream(rows.copy(), np.random.Generator(np.random.PCG64(seed)), own_share)

    def _drift(self, product: str) -> Drift:
        stream = self._streams[product]
        since, when, reason = stream.alarm or (None, None, None)
        peak = max(test.log_peak for test in stream.tests)
        evidence = min(math.exp(min(peak - self._log_limit, 100.0)), 1e12)
        alarm = stream.alarm is not None
        return Drift(product, alarm, since, when, reason, stream.images, evidence)


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _unreadable(where: str, reason: str) -> str:
    return (
        f"{where}: not a valid drift state ({reason}); "
        "copy the file again from its source, or start a new monitor from the calibration"
    )
