"""Stored predictions: everything but the image comes back, damage is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from snl.decision.decide import decide
from snl.decision.prediction import Prediction, _checksum
from snl.errors import DataError
from tests.decision.calibrations import calibration_of


def make_prediction(path: str | None = "größe/a b.png") -> Prediction:
    rng = np.random.default_rng(0)
    return Prediction(
        rng.uniform(0, 2, (6, 7)).astype(np.float32),
        0.1 + 0.2,
        rng.normal(size=2).astype(np.float32),
        (40, 48),
        path,
        {"head": rng.normal(size=(3, 4)), "label": np.uint8(7), "none": np.empty((0, 2))},
        image=np.zeros((40, 48, 3), np.uint8),
        pixels=np.zeros((8, 8, 3), np.uint8),
        index=5,
    )


def assert_same(left: Prediction, right: Prediction) -> None:
    assert (left.score, left.size, left.path) == (right.score, right.size, right.path)
    assert left.outputs.keys() == right.outputs.keys()
    pairs = [(left.anomaly_map, right.anomaly_map), (left.embedding, right.embedding)]
    for a, b in (*pairs, *((left.outputs[k], right.outputs[k]) for k in left.outputs)):
        assert a.dtype == b.dtype and np.shape(a) == np.shape(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("path", ["größe/a b.png", "", None])
def test_everything_but_the_image_comes_back(path: str | None) -> None:
    prediction = make_prediction(path)
    again = Prediction.from_bytes(prediction.to_bytes())
    assert_same(prediction, again)
    assert (again.image, again.pixels, again.index) == (None, None, 0)
    assert again.to_bytes() == prediction.to_bytes()
    with pytest.raises(ValueError, match="not kept"):
        _ = decide(again, calibration_of(a=19, b=19)).image


def test_maps_that_are_views_are_stored() -> None:
    whole = np.arange(48, dtype=np.float32).reshape(6, 8)
    prediction = Prediction(whole[::2, ::-1], 1.0, whole[0], (6, 8))
    assert_same(prediction, Prediction.from_bytes(prediction.to_bytes()))


def test_truncated_or_foreign_content_is_refused() -> None:
    content = make_prediction().to_bytes()
    foreign = [b"", b"text", b"\xff" * 100, content + b"x", save({"a": np.zeros(3)})]
    for bad in (*(content[:n] for n in range(0, len(content), 7)), *foreign):
        with pytest.raises(DataError, match="not a stored prediction") as caught:
            Prediction.from_bytes(bad)
        assert "\n" not in str(caught.value)


@given(st.data())
def test_a_flipped_bit_is_noticed(data: st.DataObject) -> None:
    prediction = make_prediction()
    content = bytearray(prediction.to_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        again = Prediction.from_bytes(bytes(content))
    except DataError:
        return
    assert_same(again, prediction)  # such as `\u00F6` instead of `\u00f6`


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"score": "high"},
        {"score": float("nan")},
        {"score": None},
        {"size": [40]},
        {"size": [0, 48]},
        {"size": [1e999, 48]},
        {"size": 40},
        {"path": 3},
    ],
)
def test_a_wrong_document_is_refused(changes: dict[str, object]) -> None:
    content = make_prediction().to_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    document = json.loads(header["__metadata__"]["snl.prediction"]) | changes
    facts = {name: document[name] for name in ("score", "size", "path")}
    document["crc32"] = _checksum(facts, load(content))  # the checksum is correct
    header["__metadata__"]["snl.prediction"] = json.dumps(document)
    text = json.dumps(header).encode()
    with pytest.raises(DataError, match="not a stored prediction"):
        Prediction.from_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    ("anomaly_map", "embedding"),
    [
        (np.zeros(4, np.float32), np.ones(2, np.float32)),
        (np.zeros((0, 4), np.float32), np.ones(2, np.float32)),
        (np.zeros((2, 2), np.int32), np.ones(2, np.float32)),
        (np.zeros((2, 2), np.float32), np.ones((1, 2), np.float32)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(
    anomaly_map: np.ndarray, embedding: np.ndarray
) -> None:
    content = Prediction(anomaly_map, 1.0, embedding, (2, 2)).to_bytes()
    with pytest.raises(DataError, match="not a stored prediction"):
        Prediction.from_bytes(content)
