"""Whether two runtimes say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import snl


def close(a: np.ndarray, b: np.ndarray) -> None:
    """Within 1e-4 of the largest value."""
    assert a.shape == b.shape and a.dtype == b.dtype
    assert np.abs(a - b).max() <= 1e-4 * np.abs(a).max()


def same(a: snl.Inspection, b: snl.Inspection) -> None:
    """All that was decided is equal, all that was measured close."""
    same_record(a.to_dict(), b.to_dict())
    close(a.anomaly_map, b.anomaly_map)
    np.testing.assert_array_equal(a.image, b.image)


def same_record(left: dict[str, Any], right: dict[str, Any]) -> None:
    """The same of `Inspection.to_dict`."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if name == "regions":
            for one, another in zip(value, other, strict=True):
                same_record(one, another)
        elif isinstance(value, float):
            # deviations from a mean go through zero, where nothing is small beside the value
            least = 1e-4 if name == "calibrated" else 1e-12
            assert other == pytest.approx(value, rel=1e-3, abs=least), name
        else:
            assert other == value, name
