"""Calibrations as JSON values and arrays, and back; damaged ones are refused."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from snl.decision.calibration import Calibration, CalibrationSet
from snl.decision.serialise import from_document, to_document
from snl.errors import SettingsError
from snl.settings import MapSettings
from tests.decision.calibrations import assert_same, calibration_of, full_calibration

Document = dict[str, Any]
Arrays = dict[str, np.ndarray]
Damage = Callable[[Document, Arrays], Any]


def through_json(calibration: Calibration) -> tuple[Document, Arrays]:
    document, arrays = to_document(calibration)
    return json.loads(json.dumps(document, allow_nan=False)), arrays


def test_a_calibration_comes_back_unchanged() -> None:
    for calibration in (full_calibration(), calibration_of(a=3)):
        again = from_document(*through_json(calibration), calibration.scoring)
        assert_same(calibration, again)


def test_the_scoring_comes_from_the_network() -> None:
    scoring = MapSettings(score="topk", top_share=0.25)
    calibration = dataclasses.replace(full_calibration(), scoring=scoring)
    document, arrays = through_json(calibration)
    assert from_document(document, arrays, scoring).scoring == scoring
    assert from_document(document, arrays, MapSettings()).scoring == MapSettings()


def test_reading_leaves_the_arrays_as_they_are() -> None:
    document, arrays = through_json(full_calibration())
    names = set(arrays)
    from_document(document, arrays, MapSettings())
    assert set(arrays) == names


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    return lambda document, arrays: arrays.update({name: change(arrays[name].copy())})


def at(index: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


def roi(product: str, values: Any) -> Damage:
    """Return what gives a product a region of interest."""
    return lambda d, a: d.setdefault("rois", {}).update({product: values})


PARTS = [f.name for f in dataclasses.fields(CalibrationSet) if f.name != "names"]
DAMAGES: dict[str, Damage] = {
    **{f"no {part}": (lambda d, a, n=part: a.pop(f"0.{n}")) for part in PARTS},
    **{f"no {key}": (lambda d, a, k=key: d.pop(k)) for key in to_document(full_calibration())[0]
       if key != "rois"},  # files of earlier versions have none
    "one score more": put("0.scores", lambda v: np.append(v, v[:1])),
    "a score is NaN": put("0.scores", at(0, math.nan)),
    "a score is infinite": put("0.scores", at(0, math.inf)),
    "scores in two dimensions": put("0.scores", lambda v: v[:, None]),
    "scores without dimensions": put("0.scores", lambda v: np.float32(1).reshape(())),
    "scores as text": put("0.scores", lambda v: np.frombuffer(b"abcde", np.int8)),
    "a distance is NaN": put("0.distances", at(0, math.nan)),
    "too few distances": put("0.distances", lambda v: v[:2]),
    "too few peaks": put("0.peaks", lambda v: v[:, :8]),
    "a peak is NaN": put("0.peaks", at((0, 0), math.nan)),
    "a peak is infinite": put("0.peaks", at((0, 0), math.inf)),
    "peaks in ascending order": put("0.peaks", lambda v: v[:, ::-1]),
    "hashes as fractions": put("0.hashes", lambda v: v.astype(np.float32)),
    "too few hashes": put("0.hashes", lambda v: v[1:]),
    "an unknown array": lambda d, a: a.update({"0.more": np.zeros(3)}),
    "arrays of one more product": lambda d, a: a.update({"2.scores": np.zeros(3)}),
    "a mask of one dimension": put("1.ignore_mask", lambda v: v[0]),
    "an empty mask": put("1.ignore_mask", lambda v: v[:0]),
    "no array of prototypes": lambda d, a: a.pop("prototypes"),
    "prototypes of other products": lambda d, a: d.update(
        prototypes=["bolt", "nut", "größe ="][: len(d["prototypes"])]),
    "prototypes of one product": lambda d, a: d.update(
        prototypes=["bolt"] * len(d["prototypes"])),
    "one name of a prototype more": lambda d, a: d["prototypes"].append("bolt"),
    "prototypes in one dimension": put("prototypes", np.ravel),
    "a prototype is NaN": put("prototypes", at((0, 0), math.nan)),
    "no array of references": lambda d, a: a.pop("references"),
    "references of other products": lambda d, a: d.update(
        references=["nut"] * len(d["references"])),
    "references of one product": lambda d, a: d.update(
        references=["bolt"] * len(d["references"])),
    "one reference more": lambda d, a: d["references"].append("bolt"),
    "references as a number": lambda d, a: d.update(references=3),
    "references in one dimension": put("references", np.ravel),
    "a reference is NaN": put("references", at((0, 0), math.nan)),
    "references of another width": put("references", lambda v: v[:, :3]),
    "no scales of references": lambda d, a: a.pop("reference_scales"),
    "scales of one product": put("reference_scales", lambda v: v[:1]),
    "a scale of references of zero": put("reference_scales", at((0, 0), 0)),
    "a scale of references is infinite": put("reference_scales", at((0, 0), math.inf)),
    "a neighbour is negative": put("0.neighbours", at(0, -1)),
    "a neighbour is infinite": put("0.neighbours", at(0, math.inf)),
    "too few neighbours": put("0.neighbours", lambda v: v[:2]),
    "a negative deviation": lambda d, a: d["log_score_stats"].update(bolt=[0.0, -1.0]),
    "no deviation": lambda d, a: d["log_score_stats"].update(bolt=[0.0]),
    "a deviation of zero": lambda d, a: d["log_score_stats"].update(bolt=[0.0, 0.0]),
    "a mean is NaN": lambda d, a: d["log_score_stats"].update(bolt=[math.nan, 1.0]),
    "an infinite deviation": lambda d, a: d["log_score_stats"].update(bolt=[0.0, math.inf]),
    "no statistics of a product": lambda d, a: d["log_score_stats"].pop("bolt"),
    "statistics of other products": lambda d, a: d["log_score_stats"].update(c=[0.0, 1.0]),
    "statistics as a list": lambda d, a: d.update(log_score_stats=[[0.0, 1.0], [0.0, 1.0]]),
    "other names of products": lambda d, a: d.update(products=["a", "b"]),
    "products as a number": lambda d, a: d.update(products=2),
    "a map range that is infinite": lambda d, a: d.update(map_range=[0.0, math.inf]),
    "a map range of one number": lambda d, a: d.update(map_range=[0.0]),
    "a map range of text": lambda d, a: d.update(map_range=["a", "b"]),
    "a rate of 2": lambda d, a: d["rates"].update(anomalous=2),
    "a rate as text": lambda d, a: d["rates"].update(anomalous="0.1"),
    "rates that contradict": lambda d, a: d["rates"].update(anomalous=0.5),
    "an unknown rate": lambda d, a: d["rates"].update(other=0.5),
    "rates as a list": lambda d, a: d.update(rates=[0.1, 0.2]),
    "rates of other products": lambda d, a: d["product_rates"].update(c=d["rates"]),
    "a scale of zero": lambda d, a: d["mm_per_pixel"].update(bolt=0),
    "a negative scale": lambda d, a: d["mm_per_pixel"].update(bolt=-0.1),
    "a scale of null": lambda d, a: d["mm_per_pixel"].update(bolt=None),
    "a scale of other products": lambda d, a: d["mm_per_pixel"].update(c=0.1),
    "a region area of zero": lambda d, a: d["min_region_area"].update(bolt=0),
    "a region of interest outside its images": roi("bolt", [40, 2, 30, 20, 64, 48]),
    "a region of interest without its images": roi("bolt", [4, 2, 30, 20]),
    "a region of interest of no width": roi("bolt", [4, 2, 0, 20, 64, 48]),
    "a region of interest left of its images": roi("bolt", [-4, 2, 30, 20, 64, 48]),
    "a region of interest as text": roi("bolt", "4,2,30,20"),
    "regions of interest of other products": roi("c", [4, 2, 30, 20, 64, 48]),
    "tiles of one pixel": lambda d, a: d.update(tile=1),
    "tiles of infinite size": lambda d, a: d.update(tile=math.inf),
    "tiles of negative size": lambda d, a: d.update(tile=-64),
    "tiles as text": lambda d, a: d.update(tile="large"),
}  # fmt: skip
"""Changes of a document and arrays of two products, by name; `test_bundle` uses them, too."""


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_refused(damage: Damage) -> None:
    document, arrays = through_json(full_calibration())
    damage(document, arrays)
    kinds = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SettingsError)
    with pytest.raises(kinds):
        from_document(document, arrays, MapSettings())
