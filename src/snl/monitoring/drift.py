"""Drift: says when the images of a running plant are no longer like those of calibration.

For each product, one test martingale for each statistic of an image (its score, its distance to the
product's prototypes) over the ranks of its values, and one over how many images are rejected; see
`martingale.py` for the bets and docs/drift.md for what is promised.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from snl.errors import SnlError
from snl.files import write_text
from snl.monitoring.product_stream import Stream
from snl.monitoring.state_file import (
    read_count,
    read_list,
    read_map,
    read_number,
    read_numbers,
    read_text,
)

KIND, FORMAT = "drift", 1


@dataclass(frozen=True)
class Drift:
    """What is known of one product's stream now.

    Attributes:
        product: its name.
        alarm: True from the alarm until `reset`.
        since: number of the image, from 1, with which the change probably began: where the bet
            that fits it best had its last low. Rejected images are counted too.
        since_when: the `when` given with that image.
        reason: in plain words, which statistic changed, and in which direction.
        images: of this product seen since the beginning or the last `reset`.
        evidence: the most that any test has reached so far, as a multiple of what raises the alarm
            (1 and more: alarm); at most 1e12.
    """

    product: str
    alarm: bool
    since: int | None
    since_when: str | None
    reason: str | None
    images: int
    evidence: float


class DriftMonitor:
    """Watches the inspections of a plant, product by product, for images of another law.

    The chance of EVER a false alarm is at most `false_alarm` for each product, as long as its kept
    (not rejected) images are exchangeable with its baseline, and each image, whatever came before,
    is rejected with a chance of at most `rejected`. docs/drift.md says it exactly.

    Args:
        baseline: product to float (n, statistics): values of held-back normal images strictly
            below the thresholds by which the plant's images are rejected. Few rows, or none, will
            do: then only changes within the stream are found. A product not named here gets a
            stream of its own with its first image.
        statistics: names of the values of an image.
        false_alarm: chance of ever a false alarm for one product, above 0, below 1.
        rejected: share of rejected images that is no drift, above 0, below 1.
        seed: 0 or more; of the random order among equal values.

    Raises:
        SnlError: a setting out of its range; a baseline of another shape, or not finite.

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
    ) -> None:
        self.statistics = tuple(statistics)
        if isinstance(statistics, str) or not 0 < len(set(self.statistics)) == len(self.statistics):
            raise SnlError(f"statistics is {statistics!r}; give one or more different names")
        for name, value in (("false_alarm", false_alarm), ("rejected", rejected)):
            if not 0 < value < 1:
                raise SnlError(f"{name} is {value}; give a share above 0 and below 1")
        if seed < 0:
            raise SnlError(f"seed is {seed}; give 0 or more")
        self.false_alarm, self.rejected, self.seed = float(false_alarm), float(rejected), int(seed)
        self._level = math.log(len(self.statistics) + 1) - math.log(self.false_alarm)
        self._streams = {name: self._stream(name, rows) for name, rows in baseline.items()}

    def update(
        self,
        product: str,
        values: Sequence[float],
        *,
        rejected: bool = False,
        when: str | None = None,
    ) -> Drift:
        """One more image.

        Args:
            product: that the image is of.
            values: (statistics,) finite; of a rejected image they are not compared.
            rejected: the decision was anomalous, or the product unknown.
            when: time or name of the image, given back as `since_when`.

        Raises:
            SnlError: values of another number, or not finite; the monitor is then unchanged.
        """
        try:
            numbers = [float(value) for value in values]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != len(self.statistics) or not all(map(math.isfinite, numbers)):
            raise SnlError(
                f"{product}: values {' '.join(repr(values).split())[:80]} of an image; "
                f"give one finite number each for {', '.join(self.statistics)}"
            )
        if product not in self._streams:
            self._streams[product] = self._stream(product, np.empty((0, len(self.statistics))))
        stream = self._streams[product]
        stream.step(numbers, rejected, self.rejected, when)
        stream.judge(self._level, self.statistics, self.rejected)
        return self._drift(product)

    def status(self) -> dict[str, Drift]:
        """What is known of each product, those of the baseline first."""
        return {product: self._drift(product) for product in self._streams}

    @property
    def baseline(self) -> dict[str, np.ndarray]:
        """Product to float64 (n, statistics), as given; empty of a product that came later."""
        return {product: stream.baseline for product, stream in self._streams.items()}

    def reset(self, product: str | None = None) -> None:
        """Begins anew, from the baseline, with one product or with all; the promise too is anew.

        Raises:
            SnlError: a product that was never seen.
        """
        if product is not None and product not in self._streams:
            known = ", ".join(self._streams) or "none"
            raise SnlError(f"{product}: no such product in the drift monitor; it has {known}")
        for name in self._streams if product is None else [product]:
            self._streams[name].begin()

    def to_dict(self) -> dict[str, Any]:
        """Settings and state as JSON values; goes on from there exactly as if not interrupted."""
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
        """The monitor that `to_dict` wrote.

        Raises:
            SnlError: foreign, incomplete, of wrong types or values, or of a newer format.
        """
        return cls._read(d, "drift state")

    def save(self, path: str | Path) -> None:
        """Writes a JSON file, whole or not at all.

        Raises:
            SnlError: it cannot be written.
        """
        state = self.to_dict()
        state = {**state, "sha256": _digest(state)}
        write_text(path, json.dumps(state, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The monitor that `save` wrote.

        Raises:
            SnlError: missing, truncated, damaged, foreign or of a newer format.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SnlError(
                f"{path}: cannot be read ({error.strerror or error}); give the file of a drift "
                "monitor, or start a new one"
            ) from None
        except (ValueError, RecursionError):
            raise SnlError(_unreadable(str(path), "truncated, damaged or no JSON")) from None
        return cls._read(document, str(path), checksum=True)

    @classmethod
    def _read(cls, document: Any, where: str, checksum: bool = False) -> Self:
        try:
            state = dict(read_map(document, "it"))
            if state.get("kind") != KIND:
                raise ValueError("not made by a drift monitor of snl")
            if read_count(state["format"], "format") > FORMAT:
                raise SnlError(
                    f"{where}: a drift state in format {state['format']}, this snl reads {FORMAT}; "
                    "update snl: pip install -U snl-ad"
                )
            if checksum and state.pop("sha256", None) != _digest(state):
                raise ValueError("its contents do not match their checksum")
            monitor = cls(
                {},
                statistics=[read_text(s, "statistics") for s in read_list(state["statistics"], "")],
                false_alarm=read_number(state["false_alarm"], "false_alarm"),
                rejected=read_number(state["rejected"], "rejected"),
                seed=read_count(state["seed"], "seed", 2**200),
            )
            for product, facts in read_map(state["products"], "products").items():
                rows = read_list(read_map(facts, product)["baseline"], "baseline")
                width = len(monitor.statistics)
                numbers = [read_numbers(row, "baseline", width) for row in rows]
                stream = monitor._stream(product, np.array(numbers).reshape(-1, width))
                stream.restore(facts)
                monitor._streams[product] = stream
        except KeyError as error:
            raise SnlError(_unreadable(where, f"it has no {error}")) from None
        except (ValueError, TypeError, OverflowError) as error:
            raise SnlError(_unreadable(where, str(error).splitlines()[0][:100])) from None
        return monitor

    def _stream(self, product: str, baseline: Any) -> Stream:
        try:
            rows = np.asarray(baseline, dtype=np.float64)
        except (TypeError, ValueError):
            rows = np.full((1, 1), np.nan)
        width = len(self.statistics)
        if rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
            raise SnlError(
                f"{product}: baseline of shape {rows.shape}; give finite numbers of shape "
                f"(images, {width}), the columns " + ", ".join(self.statistics)
            )
        seed = np.random.SeedSequence([self.seed, *product.encode("utf-8", "surrogatepass")])
        return Stream(rows.copy(), np.random.Generator(np.random.PCG64(seed)))

    def _drift(self, product: str) -> Drift:
        stream = self._streams[product]
        since, when, reason = stream.alarm or (None, None, None)
        peak = max(test.log_peak for test in stream.tests)
        evidence = min(math.exp(min(peak - self._level, 100.0)), 1e12)
        alarm = stream.alarm is not None
        return Drift(product, alarm, since, when, reason, stream.images, evidence)


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _unreadable(where: str, reason: str) -> str:
    return (
        f"{where}: not a readable drift state ({reason}); "
        "copy it again from where it was made, or start a new monitor from the calibration"
    )
