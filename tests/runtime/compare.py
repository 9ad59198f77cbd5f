"""Comparison of the results of two runtimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import snl


def close(a: np.ndarray, b: np.ndarray) -> None:
    """Check that two arrays differ by at most 1e-4 of the largest value."""
    assert a.shape == b.shape and a.dtype == b.dtype
    assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def same(a: snl.Inspection, b: snl.Inspection) -> None:
    """Check that everything decided is equal and everything measured is close."""
    same_record(a.to_dict(), b.to_dict())
    close(a.anomaly_map, b.anomaly_map)
    np.testing.assert_array_equal(a.image, b.image)


def same_record(left: dict[str, Any], right: dict[str, Any], rel: float = 1e-3) -> None:
    """Check the same of two results of `Inspection.to_dict`."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if name == "regions":
            for region, other_region in zip(value, other, strict=True):
                same_record(region, other_region, rel)
        elif isinstance(value, float):
            # a z-score may be near zero, where every relative difference is large
            least = min(rel, 1e-4) if name == "calibrated" else 1e-12
            assert other == pytest.approx(value, rel=rel, abs=least), name
        else:
            assert other == value, name
