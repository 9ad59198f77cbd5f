"""The metadata of exported graphs: text that comes back, other formats, damage, other graphs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snl
from snl.errors import BundleError
from snl.files import load_tensors
from snl.runtime import graph_metadata
from snl.runtime.graph_metadata import from_metadata, sections_from_metadata, to_metadata
from snl.runtime.metadata import ModelMetadata, to_sections
from snl.runtime.sections import Section
from tests.decision.calibrations import assert_same
from tests.runtime.test_describe import make_metadata

FORMAT_2 = Path(__file__).parent / "data" / "format2.snl"


def same_metadata(left: ModelMetadata, right: ModelMetadata) -> None:
    for name in ("settings", "mean", "std", "network", "plugins"):
        assert getattr(left, name) == getattr(right, name)
    for name in ("products", "data", "facts"):
        assert getattr(left.training, name) == getattr(right.training, name)
    np.testing.assert_array_equal(left.training.hashes, right.training.hashes)
    assert len(left.calibrations) == len(right.calibrations)
    for a, b in zip(left.calibrations, right.calibrations, strict=True):
        assert_same(a, b)


def edited(table: dict[str, str], **changes: Any) -> dict[str, str]:
    """Return the metadata with other contents and a correct checksum."""
    content = json.loads(table["snl"]) | changes
    content["sha256"] = graph_metadata._digest(content, table)
    return {**table, "snl": json.dumps(content)}


def test_metadata_and_unknown_sections_come_back() -> None:
    mask = np.eye(8, dtype=bool)
    metadata = make_metadata({"bolt": 20, "naïve 名前": 0}, ignore_masks={"bolt": mask})
    extra = {"later": Section({"x": [1, None]}, {"a/b": np.arange(6, dtype=np.int16)})}
    metadata = dataclasses.replace(metadata, plugins=[], extra=extra)
    again = from_metadata("a.onnx", to_metadata(metadata, "graph"), "graph")
    same_metadata(dataclasses.replace(again, plugins=metadata.plugins), metadata)
    assert again.extra["later"].document == extra["later"].document
    array = again.extra["later"].arrays["a/b"]
    assert array.dtype == np.int16 and array.tolist() == list(range(6))
    assert to_metadata(again, "graph") == to_metadata(metadata, "graph")


def test_thresholds_for_programs_without_snl() -> None:
    """In plain text, and only where they are valid: without a mask, without tiles."""
    metadata = make_metadata({"bolt": 120, "plate": 3, "nut": 50})
    table = to_metadata(metadata, "graph")
    assert table["snl.image_size"] == str(metadata.settings.image_size)
    calibration = metadata.calibrations[-1]
    thresholds = json.loads(table["snl.thresholds"])
    assert list(thresholds) == ["bolt", "plate", "nut"]
    for product, values in thresholds.items():
        for name, rate in (("anomalous", 0.05), ("uncertain", 0.1)):
            assert values[name] == calibration.scores.threshold(rate, product)[0]
    masked = dataclasses.replace(calibration, ignore_masks={"plate": np.eye(4, dtype=bool)})
    tiled = dataclasses.replace(calibration, tile=64)
    for changed, names in ((masked, ["bolt", "nut"]), (tiled, [])):
        table = to_metadata(dataclasses.replace(metadata, calibrations=[changed]), "graph")
        assert list(json.loads(table["snl.thresholds"])) == names


def test_an_export_of_the_previous_format() -> None:
    """Its metadata were the document and arrays of a bundle of format 2, without the weights."""
    arrays, document = load_tensors(FORMAT_2, "bundle")
    arrays = {k: v for k, v in arrays.items() if k.startswith(("calibration", "proto", "trained"))}
    table = edited(
        to_metadata(make_metadata({"bolt": 20}), "0123456789abcdef0123"),
        format=1,
        document=document,
        arrays=_encoded(arrays),
    )
    metadata = from_metadata("old.onnx", table, "0123456789abcdef0123")
    bundle = snl.load(FORMAT_2, "cpu").metadata
    assert metadata.network == "0123456789abcdef"  # of the graph, because there are no weights
    versions = [dataclasses.replace(c, network=bundle.network) for c in metadata.calibrations]
    same_metadata(
        dataclasses.replace(metadata, network=bundle.network, calibrations=versions), bundle
    )
    assert "network" not in sections_from_metadata("old.onnx", table)
    again = from_metadata("new.onnx", to_metadata(metadata, "a graph"), "a graph")
    same_metadata(again, metadata)
    assert again.settings.map.normalisation_clusters == 4


def _encoded(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    from base64 import b64encode

    return {
        name: {
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "data": b64encode(value.tobytes()).decode(),
        }
        for name, value in arrays.items()
    }


def test_a_newer_format_is_refused() -> None:
    table = edited(to_metadata(make_metadata({"bolt": 20}), "graph"), format=4)
    with pytest.raises(BundleError, match=r"a\.onnx: written in format 4, .*reads 3;.*update snl"):
        from_metadata("a.onnx", table, "graph")


def test_other_graphs_and_edits_are_refused() -> None:
    table = to_metadata(make_metadata({"bolt": 20}), "graph")
    with pytest.raises(BundleError, match=r"a\.onnx: its network does not match its checksum"):
        from_metadata("a.onnx", table, "another graph")
    with pytest.raises(BundleError, match="was not made by snl export"):
        from_metadata("a.onnx", {}, "graph")
    text = table["snl"]
    for bad in (
        text.replace('"steps": 8', '"steps": 9'),
        text[:-1],
        "[]",
        "[" * 100_000,
        text.replace('"format": 3', '"format": null'),
    ):
        with pytest.raises(BundleError, match=r"a\.onnx: ") as caught:
            from_metadata("a.onnx", {**table, "snl": bad}, "graph")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["model", "training", "calibration"])
def test_a_section_that_is_missing(section: str) -> None:
    table = to_metadata(make_metadata({"bolt": 20}), "graph")
    content = json.loads(table["snl"])
    del content["document"]["sections"][section]
    arrays = {k: v for k, v in content["arrays"].items() if not k.startswith(section)}
    bad = edited(table, document=content["document"], arrays=arrays)
    with pytest.raises(BundleError, match="cannot be read"):
        from_metadata("a.onnx", bad, "graph")
    assert set(to_sections(make_metadata({"bolt": 20}))) == {"model", "training", "calibration"}
