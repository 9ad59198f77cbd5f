"""Calibrations with known numbers, and their comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from snl.data.roi import Roi
from snl.decision.calibration import CONFORMAL, SHARED_TAIL, Calibration, CalibrationSet, Rates
from snl.decision.products import Prototypes
from snl.decision.references import fit_references
from snl.decision.sample import PEAKS


def calibration_set(
    scores: Any, distances: Any = None, peaks: Any = None, hashes: Any = None
) -> CalibrationSet:
    """Return a calibration set; by default the distances are 1 and a map's only peak its score."""
    scores = np.asarray(scores, np.float32)
    n = len(scores)
    rows = np.full((n, PEAKS), -np.inf, np.float32)
    rows[:, 0] = scores
    return CalibrationSet(
        scores,
        np.full(n, 1, np.float32) if distances is None else np.asarray(distances, np.float32),
        rows if peaks is None else np.asarray(peaks, np.float32),
        np.arange(n, dtype=np.uint64) if hashes is None else np.asarray(hashes, np.uint64),
    )


def prototypes_of(*products: str) -> Prototypes:
    """Return one prototype per product, 10 away from the origin on an axis of its own."""
    return Prototypes(10 * np.eye(len(products), dtype=np.float32), products)


def make_calibration(
    sets: dict[str, CalibrationSet],
    stats: dict[str, tuple[float, float]] | None = None,
    **changes: Any,
) -> Calibration:
    """Return a calibration; by default the log scores have mean 0 and standard deviation 1, and the
    thresholds are conformal."""
    stats = stats or dict.fromkeys(sets, (0.0, 1.0))
    return Calibration(sets, stats, prototypes_of(*sets), **{"rule": CONFORMAL, **changes})


def calibration_of(**counts: int) -> Calibration:
    """Return a calibration with the scores 1, 2, ..., n of each product."""
    return make_calibration({k: calibration_set(np.arange(1, n + 1)) for k, n in counts.items()})


def full_calibration() -> Calibration:
    """Return a calibration in which no field has its default value."""
    rng = np.random.default_rng(0)
    peaks = np.sort(rng.uniform(0, 3, (5, PEAKS)))[:, ::-1].copy()
    peaks[2, 7:] = -np.inf
    hashes = [2**64 - 1, 2, 3, 4, 5]
    bolt = calibration_set(rng.uniform(1, 2, 5), rng.uniform(size=5), peaks, hashes)
    names = np.array(["good/1.png", "", "good/ü.png", "good/4.png", "x"], np.str_)
    neighbours = rng.uniform(1, 2, len(bolt)).astype(np.float32)
    bolt = dataclasses.replace(bolt, names=names, neighbours=neighbours)
    products = ("bolt", "größe =")
    return Calibration(
        sets={"bolt": bolt, "größe =": CalibrationSet.empty()},
        log_score_stats={"bolt": (0.25, 0.5), "größe =": (-3.0, 1e-6)},
        prototypes=Prototypes(rng.normal(size=(3, 4)).astype(np.float32),
                              ("bolt", "größe =", "bolt")),
        map_range=(0.125, 2.5),
        network="0123456789abcdef",
        rates=Rates(0.01, 0.02, 0.03, 0.04),
        product_rates={"bolt": Rates(0.2, 0.3)},
        rule=CONFORMAL,
        product_rules={"bolt": SHARED_TAIL},
        ignore_masks={"größe =": np.eye(8, dtype=bool)},
        rois={"bolt": Roi(4, 2, 30, 20, (64, 48))},
        mm_per_pixel={"bolt": 0.05},
        min_region_area={"bolt": 7},
        tile=96,
        fit_tail=True,
        created="2026-01-02T03:04:05+00:00",
        reason="everything",
        references=fit_references(rng.normal(size=(80, 4)), [products[i % 2] for i in range(80)]),
    )  # fmt: skip


def assert_same(left: Calibration, right: Calibration) -> None:
    """Check that two calibrations are equal in every value, type and dtype."""
    for f in dataclasses.fields(Calibration):
        a, b = getattr(left, f.name), getattr(right, f.name)
        if f.name == "sets":
            assert list(a) == list(b)
            for name in a:
                for part in dataclasses.fields(CalibrationSet):
                    _same_array(getattr(a[name], part.name), getattr(b[name], part.name))
        elif f.name == "ignore_masks":
            assert list(a) == list(b)
            for name in a:
                _same_array(a[name], b[name])
        elif f.name == "prototypes":
            assert a.owners == b.owners
            _same_array(a.centres, b.centres)
        elif f.name == "references" and a is not None:
            assert a.owners == b.owners
            _same_array(a.embeddings, b.embeddings)
            _same_array(a.scales, b.scales)
        else:
            assert a == b and type(a) is type(b), f.name


def _same_array(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
